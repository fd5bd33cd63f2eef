//! A server with a thousand tenants, and the policy that serves them.

use std::net::SocketAddr;

use innkeeper::cli::demo::cluster::{PrivatePostgres, SUPERUSER};
use innkeeper::gateway::{AccessLog, LogFormat};
use innkeeper::sidecar::{Settings, Sidecar};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};

use crate::process::say;

/// Tenants in the server and in the policy.
pub(crate) const TENANTS: usize = 1000;
/// Rows that a read answers with.
pub(crate) const ROWS: usize = 10;
/// The tenant whose requests are limited to [`RATE`], which no measurement but the flood's meets.
pub(crate) const LIMITED: usize = 2;
const RATE: &str = "500/s";
/// Connections to the server, on either side.
pub(crate) const CONNECTIONS: u32 = 8;

/// What is read, and what is changed. Both sides run the same.
pub(crate) const READ: &str = "select id, tenant, item from orders where id <= $1 order by id";
pub(crate) const CHANGE: &str = "update orders set item = item where id <= $1 returning id, tenant, item";

/// A tenant's id, schema and role.
pub(crate) fn tenant(number: usize) -> String {
    format!("t_{number:04}")
}

/// The server that both sides use.
pub(crate) struct Scene {
    /// Where the gateway's role logs in.
    pub(crate) url: String,
    _server: PrivatePostgres,
}

impl Scene {
    pub(crate) async fn start() -> Self {
        let server = PrivatePostgres::start().await.expect("PostgreSQL is installed");
        let mut admin =
            PgConnection::connect(&server.url("postgres", SUPERUSER)).await.expect("it was just started");
        admin.execute("CREATE ROLE gateway LOGIN NOINHERIT").await.expect("a new server has no such role");
        for number in 0..TENANTS {
            let name = tenant(number);
            let setup = format!(
                "CREATE SCHEMA {name}; CREATE ROLE {name} NOLOGIN; GRANT {name} TO gateway; \
                 CREATE TABLE {name}.orders (id bigint PRIMARY KEY, tenant text NOT NULL, item text NOT NULL); \
                 INSERT INTO {name}.orders SELECT i, '{name}', 'item ' || i FROM generate_series(1, 50) i; \
                 GRANT USAGE ON SCHEMA {name} TO {name}, gateway; \
                 GRANT SELECT, UPDATE ON {name}.orders TO {name}, gateway"
            );
            admin.execute(sqlx::raw_sql(AssertSqlSafe(setup))).await.expect("a new server has no such names");
        }
        admin.execute("VACUUM ANALYZE").await.expect("a superuser may");
        Self { url: server.url("postgres", "gateway"), _server: server }
    }
}

/// Serves the policy until the process is ended.
pub(crate) async fn serve_innkeeper(url: &str) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let policy = directory.path().join("policy.yaml");
    std::fs::write(&policy, self::policy(url).to_string()).expect("a file can be written");
    // Access records are made and written, to nowhere.
    let loopback: SocketAddr = ([127, 0, 0, 1], 0).into();
    let settings = Settings {
        policy,
        listen: vec![loopback.into()],
        admin: Some(loopback.into()),
        cache: None,
        workers: 1,
    };
    let sidecar = Sidecar::start(settings, AccessLog::new(LogFormat::Json, std::io::sink()))
        .await
        .expect("the policy is sound");
    say(sidecar.addresses[0]);
    std::future::pending::<()>().await;
}

/// JSON is YAML.
fn policy(url: &str) -> Value {
    let route = |path: &str, query: Value| json!({ "name": &path[1..], "match": { "path": path }, "tenant": { "header": "X-Tenant-ID" }, "query": query });
    let limited = |sql: &str| json!({ "database": "main", "sql": sql, "params": [{ "query": "limit", "type": "int", "default": ROWS }] });
    let many = "select n as id, 'item ' || n as item from generate_series(1, $1::bigint) n";
    json!({
        "version": 1,
        "databases": { "main": {
            "url": url, "isolation": "role", "statement_timeout": "10m",
            "pool": { "max_connections": CONNECTIONS, "acquire_timeout": "1m" },
        } },
        "routes": [
            route("/orders", limited(READ)),
            route("/restored", limited(CHANGE)),
            route("/many", json!({ "database": "main", "sql": many, "params": [{ "query": "rows", "type": "int" }] })),
        ],
        "tenants": {
            "list": (0..TENANTS)
                .map(|number| {
                    let limits = if number == LIMITED { json!({ "requests": RATE }) } else { json!({}) };
                    json!({ "id": tenant(number), "schema": tenant(number), "role": tenant(number), "limits": limits })
                })
                .collect::<Vec<_>>(),
        },
    })
}
