//! Tests from where a user stands.

mod policy;
mod policy_hostile;
