//! Looks tenants up: in a list of the policy, or in a table, cached.

pub mod sample;

mod row;
mod table;

use std::pin::Pin;
use std::sync::Arc;

use indexmap::IndexMap;

use crate::decision::{FindTenant, Lookup};
use crate::policy::DirectorySource;
use crate::telemetry::Metrics;
use crate::tenant::{Tenant, TenantId};
use table::Table;

/// Connections that a directory in a table opens at most, besides those of the pools.
pub const CONNECTIONS: u32 = table::CONNECTIONS;

/// The one directory of a policy.
pub struct Directory(Source);

enum Source {
    List { tenants: IndexMap<TenantId, Arc<Tenant>>, metrics: Arc<Metrics> },
    Table(Arc<Table>),
}

impl Directory {
    /// Opens the directory. A table is not read before someone asks for a tenant: a database that
    /// is down now is no error. Must be called inside a tokio runtime.
    pub fn open(source: &DirectorySource, metrics: Arc<Metrics>) -> Self {
        Self(match source {
            DirectorySource::List(tenants) => Source::List { tenants: tenants.clone(), metrics },
            DirectorySource::Table(table) => Source::Table(Table::open(table.clone(), metrics)),
        })
    }
}

impl FindTenant for Directory {
    /// A table's tenants come from the cache, or from one read that all who ask for the same
    /// tenant wait for together, and that goes on when the one who started it is gone.
    fn find<'a>(&'a self, id: &'a TenantId) -> Lookup<'a> {
        match &self.0 {
            Source::List { tenants, metrics } => {
                let tenant = tenants.get(id).cloned();
                metrics.directory_looked_up(if tenant.is_some() { "fresh" } else { "unknown" });
                Box::pin(std::future::ready(Ok(tenant)))
            }
            Source::Table(table) => Box::pin(table.find(id)),
        }
    }

    fn forget<'a>(&'a self, id: &'a TenantId) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        match &self.0 {
            Source::List { .. } => Box::pin(std::future::ready(())),
            Source::Table(table) => Box::pin(table.forget(id)),
        }
    }
}
