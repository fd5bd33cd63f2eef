//! A few rows of the tenants' table, for whoever wants to see what is in it without serving it.

use std::sync::Arc;

use sqlx::{AssertSqlSafe, Error, PgConnection};

use super::row;
use super::table::quote;
use crate::policy::TableDirectory;
use crate::tenant::{Tenant, TenantId};

/// Names that are told where several tenants share one.
const DOUBLED_NAMES: usize = 5;

/// The tenants named by `ids`, or where none is, the first few.
///
/// # Errors
/// The table cannot be read, or a row of it is no tenant; the text says which column.
pub async fn read(
    connection: &mut PgConnection,
    source: &TableDirectory,
    ids: &[TenantId],
    count: usize,
) -> Result<Vec<Arc<Tenant>>, String> {
    let columns = row::selection(source);
    let id = quote(&source.id);
    let text = if ids.is_empty() {
        format!("SELECT {columns} FROM {} ORDER BY {id} LIMIT {count}", source.table)
    } else {
        format!("SELECT {columns} FROM {} WHERE {id}::pg_catalog.text = ANY ($1)", source.table)
    };
    // Names are quoted by us; ids are bound.
    let query = sqlx::query(AssertSqlSafe(text));
    let ids: Vec<&str> = ids.iter().map(TenantId::as_str).collect();
    let rows = if ids.is_empty() { query } else { query.bind(ids) }.fetch_all(connection).await;
    let rows =
        rows.map_err(|error| format!("the tenants' table {} cannot be read: {error}", source.table))?;
    rows.iter().map(|one| row::read(source, one).map(Arc::new)).collect()
}

/// Values of `column` that several rows have, a few of them.
///
/// # Errors
/// The table cannot be read.
pub async fn doubled(
    connection: &mut PgConnection,
    source: &TableDirectory,
    column: &str,
) -> Result<Vec<String>, Error> {
    let column = quote(column);
    // The same name in two databases is two things.
    let place = source.database_column.as_deref().map(|name| format!(", {}", quote(name)));
    let text = format!(
        "SELECT {column}::pg_catalog.text FROM {} WHERE {column} IS NOT NULL GROUP BY {column}{} \
         HAVING pg_catalog.count(*) > 1 LIMIT {DOUBLED_NAMES}",
        source.table,
        place.unwrap_or_default(),
    );
    sqlx::query_scalar(AssertSqlSafe(text)).fetch_all(connection).await
}
