//! Upstreams of several endpoints, some of which fail: who is asked, what is sent again, and what
//! is never.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use innkeeper::forward::{EndpointState, Resolve, Resolving, Upstream};
use innkeeper::policy::{self, Balance, Ejection, Endpoint, Health, Retries, RetryOn};
use innkeeper::server::ServerSettings;
use innkeeper::telemetry::Metrics;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::support::edge::{Edge, upstream};
use super::support::gateway::{Harness, until};
use super::support::raw_client::{RawClient, RawResponse};
use super::support::raw_upstream::RawUpstream;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const BAD_GATEWAY: &str = "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n";
/// Longer than any test runs.
const FOR_EVER: Duration = Duration::from_secs(3600);

/// An upstream, the edge in front of it, and what is counted.
struct Scene {
    edge: Edge,
    upstream: Arc<Upstream>,
    metrics: Arc<Metrics>,
}

impl Scene {
    async fn start(settings: policy::Upstream) -> Self {
        let metrics = Metrics::new();
        let upstream = Arc::new(Upstream::new(Arc::new(settings), &metrics));
        Self::of(upstream, metrics).await
    }

    async fn of(upstream: Arc<Upstream>, metrics: Arc<Metrics>) -> Self {
        let edge = Edge::forwarding_to(ServerSettings::default(), Arc::clone(&upstream)).await;
        Self { edge, upstream, metrics }
    }

    async fn ask(&self, request: &str) -> RawResponse {
        let mut client = RawClient::connect(self.edge.address).await;
        client.send(request).await;
        client.response().await.expect("an answer")
    }

    fn states(&self) -> Vec<EndpointState> {
        self.upstream.status().endpoints.iter().map(|endpoint| endpoint.state).collect()
    }

    fn counts(&self, line: &str) -> bool {
        self.metrics.expose().lines().any(|one| one == line)
    }
}

/// An upstream that answers as its switch says, and counts the requests that it got.
struct Moody {
    raw: RawUpstream,
    well: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
}

impl Moody {
    async fn start(unwell: &'static str) -> Self {
        let (well, asked) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
        let (switch, counter) = (Arc::clone(&well), Arc::clone(&asked));
        let raw = RawUpstream::start(move |mut exchange| {
            let (switch, counter) = (Arc::clone(&switch), Arc::clone(&counter));
            async move {
                while exchange.request().await.is_some() {
                    counter.fetch_add(1, Ordering::SeqCst);
                    if !switch.load(Ordering::SeqCst) && unwell.is_empty() {
                        return;
                    }
                    exchange.send(if switch.load(Ordering::SeqCst) { OK } else { unwell }).await;
                }
            }
        })
        .await;
        Self { raw, well, asked }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    fn set_well(&self, well: bool) {
        self.well.store(well, Ordering::SeqCst);
    }
}

fn round_robin(endpoints: &[SocketAddr]) -> policy::Upstream {
    policy::Upstream { balance: Balance::RoundRobin, ..upstream(endpoints) }
}

/// Retries that no test uses up.
fn plenty() -> Retries {
    Retries { floor: 100_000, ..Retries::default() }
}

#[tokio::test]
async fn a_flapping_endpoint_under_load_loses_no_idempotent_request() {
    let turn = Arc::new(AtomicUsize::new(0));
    let flapping = RawUpstream::start(move |mut exchange| {
        let turn = turn.fetch_add(1, Ordering::SeqCst);
        async move {
            while exchange.request().await.is_some() {
                match turn % 4 {
                    0 => return,
                    1 => exchange.send(BAD_GATEWAY).await,
                    2 => return exchange.send("HTTP/1.1 200 OK\r\nConte").await,
                    _ => {
                        exchange.send(OK).await;
                        exchange.request().await;
                        return;
                    }
                }
            }
        }
    })
    .await;
    let steady = RawUpstream::answering(OK).await;
    let mut settings = round_robin(&[flapping.address, steady.address]);
    settings.retries = plenty();
    settings.ejection = Ejection { failures: 3, time: Duration::from_millis(20), max_share: 0.5 };
    let scene = Arc::new(Scene::start(settings).await);
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let scene = Arc::clone(&scene);
        clients.spawn(async move {
            let mut client = RawClient::connect(scene.edge.address).await;
            for _ in 0..60 {
                client.send(GET).await;
                let response = client.response().await.expect("an answer");
                assert_eq!((response.status, response.complete), (200, true), "{}", response.text());
            }
        });
    }
    while let Some(done) = clients.join_next().await {
        done.unwrap();
    }
    assert!(flapping.connections() > 3, "it was asked");
}

#[tokio::test]
async fn who_fails_request_after_request_is_passed_over() {
    let (bad, good) = (Moody::start(BAD_GATEWAY).await, Moody::start(BAD_GATEWAY).await);
    bad.set_well(false);
    let mut settings = round_robin(&[bad.raw.address, good.raw.address]);
    settings.retries = plenty();
    settings.ejection = Ejection { failures: 3, time: FOR_EVER, max_share: 0.5 };
    let scene = Scene::start(settings).await;
    for _ in 0..20 {
        assert_eq!(scene.ask(GET).await.status, 200);
    }
    assert_eq!(scene.states(), [EndpointState::Ejected, EndpointState::Healthy]);
    assert_eq!(bad.asked(), 3);
    // The last one that is left is never passed over.
    good.set_well(false);
    for _ in 0..20 {
        assert_eq!(scene.ask(GET).await.status, 502);
    }
    assert_eq!(scene.states(), [EndpointState::Ejected, EndpointState::Healthy]);
    assert!(good.asked() >= 40, "{}", good.asked());
}

#[tokio::test]
async fn who_was_passed_over_comes_back() {
    let (bad, good) = (Moody::start("").await, Moody::start("").await);
    bad.set_well(false);
    let mut settings = round_robin(&[bad.raw.address, good.raw.address]);
    settings.retries = plenty();
    settings.ejection = Ejection { failures: 2, time: Duration::from_millis(1), max_share: 0.5 };
    let scene = Scene::start(settings).await;
    for _ in 0..10 {
        assert_eq!(scene.ask(GET).await.status, 200);
    }
    bad.set_well(true);
    let before = bad.asked();
    while bad.asked() < before + 3 {
        assert_eq!(scene.ask(GET).await.status, 200);
    }
    until(|| scene.states() == [EndpointState::Healthy; 2]).await;
}

#[tokio::test]
async fn an_endpoint_that_says_it_is_unwell_gets_no_requests() {
    let (sick, sound) = (Moody::start(BAD_GATEWAY).await, Moody::start(BAD_GATEWAY).await);
    sick.set_well(false);
    let mut settings = round_robin(&[sick.raw.address, sound.raw.address]);
    settings.retries.attempts = 0;
    settings.ejection.failures = 0;
    settings.health = Some(Health {
        interval: Duration::from_millis(5),
        timeout: Duration::from_secs(20),
        ..Health::new("/healthz?deep".parse().unwrap())
    });
    let scene = Scene::start(settings).await;
    scene.upstream.start();
    until(|| scene.states() == [EndpointState::Unhealthy, EndpointState::Healthy]).await;
    for _ in 0..10 {
        assert_eq!(scene.ask(GET).await.status, 200);
    }
    // Where nobody is well, everybody is asked: checks may be wrong.
    sound.set_well(false);
    until(|| scene.states() == [EndpointState::Unhealthy; 2]).await;
    assert_eq!(scene.ask(GET).await.status, 502);
    sick.set_well(true);
    until(|| scene.states() == [EndpointState::Healthy, EndpointState::Unhealthy]).await;
    assert_eq!(scene.ask(GET).await.status, 200);
}

/// A resolver that a test answers for.
#[derive(Default)]
struct Answers(Mutex<Vec<IpAddr>>);

impl Answers {
    fn set(&self, addresses: &[&str]) {
        *self.0.lock().unwrap() = addresses.iter().map(|address| address.parse().unwrap()).collect();
    }
}

impl Resolve for Answers {
    fn resolve<'a>(&'a self, host: &'a str) -> Resolving<'a> {
        assert_eq!(host, "app.test");
        let found = self.0.lock().unwrap().clone();
        Box::pin(async move {
            if found.is_empty() { Err(std::io::Error::other("no such host")) } else { Ok(found) }
        })
    }
}

#[tokio::test]
async fn a_host_is_looked_up_again_and_the_last_good_answer_is_kept() {
    let alive = RawUpstream::answering(OK).await;
    let answers = Arc::new(Answers::default());
    let settings = policy::Upstream {
        endpoints: vec![Endpoint::Http(format!("app.test:{}", alive.address.port()).parse().unwrap())],
        dns_refresh: Duration::from_millis(5),
        ..upstream(&[])
    };
    let metrics = Metrics::new();
    let resolver = Arc::clone(&answers);
    let upstream = Arc::new(Upstream::with_resolver(Arc::new(settings), &metrics, resolver));
    let scene = Scene::of(upstream, metrics).await;
    let labels = || -> Vec<String> {
        let endpoints = scene.upstream.status().endpoints;
        endpoints.iter().map(|endpoint| endpoint.endpoint.to_string()).collect()
    };
    let named = |ip: &str| format!("app.test:{} ({ip})", alive.address.port());
    let failure = || scene.upstream.status().last_failure.map(|failure| failure.reason.to_string());

    scene.upstream.start();
    until(|| failure().as_deref() == Some("no such host")).await;
    answers.set(&["127.0.0.1"]);
    assert_eq!(scene.ask(GET).await.status, 200);
    assert_eq!(labels(), [named("127.0.0.1")]);
    assert_eq!(failure(), None, "it was found since");
    answers.set(&["127.0.0.1", "127.0.0.9"]);
    until(|| labels() == [named("127.0.0.1"), named("127.0.0.9")]).await;
    // Nobody listens at the new address: requests pass it over.
    for _ in 0..4 {
        assert_eq!(scene.ask(GET).await.status, 200);
    }
    answers.set(&["127.0.0.1"]);
    until(|| labels() == [named("127.0.0.1")]).await;
    answers.set(&[]);
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert_eq!(scene.ask(GET).await.status, 200);
    }
    assert_eq!(alive.connections(), 1, "its connection outlived every look-up");
}

#[tokio::test]
async fn a_host_that_nobody_knows_is_502() {
    let answers = Arc::new(Answers::default());
    let settings = policy::Upstream {
        endpoints: vec![Endpoint::Http("app.test:80".parse().unwrap())],
        connect_timeout: Duration::from_millis(50),
        ..upstream(&[])
    };
    let metrics = Metrics::new();
    let upstream = Arc::new(Upstream::with_resolver(Arc::new(settings), &metrics, answers));
    let response = Scene::of(upstream, metrics).await.ask(GET).await;
    assert_eq!(response.status, 502);
    assert!(response.text().contains("no host name was looked up"), "{}", response.text());
}

#[tokio::test]
async fn what_is_sent_again_and_what_never() {
    const RESET: &str = "";
    const UNAVAILABLE: &str = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";
    const ERROR: &str = "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n";
    const NOT_FOUND: &str = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";
    const HALF: &str = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf";
    const BODY: &str = "Content-Length: 2\r\n\r\nab";
    let cases = [
        ("GET", "\r\n", RESET, 502, 2),
        ("HEAD", "\r\n", RESET, 502, 2),
        ("OPTIONS", "\r\n", RESET, 502, 2),
        ("PUT", "Content-Length: 0\r\n\r\n", RESET, 502, 2),
        ("DELETE", "\r\n", RESET, 502, 2),
        ("POST", "Content-Length: 0\r\n\r\n", RESET, 502, 1),
        ("PATCH", "Content-Length: 0\r\n\r\n", RESET, 502, 1),
        ("PROPPATCH", "\r\n", RESET, 502, 1),
        ("PUT", BODY, RESET, 502, 1),
        ("GET", BODY, RESET, 502, 1),
        ("GET", "\r\n", "SSH-2.0-OpenSSH_9.6\r\n", 502, 2),
        ("GET", "\r\n", BAD_GATEWAY, 502, 2),
        ("GET", "\r\n", UNAVAILABLE, 503, 2),
        ("DELETE", "\r\n", UNAVAILABLE, 503, 2),
        ("POST", BODY, UNAVAILABLE, 503, 1),
        ("PUT", BODY, UNAVAILABLE, 503, 1),
        ("GET", "\r\n", ERROR, 500, 1),
        ("GET", "\r\n", NOT_FOUND, 404, 1),
        ("GET", "\r\n", HALF, 200, 1),
        ("GET", "\r\n", OK, 200, 1),
    ];
    for (method, rest, answer, status, times) in cases {
        let asked = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&asked);
        let script = move |mut exchange: super::support::raw_upstream::RawExchange| {
            let counter = Arc::clone(&counter);
            async move {
                exchange.request().await;
                counter.fetch_add(1, Ordering::SeqCst);
                if answer != RESET {
                    exchange.send(answer).await;
                    exchange.closed().await;
                }
            }
        };
        let (one, other) = (RawUpstream::start(script.clone()).await, RawUpstream::start(script).await);
        let mut settings = upstream(&[one.address, other.address]);
        settings.retries = plenty();
        let scene = Scene::start(settings).await;
        let mut client = RawClient::connect(scene.edge.address).await;
        client.send(format!("{method} / HTTP/1.1\r\nHost: a\r\n{rest}")).await;
        let response = client.head().await.expect("an answer");
        let told = (response.status, asked.load(Ordering::SeqCst));
        assert_eq!(told, (status, times), "{method} {rest:?} {answer:?}");
    }
}

#[tokio::test]
async fn a_budget_limits_what_is_sent_again() {
    let bad = Moody::start("").await;
    bad.set_well(false);
    let mut settings = upstream(&[bad.raw.address]);
    settings.retries = Retries { attempts: 2, floor: 0, budget: 0.5, ..Retries::default() };
    let scene = Scene::start(settings).await;
    // The first requests have nobody before them who paid in.
    assert_eq!((scene.ask(GET).await.status, bad.asked()), (502, 1));
    assert_eq!((scene.ask(GET).await.status, bad.asked()), (502, 2));
    for _ in 0..8 {
        assert_eq!(scene.ask(GET).await.status, 502);
    }
    let sent_again = bad.asked() - 10;
    assert!((1..=5).contains(&sent_again), "{sent_again}");
    assert!(scene.counts(&format!(
        "innkeeper_upstream_retries_total{{upstream=\"app\",outcome=\"retried\"}} {sent_again}"
    )));
    assert!(scene.counts("innkeeper_upstream_requests_total{upstream=\"app\",outcome=\"unreachable\"} 10"));
}

#[tokio::test]
async fn all_tries_together_have_a_limit() {
    let mute = RawUpstream::start(|mut exchange| async move { exchange.closed().await }).await;
    let mut settings = upstream(&[mute.address]);
    settings.total_timeout = Some(Duration::from_millis(60));
    settings.retries = Retries { on: vec![RetryOn::Timeout], ..plenty() };
    let scene = Scene::start(settings).await;
    let response = scene.ask(GET).await;
    assert_eq!(response.status, 504);
    assert!(response.text().contains("all tries together"), "{}", response.text());
}

#[tokio::test]
async fn a_full_upstream_says_so_at_once() {
    let (asked, mut requests) = mpsc::unbounded_channel();
    let mute = RawUpstream::start(move |mut exchange| {
        let asked = asked.clone();
        async move {
            exchange.request().await;
            asked.send(()).unwrap();
            exchange.closed().await;
        }
    })
    .await;
    let mut settings = upstream(&[mute.address]);
    settings.max_requests = 1;
    let scene = Scene::start(settings).await;
    let mut first = RawClient::connect(scene.edge.address).await;
    first.send(GET).await;
    requests.recv().await.unwrap();
    let refused = scene.ask(GET).await;
    assert_eq!(refused.status, 503);
    assert!(refused.text().contains("upstream-overloaded"), "{}", refused.text());
    // Who goes away makes room.
    drop(first);
    until(|| scene.upstream.status().in_flight == 0).await;
    let mut second = RawClient::connect(scene.edge.address).await;
    second.send(GET).await;
    requests.recv().await.unwrap();
}

#[tokio::test]
async fn requests_wait_for_a_connection_and_not_too_many_of_them() {
    let (sender, mut first) = mpsc::unbounded_channel();
    let release = Arc::new(tokio::sync::Semaphore::new(0));
    let gate = Arc::clone(&release);
    let backend = RawUpstream::start(move |mut exchange| {
        let (gate, sender) = (Arc::clone(&gate), sender.clone());
        async move {
            while exchange.request().await.is_some() {
                sender.send(()).unwrap();
                gate.acquire().await.unwrap().forget();
                exchange.send(OK).await;
            }
        }
    })
    .await;
    let mut settings = upstream(&[backend.address]);
    (settings.max_connections, settings.max_pending) = (1, 1);
    let scene = Scene::start(settings).await;
    let mut one = RawClient::connect(scene.edge.address).await;
    one.send(GET).await;
    first.recv().await.unwrap();
    let mut two = RawClient::connect(scene.edge.address).await;
    two.send(GET).await;
    until(|| scene.upstream.status().pending == 1).await;
    let three = scene.ask(GET).await;
    assert_eq!(three.status, 503, "{}", three.text());
    release.add_permits(2);
    assert_eq!(one.response().await.unwrap().status, 200);
    assert_eq!(two.response().await.unwrap().status, 200);
    assert_eq!(backend.connections(), 1);
}

#[tokio::test]
async fn a_slow_endpoint_is_hedged_and_only_for_what_is_safe() {
    let (sender, mut posts) = mpsc::unbounded_channel();
    let mute = RawUpstream::start(move |mut exchange| {
        let sender = sender.clone();
        async move {
            if exchange.request().await.unwrap().starts_with("POST") {
                sender.send(()).unwrap();
            }
            exchange.closed().await;
        }
    })
    .await;
    let prompt = RawUpstream::answering(OK).await;
    let mut settings = round_robin(&[mute.address, prompt.address]);
    settings.hedge = Some(Duration::from_millis(10));
    settings.retries = Retries { attempts: 0, ..plenty() };
    settings.ejection.failures = 0;
    let scene = Scene::start(settings).await;
    for _ in 0..6 {
        assert_eq!(scene.ask(GET).await.status, 200);
    }
    let hedged = || {
        let exposed = scene.metrics.expose();
        exposed.lines().find(|line| line.contains("outcome=\"hedged\"")).unwrap().to_owned()
    };
    let before = hedged();
    // One of two in turn goes to the mute one, and waits there.
    let mut waiting = Vec::new();
    for _ in 0..2 {
        let mut client = RawClient::connect(scene.edge.address).await;
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").await;
        waiting.push(client);
    }
    posts.recv().await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(hedged(), before);
}

#[tokio::test]
async fn an_upstream_that_breaks_off_mid_request_is_502_and_not_asked_again() {
    let cruel = RawUpstream::start(|mut exchange| async move {
        exchange.through("part").await;
    })
    .await;
    let mut settings = upstream(&[cruel.address]);
    settings.retries = plenty();
    let scene = Scene::start(settings).await;
    let mut client = RawClient::connect(scene.edge.address).await;
    client.send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\npart").await;
    assert_eq!(client.response().await.expect("an answer").status, 502);
    assert_eq!(cruel.connections(), 1);
}

#[tokio::test]
async fn a_reload_keeps_connections_and_the_operator_sees_how_endpoints_fare() {
    let backend = RawUpstream::answering(OK).await;
    let dead = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let policy = |route: &str| {
        format!(
            "version: 1\nupstreams:\n  app:\n    endpoints: [ 'http://{}', 'http://{dead}' ]\n    \
             balance: round-robin\n    ejection: {{ failures: 1, time: 1h }}\n\
             routes:\n  - {{ name: {route}, tenant: none, forward: app }}\n",
            backend.address
        )
    };
    let gateway = Harness::new().policy(&policy("one")).start().await;
    for _ in 0..4 {
        assert_eq!(gateway.get("/").send().await.status(), 200);
    }
    gateway.write_policy(&policy("two"));
    gateway.until_generation(2).await;
    assert_eq!(gateway.get("/").send().await.status(), 200);
    assert_eq!(backend.connections(), 1);

    let shown = gateway.admin("/upstreams").send().await.json();
    let app = &shown["upstreams"][0];
    assert_eq!(app["name"], "app");
    let states: Vec<_> = app["endpoints"].as_array().unwrap().iter().map(|one| &one["state"]).collect();
    assert_eq!(states, ["healthy", "ejected"]);
    assert_eq!(app["endpoints"][1]["endpoint"], dead.to_string());
    let metrics = gateway.admin("/metrics").send().await.text();
    for line in [
        "innkeeper_upstream_requests_total{upstream=\"app\",outcome=\"ok\"} 5",
        "innkeeper_upstream_endpoints{upstream=\"app\",state=\"ejected\"} 1",
        "innkeeper_upstream_connections{upstream=\"app\"} 1",
    ] {
        assert!(metrics.lines().any(|one| one == line), "{line} is not in {metrics}");
    }
}

#[tokio::test]
async fn the_admin_listener_tells_why_an_upstream_has_no_endpoints() {
    let policy = "version: 1\nupstreams: { app: { endpoints: [ 'http://nowhere.invalid' ] } }\n\
                  routes: [ { name: all, tenant: none, forward: app } ]\n";
    let gateway = Harness::new().policy(policy).start().await;
    let app = loop {
        let shown = gateway.admin("/upstreams").send().await.json();
        let app = shown["upstreams"][0].clone();
        if !app["last_failure"].is_null() {
            break app;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert_eq!(app["endpoints"], serde_json::json!([]));
    assert_eq!(app["last_failure"]["host"], "nowhere.invalid");
    let reason = app["last_failure"]["reason"].as_str().unwrap();
    assert!(reason.starts_with("the host cannot be looked up: ") && reason.len() > 32, "{reason}");
    assert!(app["last_failure"]["at"].as_str().unwrap().ends_with('Z'));
}
