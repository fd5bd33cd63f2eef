//! The walk from outside: routes, resolvers, refusals, headers and records, over real sockets.

use serde_json::json;

use crate::support::backend::Backend;
use crate::support::gateway::{Harness, TestGateway};

async fn start(rest: &str) -> (TestGateway, Backend) {
    let backend = Backend::start().await;
    let policy = format!(
        "version: 1\nupstreams:\n  app: {{ endpoints: [ 'http://{}' ] }}\ntenants:\n  list:\n    \
         - {{ id: acme, schema: acme }}\n    - {{ id: globex, schema: 'Globex \"2\"' }}\n    \
         - {{ id: gone, schema: gone, state: suspended }}\n    \
         - {{ id: moving, schema: moving, state: held, retry_after: 7s }}\n{rest}",
        backend.address
    );
    (Harness::new().policy(&policy).start().await, backend)
}

const BY_HEADER: &str = "
routes:
  - { name: health, match: { path: /health }, tenant: none, forward: app }
  - { name: app, tenant: { header: X-Tenant-ID }, forward: app }
";

#[tokio::test]
async fn a_backend_is_told_the_tenant_and_nothing_that_a_client_made_up() {
    let (gateway, _backend) = start(BY_HEADER).await;
    let reply = gateway
        .get("/orders?q=1")
        .tenant("globex")
        .header("x-tenant-schema", "public")
        .header("X_Tenant_Schema", "public")
        .header("x.tenant.role", "admin")
        .header("connection", "x-secret")
        .header("x-secret", "1")
        .header("x-kept", "yes")
        .send()
        .await;
    assert_eq!(reply.status(), 200, "{}", reply.text());
    let seen = reply.json();
    assert_eq!(seen["path"], "/orders");
    assert_eq!(seen["query"], "q=1");
    let headers = seen["headers"].as_object().unwrap();
    assert_eq!(headers["x-tenant-id"], json!(["globex"]));
    assert_eq!(headers["x-tenant-schema"], json!(["Globex \"2\""]));
    assert_eq!(headers["x-kept"], json!(["yes"]));
    assert_eq!(headers["x-request-id"], json!([reply.header("x-request-id").unwrap()]));
    let names: Vec<&String> = headers.keys().filter(|name| name.contains("tenant")).collect();
    assert_eq!(names, ["x-tenant-id", "x-tenant-schema"]);
    assert!(!headers.contains_key("x-secret"));
}

#[tokio::test]
async fn no_tenant_means_an_error_and_never_a_default() {
    let (gateway, _backend) = start(BY_HEADER).await;
    for (call, status, code) in [
        (gateway.get("/orders"), 400, "tenant-missing"),
        (gateway.get("/orders").tenant(""), 400, "tenant-missing"),
        (gateway.get("/orders").tenant("nobody"), 404, "tenant-unknown"),
        (gateway.get("/orders").tenant("acme corp"), 404, "tenant-unknown"),
        (gateway.get("/orders").tenant("acme,globex"), 404, "tenant-unknown"),
        (gateway.get("/orders").tenant("public"), 404, "tenant-unknown"),
        (gateway.get("/orders").tenant("ACME"), 404, "tenant-unknown"),
        (gateway.get("/orders").tenant("acme").tenant("globex"), 400, "tenant-ambiguous"),
        (gateway.get("/orders").tenant("acme").tenant("acme"), 400, "tenant-ambiguous"),
        (gateway.get("/orders").tenant("acme").header("X_Tenant_ID", "globex"), 400, "tenant-ambiguous"),
        (gateway.get("/orders").header("X_Tenant_ID", "globex"), 400, "tenant-ambiguous"),
        (gateway.get("/orders").tenant("gone"), 403, "tenant-suspended"),
        (gateway.get("/orders").tenant("moving"), 503, "tenant-held"),
    ] {
        let reply = call.send().await;
        assert_eq!((reply.status(), reply.code().as_str()), (status, code), "{}", reply.text());
    }
    let held = gateway.get("/orders").tenant("moving").send().await;
    assert_eq!(held.header("retry-after"), Some("7"));
}

#[tokio::test]
async fn a_route_without_a_tenant_forwards_without_tenant_headers() {
    let (gateway, _backend) = start(BY_HEADER).await;
    let reply = gateway.get("/health").tenant("acme").send().await;
    assert_eq!(reply.status(), 200);
    let headers = reply.json()["headers"].clone();
    assert!(headers.as_object().unwrap().keys().all(|name| !name.contains("tenant")), "{headers}");
}

#[tokio::test]
async fn every_built_in_resolver_reads_its_place() {
    let (gateway, _backend) = start(
        "
routes:
  - { name: host, match: { path: /host }, tenant: { host: '{tenant}.example.com' }, forward: app }
  - { name: path, match: { path: /t }, tenant: { path: '/t/{tenant}' }, forward: app }
  - { name: query, match: { path: /query }, tenant: { query: tenant }, forward: app }
  - { name: cookie, match: { path: /cookie }, tenant: { cookie: tenant }, forward: app }
  - name: all
    match: { path: /all }
    tenant: { all: [ { header: X-Tenant-ID }, { host: '{tenant}.example.com' } ] }
    forward: app
  - name: first
    match: { path: /first }
    tenant: { first: [ { header: X-Tenant-ID }, { query: tenant } ] }
    forward: app
",
    )
    .await;
    for (call, tenant) in [
        (gateway.get("/host").host("ACME.Example.com:8080"), "acme"),
        (gateway.get("/t/globex/x"), "globex"),
        (gateway.get("/t/%61cme"), "acme"),
        (gateway.get("/query?tenant=acme&x=1"), "acme"),
        (gateway.get("/cookie").header("cookie", "a=b; tenant=globex"), "globex"),
        (gateway.get("/all").tenant("acme").host("acme.example.com"), "acme"),
        (gateway.get("/first?tenant=globex"), "globex"),
        (gateway.get("/first?tenant=globex").tenant("acme"), "acme"),
    ] {
        let reply = call.send().await;
        assert_eq!(reply.status(), 200, "{}", reply.text());
        assert_eq!(reply.json()["headers"]["x-tenant-id"], json!([tenant]));
    }
    for (call, code) in [
        (gateway.get("/host").host("a.b.example.com"), "tenant-missing"),
        (gateway.get("/host").host("example.com"), "tenant-missing"),
        (gateway.get("/t/"), "tenant-missing"),
        (gateway.get("/t/acme%2fx"), "request-invalid"),
        (gateway.get("/t/../t/acme"), "request-invalid"),
        (gateway.get("/query?tenant=acme&tenant=globex"), "tenant-ambiguous"),
        (gateway.get("/cookie").header("cookie", "tenant=acme; tenant=globex"), "tenant-ambiguous"),
        (gateway.get("/all").tenant("acme").host("globex.example.com"), "tenant-ambiguous"),
        (gateway.get("/all").tenant("acme"), "tenant-missing"),
        (gateway.get("/nowhere"), "route-not-found"),
    ] {
        let reply = call.send().await;
        assert_eq!(reply.code(), code, "{}", reply.text());
    }
}

#[tokio::test]
async fn each_request_leaves_one_record() {
    let (gateway, _backend) = start(BY_HEADER).await;
    let served = gateway.get("/orders?secret=1").tenant("acme").send().await;
    let refused = gateway.get("/orders").tenant("nobody").send().await;
    let id = served.header("x-request-id").unwrap().to_owned();
    let records = gateway.records(|record| record["request_id"] == id.as_str()).await;
    assert_eq!(records.len(), 1);
    let record = &records[0];
    assert_eq!(record["tenant"], "acme");
    assert_eq!(record["route"], "app");
    assert_eq!(record["resolver"], "header");
    assert_eq!(record["status"], 200);
    assert_eq!(record["generation"], 1);
    assert_eq!(record["complete"], true);
    assert_eq!(record["bytes"], served.body.len());
    // A query string may hold credentials.
    assert_eq!(record["path"], "/orders");
    let id = refused.header("x-request-id").unwrap().to_owned();
    let records = gateway.records(|record| record["request_id"] == id.as_str()).await;
    assert_eq!(records[0]["error"], "tenant-unknown");
    assert_eq!(records[0]["blame"], "client");
}

#[tokio::test]
async fn the_operator_sees_health_metrics_and_policy() {
    let (gateway, _backend) = start(BY_HEADER).await;
    gateway.get("/orders").tenant("acme").send().await;
    gateway.get("/orders").send().await;
    assert_eq!(gateway.admin("/healthz").send().await.status(), 200);
    assert_eq!(gateway.admin("/readyz").send().await.status(), 200);
    assert_eq!(gateway.admin("/nothing").send().await.status(), 404);
    let metrics = gateway.admin("/metrics").send().await.text();
    for line in [
        "innkeeper_requests_total{route=\"app\",target=\"forward\",outcome=\"ok\",status=\"200\"} 1",
        "innkeeper_requests_total{route=\"app\",target=\"forward\",outcome=\"tenant-missing\",status=\"400\"} 1",
        "innkeeper_policy_generation 1",
        "innkeeper_live_generations 1",
        "innkeeper_request_duration_seconds_count{route=\"app\"} 2",
    ] {
        assert!(metrics.contains(line), "{line} in\n{metrics}");
    }
    let policy = gateway.admin("/policy").send().await.json();
    assert_eq!(policy["generation"], 1);
    assert_eq!(policy["last_attempt"]["error"], serde_json::Value::Null);
    assert_eq!(policy["routes"], json!(["health", "app"]));
}
