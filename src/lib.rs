//! Innkeeper: a tenant-routing sidecar. Every request is resolved to its tenant, then forwarded
//! to a backend or run as a query in that tenant's PostgreSQL schema.
//!
//! The map, ground floor first; a module imports only from the floors below its own
//! (`docs/architecture.md`, kept true by `tests/tidy.rs`).

// Floor 0: names, decisions, proofs, errors.
pub mod admitted;
pub mod decision;
pub mod error;
pub mod telemetry;
pub mod tenant;

// Floor 1: the policy, as written and as resolved.
pub mod policy;

// Floor 2: siblings that do not know each other.
pub mod directory;
pub mod sql;

// Floor 5: the commands.
pub mod cli;
