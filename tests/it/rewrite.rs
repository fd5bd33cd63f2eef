//! What a route changes of a request and its response, and what no rule may change.

use serde_json::Value;

use crate::policy::Desk;
use crate::support::backend::Backend;
use crate::support::gateway::{Harness, TestGateway};

fn policy(endpoint: &str, routes: &str) -> String {
    format!(
        "
version: 1
upstreams: {{ app: {{ endpoints: [ 'http://{endpoint}' ] }} }}
tenants: {{ list: [ {{ id: acme, schema: acme_schema }}, {{ id: 'a/b', schema: other }}, {{ id: '..', schema: dots }} ] }}
routes:
{routes}"
    )
}

async fn start(routes: &str) -> (TestGateway, Backend) {
    let backend = Backend::start().await;
    let policy = policy(&backend.address.to_string(), routes);
    (Harness::new().policy(&policy).start().await, backend)
}

fn sent<'s>(seen: &'s Value, name: &str) -> Vec<&'s str> {
    let values = seen["headers"][name].as_array().map(Vec::as_slice).unwrap_or_default();
    values.iter().map(|value| value.as_str().unwrap()).collect()
}

#[tokio::test]
async fn paths_are_cut_and_put_together() {
    let routes = "  - { name: t, match: { path: /t }, tenant: { path: '/t/{tenant}' }, forward: { upstream: app, strip_prefix: '/t/{any}' } }
  - { name: v2, match: { path: '/items/{id}' }, tenant: { header: X-Tenant-ID }, forward: { upstream: app, strip_prefix: /items, path: '/v2/{schema}/{id}{path}' } }
  - { name: by-tenant, tenant: { header: X-Tenant-ID }, forward: { upstream: app, path: '/of/{tenant}{path}' } }";
    let (gateway, _backend) = start(routes).await;
    for (tenant, asked, got) in [
        ("", "/t/acme", "/"),
        ("", "/t/acme/x/y?q=1", "/x/y?q=1"),
        ("", "/t/acme/a%20b/", "/a%20b/"),
        ("acme", "/items/7/x?a=%2F", "/v2/acme_schema/7/7/x?a=%2F"),
        ("acme", "/x", "/of/acme/x"),
        ("acme", "/", "/of/acme/"),
    ] {
        let call = gateway.get(asked);
        let call = if tenant.is_empty() { call } else { call.tenant(tenant) };
        let seen = call.send().await.json();
        let query = seen["query"].as_str().map(|query| format!("?{query}")).unwrap_or_default();
        assert_eq!(format!("{}{query}", seen["path"].as_str().unwrap()), got, "{asked}");
    }
    // What a value would do to the path is refused: an encoded slash, a dot segment.
    for tenant in ["a/b", ".."] {
        let reply = gateway.get("/x").tenant(tenant).send().await;
        assert_eq!((reply.status(), reply.code().as_str()), (400, "request-invalid"), "{tenant}");
    }
}

#[tokio::test]
async fn hosts_are_kept_or_replaced() {
    let routes = "  - { name: own, match: { path: /own }, tenant: none, forward: { upstream: app, host: upstream } }
  - { name: named, match: { path: /named }, tenant: none, forward: { upstream: app, host: 'app.internal:8080' } }
  - { name: kept, tenant: none, forward: { upstream: app, host: keep } }";
    let (gateway, backend) = start(routes).await;
    for (path, host) in [
        ("/own", backend.address.to_string()),
        ("/named", "app.internal:8080".into()),
        ("/", "a.example".into()),
    ] {
        let seen = gateway.get(path).host("a.example").send().await.json();
        assert_eq!(sent(&seen, "host"), [host], "{path}");
        assert_eq!(sent(&seen, "x-forwarded-host"), ["a.example"], "{path}");
    }
}

#[tokio::test]
async fn headers_are_removed_set_and_added() {
    let routes = "  - name: all
    match: { path: '/o/{order}' }
    tenant: { header: X-Tenant-ID }
    forward:
      upstream: app
      request_headers:
        remove: [ Cookie ]
        set: { X-App: 'tenant={tenant}; schema={schema}', X-Order: '{order}', X-Trace: '{request_id}' }
        add: { Accept: text/plain }
      response_headers:
        remove: [ Date ]
        set: { Cache-Control: private, X-Order: '{order}' }
        add: { Vary: X-Tenant-ID }";
    let (gateway, _backend) = start(routes).await;
    let call = gateway
        .get("/o/7")
        .tenant("acme")
        .header("cookie", "a=b")
        .header("x-app", "evil")
        .header("accept", "a/b");
    let reply = call.send().await;
    let seen = reply.json();
    assert_eq!(sent(&seen, "x-app"), ["tenant=acme; schema=acme_schema"]);
    assert_eq!(sent(&seen, "x-order"), ["7"]);
    assert_eq!(sent(&seen, "x-trace"), sent(&seen, "x-request-id"));
    assert_eq!(sent(&seen, "accept"), ["a/b", "text/plain"]);
    assert!(sent(&seen, "cookie").is_empty());
    assert_eq!(reply.header("cache-control"), Some("private"));
    assert_eq!(reply.header("x-order"), Some("7"));
    assert_eq!(reply.header("vary"), Some("X-Tenant-ID"));
    // A value that two readers could read in two encodings goes nowhere.
    let reply = gateway.get("/o/%C3%A4").tenant("acme").send().await;
    assert_eq!(reply.code(), "request-invalid");
}

#[test]
fn what_no_rule_may_change_is_found_in_the_policy() {
    for (forward, message) in [
        ("request_headers: { set: { X-Tenant-ID: evil } }", "is said by Innkeeper alone"),
        ("request_headers: { add: { x_tenant_schema: evil } }", "is said by Innkeeper alone"),
        ("request_headers: { remove: [ X-Tenant-Assertion ] }", "is said by Innkeeper alone"),
        ("request_headers: { remove: [ X-Forwarded-For ] }", "is said by Innkeeper alone"),
        ("request_headers: { set: { Forwarded: x } }", "is said by Innkeeper alone"),
        ("request_headers: { set: { Connection: close } }", "is between two hops"),
        ("request_headers: { set: { Transfer-Encoding: chunked } }", "is between two hops"),
        ("request_headers: { set: { Content-Length: 1 } }", "says where a message goes or ends"),
        ("request_headers: { set: { Host: evil } }", "says where a message goes or ends"),
        ("response_headers: { remove: [ Content-Length ] }", "says where a message goes or ends"),
        ("response_headers: { set: { X-Request-ID: mine } }", "is said by Innkeeper alone"),
        ("response_headers: { set: { Upgrade: x } }", "is between two hops"),
        ("request_headers: { set: { X-A: '{tenat}' } }", "nothing here is called `{tenat}`"),
        ("request_headers: { set: { X-A: '{path}' } }", "nothing here is called `{path}`"),
        ("request_headers: { set: { X-A: '{tenant' } }", "a `{` is not closed"),
        ("request_headers: { set: { X-A: \"a\\nb\" } }", "cannot be the value of a header"),
        ("path: 'v2{path}'", "a path starts with `/`"),
        ("path: '/v2/{path}'", "this makes it `//`"),
        ("path: '/v2?x={path}'", "a path is visible ASCII"),
        ("strip_prefix: t", "a path starts with `/`"),
        ("strip_prefix: /", "`/` takes nothing off"),
        ("host: 'http://x/'", "is not a host"),
    ] {
        let routes =
            format!("  - {{ name: a, tenant: {{ header: X-T }}, forward: {{ upstream: app, {forward} }} }}");
        let found = Desk::with(&policy("127.0.0.1:1", &routes)).diagnostics();
        assert!(found.contains(message), "{forward}: {found}");
    }
}
