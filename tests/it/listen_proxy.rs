//! Listeners behind a load balancer that speaks the PROXY protocol, and listeners on Unix sockets.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use crate::support::backend::Backend;
use crate::support::gateway::{Harness, TestGateway, until};
use crate::support::tls::{Authority, ask};

/// A header of version 2 from 192.0.2.7:40000, with an extension that nobody knows.
const BINARY: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x11\
    \xc0\0\x02\x07\xc6\x33\x64\x01\x9c\x40\x01\xbb\xe9\0\x02\x01\x02";
const TEXT: &[u8] = b"PROXY TCP4 192.0.2.7 198.51.100.1 40000 443\r\n";

fn policy(backend: &Backend, listen: &str, routes: &str) -> String {
    format!(
        "
version: 1
server:
  listen: {listen}
  timeouts: {{ handshake: 2s }}
upstreams: {{ app: {{ endpoints: [ 'http://{}' ] }} }}
routes: [ {routes} {{ name: all, tenant: none, forward: app }} ]
",
        backend.address
    )
}

async fn behind(from: &str) -> (TestGateway, Backend) {
    let backend = Backend::start().await;
    let listen = format!("{{ address: 127.0.0.1:0, proxy_protocol: {{ from: [ {from} ] }} }}");
    let gateway = Harness::new().policy(&policy(&backend, &listen, "")).start().await;
    (gateway, backend)
}

/// What comes back to a request that `before` goes ahead of.
async fn after(address: SocketAddr, before: &[&[u8]]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    for piece in before {
        stream.write_all(piece).await.unwrap();
        stream.flush().await.unwrap();
        tokio::task::yield_now().await;
    }
    ask(&mut stream, "app.example.com").await.unwrap_or_default()
}

#[tokio::test]
async fn a_trusted_load_balancer_says_who_the_client_is() {
    let (gateway, _backend) = behind("127.0.0.0/8").await;
    for announced in [&[TEXT][..], &[BINARY], &[&TEXT[..3], &TEXT[3..]], &[&BINARY[..20], &BINARY[20..]]] {
        let reply = after(gateway.address(), announced).await;
        assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
        assert!(reply.contains("\"x-forwarded-for\":[\"192.0.2.7\"]"), "{reply}");
    }
    gateway.records(|record| record["peer"] == "192.0.2.7:40000").await;

    // Its health checks are its own: `LOCAL`, and `UNKNOWN` in version 1.
    for own in [&b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"[..], b"PROXY UNKNOWN\r\n"] {
        let reply = after(gateway.address(), &[own]).await;
        assert!(reply.contains("\"x-forwarded-for\":[\"127.0.0.1\"]"), "{reply}");
    }
}

#[tokio::test]
async fn a_trusted_load_balancer_must_say_it() {
    let (gateway, _backend) = behind("127.0.0.1").await;
    for garbage in [&b""[..], b"GET / HTTP/1.1\r\n", b"PROXY TCP4 192.0.2.7\r\n", b"PROXY TCP9 a b 1 2\r\n"] {
        assert_eq!(after(gateway.address(), &[garbage]).await, "", "{}", garbage.escape_ascii());
    }
    until(|| {
        let metrics = gateway.sidecar.metrics.expose();
        metrics.contains("innkeeper_connections_turned_away_total{result=\"not-announced\"} 4")
    })
    .await;
}

#[tokio::test]
async fn one_that_is_slow_to_say_it_is_not_waited_for() {
    let (gateway, _backend) = behind("127.0.0.1").await;
    let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
    stream.write_all(&TEXT[..10]).await.unwrap();
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
    assert!(rest.is_empty());
    let metrics = gateway.sidecar.metrics.expose();
    assert!(metrics.contains("innkeeper_connections_turned_away_total{result=\"late\"} 1"), "{metrics}");
}

#[tokio::test]
async fn nobody_else_may_say_it() {
    let (gateway, _backend) = behind("10.0.0.0/8").await;
    assert!(after(gateway.address(), &[]).await.starts_with("HTTP/1.1 200"));
    for announced in [TEXT, BINARY] {
        let reply = after(gateway.address(), &[announced]).await;
        assert!(reply.starts_with("HTTP/1.1 400"), "{reply}");
    }
}

#[tokio::test]
async fn the_announcement_comes_before_tls() {
    let (backend, authority) = (Backend::start().await, Authority::new("test"));
    let pair = authority.server(&["app.example.com"]);
    let listen = "{ address: 127.0.0.1:0, proxy_protocol: { from: [ 127.0.0.1 ] },
      tls: { certificates: [ { certificate: cert.pem, key: key.pem } ] } }";
    let harness = Harness::new().file("cert.pem", &pair.certificate).file("key.pem", &pair.key);
    let gateway = harness.policy(&policy(&backend, listen, "")).start().await;
    let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
    stream.write_all(BINARY).await.unwrap();
    let name = rustls::pki_types::ServerName::try_from("app.example.com").unwrap();
    let config = std::sync::Arc::new(authority.believer().config());
    let mut stream = tokio_rustls::TlsConnector::from(config).connect(name, stream).await.unwrap();
    let reply = ask(&mut stream, "app.example.com").await.unwrap();
    assert!(reply.contains("\"x-forwarded-for\":[\"192.0.2.7\"]"), "{reply}");
}

#[tokio::test]
async fn a_unix_socket_is_a_listener_like_others() {
    let backend = Backend::start().await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("http.sock");
    let at = format!("unix:{}", path.display());
    let listen = format!("{{ address: '{at}', mode: '0600' }}");
    let here =
        format!("{{ name: here, match: {{ listener: '{at}', path: /x }}, tenant: none, forward: app }},");
    let text = policy(&backend, &listen, &here);
    let start = || async { Harness::new().policy(&text).try_start_at(Vec::new()).await };

    // One that is dead is in nobody's way.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let gateway = start().await.unwrap();
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let mut stream = UnixStream::connect(&path).await.unwrap();
    let reply = ask(&mut stream, "app.example.com").await.unwrap();
    assert!(reply.starts_with("HTTP/1.1 200") && reply.contains("for=unknown;proto=http"), "{reply}");
    assert!(!reply.contains("x-forwarded-for"), "{reply}");
    gateway.records(|record| record["peer"] == "unix").await;
    let mut stream = UnixStream::connect(&path).await.unwrap();
    stream.write_all(b"GET /x HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
    stream.read_to_end(&mut Vec::new()).await.unwrap();
    gateway.records(|record| record["route"] == "here").await;

    // One that lives is, and so is a file of another kind.
    let Err(error) = start().await else { panic!("two listeners at one path") };
    assert!(error.to_string().contains("another process listens there"), "{error}");
    gateway.sidecar.drain().await;
    assert!(!path.exists());
    std::fs::write(&path, "precious").unwrap();
    let Err(error) = start().await else { panic!("a listener in a file's place") };
    assert!(error.to_string().contains("there is a file that is no socket"), "{error}");
}
