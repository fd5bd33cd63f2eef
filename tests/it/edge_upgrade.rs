//! Leaving HTTP/1.1, byte for byte: nothing is raw before the upstream's 101, and nothing that
//! looks like an upgrade gets past the walk.

use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;

use super::support::edge::{Edge, upstream};
use super::support::raw_client::RawClient;
use super::support::raw_upstream::{RawExchange, RawUpstream};

/// The handshake of RFC 6455, section 1.3.
const ASK: &str = "GET /chat HTTP/1.1\r\nHost: app.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
const AGREE: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
/// A request that a client hides behind its wish.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: app.example\r\nX-Tenant-ID: evil\r\n\r\n";
const SHORT: Duration = Duration::from_millis(60);

/// An upstream that tells each head that it reads, and answers what `answer` says.
async fn telling(
    answer: impl Fn(&str) -> &'static str + Copy + Send + Sync + 'static,
) -> (RawUpstream, mpsc::UnboundedReceiver<String>) {
    let (sender, heads) = mpsc::unbounded_channel();
    let upstream = RawUpstream::start(move |mut exchange| {
        let sender = sender.clone();
        async move {
            while let Some(head) = exchange.request().await {
                exchange.send(answer(&head)).await;
                let _ = sender.send(head.to_ascii_lowercase());
            }
        }
    })
    .await;
    (upstream, heads)
}

#[tokio::test]
async fn bytes_are_raw_only_after_the_upstreams_101() {
    let (sender, mut events) = mpsc::unbounded_channel();
    let upstream_ = RawUpstream::start(move |mut exchange: RawExchange| {
        let sender = sender.clone();
        async move {
            exchange.request().await.unwrap();
            let early = tokio::time::timeout(SHORT * 3, exchange.through("raw")).await;
            sender.send(format!("{:?}", early.is_ok())).unwrap();
            exchange.send(format!("{AGREE}at once, ")).await;
            sender.send(exchange.through("GET /raw HTTP/1.1\nno request at all").await).unwrap();
            exchange.send("and later").await;
            exchange.closed().await;
            sender.send("closed".into()).unwrap();
        }
    })
    .await;
    let edge = Edge::forwarding(upstream(&[upstream_.address])).await;
    let mut client = RawClient::connect(edge.address).await;
    client.send(format!("{ASK}raw, ")).await;
    assert_eq!(events.recv().await.unwrap(), "false", "bytes passed before the 101");
    let response = client.head().await.unwrap();
    assert_eq!((response.status, response.header("connection")), (101, Some("upgrade")));
    assert_eq!(response.header("upgrade"), Some("websocket"));
    assert_eq!(response.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    client.send("GET /raw HTTP/1.1\nno request at all").await;
    assert_eq!(events.recv().await.unwrap(), "raw, GET /raw HTTP/1.1\nno request at all");
    client.raw_through("at once, and later").await;
    // One half closes, the other goes on.
    client.half_close().await;
    assert_eq!(events.recv().await.unwrap(), "closed");
    assert!(client.is_closed().await);
    assert_eq!(edge.seen.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_refused_wish_lets_nothing_slip_through_behind_it() {
    for refusal in [OK, "HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\n\r\n"] {
        let (upstream_, mut heads) =
            telling(move |head| if head.contains("chat") { refusal } else { OK }).await;
        let edge = Edge::forwarding(upstream(&[upstream_.address])).await;
        let mut client = RawClient::connect(edge.address).await;
        client.send(format!("{ASK}{SMUGGLED}")).await;
        client.half_close().await;
        assert_eq!(client.response().await.unwrap().status, refusal[9..12].parse::<u16>().unwrap());
        assert_eq!(client.response().await.unwrap().text(), "ok");
        assert!(heads.recv().await.unwrap().contains("\r\nupgrade: websocket\r\n"));
        let second = heads.recv().await.unwrap();
        assert!(second.contains("\r\nx-request-id: ") && !second.contains("evil"), "{second}");
        assert_eq!(edge.seen.lock().unwrap().len(), 2, "a request came past the walk");
    }
}

#[tokio::test]
async fn what_is_behind_a_refused_wish_is_read_as_strictly_as_ever() {
    let (upstream_, mut heads) = telling(|_| OK).await;
    let edge = Edge::forwarding(upstream(&[upstream_.address])).await;
    let mut client = RawClient::connect(edge.address).await;
    client.send(format!("{ASK}POST /smuggled HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n")).await;
    assert_eq!(client.response().await.unwrap().status, 200);
    assert_eq!(client.response().await.unwrap().status, 400);
    assert!(client.is_closed().await);
    assert!(heads.recv().await.unwrap().contains("/chat"));
    assert!(heads.try_recv().is_err());
}

#[tokio::test]
async fn what_is_no_wish_is_an_ordinary_request() {
    let (upstream_, mut heads) = telling(|_| OK).await;
    let edge = Edge::forwarding(upstream(&[upstream_.address])).await;
    for (why, fields) in [
        ("connection does not name it", "Upgrade: websocket\r\n"),
        ("nor so", "Connection: keep-alive, upgrades\r\nUpgrade: websocket\r\n"),
        (
            "HTTP/2 would hide requests",
            "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n",
        ),
        ("and so would HTTP/1.1 in TLS", "Connection: Upgrade\r\nUpgrade: TLS/1.2, HTTP/1.1\r\n"),
        ("it is not allowed here", "Connection: Upgrade\r\nUpgrade: chat\r\n"),
        ("it is no token", "Connection: Upgrade\r\nUpgrade: web socket\r\n"),
        ("it is empty", "Connection: Upgrade\r\nUpgrade:\r\n"),
    ] {
        let mut client = RawClient::connect(edge.address).await;
        client.send(format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n")).await;
        assert_eq!(client.response().await.unwrap().text(), "ok", "{why}");
        let head = heads.recv().await.unwrap();
        for gone in ["\r\nconnection:", "\r\nupgrade:", "\r\nhttp2-settings:"] {
            assert!(!head.contains(gone), "{why}: {head}");
        }
        // Nothing was switched: the connection serves another request.
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(client.response().await.unwrap().text(), "ok", "{why}");
        heads.recv().await.unwrap();
    }
    // HTTP/1.0 knows no upgrades.
    let mut client = RawClient::connect(edge.address).await;
    client.send(ASK.replace("HTTP/1.1", "HTTP/1.0")).await;
    assert_eq!(client.response().await.unwrap().text(), "ok");
    assert!(!heads.recv().await.unwrap().contains("upgrade"));
}

#[tokio::test]
async fn a_wish_with_a_body_is_not_passed_on() {
    let (sender, mut requests) = mpsc::unbounded_channel();
    let upstream_ = RawUpstream::start(move |mut exchange| {
        let sender = sender.clone();
        async move {
            sender.send(exchange.through("body").await.to_ascii_lowercase()).unwrap();
            exchange.send(OK).await;
        }
    })
    .await;
    let edge = Edge::forwarding(upstream(&[upstream_.address])).await;
    let mut client = RawClient::connect(edge.address).await;
    let ask = ASK.replace("\r\n\r\n", "\r\nContent-Length: 4\r\n\r\nbody");
    client.send(ask).await;
    assert_eq!(client.response().await.unwrap().text(), "ok");
    assert!(!requests.recv().await.unwrap().contains("\r\nupgrade:"));
}

#[tokio::test]
async fn an_upstream_that_switches_to_something_else_is_502() {
    for answer in [
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\nraw",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\r\nraw",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nraw",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\r\nraw",
    ] {
        let (upstream_, _heads) = telling(move |_| answer).await;
        let edge = Edge::forwarding(upstream(&[upstream_.address])).await;
        let mut client = RawClient::connect(edge.address).await;
        client.send(ASK).await;
        let response = client.response().await.unwrap();
        assert_eq!(response.status, 502, "{answer}");
        assert!(!response.text().contains("raw"));
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(client.response().await.unwrap().status, 502, "the connection speaks HTTP still");
    }
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_tunnel_along() {
    let (sender, mut events) = mpsc::unbounded_channel();
    let upstream_ = RawUpstream::start(move |mut exchange| {
        let sender = sender.clone();
        async move {
            exchange.request().await.unwrap();
            exchange.send(AGREE).await;
            sender.send("open").unwrap();
            exchange.closed().await;
            sender.send("closed").unwrap();
        }
    })
    .await;
    let edge = Edge::forwarding(upstream(&[upstream_.address])).await;
    let mut client = RawClient::connect(edge.address).await;
    client.send(ASK).await;
    assert_eq!(client.head().await.unwrap().status, 101);
    assert_eq!(events.recv().await, Some("open"));
    drop(client);
    assert_eq!(events.recv().await, Some("closed"));
    super::support::gateway::until(|| edge.metrics.connections.get() == 0).await;
    assert_eq!((edge.metrics.tunnels.get(), edge.metrics.requests_in_flight.get()), (0, 0));
}

#[tokio::test]
async fn a_tunnel_is_not_read_faster_than_it_is_emptied() {
    let upstream_ = RawUpstream::start(|mut exchange| async move {
        exchange.request().await.unwrap();
        exchange.send(AGREE).await;
        std::future::pending::<()>().await;
    })
    .await;
    let edge = Edge::forwarding(upstream(&[upstream_.address])).await;
    let mut client = RawClient::connect(edge.address).await;
    client.send(ASK).await;
    assert_eq!(client.head().await.unwrap().status, 101);
    let piece = vec![b'x'; 1 << 16];
    let mut sent = 0;
    while let Ok(written) =
        tokio::time::timeout(SHORT * 5, tokio::io::AsyncWriteExt::write(&mut client.stream, &piece)).await
    {
        sent += written.unwrap();
        assert!(sent < 64 << 20, "nothing holds the client back");
    }
    let mut nothing = [0];
    assert!(tokio::time::timeout(SHORT, client.stream.read(&mut nothing)).await.is_err());
}
