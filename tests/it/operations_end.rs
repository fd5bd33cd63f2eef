//! What an operator ends: requests in flight; and the admin listener where only its owner reaches it.

use std::os::unix::fs::PermissionsExt;

use http::Method;
use innkeeper::gateway::{AccessLog, LogFormat};
use innkeeper::sidecar::{Settings, Sidecar};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::mpsc;

use crate::sql_target::Scene;
use crate::support::backend::Backend;
use crate::support::gateway::{Harness, TestGateway};
use crate::support::postgres::eventually;
use crate::support::raw_client::RawClient;
use crate::support::raw_upstream::RawUpstream;

/// An upstream that sends `begun` and then nothing more, and tells when the gateway has let it go.
async fn unending(begun: &'static str) -> (RawUpstream, mpsc::UnboundedReceiver<()>) {
    let (sender, let_go) = mpsc::unbounded_channel();
    let upstream = RawUpstream::start(move |mut exchange| {
        let sender = sender.clone();
        async move {
            exchange.request().await.unwrap();
            exchange.send(begun).await;
            exchange.closed().await;
            let _ = sender.send(());
        }
    })
    .await;
    (upstream, let_go)
}

async fn before(upstream: &RawUpstream) -> TestGateway {
    let policy = format!(
        "version: 1
upstreams: {{ app: {{ endpoints: [ 'http://{}' ] }} }}
tenants: {{ list: [ {{ id: acme, schema: acme }} ] }}
routes:
  - {{ name: app, tenant: {{ header: X-Tenant-ID }}, forward: {{ upstream: app, upgrade: [ websocket ] }} }}
",
        upstream.address
    );
    Harness::new().policy(&policy).start().await
}

/// Waits until the only request is in `phase`, and ends it.
async fn end(gateway: &TestGateway, phase: &str) -> String {
    let id = loop {
        let page = gateway.admin("/requests").send().await.json();
        if page["requests"][0]["phase"] == phase {
            break page["requests"][0]["id"].as_str().unwrap().to_owned();
        }
    };
    let path = format!("/requests/{id}");
    let ended = gateway.admin(&path).method(Method::DELETE).send().await;
    assert_eq!(ended.status(), 202, "{}", ended.text());
    eventually("it is gone from the list", async || {
        gateway.admin(&path).method(Method::DELETE).send().await.status() == 404
    })
    .await;
    id
}

const ASK: &str = "GET / HTTP/1.1\r\nhost: app.example\r\nx-tenant-id: acme\r\n";

#[tokio::test]
async fn a_request_without_an_answer_gets_an_honest_one() {
    let (upstream, mut let_go) = unending("").await;
    let gateway = before(&upstream).await;
    let (reply, id) = tokio::join!(gateway.get("/").tenant("acme").send(), end(&gateway, "upstream"));
    assert_eq!((reply.status(), reply.code().as_str()), (503, "request-ended"));
    assert_eq!(reply.header("x-request-id"), Some(id.as_str()));
    let_go.recv().await.unwrap();
    let records = gateway.records(|line| line["request_id"] == id.as_str()).await;
    assert_eq!((&records[0]["error"], &records[0]["status"]), (&json!("request-ended"), &json!(503)));
}

#[tokio::test]
async fn an_answer_that_has_begun_breaks_off() {
    let (upstream, mut let_go) = unending("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nsome").await;
    let gateway = before(&upstream).await;
    let mut client = RawClient::connect(gateway.address()).await;
    client.send(format!("{ASK}\r\n")).await;
    let (response, id) = tokio::join!(client.response(), end(&gateway, "streaming"));
    let response = response.unwrap();
    assert_eq!((response.status, response.complete, response.text().as_str()), (200, false, "some"));
    let_go.recv().await.unwrap();
    let records = gateway.records(|line| line["request_id"] == id.as_str()).await;
    assert_eq!(records[0]["complete"], json!(false));
}

#[tokio::test]
async fn a_tunnel_is_closed_at_both_ends() {
    let (upstream, mut let_go) = unending(
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
    )
    .await;
    let gateway = before(&upstream).await;
    let mut client = RawClient::connect(gateway.address()).await;
    let handshake = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
        sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    client.send(format!("{ASK}{handshake}")).await;
    assert_eq!(client.response().await.unwrap().status, 101);
    end(&gateway, "tunnel").await;
    assert!(client.response().await.is_none());
    let_go.recv().await.unwrap();
}

#[tokio::test]
async fn a_query_is_cancelled_on_the_server() {
    let scene = Scene::new("login").await;
    let query = json!({ "query": "select slow(600)" });
    let (reply, _) = tokio::join!(scene.call("acme", &query).send(), async {
        eventually("the server works on it", async || scene.active().await == 1).await;
        end(&scene.gateway, "database").await
    });
    assert_eq!(reply.status(), 503, "{}", reply.text());
    eventually("the server has stopped", async || scene.active().await == 0).await;
}

#[tokio::test]
async fn the_admin_listener_on_a_unix_socket_is_its_owners_alone() {
    let (backend, directory) = (Backend::start().await, tempfile::tempdir().unwrap());
    let socket = directory.path().join("admin.sock");
    let file = directory.path().join("policy.yaml");
    let policy = format!(
        "version: 1
server: {{ listen: 127.0.0.1:0, admin: 'unix:{}' }}
upstreams: {{ app: {{ endpoints: [ 'http://{}' ] }} }}
routes: [ {{ name: app, tenant: none, forward: app }} ]
",
        socket.display(),
        backend.address
    );
    std::fs::write(&file, policy).unwrap();
    let settings = Settings { policy: file, listen: Vec::new(), admin: None, cache: None, workers: 0 };
    let sidecar = Sidecar::start(settings, AccessLog::new(LogFormat::Json, std::io::sink())).await.unwrap();
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);

    let mut stream = UnixStream::connect(&socket).await.unwrap();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await.unwrap();
    assert!(reply.starts_with("HTTP/1.1 200") && reply.ends_with("ok\n"), "{reply}");
    sidecar.drain().await;
    assert!(!socket.exists());
}
