//! A PostgreSQL database that queries or the directory use.

use std::time::Duration;

use super::{Name, Secret};
use crate::tenant::{Isolation, SchemaName};

/// One database.
#[derive(Debug, Clone, PartialEq)]
pub struct Database {
    /// Its name in the policy.
    pub name: Name,
    /// Its connection URL, checked to be one.
    pub url: Secret,
    /// What holds the wall between tenants.
    pub isolation: Isolation,
    /// The pool of connections to it.
    pub pool: PoolSettings,
    /// `statement_timeout` of every tenant transaction. Default 30 s.
    pub statement_timeout: Duration,
    /// `idle_in_transaction_session_timeout` of every tenant transaction. Default 10 s.
    pub idle_in_transaction_timeout: Duration,
    /// Schemas appended to the search path after the tenant's own.
    pub shared_schemas: Vec<SchemaName>,
}

impl Database {
    /// `statement_timeout` where none is given.
    pub(super) const STATEMENT_TIMEOUT: Duration = Duration::from_secs(30);
    /// `idle_in_transaction_timeout` where none is given.
    pub(super) const IDLE_IN_TRANSACTION_TIMEOUT: Duration = Duration::from_secs(10);
}

/// How many connections are kept, and how long one is waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolSettings {
    /// Connections at most. Default 10.
    pub max_connections: u32,
    /// How long a request waits for a connection. Default 2 s.
    pub acquire_timeout: Duration,
    /// How long a connection may idle. Default 10 min.
    pub idle_timeout: Duration,
    /// How long a connection lives. Default 30 min.
    pub max_lifetime: Duration,
}

impl Default for PoolSettings {
    fn default() -> Self {
        Self {
            max_connections: 10,
            acquire_timeout: Duration::from_secs(2),
            idle_timeout: Duration::from_secs(600),
            max_lifetime: Duration::from_secs(1800),
        }
    }
}
