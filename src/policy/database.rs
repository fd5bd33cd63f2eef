//! A PostgreSQL database that queries or the directory use.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac as _};
use sha2::Sha256;

use super::{Name, Secret};
use crate::tenant::{Isolation, RoleName, SchemaName};

/// One database.
#[derive(Debug, Clone, PartialEq)]
pub struct Database {
    /// Its name in the policy.
    pub name: Name,
    /// Its connection URL, checked to be one.
    pub url: Secret,
    /// What holds the wall between tenants.
    pub isolation: Isolation,
    /// What a tenant's role logs in with at level `login`.
    pub login: Login,
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
    /// A database with every default.
    pub fn new(name: impl Into<Name>, url: Secret) -> Self {
        Self {
            name: name.into(),
            url,
            isolation: Isolation::Schema,
            login: Login::default(),
            pool: PoolSettings::default(),
            statement_timeout: Duration::from_secs(30),
            idle_in_transaction_timeout: Duration::from_secs(10),
            shared_schemas: Vec::new(),
        }
    }
}

/// What a tenant's role logs in with at level `login`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Login {
    /// Nothing: the server knows us in another way (`pg_hba.conf`: `peer`, `cert`, `trust`).
    #[default]
    WithoutPassword,
    /// One password for all tenants' roles, which only we know.
    Password(Secret),
    /// Each role has a password of its own: `base64url(HMAC-SHA-256(secret, role))`, unpadded.
    Derived(Secret),
}

impl Login {
    /// What `role` logs in with; `None` where the server asks for nothing.
    pub fn password(&self, role: &RoleName) -> Option<String> {
        match self {
            Self::WithoutPassword => None,
            Self::Password(password) => Some(password.reveal().to_owned()),
            Self::Derived(secret) => {
                let mut code = Hmac::<Sha256>::new_from_slice(secret.reveal().as_bytes())
                    .expect("HMAC takes a key of any length");
                code.update(role.as_str().as_bytes());
                Some(URL_SAFE_NO_PAD.encode(code.finalize().into_bytes()))
            }
        }
    }
}

/// How many connections are kept, and how long one is waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolSettings {
    /// Connections at most, in use and idle, over all tenants. Default 10.
    pub max_connections: u32,
    /// Connections that one tenant may use at once. Default: half of `max_connections`, at least 1.
    pub tenant_connections: u32,
    /// Requests of one tenant that may wait for a connection. Default 100.
    pub tenant_queue: u32,
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
            tenant_connections: 5,
            tenant_queue: 100,
            acquire_timeout: Duration::from_secs(2),
            idle_timeout: Duration::from_secs(600),
            max_lifetime: Duration::from_secs(1800),
        }
    }
}
