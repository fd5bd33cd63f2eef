//! On whose account a request is sent, and what its sending came to.

use std::sync::Arc;

use crate::upgrade::Switch;

/// What the sender of a request says of it, and is told.
#[derive(Debug, Default)]
pub struct Errand<'a> {
    /// Who pays for retries: an opaque key, so that one tenant cannot use up what is there for all.
    pub tenant: Option<&'a str>,
    /// What the upstream is asked to speak in place of HTTP: a response with status 101 then has a
    /// tunnel for its body.
    pub switch: Option<Switch>,
    /// The endpoint that was tried last.
    pub endpoint: Option<Arc<str>>,
    /// How often the request was sent, or would have been had there been a connection.
    pub attempts: u32,
}

impl<'a> Errand<'a> {
    /// An errand for a tenant.
    pub fn of(tenant: Option<&'a str>) -> Self {
        Self { tenant, ..Self::default() }
    }
}
