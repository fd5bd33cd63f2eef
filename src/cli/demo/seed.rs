//! The demo's tenants, and their rows in the demo's PostgreSQL.

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use super::cluster::{PrivatePostgres, SUPERUSER};
use crate::tenant::SchemaName;

/// The database that the demo works in.
pub(super) const DATABASE: &str = "demo";

/// The role that the gateway logs in as.
pub(super) const LOGIN: &str = "gateway";

/// A tenant of the demo; `seed.sql` has its rows.
#[derive(Debug)]
pub(super) struct DemoTenant {
    /// What it is called, in requests and in the mark of each of its rows.
    pub(super) id: &'static str,
    /// Its schema.
    pub(super) schema: &'static str,
    /// Its host on the old application.
    pub(super) host: &'static str,
    /// The API key that the plugin knows it by.
    pub(super) key: &'static str,
    /// How many buildings it has: no two tenants have the same number.
    pub(super) buildings: usize,
}

/// Every tenant that is served.
pub(super) const TENANTS: [DemoTenant; 3] = [
    DemoTenant { id: "acme", schema: "tenant_acme", host: "acme.demo.test", key: "k-acme", buildings: 3 },
    DemoTenant {
        id: "globex",
        schema: "Globex Corp",
        host: "globex.demo.test",
        key: "k-globex",
        buildings: 4,
    },
    DemoTenant {
        id: "initech",
        schema: "tenant_initech",
        host: "initech.demo.test",
        key: "k-initech",
        buildings: 5,
    },
];

/// A tenant that the directory knows and does not serve.
pub(super) const SUSPENDED: &str = "umbrella";

/// Makes the demo's database, tables, roles and rows, where they are not there yet.
pub(super) async fn seed(postgres: &PrivatePostgres) -> Result<(), sqlx::Error> {
    let mut server = PgConnection::connect(&postgres.url("postgres", SUPERUSER)).await?;
    let exists: bool = sqlx::query_scalar("select exists (select from pg_database where datname = $1)")
        .bind(DATABASE)
        .fetch_one(&mut server)
        .await?;
    if !exists {
        sqlx::raw_sql("create database demo").execute(&mut server).await?;
    }
    server.close().await?;
    let mut database = PgConnection::connect(&postgres.url(DATABASE, SUPERUSER)).await?;
    sqlx::raw_sql("set client_min_messages to warning").execute(&mut database).await?;
    sqlx::raw_sql(include_str!("seed.sql")).execute(&mut database).await?;
    database.close().await
}

/// How many floors each of [`TENANTS`] has, as the superuser counts them, past the gateway.
pub(super) async fn count_floors(postgres: &PrivatePostgres) -> Result<[u64; TENANTS.len()], sqlx::Error> {
    let mut database = PgConnection::connect(&postgres.url(DATABASE, SUPERUSER)).await?;
    let mut counts = [0; TENANTS.len()];
    for (count, tenant) in counts.iter_mut().zip(&TENANTS) {
        let schema: SchemaName = tenant.schema.parse().expect("the demo's schema names are valid");
        let statement = format!("select count(*) from {}.floors where tenant = $1", schema.quoted());
        let found: i64 =
            sqlx::query_scalar(AssertSqlSafe(statement)).bind(tenant.id).fetch_one(&mut database).await?;
        *count = found.unsigned_abs();
    }
    database.close().await?;
    Ok(counts)
}
