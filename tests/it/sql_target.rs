//! The sql target from outside: Neon's protocol word by word, two tenants at once, limits, web
//! pages, rows as lines, and clients that go away.

mod disguises;
mod errors;
mod logins;
mod pages;
mod pool;
mod protocol;
mod streams;
mod walls;

use innkeeper::telemetry::DatabaseLabel;
use serde_json::{Value, json};

use crate::support::gateway::{Call, Harness, Reply, TestGateway};
use crate::support::postgres::{TestDatabase, database};

/// Two tenants with a table each, and a gateway that lets them write their own SQL.
pub(crate) struct Scene {
    pub(crate) gateway: TestGateway,
    pub(crate) postgres: TestDatabase,
}

const POLICY: &str = "
version: 1
databases:
  main: { url: 'DATABASE', isolation: LEVEL, pool: { max_connections: 6, acquire_timeout: 20s } }
  plain: { url: 'DATABASE' }
tenants:
  list:
    - { id: acme, schema: acme, role: NAME_acme }
    - { id: globex, schema: globex, role: NAME_globex }
    - { id: ghost, schema: nowhere, role: NAME_nobody }
    - { id: elsewhere, schema: other, role: NAME_other, database: plain }
    - { id: gone, schema: old, role: NAME_old, state: suspended }
routes:
  - name: sql
    match: { path: /sql, methods: [POST] }
    tenant: { first: [ { header: X-Tenant-ID }, { connection_string: user } ] }
    sql:
      database: main
      statements: [ select, insert, update, delete, merge, truncate, explain, ddl ]
      functions: [ slow, leave, show ]
      max_request: 64KiB
      max_response: 256KiB
      max_batch: 4
      origins: [ 'https://app.example.com' ]
  - name: reports
    match: { path: /reports, methods: [POST] }
    tenant: { header: X-Tenant-ID }
    sql: { database: main, read_only: true, timeout: 300ms, functions: [ slow ] }
";

impl Scene {
    pub(crate) async fn new(level: &str) -> Self {
        let postgres = database().await;
        let (name, login) = (postgres.name.clone(), postgres.login());
        let mut setup = format!("CREATE ROLE {name}_nobody LOGIN; GRANT {name}_nobody TO {login};");
        for tenant in ["acme", "globex"] {
            let role = format!("{name}_{tenant}");
            setup.push_str(&format!(
                "CREATE ROLE {role} LOGIN; GRANT {role} TO {login};
                 CREATE SCHEMA {tenant}; GRANT USAGE, CREATE ON SCHEMA {tenant} TO {role};
                 CREATE TYPE {tenant}.mood AS ENUM ('sad', 'happy');
                 CREATE TABLE {tenant}.notes
                   (id serial PRIMARY KEY, tenant text NOT NULL DEFAULT '{tenant}', note text UNIQUE, due timestamptz);
                 INSERT INTO {tenant}.notes (note) SELECT '{tenant} ' || n FROM generate_series(1, 3) n;
                 CREATE FUNCTION {tenant}.slow(seconds float8) RETURNS text LANGUAGE sql
                   AS 'select pg_sleep(seconds)::text';
                 CREATE FUNCTION {tenant}.leave(setting text, value text) RETURNS text LANGUAGE sql
                   AS 'select set_config(setting, value, true)';
                 CREATE FUNCTION {tenant}.show(setting text) RETURNS text LANGUAGE sql
                   AS 'select current_setting(setting)';
                 GRANT ALL ON ALL TABLES IN SCHEMA {tenant} TO {role};
                 GRANT ALL ON ALL SEQUENCES IN SCHEMA {tenant} TO {role};"
            ));
        }
        postgres.admin(&setup).await;
        let policy = POLICY
            .replace("DATABASE", &postgres.url(&login))
            .replace("LEVEL", level)
            .replace("NAME", &postgres.name);
        Self { gateway: Harness::new().policy(&policy).start().await, postgres }
    }

    /// A request to the endpoint, as a tenant.
    pub(crate) fn call(&self, tenant: &str, body: &Value) -> Call<'_> {
        // As drivers send it.
        self.gateway
            .post("/sql")
            .tenant(tenant)
            .header("content-type", "text/plain;charset=UTF-8")
            .body(body.to_string())
    }

    pub(crate) async fn send(&self, tenant: &str, query: &str, params: &[&str]) -> Reply {
        self.call(tenant, &json!({ "query": query, "params": params })).send().await
    }

    /// The rows of a statement that succeeds, as arrays of text.
    pub(crate) async fn rows(&self, tenant: &str, query: &str, params: &[&str]) -> Value {
        let reply = self.send(tenant, query, params).await;
        assert_eq!(reply.status(), 200, "{query}: {}", reply.text());
        reply.json()["rows"].clone()
    }

    pub(crate) fn breaches(&self) -> u64 {
        let label = DatabaseLabel { database: "main".into() };
        self.gateway.sidecar.metrics.isolation_breaches.get_or_create(&label).get()
    }

    /// Statements that the server works on for any tenant.
    pub(crate) async fn active(&self) -> i64 {
        self.postgres
            .read(&format!(
                "SELECT count(*) FROM pg_stat_activity WHERE usename LIKE '%{}%' AND state = 'active'",
                self.postgres.name
            ))
            .await
    }
}
