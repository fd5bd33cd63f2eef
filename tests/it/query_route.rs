//! Query routes from outside: parameters from every place, result shapes, SQLSTATEs, declared
//! schemas, and a database that is down, comes up, and goes away.

use innkeeper::cli::demo::cluster::PrivatePostgres;
use serde_json::json;

use crate::support::gateway::{Harness, TestGateway};
use crate::support::postgres::{TestDatabase, database};

async fn start() -> (TestGateway, TestDatabase) {
    let postgres = database().await;
    let login = postgres.login();
    postgres
        .admin(&format!(
            "
CREATE SCHEMA \"Acme-1\"; CREATE SCHEMA globex;
CREATE TABLE \"Acme-1\".buildings (id serial PRIMARY KEY, name text UNIQUE, height numeric);
CREATE TABLE globex.buildings (id serial PRIMARY KEY, name text UNIQUE, height numeric);
INSERT INTO \"Acme-1\".buildings (name, height) VALUES ('mill', 12.50), ('barn', NULL), ('silo', 1e30);
INSERT INTO globex.buildings (name, height) VALUES ('tower', 99.9);
CREATE TABLE public.news (title text); INSERT INTO public.news VALUES ('for all');
GRANT USAGE ON SCHEMA \"Acme-1\", globex, public TO {login};
GRANT ALL ON ALL TABLES IN SCHEMA \"Acme-1\", globex, public TO {login};
GRANT ALL ON ALL SEQUENCES IN SCHEMA \"Acme-1\", globex TO {login};
"
        ))
        .await;
    let policy = POLICY.replace("DATABASE", &postgres.url(&login));
    (Harness::new().policy(&policy).start().await, postgres)
}

const POLICY: &str = "
version: 1
server: { limits: { query_body_bytes: 1KiB } }
databases: { main: { url: 'DATABASE', pool: { max_connections: 4, acquire_timeout: 10s } } }
tenants: { list: [ { id: acme, schema: Acme-1 }, { id: globex, schema: globex }, { id: empty, schema: nowhere } ] }
routes:
  - name: list
    match: { path: /buildings, methods: [GET] }
    tenant: { header: X-Tenant-ID }
    query:
      database: main
      sql: select id, name, height from buildings where name like $1 order by id limit $2;
      params: [ { query: q, default: '%' }, { query: limit, type: int, default: 50, min: 1, max: 500 } ]
  - name: one
    match: { path: '/buildings/{id}', methods: [GET] }
    tenant: { header: X-Tenant-ID }
    query:
      database: main
      sql: select name from buildings where id = $1
      params: [ { path: id, type: int } ]
      result: one
  - name: count
    match: { path: /count }
    tenant: { header: X-Tenant-ID }
    query: { database: main, sql: select count(*) from buildings, result: value }
  - name: add
    match: { path: /buildings, methods: [POST] }
    tenant: { header: X-Tenant-ID }
    query:
      database: main
      sql: insert into buildings (name, height) values ($1, $2) returning id, name
      params: [ { body: name }, { body: /size/height, type: numeric, nullable: true } ]
      result: one
  - name: remove
    match: { path: '/buildings/{name}', methods: [DELETE] }
    tenant: { header: X-Tenant-ID }
    query: { database: main, sql: delete from buildings where name = $1, params: [ { path: name } ], result: none }
  - name: whoami
    match: { path: /whoami }
    tenant: { header: X-Tenant-ID }
    query:
      database: main
      sql: select current_setting('search_path') as path, $1 as agent
      params: [ { header: User-Agent, default: nobody } ]
      result: one
  - name: news
    match: { path: /news }
    tenant: none
    schema: public
    query: { database: main, sql: select title from news }
";

#[tokio::test]
async fn a_tenant_sees_its_own_rows_in_full_precision() {
    let (gateway, _postgres) = start().await;
    let reply = gateway.get("/buildings").tenant("acme").send().await;
    assert_eq!(reply.status(), 200, "{}", reply.text());
    assert_eq!(reply.header("content-type"), Some("application/json"));
    assert_eq!(reply.header("cache-control"), Some("private, no-store"));
    // As text: a number that went through a float would have lost its zeros.
    assert!(reply.text().contains("12.50"), "{}", reply.text());
    assert!(reply.text().contains("1000000000000000000000000000000"), "{}", reply.text());
    assert_eq!(reply.json()[0]["name"], "mill");
    assert_eq!(reply.json()[1]["height"], json!(null));
    let other = gateway.get("/buildings").tenant("globex").send().await.json();
    assert_eq!(other, json!([{ "id": 1, "name": "tower", "height": 99.9 }]));
    assert_eq!(gateway.get("/count").tenant("acme").send().await.text(), "3");
    assert_eq!(gateway.get("/news").send().await.json(), json!([{ "title": "for all" }]));
    let path = gateway.get("/whoami").tenant("acme").send().await.json();
    assert_eq!(path, json!({ "path": "\"Acme-1\", pg_temp", "agent": "nobody" }));
}

#[tokio::test]
async fn parameters_come_from_every_place_and_are_held_to_their_types() {
    let (gateway, _postgres) = start().await;
    let found = gateway.get("/buildings?q=%25il%25&limit=1").tenant("acme").send().await.json();
    assert_eq!(found[0]["name"], "mill");
    assert_eq!(found.as_array().unwrap().len(), 1);
    assert_eq!(gateway.get("/buildings/2").tenant("acme").send().await.json(), json!({ "name": "barn" }));
    let body = json!({ "name": "'; drop table buildings; --", "size": { "height": 1.25 } });
    let added = gateway.post("/buildings").tenant("acme").json(&body).send().await;
    assert_eq!(added.json()["name"], body["name"], "{}", added.text());
    assert_eq!(gateway.get("/count").tenant("acme").send().await.text(), "4");
    assert_eq!(gateway.get("/count").tenant("globex").send().await.text(), "1");
    let removed = gateway.call(http::Method::DELETE, "/buildings/mill").tenant("acme").send().await;
    assert_eq!((removed.status(), removed.body.len()), (204, 0));

    for (call, status, code) in [
        (gateway.get("/buildings?limit=many"), 400, "query-parameter"),
        (gateway.get("/buildings?limit=501"), 400, "query-parameter"),
        (gateway.get("/buildings?limit=0"), 400, "query-parameter"),
        (gateway.get("/buildings?limit=1&limit=2"), 400, "query-parameter"),
        (gateway.get("/buildings?limit=%ff%fe"), 400, "query-parameter"),
        (gateway.get("/buildings/seven"), 400, "query-parameter"),
        (gateway.get("/buildings/99"), 404, "query-failed"),
        (gateway.get("/buildings/2/x"), 404, "route-not-found"),
        (gateway.post("/buildings").json(&json!({})), 400, "query-parameter"),
        (gateway.post("/buildings").json(&json!({ "name": "barn" })), 409, "query-failed"),
        (gateway.post("/buildings").body("{"), 400, "request-invalid"),
        (gateway.post("/buildings").body(vec![b' '; 2000]), 413, "request-too-large"),
    ] {
        let reply = call.tenant("acme").send().await;
        assert_eq!((reply.status(), reply.code().as_str()), (status, code), "{}", reply.text());
        let told = reply.text();
        for secret in ["Acme-1", "insert into", "select ", "postgres"] {
            assert!(!told.contains(secret), "{secret} in {told}");
        }
    }
    // A tenant whose schema is not there gets an error, and nobody else's table.
    let lost = gateway.get("/buildings").tenant("empty").send().await;
    assert_eq!((lost.status(), lost.code().as_str()), (404, "query-failed"));
}

#[tokio::test]
async fn a_database_may_be_down_at_start_come_up_go_away_and_come_back() {
    let mut server = PrivatePostgres::start().await.unwrap();
    let url = server.url("postgres", innkeeper::cli::demo::cluster::SUPERUSER);
    server.stop().await.unwrap();
    let policy = format!(
        "
version: 1
databases: {{ main: {{ url: '{url}', pool: {{ acquire_timeout: 500ms }} }} }}
tenants: {{ table: {{ database: main, name: tenants, id: id, schema: schema, cache: 1ms, negative_cache: 1ms }} }}
routes:
  - name: who
    tenant: {{ header: X-Tenant-ID }}
    query: {{ database: main, sql: select name from me, result: value }}
"
    );
    let gateway = Harness::new().policy(&policy).start().await;
    let reply = gateway.get("/").tenant("acme").send().await;
    assert_eq!((reply.status(), reply.code().as_str()), (503, "directory-unavailable"));
    assert_eq!(gateway.admin("/readyz").send().await.status(), 200);

    for round in 0..2 {
        server.start_again().await.unwrap();
        if round == 0 {
            let mut admin = <sqlx::PgConnection as sqlx::Connection>::connect(&url).await.unwrap();
            crate::support::postgres::run(
                &mut admin,
                "CREATE TABLE tenants (id text PRIMARY KEY, schema text); INSERT INTO tenants VALUES ('acme', 'acme'); \
                 CREATE SCHEMA acme; CREATE TABLE acme.me (name text); INSERT INTO acme.me VALUES ('acme itself')",
            )
            .await;
        }
        // Failures are remembered for a moment, so that an outage is not a stampede.
        crate::support::postgres::eventually("the database serves", || async {
            let reply = gateway.get("/").tenant("acme").send().await;
            reply.status() == 200 && reply.json() == json!("acme itself")
        })
        .await;
        let unknown = gateway.get("/").tenant("nobody").send().await;
        assert_eq!((unknown.status(), unknown.code().as_str()), (404, "tenant-unknown"));
        server.stop().await.unwrap();
        let reply = gateway.get("/").tenant("acme").send().await;
        assert_eq!(reply.status(), 503, "{}", reply.text());
    }
}
