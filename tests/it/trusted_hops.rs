//! Load balancers before us: the configured ones are believed, nobody else is.

use serde_json::Value;

use crate::support::backend::Backend;
use crate::support::gateway::{Harness, TestGateway};

async fn start(server: &str) -> (TestGateway, Backend) {
    let backend = Backend::start().await;
    let policy = format!(
        "
version: 1
server: {{ {server} }}
upstreams: {{ app: {{ endpoints: [ 'http://{}' ] }} }}
tenants: {{ list: [ {{ id: acme, schema: acme }} ] }}
routes:
  - {{ name: by-host, match: {{ host: '*.example.com' }}, tenant: {{ host: '{{tenant}}.example.com' }}, forward: app }}
  - {{ name: all, tenant: none, forward: app }}
",
        backend.address
    );
    (Harness::new().policy(&policy).start().await, backend)
}

fn sent(seen: &Value, name: &str) -> String {
    let values = seen["headers"][name].as_array().map(Vec::as_slice).unwrap_or_default();
    values.iter().map(|value| value.as_str().unwrap()).collect::<Vec<_>>().join(" | ")
}

const TRUSTED: &str = "trusted_proxies: [ 127.0.0.1, 10.0.0.0/8 ]";

#[tokio::test]
async fn a_trusted_hop_is_believed_and_what_was_forged_before_it_is_dropped() {
    let (gateway, _backend) = start(TRUSTED).await;
    let call = gateway
        .get("/seen")
        .header("x-forwarded-for", "6.6.6.6, 192.0.2.1, 10.1.1.1")
        .header("x-forwarded-proto", "gopher, https, http")
        .header("x-forwarded-host", "evil.example")
        .header("x-real-ip", "6.6.6.6");
    let seen = call.send().await.json();
    let own = gateway.address();
    assert_eq!(sent(&seen, "x-forwarded-for"), "192.0.2.1, 10.1.1.1, 127.0.0.1");
    assert_eq!(sent(&seen, "x-forwarded-proto"), "https");
    assert_eq!(sent(&seen, "x-forwarded-host"), own.to_string());
    assert_eq!(
        sent(&seen, "forwarded"),
        format!("for=192.0.2.1;proto=https;host=\"{own}\", for=10.1.1.1, for=127.0.0.1")
    );
    assert_eq!(sent(&seen, "x-real-ip"), "");
    let records = gateway.records(|line| line["path"] == "/seen").await;
    assert_eq!(records[0]["peer"], "192.0.2.1:0");
}

#[tokio::test]
async fn a_client_that_is_no_hop_is_not_believed() {
    for server in ["", "trusted_proxies: [ 10.0.0.0/8 ], forwarded_host: true"] {
        let (gateway, _backend) = start(server).await;
        let call = gateway
            .get("/")
            .header("x-forwarded-for", "6.6.6.6")
            .header("x-forwarded-proto", "https")
            .header("x-forwarded-host", "acme.example.com")
            .header("forwarded", "for=not an address at all");
        let seen = call.send().await.json();
        assert_eq!(sent(&seen, "x-forwarded-for"), "127.0.0.1", "{server}");
        assert_eq!(sent(&seen, "x-forwarded-proto"), "http");
        assert_eq!(sent(&seen, "x-forwarded-host"), gateway.address().to_string());
        assert_eq!(sent(&seen, "x-tenant-id"), "");
    }
}

#[tokio::test]
async fn a_host_is_taken_from_a_hop_only_where_the_policy_says_so() {
    let ask = async |server: &str, host: &str| {
        let (gateway, _backend) = start(server).await;
        let reply =
            gateway.get("/").header("forwarded", &format!("for=192.0.2.1;host=\"{host}\"")).send().await;
        match reply.status() {
            200 => sent(&reply.json(), "x-tenant-id"),
            _ => reply.code(),
        }
    };
    let believing = format!("{TRUSTED}, forwarded_host: true");
    assert_eq!(ask(TRUSTED, "acme.example.com").await, "");
    assert_eq!(ask(&believing, "acme.example.com").await, "acme");
    assert_eq!(ask(&believing, "ACME.example.com:443").await, "acme");
    assert_eq!(ask(&believing, "user@acme.example.com").await, "request-invalid");
    assert_eq!(ask(&believing, "a b").await, "request-invalid");
}

#[tokio::test]
async fn hops_that_contradict_themselves_are_refused() {
    let (gateway, _backend) = start(TRUSTED).await;
    for (forwarded, usual) in
        [("for=192.0.2.1", "192.0.2.2"), ("for=", "192.0.2.1"), ("for=192.0.2.1", "garbage")]
    {
        let call = gateway.get("/").header("forwarded", forwarded).header("x-forwarded-for", usual);
        let reply = call.send().await;
        assert_eq!((reply.status(), reply.code().as_str()), (400, "request-invalid"), "{forwarded} {usual}");
    }
}
