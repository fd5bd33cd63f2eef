//! Whom the doctor looks at: a few tenants of each database, each one both attacker and victim.

use std::collections::HashMap;
use std::str::FromStr as _;
use std::sync::Arc;

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, PgConnection};

use crate::directory::sample;
use crate::policy::{Database, DirectorySource, Name, Policy, Target, TenantRule};
use crate::tenant::{Isolation, RoleName, SchemaName, Tenant, TenantId};

/// Tenants that are looked at where none are asked for: every one attacks every other, so that
/// three are six attacks. What is wrong with one tenant of a kind is wrong with all.
const SAMPLE: usize = 3;

/// A tenant as it is in one database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Subject {
    pub(super) id: TenantId,
    pub(super) schema: SchemaName,
    /// The role that it needs at its level. `None` at level `schema`.
    pub(super) role: Option<RoleName>,
    pub(super) level: Isolation,
}

/// Tenants that the directory puts into one place.
#[derive(Debug)]
pub(super) struct Doubled {
    /// `schema` or `role`.
    pub(super) what: &'static str,
    /// Its name.
    pub(super) name: String,
}

/// What the directory says of the tenants of a database.
#[derive(Debug, Default)]
pub(super) struct Roll {
    pub(super) subjects: Vec<Subject>,
    /// Tenants that need a role at their level, and have none.
    pub(super) without_role: Vec<TenantId>,
    pub(super) doubled: Vec<Doubled>,
}

/// Databases in which tenants' statements run, or tenants live.
pub(super) fn databases_of_tenants(policy: &Policy) -> Vec<&Arc<Database>> {
    let queried = |name: &Name| {
        policy.routes.iter().filter(|route| route.tenant != TenantRule::None).any(|route| {
            match &route.target {
                Target::Query(query) => query.database.name == *name,
                Target::Sql(endpoint) => endpoint.database.name == *name,
                Target::Forward(_) => false,
            }
        })
    };
    let inhabited = |name: &Name| match &policy.directory {
        Some(DirectorySource::List(tenants)) => {
            tenants.values().any(|tenant| tenant.database.as_ref() == Some(name))
        }
        Some(DirectorySource::Table(table)) => table.database_column.is_some(),
        None => false,
    };
    policy.databases.values().filter(|one| queried(&one.name) || inhabited(&one.name)).collect()
}

/// The tenants to look at in `database`: those of `wanted`, or a few.
///
/// # Errors
/// A tenant that was asked for is not there, or the tenants' table cannot be read.
pub(super) async fn roll(policy: &Policy, database: &Database, wanted: &[TenantId]) -> Result<Roll, String> {
    let here = |tenant: &Tenant| tenant.database.as_ref().is_none_or(|name| *name == database.name);
    let (tenants, doubled): (Vec<Arc<Tenant>>, _) = match &policy.directory {
        None => return Ok(Roll::default()),
        Some(DirectorySource::List(all)) => {
            let doubled = doubled_in(all.values().filter(|tenant| here(tenant)), database);
            let tenants = match wanted {
                [] => all.values().filter(|tenant| here(tenant)).take(SAMPLE).cloned().collect(),
                named => named.iter().filter_map(|id| all.get(id)).cloned().collect(),
            };
            (tenants, doubled)
        }
        Some(DirectorySource::Table(table)) => {
            let unreadable = |error: sqlx::Error| format!("the tenants' table cannot be read: {error}");
            let mut connection = connect(&table.database).await.map_err(unreadable)?;
            let read = sample::read(&mut connection, table, wanted, SAMPLE).await?;
            let mut doubled = Vec::new();
            let columns = [("schema", Some(&table.schema)), ("role", table.role.as_ref())];
            for (what, column) in columns.into_iter().filter_map(|(what, column)| Some((what, column?))) {
                let names = sample::doubled(&mut connection, table, column).await.map_err(unreadable)?;
                doubled.extend(names.into_iter().map(|name| Doubled { what, name }));
            }
            (read, doubled)
        }
    };
    if let Some(missing) = wanted.iter().find(|id| !tenants.iter().any(|tenant| tenant.id == **id)) {
        return Err(format!("there is no tenant `{missing}`"));
    }
    let mut roll = Roll { doubled, ..Roll::default() };
    for tenant in tenants.iter().filter(|tenant| here(tenant)) {
        let level = level_of(tenant, database);
        let role = tenant.role.clone().filter(|_| level.needs_role());
        if level.needs_role() && role.is_none() {
            roll.without_role.push(tenant.id.clone());
            continue;
        }
        let schema = tenant.schema.name().clone();
        roll.subjects.push(Subject { id: tenant.id.clone(), schema, role, level });
    }
    Ok(roll)
}

fn level_of(tenant: &Tenant, database: &Database) -> Isolation {
    tenant.isolation.map_or(database.isolation, |level| level.max(database.isolation))
}

fn doubled_in<'a>(tenants: impl Iterator<Item = &'a Arc<Tenant>>, database: &Database) -> Vec<Doubled> {
    let mut seen: HashMap<(&'static str, String), usize> = HashMap::new();
    for tenant in tenants {
        *seen.entry(("schema", tenant.schema.as_str().to_owned())).or_default() += 1;
        if let (true, Some(role)) = (level_of(tenant, database).needs_role(), &tenant.role) {
            *seen.entry(("role", role.as_str().to_owned())).or_default() += 1;
        }
    }
    let several = seen.into_iter().filter(|(_, count)| *count > 1);
    let mut doubled: Vec<_> = several.map(|((what, name), _)| Doubled { what, name }).collect();
    doubled.sort_by(|one, other| one.name.cmp(&other.name));
    doubled
}

async fn connect(database: &Database) -> Result<PgConnection, sqlx::Error> {
    PgConnectOptions::from_str(database.url.reveal())?
        .application_name("innkeeper doctor")
        .disable_statement_logging()
        .connect()
        .await
}
