//! Traces through a forwarded request: what a caller, a backend and a collector see of them.

use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use tokio::net::TcpListener;

use crate::support::backend::Backend;
use crate::support::collector::{Collector, Span, attribute};
use crate::support::gateway::{Harness, Reply, TestGateway, until};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";

/// A gateway with this `server:` before a backend.
async fn start(server: &str) -> (TestGateway, Backend) {
    let backend = Backend::start().await;
    let policy = format!(
        "version: 1
server: {{ {server} }}
upstreams: {{ app: {{ endpoints: [ 'http://{}' ] }} }}
tenants: {{ list: [ {{ id: acme, schema: acme }} ] }}
plugins: {{ keys: {{ path: keys.wasm, config: {{ keys: {{ k: acme }} }}, limits: {{ time: 10s }} }} }}
routes:
  - name: keyed
    match: {{ path: /keyed }}
    tenant: {{ plugin: keys }}
    forward: app
  - {{ name: app, tenant: {{ header: X-Tenant-ID }}, forward: app }}
",
        backend.address
    );
    let keys = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/plugins/legacy-keys.wasm")).unwrap();
    (Harness::new().file("keys.wasm", keys).policy(&policy).start().await, backend)
}

fn tracing(collector: &Collector) -> String {
    format!(
        "tracing: {{ otlp: 'http://{}', sample: 100%, service_name: gate, headers: {{ X-Token: s3cret }} }}",
        collector.address
    )
}

/// What the backend was told: trace, parent, flags.
fn told(reply: &Reply) -> [String; 3] {
    let seen = reply.json();
    let values = seen["headers"]["traceparent"].as_array().unwrap();
    assert_eq!(values.len(), 1);
    let parts: Vec<&str> = values[0].as_str().unwrap().split('-').collect();
    [1, 2, 3].map(|index| parts[index].to_owned())
}

fn hex(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn of_kind(spans: &[Span], kind: SpanKind) -> &Span {
    let mut found = spans.iter().filter(|span| span.kind == kind as i32);
    let span = found.next().unwrap();
    assert!(found.next().is_none(), "one span of kind {kind:?}");
    span
}

#[tokio::test]
async fn a_forwarded_request_is_traced_from_its_caller_to_its_backend() {
    let collector = Collector::start().await;
    let (gateway, _backend) = start(&tracing(&collector)).await;
    let reply = gateway
        .get("/keyed/orders?secret=1")
        .header("x-api-key", "k")
        .header("traceparent", &format!("00-{TRACE}-{CALLER}-01"))
        .header("tracestate", "vendor=1")
        .send()
        .await;
    assert_eq!(reply.status(), 200, "{}", reply.text());
    assert_eq!(reply.json()["headers"]["tracestate"][0], "vendor=1");
    let [trace, parent, flags] = told(&reply);
    assert_eq!((trace.as_str(), flags.as_str()), (TRACE, "01"));

    let spans = collector.spans(4).await;
    assert!(spans.iter().all(|span| hex(&span.trace_id) == TRACE));
    let server = of_kind(&spans, SpanKind::Server);
    assert_eq!(hex(&server.parent_span_id), CALLER);
    assert_eq!(server.name, "GET keyed");
    for (name, value) in [
        ("http.request.method", "GET"),
        ("url.path", "/keyed/orders"),
        ("http.response.status_code", "200"),
        ("http.route", "keyed"),
        ("url.scheme", "http"),
        ("network.protocol.version", "1.1"),
        ("server.address", "127.0.0.1"),
        ("client.address", "127.0.0.1"),
        ("innkeeper.tenant", "acme"),
        ("innkeeper.resolver", "plugin"),
        ("innkeeper.plugin.name", "keys"),
        ("innkeeper.request_id", reply.header("x-request-id").unwrap()),
    ] {
        assert_eq!(attribute(&server.attributes, name), value, "{name}");
    }
    let call = of_kind(&spans, SpanKind::Client);
    assert_eq!((&call.parent_span_id, hex(&call.span_id)), (&server.span_id, parent));
    let resolve = spans.iter().find(|span| span.name == "resolve").unwrap();
    assert_eq!(resolve.parent_span_id, server.span_id);
    let plugin = spans.iter().find(|span| span.name == "plugin keys").unwrap();
    assert_eq!(plugin.parent_span_id, resolve.span_id);
    assert_eq!(attribute(&plugin.attributes, "innkeeper.plugin.outcome"), "place");
    for (inner, outer) in [(call, server), (resolve, server), (plugin, resolve)] {
        let begins = inner.start_time_unix_nano >= outer.start_time_unix_nano;
        assert!(begins && inner.end_time_unix_nano <= outer.end_time_unix_nano, "{inner:?} in {outer:?}");
    }
    collector.taken(|taken| {
        assert_eq!(taken.path, "/v1/traces");
        assert_eq!(taken.headers["x-token"], "s3cret");
        assert_eq!(taken.headers["content-type"], "application/x-protobuf");
        assert_eq!(attribute(&taken.resource, "service.name"), "gate");
    });
    let records = gateway.records(|record| record["trace_id"] == TRACE).await;
    assert_eq!(records[0]["route"], "keyed");
}

#[tokio::test]
async fn a_caller_that_does_not_record_is_heeded_and_the_trace_goes_on() {
    let collector = Collector::start().await;
    let (gateway, _backend) = start(&tracing(&collector)).await;
    let parent = format!("00-{TRACE}-{CALLER}-00");
    let reply = gateway.get("/quiet").tenant("acme").header("traceparent", &parent).send().await;
    let [trace, span, flags] = told(&reply);
    assert_eq!((trace.as_str(), flags.as_str()), (TRACE, "00"));
    assert_ne!(span, CALLER, "the backend's caller is the gateway");
    // What comes later is traced, so that what came before would have been seen.
    let reply = gateway.get("/loud").tenant("acme").header("traceparent", "00-nonsense").send().await;
    let [trace, _, flags] = told(&reply);
    assert!(trace != TRACE && flags == "01");
    let spans = collector.spans(3).await;
    assert!(spans.iter().all(|span| hex(&span.trace_id) == trace), "{spans:?}");
    assert!(of_kind(&spans, SpanKind::Server).parent_span_id.is_empty());
}

#[tokio::test]
async fn a_refusal_is_a_trace_too() {
    let collector = Collector::start().await;
    let (gateway, _backend) = start(&tracing(&collector)).await;
    assert_eq!(gateway.get("/").tenant("nobody").send().await.code(), "tenant-unknown");
    let spans = collector.spans(2).await;
    let server = of_kind(&spans, SpanKind::Server);
    assert_eq!(attribute(&server.attributes, "error.type"), "tenant-unknown");
    assert_eq!(attribute(&server.attributes, "innkeeper.tenant"), "", "nobody is no tenant");
}

#[tokio::test]
async fn without_tracing_the_context_passes_as_it_came() {
    let (gateway, _backend) = start("").await;
    let parent = format!("00-{TRACE}-{CALLER}-01");
    let reply = gateway.get("/").tenant("acme").header("traceparent", &parent).send().await;
    assert_eq!(told(&reply), [TRACE, CALLER, "01"]);
    let records = gateway.records(|record| record["status"] == 200).await;
    assert!(records[0].get("trace_id").is_none());
}

#[tokio::test]
async fn what_waits_is_sent_when_the_gateway_drains() {
    let collector = Collector::start().await;
    let (gateway, _backend) = start(&tracing(&collector)).await;
    gateway.get("/").tenant("acme").send().await;
    gateway.sidecar.drain().await;
    assert_eq!(collector.taken(|taken| taken.spans.len()), 3);
}

#[tokio::test]
async fn a_collector_that_hangs_delays_no_request() {
    // It accepts by its backlog, and never answers.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (gateway, _backend) = start(&format!("tracing: {{ otlp: 'http://{address}', sample: 100% }}")).await;
    for _ in 0..50 {
        assert_eq!(gateway.get("/").tenant("acme").send().await.status(), 200);
    }
}

#[tokio::test]
async fn spans_that_a_collector_does_not_take_are_counted() {
    let away = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let (gateway, _backend) =
        start(&format!("tracing: {{ otlp: 'http://{away}/otlp/', sample: 100% }}")).await;
    assert_eq!(gateway.get("/").tenant("acme").send().await.status(), 200);
    let metrics = &gateway.sidecar.metrics;
    until(|| metrics.expose().contains("innkeeper_spans_total{result=\"failed\"} 3")).await;
}
