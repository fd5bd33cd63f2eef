//! TLS listeners: which certificate is shown, who is let in, and what happens when files change.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::backend::Backend;
use crate::support::gateway::{Harness, TestGateway, until};
use crate::support::tls::{Authority, Pair, ask};

/// A gateway in front of an echo, with `tls` at its only listener.
fn policy(backend: &Backend, tls: &str) -> String {
    format!(
        "
version: 1
server:
  listen: {{ address: 127.0.0.1:0, tls: {{ {tls} }} }}
  timeouts: {{ handshake: 2s }}
upstreams: {{ app: {{ endpoints: [ 'http://{}' ] }} }}
routes: [ {{ name: all, tenant: none, forward: app }} ]
",
        backend.address
    )
}

const PAIR: &str = "certificates: [ { certificate: cert.pem, key: key.pem } ]";

struct Scene {
    gateway: TestGateway,
    backend: Backend,
    authority: Authority,
}

impl Scene {
    async fn start(tls: &str, prepare: impl FnOnce(Harness, &Authority) -> Harness) -> Self {
        let (backend, authority) = (Backend::start().await, Authority::new("test"));
        let pair = authority.server(&["app.example.com"]);
        let harness = Harness::new().file("cert.pem", &pair.certificate).file("key.pem", &pair.key);
        let harness = prepare(harness, &authority).policy(&policy(&backend, tls));
        Self { gateway: harness.start().await, backend, authority }
    }

    async fn get(&self, name: &str) -> std::io::Result<String> {
        self.authority.believer().get(self.gateway.address(), name).await
    }

    fn replace(&self, pair: &Pair) {
        self.gateway.replace_file("cert.pem", &pair.certificate);
        self.gateway.replace_file("key.pem", &pair.key);
    }

    fn turned_away(&self, why: &str) -> bool {
        let line = format!("innkeeper_connections_turned_away_total{{result=\"{why}\"}}");
        self.gateway.sidecar.metrics.expose().contains(&line)
    }
}

#[tokio::test]
async fn both_versions_of_http_are_agreed_upon() {
    let scene = Scene::start(PAIR, |harness, _| harness).await;
    let reply = scene.get("app.example.com").await.unwrap();
    assert!(reply.starts_with("HTTP/1.1 200") && reply.contains("proto=https"), "{reply}");

    let client = scene.authority.believer().alpn(&["h2", "http/1.1"]);
    let stream = client.connect(scene.gateway.address(), "app.example.com").await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::get("https://app.example.com/").body(Empty::<bytes::Bytes>::new()).unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.status(), 200);
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert!(String::from_utf8_lossy(&body).contains("\"x-forwarded-proto\":[\"https\"]"));
}

#[tokio::test]
async fn the_certificate_is_the_one_that_the_client_asks_for() {
    let pairs =
        "certificates: [ { certificate: cert.pem, key: key.pem }, { certificate: wild.pem, key: wild.key } ]";
    let scene = Scene::start(pairs, |harness, authority| {
        let wild = authority.server(&["*.tenants.example.com"]);
        harness.file("wild.pem", wild.certificate).file("wild.key", wild.key)
    })
    .await;
    for name in ["app.example.com", "acme.tenants.example.com"] {
        assert!(scene.get(name).await.unwrap().starts_with("HTTP/1.1 200"), "{name}");
    }
    // The first serves the rest, and the client finds that it is another's.
    assert!(scene.get("other.example.com").await.unwrap_err().to_string().contains("certificate"));
}

#[tokio::test]
async fn a_certificate_is_replaced_under_load_without_a_failed_request() {
    let scene = Scene::start(PAIR, |harness, _| harness).await;
    let (over, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let load: Vec<_> = (0..4)
        .map(|_| {
            let (over, served) = (Arc::clone(&over), Arc::clone(&served));
            let (client, address) = (scene.authority.believer(), scene.gateway.address());
            tokio::spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    let reply = client.get(address, "app.example.com").await.unwrap();
                    assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
                    served.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    // Made for one more name, so that the new one can be told.
    for number in 0..3 {
        let name = format!("new{number}.example.com");
        scene.replace(&scene.authority.server(&["app.example.com", &name]));
        let before = served.load(Ordering::Relaxed);
        while scene.get(&name).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        until(|| served.load(Ordering::Relaxed) > before + 4).await;
    }
    over.store(true, Ordering::Relaxed);
    for task in load {
        task.await.unwrap();
    }
}

#[tokio::test]
async fn a_broken_replacement_is_kept_out_and_told() {
    let scene = Scene::start(PAIR, |harness, _| harness).await;
    let other = scene.authority.server(&["app.example.com"]);
    let error = || scene.gateway.sidecar.reloader.last_attempt().error;

    // Half of a new pair: the key in place is not its key.
    scene.gateway.replace_file("cert.pem", &other.certificate);
    until(|| error().is_some_and(|error| error.contains("this key is not the certificate's"))).await;
    assert!(error().unwrap().contains("cannot use `key.pem`"), "{:?}", error());
    assert!(scene.get("app.example.com").await.unwrap().starts_with("HTTP/1.1 200"));
    assert!(!error().unwrap().contains("PRIVATE KEY"));

    scene.gateway.replace_file("key.pem", "nothing");
    until(|| error().is_some_and(|error| error.contains("it has no private key"))).await;
    assert!(scene.get("app.example.com").await.unwrap().starts_with("HTTP/1.1 200"));

    // The other half, and all is well again.
    scene.gateway.replace_file("key.pem", &other.key);
    until(|| error().is_none()).await;
    assert!(scene.get("app.example.com").await.unwrap().starts_with("HTTP/1.1 200"));
    let metrics = scene.gateway.sidecar.metrics.expose();
    assert!(metrics.contains("innkeeper_certificate_expiry_timestamp_seconds{certificate=\"cert.pem\"}"));
}

#[tokio::test]
async fn a_broken_replacement_keeps_nothing_else_from_changing() {
    let scene = Scene::start(PAIR, |harness, _| harness).await;
    let error = || scene.gateway.sidecar.reloader.last_attempt().error;
    let metrics = || scene.gateway.sidecar.metrics.expose();
    let held_back = |count: u32| {
        let line = format!("innkeeper_certificate_held_back{{certificate=\"cert.pem\"}} {count}\n");
        until(move || metrics().contains(&line))
    };
    held_back(0).await;
    scene.gateway.replace_file("key.pem", "half of a ke");
    held_back(1).await;

    // Another route comes into force meanwhile, and the listener goes on as it was.
    let text = policy(&scene.backend, PAIR).replace("name: all", "name: renamed");
    scene.gateway.write_policy(&text);
    let route = || scene.gateway.sidecar.reloader.store().load().policy().routes[0].name.to_string();
    until(|| route() == "renamed").await;
    assert!(scene.get("app.example.com").await.unwrap().starts_with("HTTP/1.1 200"));
    let told = error().unwrap();
    assert!(told.starts_with("held back: cannot use `key.pem`") && told.contains("goes on until"), "{told}");
    let checks = scene.gateway.admin("/readyz?verbose").send().await.json();
    let of_certificate = |check: &&serde_json::Value| check["check"] == "certificate cert.pem";
    let check = checks["checks"].as_array().unwrap().iter().find(of_certificate).unwrap().clone();
    assert_eq!((&check["ok"], checks["ready"].as_bool()), (&serde_json::json!(false), Some(true)), "{check}");

    // A file that is gone is no better; and a listener that names other files has none to go on with.
    std::fs::remove_file(scene.gateway.path_of("key.pem")).unwrap();
    until(|| error().is_some_and(|error| error.contains("there is no such file"))).await;
    scene.gateway.write_policy(&text.replace("key: key.pem", "key: other.pem"));
    until(|| error().is_some_and(|error| error.contains("error: cannot read `other.pem`"))).await;
    scene.gateway.write_policy(&text);

    scene.replace(&scene.authority.server(&["app.example.com", "new.example.com"]));
    held_back(0).await;
    until(|| error().is_none()).await;
    assert!(scene.get("new.example.com").await.unwrap().starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_certificate_that_clients_refuse_takes_the_place_of_none_that_they_accept() {
    let scene = Scene::start(PAIR, |harness, _| harness).await;
    let error = || scene.gateway.sidecar.reloader.last_attempt().error;
    scene.replace(&scene.authority.expired("app.example.com"));
    until(|| error().is_some_and(|error| error.contains("held back: `cert.pem` expired at 2020-01-02")))
        .await;
    assert!(scene.get("app.example.com").await.unwrap().starts_with("HTTP/1.1 200"));

    // Where there is nothing better, it is served: whoever knows it may go on.
    let (backend, old) = (Backend::start().await, scene.authority.expired("app.example.com"));
    let harness = Harness::new().file("cert.pem", &old.certificate).file("key.pem", &old.key);
    assert!(harness.policy(&policy(&backend, PAIR)).try_start().await.is_ok());
}

#[tokio::test]
async fn mistakes_are_found_where_they_are_written() {
    let (backend, authority) = (Backend::start().await, Authority::new("test"));
    let pair = authority.server(&["app.example.com"]);
    for (tls, complaint) in [
        (
            "certificates: [ { certificate: none.pem, key: key.pem } ]",
            "cannot read `none.pem`: there is no such file",
        ),
        (
            "certificates: [ { certificate: key.pem, key: key.pem } ]",
            "cannot use `key.pem`: it has no certificate",
        ),
        (
            "certificates: [ { certificate: cert.pem, key: cert.pem } ]",
            "cannot use `cert.pem`: it has no private key",
        ),
        ("certificates: [ { certificate: cert.pem } ]", "needs the key `key`"),
        ("certificates: []", "this list must not be empty"),
        (
            "certificates: [ { certificate: cert.pem, key: key.pem } ], min_version: 1.1",
            "expected `\"1.2\"` or `\"1.3\"`",
        ),
        (
            "certificates: [ { certificate: cert.pem, key: key.pem } ], client_certificate: { ca: key.pem }",
            "cannot use `key.pem`: it has no certificate of an authority",
        ),
    ] {
        let harness = Harness::new().file("cert.pem", &pair.certificate).file("key.pem", &pair.key);
        let Err(error) = harness.policy(&policy(&backend, tls)).try_start().await else { panic!("{tls}") };
        let error = error.to_string();
        assert!(error.contains(complaint) && error.contains("policy.yaml:4:"), "{tls}: {error}");
    }
}

const REQUIRED: &str =
    "certificates: [ { certificate: cert.pem, key: key.pem } ], client_certificate: { ca: clients.pem }";

fn with_clients(clients: &Authority) -> impl FnOnce(Harness, &Authority) -> Harness {
    let pem = clients.pem();
    move |harness, _| harness.file("clients.pem", pem)
}

#[tokio::test]
async fn a_required_client_certificate_is_required() {
    let clients = Authority::new("clients");
    let scene = Scene::start(REQUIRED, with_clients(&clients)).await;
    let (address, anyone) = (scene.gateway.address(), scene.authority.believer());
    let acme = anyone.clone().presenting(&clients.client("acme"));
    let stranger = anyone.clone().presenting(&Authority::new("strangers").client("acme"));
    assert!(acme.get(address, "app.example.com").await.unwrap().starts_with("HTTP/1.1 200"));
    // Under TLS 1.3 a client learns of it when it reads.
    assert!(stranger.get(address, "app.example.com").await.is_err());
    assert!(anyone.get(address, "app.example.com").await.is_err());
    until(|| scene.turned_away("failed")).await;
}

#[tokio::test]
async fn an_optional_client_certificate_is_optional_and_yet_verified() {
    let clients = Authority::new("clients");
    let optional = REQUIRED.replace("clients.pem", "clients.pem, require: false");
    let scene = Scene::start(&optional, with_clients(&clients)).await;
    let (address, anyone) = (scene.gateway.address(), scene.authority.believer());
    let stranger = anyone.clone().presenting(&Authority::new("strangers").client("acme"));
    assert!(anyone.get(address, "app.example.com").await.unwrap().starts_with("HTTP/1.1 200"));
    assert!(stranger.get(address, "app.example.com").await.is_err());
}

#[tokio::test]
async fn who_is_no_longer_vouched_for_does_not_stay() {
    let (clients, others) = (Authority::new("clients"), Authority::new("others"));
    let scene = Scene::start(REQUIRED, with_clients(&clients)).await;
    let acme = scene.authority.believer().presenting(&clients.client("acme"));
    let mut stream = acme.connect(scene.gateway.address(), "app.example.com").await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: app.example.com\r\n\r\n").await.unwrap();
    let mut some = [0; 12];
    stream.read_exact(&mut some).await.unwrap();
    assert_eq!(&some, b"HTTP/1.1 200");
    scene.gateway.replace_file("clients.pem", others.pem());
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    assert!(acme.get(scene.gateway.address(), "app.example.com").await.is_err());
}

#[tokio::test]
async fn a_connection_made_for_one_host_serves_no_other_where_clients_are_asked() {
    let clients = Authority::new("clients");
    let scene = Scene::start(REQUIRED, with_clients(&clients)).await;
    let acme = scene.authority.believer().presenting(&clients.client("acme"));
    let mut stream = acme.connect(scene.gateway.address(), "app.example.com").await.unwrap();
    let reply = ask(&mut stream, "other.example.com").await.unwrap();
    assert!(reply.starts_with("HTTP/1.1 421") && reply.contains("request-invalid"), "{reply}");

    let scene = Scene::start(PAIR, |harness, _| harness).await;
    let mut stream =
        scene.authority.believer().connect(scene.gateway.address(), "app.example.com").await.unwrap();
    assert!(ask(&mut stream, "other.example.com").await.unwrap().starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn plain_http_gets_a_clean_end() {
    let scene = Scene::start(PAIR, |harness, _| harness).await;
    let mut stream = TcpStream::connect(scene.gateway.address()).await.unwrap();
    let reply = ask(&mut stream, "app.example.com").await.unwrap();
    assert!(reply.starts_with("HTTP/1.1 400") && reply.ends_with("`https:`\n"), "{reply}");
    until(|| scene.turned_away("not-tls")).await;
}

#[tokio::test]
async fn a_slow_handshake_does_not_keep_its_place() {
    let limited = format!("{PAIR}, min_version: \"1.3\"");
    let backend = Backend::start().await;
    let authority = Authority::new("test");
    let pair = authority.server(&["app.example.com"]);
    let text = policy(&backend, &limited).replace("timeouts:", "limits: { handshakes: 1 }\n  timeouts:");
    let harness = Harness::new().file("cert.pem", &pair.certificate).file("key.pem", &pair.key);
    let gateway = harness.policy(&text).start().await;
    let scene = Scene { gateway, backend, authority };

    // Some say nothing, some half of a greeting; and none of them is in the way of one that speaks.
    let mut idle = Vec::new();
    for greeting in [&b""[..], b"\x16\x03\x01", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"] {
        let mut stream = TcpStream::connect(scene.gateway.address()).await.unwrap();
        stream.write_all(greeting).await.unwrap();
        idle.push(stream);
    }
    assert!(scene.get("app.example.com").await.unwrap().starts_with("HTTP/1.1 200"));
    for mut stream in idle {
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
    }
    until(|| scene.turned_away("late")).await;
    assert!(scene.get("app.example.com").await.unwrap().starts_with("HTTP/1.1 200"));
    let _ = &scene.backend;
}
