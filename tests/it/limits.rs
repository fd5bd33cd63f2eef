//! Tenants held to their limits through a whole gateway: how often, how much, how many at once.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use innkeeper::decision::FindTenant as _;
use innkeeper::directory::Directory;
use innkeeper::policy::{DefaultLimits, DirectorySource, Policy, WrittenLimits};
use innkeeper::surroundings::ProcessSurroundings;
use innkeeper::telemetry::{Metrics, ReasonLabel};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::task::AbortOnDropHandle;

use crate::support::backend::Backend;
use crate::support::gateway::{Harness, PATIENCE, TestGateway, until};
use crate::support::postgres::database;
use crate::support::raw_upstream::RawUpstream;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// A policy with these `tenants`, all of whose requests go to `upstream`.
fn policy(upstream: SocketAddr, tenants: &str) -> String {
    format!(
        "version: 1\nupstreams: {{ app: {{ endpoints: [ 'http://{upstream}' ] }} }}\n\
         tenants:\n{tenants}\n  list: [ {{ id: acme, schema: acme }}, {{ id: globex, schema: globex }}, \
         {{ id: free, schema: free, limits: {{ requests: 1000/s }} }} ]\n\
         routes: [ {{ name: app, tenant: {{ header: X-Tenant-ID }}, forward: app }} ]\n"
    )
}

async fn start(upstream: SocketAddr, limits: &str) -> TestGateway {
    Harness::new().policy(&policy(upstream, &format!("  limits: {limits}"))).start().await
}

/// An upstream that answers when the gate lets it.
struct Gated {
    upstream: RawUpstream,
    gate: Arc<Semaphore>,
    arrived: Arc<Semaphore>,
}

impl Gated {
    async fn start() -> Self {
        let (gate, arrived) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        let (at_gate, arriving) = (Arc::clone(&gate), Arc::clone(&arrived));
        let upstream = RawUpstream::start(move |mut exchange| {
            let (gate, arrived) = (Arc::clone(&at_gate), Arc::clone(&arriving));
            async move {
                while exchange.request().await.is_some() {
                    arrived.add_permits(1);
                    gate.acquire().await.unwrap().forget();
                    exchange.send(OK).await;
                }
            }
        })
        .await;
        Self { upstream, gate, arrived }
    }

    /// Waits until so many more requests have come.
    async fn reached(&self, requests: u32) {
        self.arrived.acquire_many(requests).await.unwrap().forget();
    }
}

fn limited(gateway: &TestGateway, reason: &'static str) -> u64 {
    gateway.sidecar.metrics.tenant_limited.get_or_create(&ReasonLabel { reason }).get()
}

#[tokio::test]
async fn a_flood_of_one_tenant_leaves_the_others_alone() {
    let backend = Backend::start().await;
    let gateway = start(backend.address, "{ requests: 1/h, burst: 5 }").await;
    let flood = join_all((0..60).map(|_| gateway.get("/").tenant("acme").send()));
    let others = join_all((0..5).map(|_| gateway.get("/").tenant("globex").send()));
    let (flood, others) = tokio::join!(flood, others);
    assert!(others.iter().all(|reply| reply.status() == 200));
    let served = flood.iter().filter(|reply| reply.status() == 200).count();
    assert_eq!(served, 5);
    let refused = flood.iter().find(|reply| reply.status() != 200).unwrap();
    assert_eq!((refused.status(), refused.code().as_str()), (429, "tenant-limited"));
    let seconds: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((3500..=3600).contains(&seconds), "{seconds}");
    assert_eq!(refused.header("ratelimit-policy"), Some("\"tenant\";q=5;w=18000"));
    assert!(refused.header("ratelimit").unwrap().starts_with("\"tenant\";r=0;t="));
    assert_eq!(limited(&gateway, "requests"), 55);
    let served = others.iter().find(|reply| reply.header("ratelimit").unwrap().contains(";r=4;"));
    assert_eq!(served.unwrap().header("ratelimit-policy"), Some("\"tenant\";q=5;w=18000"));
}

/// Sends crowds of a tenant's requests until a refusal of theirs came later than it could have.
async fn flood_until_held_back(gateway: &TestGateway, path: &str) {
    let metrics = Arc::clone(&gateway.sidecar.metrics);
    let flood = async {
        while metrics.tenant_held_back.get() == 0 {
            join_all((0..60).map(|_| gateway.get(path).tenant("acme").send())).await;
        }
    };
    tokio::time::timeout(PATIENCE, flood).await.expect("whoever is refused too often has to wait");
}

#[tokio::test]
async fn whoever_asks_on_though_refused_waits_for_it() {
    let backend = Backend::start().await;
    let gateway = start(backend.address, "{ requests: 1/h, burst: 5 }").await;
    flood_until_held_back(&gateway, "/").await;
    let before = gateway.sidecar.metrics.tenant_held_back.get();
    for _ in 0..5 {
        assert_eq!(gateway.get("/").tenant("globex").send().await.status(), 200);
    }
    assert_eq!(gateway.get("/").tenant("globex").send().await.status(), 429);
    assert_eq!(gateway.sidecar.metrics.tenant_held_back.get(), before, "another tenant waits for nothing");
}

#[tokio::test]
async fn a_full_line_for_the_database_holds_back_too() {
    let policy = "
version: 1
databases:
  away:
    url: postgres://u@127.0.0.1:9/x
    pool: { acquire_timeout: 100ms, per_tenant: { connections: 1, queue: 1 } }
tenants: { list: [ { id: acme, schema: acme } ] }
routes:
  - { name: rows, match: { path: /rows }, tenant: { header: X-Tenant-ID }, query: { database: away, sql: select 1 as one } }
";
    let gateway = Harness::new().policy(policy).start().await;
    flood_until_held_back(&gateway, "/rows").await;
}

#[tokio::test]
async fn a_tenants_own_limits_go_before_those_of_all() {
    let backend = Backend::start().await;
    let gateway = start(backend.address, "{ requests: 1/h, burst: 1 }").await;
    for _ in 0..20 {
        assert_eq!(gateway.get("/").tenant("free").send().await.status(), 200);
    }
}

#[tokio::test]
async fn whoever_has_no_limits_is_told_of_none() {
    let backend = Backend::start().await;
    let gateway = Harness::new().policy(&policy(backend.address, "")).start().await;
    let reply = gateway.get("/").tenant("acme").send().await;
    assert_eq!((reply.status(), reply.header("ratelimit")), (200, None));
}

#[tokio::test]
async fn the_crowd_of_one_tenant_waits_in_its_own_queue() {
    let gated = Gated::start().await;
    let gateway = start(gated.upstream.address, "{ concurrency: 2, queue: 1, wait: 5m }").await;
    let ask = |tenant: &'static str| gateway.get("/").tenant(tenant).send();
    let crowd = async { tokio::join!(ask("acme"), ask("acme")) };
    let third = async {
        gated.reached(2).await;
        ask("acme").await
    };
    let others = async {
        until(|| gateway.sidecar.metrics.tenant_queue.get() == 1).await;
        let fourth = ask("acme").await;
        assert_eq!((fourth.status(), fourth.code().as_str()), (503, "tenant-limited"));
        assert_eq!(fourth.header("retry-after"), Some("1"));
        let other = async {
            gated.reached(1).await;
            gated.gate.add_permits(4);
        };
        assert_eq!(tokio::join!(ask("globex"), other).0.status(), 200);
    };
    let ((first, second), third, ()) = tokio::join!(crowd, third, others);
    assert!([first, second, third].iter().all(|reply| reply.status() == 200));
    assert_eq!(gateway.sidecar.metrics.tenant_queue.get(), 0);
    let waited = gateway.records(|record| record["waited_ms"].as_f64() > Some(0.0)).await;
    assert_eq!(waited.len(), 1);
    assert_eq!(limited(&gateway, "queue-full"), 1);
}

#[tokio::test]
async fn nobody_waits_longer_than_the_policy_says() {
    let gated = Gated::start().await;
    let gateway = start(gated.upstream.address, "{ concurrency: 1, wait: 10ms }").await;
    let second = async {
        gated.reached(1).await;
        let second = gateway.get("/").tenant("acme").send().await;
        gated.gate.add_permits(1);
        second
    };
    let (first, second) = tokio::join!(gateway.get("/").tenant("acme").send(), second);
    assert_eq!((first.status(), second.status()), (200, 503));
    assert_eq!(limited(&gateway, "queue-wait"), 1);
}

#[tokio::test]
async fn a_place_is_given_back_however_its_request_ends() {
    let (arriving, mut arrived) = mpsc::unbounded_channel();
    let upstream = RawUpstream::start(move |mut exchange| {
        let arriving = arriving.clone();
        async move {
            while let Some(head) = exchange.request().await {
                if head.contains("/breaks-off") {
                    return;
                }
                if head.contains("/never-ends") {
                    arriving.send(()).unwrap();
                    exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nbegun").await;
                    exchange.closed().await;
                    return;
                }
                if head.contains("/says-nothing") {
                    arriving.send(()).unwrap();
                    exchange.closed().await;
                    return;
                }
                exchange.send(OK).await;
            }
        }
    })
    .await;
    let gateway = start(upstream.address, "{ concurrency: 1, queue: 0 }").await;
    let is_free = async || loop {
        let reply = gateway.get("/").tenant("acme").send().await;
        match reply.status() {
            200 => return,
            status => assert_eq!(status, 503, "{}", reply.text()),
        }
    };
    is_free().await;
    let broken = gateway.get("/breaks-off").tenant("acme").send().await;
    assert_eq!(broken.status(), 502);
    assert_eq!(gateway.get("/").tenant("acme").send().await.status(), 200);
    for path in ["/never-ends", "/says-nothing"] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nX-Tenant-ID: acme\r\n\r\n");
        let client = loop {
            let mut client = TcpStream::connect(gateway.address()).await.unwrap();
            client.write_all(request.as_bytes()).await.unwrap();
            let mut status = [0; 12];
            tokio::select! {
                biased;
                _ = arrived.recv() => break client,
                read = client.read_exact(&mut status) => { read.unwrap(); }
            }
            // The request before may hold the place for a moment longer than its response takes.
            if status != *b"HTTP/1.1 503" {
                arrived.recv().await.unwrap();
                break client;
            }
        };
        // As long as the response has not ended, its place is taken.
        let answer = gateway.get("/").tenant("acme").send().await;
        assert_eq!(answer.status(), 503, "{path}");
        drop(client);
        is_free().await;
    }
}

#[tokio::test]
async fn bodies_move_no_faster_than_their_tenant_may() {
    let backend = Backend::start().await;
    let gateway = start(backend.address, "{ bytes: 1MiB/s, wait: 1h }").await;
    let begun = Instant::now();
    // The backend sends back what it was sent: two and a half seconds' worth in all.
    let reply = gateway.post("/").tenant("acme").body("x".repeat(5 << 18)).send().await;
    assert_eq!(reply.status(), 200);
    assert_eq!(reply.json()["body"].as_str().unwrap().len(), 5 << 18);
    assert!(begun.elapsed() >= Duration::from_millis(1400), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn who_moved_too_much_is_refused_before_it_begins() {
    let backend = Backend::start().await;
    let gateway = start(backend.address, "{ bytes: 64KiB/h, wait: 0s }").await;
    // The last piece that is due waits for its time, and the client does not.
    let request = format!(
        "POST / HTTP/1.1\r\nHost: a\r\nX-Tenant-ID: acme\r\nContent-Length: {}\r\n\r\n{}",
        200 << 10,
        "x".repeat(200 << 10)
    );
    let mut client = TcpStream::connect(gateway.address()).await.unwrap();
    // What is not read yet may not fit into the system's buffers.
    let _sending = AbortOnDropHandle::new(tokio::spawn(async move {
        client.write_all(request.as_bytes()).await.unwrap();
        std::future::pending::<()>().await;
    }));
    let mut refused = gateway.get("/").tenant("acme").send().await;
    while refused.status() == 200 {
        refused = gateway.get("/").tenant("acme").send().await;
    }
    assert_eq!((refused.status(), refused.code().as_str()), (429, "tenant-limited"));
    assert!(refused.header("ratelimit-policy").unwrap().ends_with(";qu=\"content-bytes\""));
    assert_eq!(gateway.get("/").tenant("globex").send().await.status(), 200);
}

#[tokio::test]
async fn a_reload_changes_limits_and_forgives_no_debt() {
    let backend = Backend::start().await;
    let gateway = start(backend.address, "{ requests: 1/h, burst: 2 }").await;
    let ask = async || gateway.get("/").tenant("acme").send().await.status();
    assert_eq!([ask().await, ask().await, ask().await], [200, 200, 429]);
    gateway.write_policy(&policy(backend.address, "  limits: { requests: 1/h, burst: 3 }"));
    gateway.until_generation(2).await;
    assert_eq!([ask().await, ask().await], [200, 429]);
    gateway.write_policy(&policy(backend.address, ""));
    gateway.until_generation(3).await;
    assert_eq!(ask().await, 200);
}

#[tokio::test]
async fn the_policys_tests_take_nothing_from_their_tenants() {
    let backend = Backend::start().await;
    let one = "{ name: one, request: { path: /, headers: { X-Tenant-ID: acme } }, expect: { tenant: acme } }";
    let two = one.replace("one", "two");
    let policy = policy(backend.address, "  limits: { requests: 1/h, burst: 1, concurrency: 1 }");
    let gateway = Harness::new().policy(&format!("{policy}tests: [ {one}, {two} ]\n")).start().await;
    assert_eq!(gateway.get("/").tenant("acme").send().await.status(), 200);
    assert_eq!(gateway.get("/").tenant("acme").send().await.status(), 429);
}

#[tokio::test]
async fn a_key_that_limits_nothing_is_named() {
    for (limits, says) in [
        ("{ burst: 5 }", "`burst` limits nothing without `requests`"),
        ("{ queue: 5 }", "`queue` limits nothing without `concurrency`"),
        ("{ requests: 100 }", "expected a rate such as `100/s`"),
        ("{ request: 1/s }", "unknown key `request` in a tenant's `limits`"),
    ] {
        let policy = policy(([127, 0, 0, 1], 9).into(), &format!("  limits: {limits}"));
        let Err(error) = Harness::new().policy(&policy).try_start().await else { panic!("{limits}") };
        assert!(error.to_string().contains(says), "{limits}: {error}");
    }
}

#[tokio::test]
async fn a_table_has_limits_in_a_column_of_json() {
    let postgres = database().await;
    postgres
        .admin(
            "CREATE TABLE public.tenants (id text, schema text, may jsonb); INSERT INTO tenants VALUES \
             ('own', 'own', '{\"concurrency\": 3}'), ('all', 'all', NULL), ('wrong', 'wrong', '{\"fast\": true}')",
        )
        .await;
    let harness = tempfile::tempdir().unwrap();
    let path = harness.path().join("policy.yaml");
    let url = postgres.url(innkeeper::cli::demo::cluster::SUPERUSER);
    let text = format!(
        "version: 1\ndatabases: {{ main: {{ url: '{url}' }} }}\n\
         tenants: {{ limits: {{ concurrency: 9 }}, table: {{ database: main, name: tenants, limits: may }} }}\n\
         upstreams: {{ app: {{ endpoints: [ 'http://127.0.0.1:9' ] }} }}\n\
         routes: [ {{ name: app, tenant: {{ header: X-Tenant-ID }}, forward: app }} ]\n"
    );
    std::fs::write(&path, text).unwrap();
    let (policy, _) = Policy::parse(&path, &ProcessSurroundings).unwrap();
    let Some(source @ DirectorySource::Table(_)) = &policy.directory else { panic!("a table") };
    let directory = Directory::open(source, Metrics::new());
    let concurrency = async |id: &str| {
        let tenant = directory.find(&id.parse().unwrap()).await.unwrap().unwrap();
        tenant.limits.as_ref().and_then(|limits| limits.concurrency)
    };
    assert_eq!(concurrency("own").await, Some(3));
    assert_eq!(concurrency("all").await, Some(9));
    let wrong = directory.find(&"wrong".parse().unwrap()).await.unwrap_err();
    assert!(wrong.to_string().contains("column `may`: unknown key `fast`"), "{wrong}");
}

#[test]
fn limits_written_apart_are_read_as_in_the_policy() {
    let written = WrittenLimits::parse("{ requests: 10/s, bytes: 1MiB/s }").unwrap();
    let limits = DefaultLimits::new(written).with(None).unwrap().unwrap();
    assert_eq!(limits.to_string(), "requests 10 per 1s, 10 at once; bytes 1048576 per 1s, 1048576 at once");
}
