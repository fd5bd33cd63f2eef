//! Where tenants are looked up.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use indexmap::IndexMap;

use super::{Database, DefaultLimits};
use crate::tenant::{Tenant, TenantId};

/// A source of tenants.
#[expect(clippy::large_enum_variant, reason = "there is one of them in a policy")]
#[derive(Debug, Clone, PartialEq)]
pub enum DirectorySource {
    /// Written in the policy, or in a file that it names.
    List(IndexMap<TenantId, Arc<Tenant>>),
    /// Rows of a PostgreSQL table.
    Table(TableDirectory),
}

/// A table with a row a tenant, read one tenant at a time, never whole.
#[derive(Debug, Clone, PartialEq)]
pub struct TableDirectory {
    /// Where the table is.
    pub database: Arc<Database>,
    /// The table.
    pub table: QualifiedName,
    /// Column with the id. Default `id`.
    pub id: String,
    /// Column with the schema.
    pub schema: String,
    /// Column with the role.
    pub role: Option<String>,
    /// Column with the name of the tenant's database in this policy.
    pub database_column: Option<String>,
    /// Names that may stand in `database_column`.
    pub databases: Vec<super::Name>,
    /// Column with the state: `active`, `suspended` or `held`.
    pub state: Option<String>,
    /// Column with the isolation level: `schema` or `role`.
    pub isolation: Option<String>,
    /// Column with the tenant's limits, as JSON.
    pub limits: Option<String>,
    /// What holds where that column says nothing.
    pub default_limits: DefaultLimits,
    /// How long a row is believed. Default 60 s.
    pub cache: Duration,
    /// How long the absence of a row is believed. Default 5 s.
    pub negative_cache: Duration,
    /// How long after `cache` a row still serves while the table cannot be read. Default 0.
    pub stale_if_error: Duration,
    /// Tenants remembered at most. Default 100,000.
    pub max_entries: u64,
}

/// A table's name with its schema, each part quoted when displayed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QualifiedName {
    /// The schema, where one is named.
    pub schema: Option<String>,
    /// The table.
    pub table: String,
}

impl fmt::Display for QualifiedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(schema) = &self.schema {
            write!(f, "\"{}\".", schema.replace('"', "\"\""))?;
        }
        write!(f, "\"{}\"", self.table.replace('"', "\"\""))
    }
}
