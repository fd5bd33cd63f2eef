//! What is asserted to backends.

use std::time::Duration;

/// A signed statement of whose request it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Assertion {
    /// Who says so (`iss`). Default `innkeeper`.
    pub issuer: String,
    /// Who is to believe it (`aud`).
    pub audience: String,
    /// How long it is valid. Default 60 s.
    pub lifetime: Duration,
    /// What it is for.
    pub binding: AssertionBinding,
}

/// What an assertion is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AssertionBinding {
    /// One request: whoever overhears it cannot use it for another path or method.
    #[default]
    Request,
    /// Any request of the tenant: signed once for many of them.
    Tenant,
}
