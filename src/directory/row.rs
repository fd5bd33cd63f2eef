//! A row of the tenants' table, held to what a tenant must be. A row that is not is never served.

use std::sync::Arc;
use std::time::Duration;

use sqlx::Row as _;
use sqlx::postgres::PgRow;

use super::table::quote;
use crate::policy::{Name, TableDirectory, WrittenLimits};
use crate::tenant::{Isolation, Tenant, TenantState};

/// What the clients of a held tenant are told to wait. A table only says that it is held.
const HELD_RETRY_AFTER: Duration = Duration::from_secs(5);

/// The columns of a look-up, as text, in the order in which [`read`] takes them.
fn columns(source: &TableDirectory) -> Vec<Option<&str>> {
    vec![
        Some(&source.id),
        Some(&source.schema),
        source.role.as_deref(),
        source.database_column.as_deref(),
        source.state.as_deref(),
        source.isolation.as_deref(),
        source.limits.as_deref(),
    ]
}

/// The columns of a look-up as SELECT takes them.
pub(super) fn selection(source: &TableDirectory) -> String {
    let column = |name: Option<&str>| match name {
        Some(name) => format!("{}::pg_catalog.text", quote(name)),
        None => "NULL::pg_catalog.text".to_owned(),
    };
    columns(source).into_iter().map(column).collect::<Vec<_>>().join(", ")
}

/// Makes a tenant of a row, or says which column is wrong.
pub(super) fn read(source: &TableDirectory, row: &PgRow) -> Result<Tenant, String> {
    let texts: Vec<Option<String>> = (0..columns(source).len())
        .map(|index| row.try_get(index).map_err(|error| error.to_string()))
        .collect::<Result<_, _>>()?;
    tenant(source, &texts)
}

fn tenant(source: &TableDirectory, texts: &[Option<String>]) -> Result<Tenant, String> {
    let [id, schema, role, database, state, isolation, limits] = texts else {
        return Err("the row does not have the columns that were asked for".to_owned());
    };
    let wrong = |column: &str, reason: String| format!("column `{column}`: {reason}");
    let needed = |column: &str, text: &Option<String>| {
        text.clone().ok_or_else(|| wrong(column, "it is NULL".to_owned()))
    };
    let parsed_id = needed(&source.id, id)?.parse().map_err(|error| wrong(&source.id, format!("{error}")))?;
    let schema =
        needed(&source.schema, schema)?.parse().map_err(|error| wrong(&source.schema, format!("{error}")))?;
    let role = match (&source.role, role) {
        (Some(column), Some(name)) => Some(name.parse().map_err(|error| wrong(column, format!("{error}")))?),
        _ => None,
    };
    let database: Option<Name> = match (&source.database_column, database) {
        (Some(column), Some(name)) => Some(
            source
                .databases
                .iter()
                .find(|known| ***known == **name)
                .map(Name::clone)
                .ok_or_else(|| wrong(column, format!("`{name}` is no database of this policy")))?,
        ),
        _ => None,
    };
    let state = match &source.state {
        // A state that nobody set is not taken for permission.
        Some(column) => match needed(column, state)?.as_str() {
            "active" => TenantState::Active,
            "suspended" => TenantState::Suspended,
            "held" => TenantState::Held { retry_after: HELD_RETRY_AFTER },
            other => {
                return Err(wrong(column, format!("must be `active`, `suspended` or `held`, is `{other}`")));
            }
        },
        None => TenantState::Active,
    };
    let isolation = match (&source.isolation, isolation.as_deref()) {
        (Some(_), Some("schema")) => Some(Isolation::Schema),
        (Some(_), Some("role")) => Some(Isolation::Role),
        (Some(_), Some("login")) => Some(Isolation::Login),
        (Some(column), Some(other)) => {
            return Err(wrong(column, format!("must be `schema`, `role` or `login`, is `{other}`")));
        }
        _ => None,
    };
    let own = match (&source.limits, limits) {
        (Some(column), Some(text)) => {
            Some(WrittenLimits::parse(text).map_err(|reason| wrong(column, reason))?)
        }
        _ => None,
    };
    let limits = source.default_limits.with(own.as_ref());
    let limits =
        limits.map_err(|idle| wrong(source.limits.as_deref().unwrap_or("limits"), idle.to_string()))?;
    Ok(Tenant { id: parsed_id, schema, role, database, state, isolation, limits })
}

/// One row is a tenant, none is none, and of several nobody can say which one is meant.
pub(super) fn only(source: &TableDirectory, rows: &[PgRow]) -> Result<Option<Arc<Tenant>>, String> {
    match rows {
        [] => Ok(None),
        [row] => read(source, row).map(|tenant| Some(Arc::new(tenant))),
        _ => Err(format!("column `{}`: more than one row has this id; make it unique", source.id)),
    }
}
