//! Forwarding to upstreams that are dead, slow, broken, or merely particular.

use std::time::Duration;

use innkeeper::server::ServerSettings;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::support::edge::{Edge, upstream};
use super::support::raw_client::{RawClient, RawResponse};
use super::support::raw_upstream::RawUpstream;

const GET: &str = "GET /a?b=%2e HTTP/1.1\r\nHost: app.example\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const SHORT: Duration = Duration::from_millis(60);

async fn ask(edge: &Edge, request: &str) -> RawResponse {
    let mut client = RawClient::connect(edge.address).await;
    client.send(request).await;
    client.response().await.expect("an answer")
}

/// An address where nobody listens.
async fn nowhere() -> std::net::SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

#[tokio::test]
async fn a_request_arrives_with_our_headers_and_without_forged_ones() {
    let (sender, mut heads) = mpsc::unbounded_channel();
    let upstream_ = RawUpstream::start(move |mut exchange| {
        let sender = sender.clone();
        async move {
            let head = exchange.request().await.unwrap();
            exchange.send(OK).await;
            sender.send(head).unwrap();
        }
    })
    .await;
    let edge = Edge::forwarding(upstream(&[upstream_.address])).await;
    let forged = "GET /a?b=%2e HTTP/1.1\r\nHost: app.example\r\nX-Tenant-ID: evil\r\nx_tenant_id: evil\r\n\
        X-TENANT.Schema: evil\r\nX~Tenant~ID: evil\r\nX-Tenant-Other: evil\r\nX-Forwarded-For: 6.6.6.6\r\n\
        X_Forwarded_For: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\nX-Request-ID: evil\r\n\
        X_Request_ID: evil\r\nProxy-Authorization: evil\r\nProxy-Connection: evil\r\nKeep-Alive: evil\r\n\
        TE: gzip\r\nUpgrade: h2c\r\nConnection: upgrade, X-Hop, Cookie\r\nX-Hop: evil\r\n\
        Cookie: kept\r\nX-Kept: kept\r\n\r\n";
    assert_eq!(ask(&edge, forged).await.text(), "ok");
    let head = heads.recv().await.unwrap().to_ascii_lowercase();
    assert!(head.starts_with("get /a?b=%2e http/1.1\r\n"), "{head}");
    assert!(!head.contains("evil") && !head.contains("6.6.6.6"), "{head}");
    for line in [
        "host: app.example",
        "cookie: kept",
        "x-kept: kept",
        "x-forwarded-for: 127.0.0.1",
        "x-forwarded-proto: http",
        "x-forwarded-host: app.example",
        "forwarded: for=127.0.0.1;proto=http;host=\"app.example\"",
    ] {
        assert!(head.contains(&format!("\r\n{line}\r\n")), "{line} is not in {head}");
    }
    assert!(head.contains("\r\ntraceparent: 00-") && head.contains("\r\nx-request-id: "), "{head}");
    for gone in ["connection:", "upgrade:", "te:", "proxy-", "x-tenant"] {
        assert!(!head.contains(&format!("\r\n{gone}")), "{gone} is in {head}");
    }
}

#[tokio::test]
async fn what_ends_at_the_hop_does_not_come_back() {
    let upstream_ = RawUpstream::answering(
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\n\
         Keep-Alive: timeout=5\r\nX-Kept: 1\r\n\r\nok",
    )
    .await;
    let edge = Edge::forwarding(upstream(&[upstream_.address])).await;
    let response = ask(&edge, GET).await;
    assert_eq!(response.header("x-kept"), Some("1"));
    for gone in ["connection", "x-hop", "keep-alive"] {
        assert_eq!(response.header(gone), None, "{gone}");
    }
}

#[tokio::test]
async fn connections_are_kept_and_used_again() {
    let upstream_ = RawUpstream::answering(OK).await;
    let edge = Edge::forwarding(upstream(&[upstream_.address])).await;
    for _ in 0..10 {
        assert_eq!(ask(&edge, GET).await.text(), "ok");
    }
    assert_eq!(upstream_.connections(), 1);
}

#[tokio::test]
async fn a_dead_upstream_is_502_and_another_endpoint_is_tried_first() {
    let dead = nowhere().await;
    let edge = Edge::forwarding(upstream(&[dead])).await;
    let response = ask(&edge, GET).await;
    assert_eq!(response.status, 502);
    assert!(response.text().contains("upstream-unreachable"), "{}", response.text());
    assert!(response.text().contains(&dead.to_string()), "the cause names the endpoint");

    let alive = RawUpstream::answering(OK).await;
    let edge = Edge::forwarding(upstream(&[dead, alive.address])).await;
    for _ in 0..4 {
        assert_eq!(ask(&edge, GET).await.status, 200);
    }
}

#[tokio::test]
async fn a_slow_upstream_is_504() {
    let upstream_ = RawUpstream::start(|mut exchange| async move {
        exchange.request().await;
        exchange.closed().await;
    })
    .await;
    let mut settings = upstream(&[upstream_.address]);
    settings.response_timeout = SHORT;
    let edge = Edge::forwarding(settings).await;
    for request in [GET, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab"] {
        let response = ask(&edge, request).await;
        assert_eq!(response.status, 504);
        assert!(response.text().contains("upstream-timeout"), "{}", response.text());
    }
}

#[tokio::test]
async fn a_slow_client_is_not_the_upstreams_fault() {
    let upstream_ = RawUpstream::start(|mut exchange| async move {
        exchange.through("\r\n\r\nab").await;
        exchange.send(OK).await;
    })
    .await;
    let mut settings = upstream(&[upstream_.address]);
    settings.response_timeout = SHORT * 5;
    let edge = Edge::forwarding(settings).await;
    let mut client = RawClient::connect(edge.address).await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\na").await;
    tokio::time::sleep(SHORT * 20).await;
    client.send("b").await;
    assert_eq!(client.response().await.expect("an answer").status, 200);
}

#[tokio::test]
async fn an_upstream_that_breaks_the_protocol_is_502() {
    for answer in [
        "",
        "HTTP/1.1 200",
        "SSH-2.0-OpenSSH_9.6\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\nBad Header: x\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nraw",
    ] {
        let upstream_ = RawUpstream::start(move |mut exchange| async move {
            exchange.request().await;
            exchange.send(answer).await;
        })
        .await;
        let edge = Edge::forwarding(upstream(&[upstream_.address])).await;
        let response = ask(&edge, GET).await;
        assert_eq!(response.status, 502, "{answer:?}: {response:?}");
        assert!(response.text().contains("upstream-unreachable"));
    }
}

#[tokio::test]
async fn a_response_that_breaks_off_does_not_look_whole() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nzz\r\n",
    ] {
        let upstream_ = RawUpstream::start(move |mut exchange| async move {
            exchange.request().await;
            exchange.send(answer).await;
        })
        .await;
        let edge = Edge::forwarding(upstream(&[upstream_.address])).await;
        let response = ask(&edge, GET).await;
        assert_eq!(response.status, 200);
        assert!(!response.complete, "{answer:?}: {response:?}");
    }
}

#[tokio::test]
async fn a_response_that_stalls_is_broken_off() {
    let upstream_ = RawUpstream::start(|mut exchange| async move {
        exchange.request().await;
        exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf").await;
        exchange.closed().await;
    })
    .await;
    let mut settings = upstream(&[upstream_.address]);
    settings.body_idle_timeout = SHORT;
    let edge = Edge::forwarding(settings).await;
    let response = ask(&edge, GET).await;
    assert_eq!((response.status, response.complete), (200, false));
}

#[tokio::test]
async fn a_kept_connection_that_closes_in_the_wrong_moment_costs_no_safe_request() {
    // Each connection answers once and closes when the next request has arrived.
    let upstream_ = RawUpstream::start(|mut exchange| async move {
        exchange.request().await;
        exchange.send(OK).await;
        exchange.request().await;
    })
    .await;
    let edge = Edge::forwarding(upstream(&[upstream_.address])).await;
    for _ in 0..6 {
        assert_eq!(ask(&edge, GET).await.status, 200);
    }
    // Nobody knows what came of this one, so it is not sent again.
    let before = upstream_.connections();
    let post = ask(&edge, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!((post.status, upstream_.connections()), (502, before));
}

#[tokio::test]
async fn bodies_are_framed_for_the_upstream_as_they_came() {
    let (sender, mut requests) = mpsc::unbounded_channel();
    let upstream_ = RawUpstream::start(move |mut exchange| {
        let sender = sender.clone();
        async move {
            let request = exchange.through("tail").await;
            exchange.send(OK).await;
            sender.send(request.to_ascii_lowercase()).unwrap();
        }
    })
    .await;
    let edge = Edge::forwarding(upstream(&[upstream_.address])).await;
    ask(&edge, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\ntail").await;
    let counted = requests.recv().await.unwrap();
    assert!(counted.contains("\r\ncontent-length: 4\r\n") && !counted.contains("expect"), "{counted}");
    for method in ["POST", "GET"] {
        let chunked =
            format!("{method} / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ntail\r\n");
        let mut client = RawClient::connect(edge.address).await;
        client.send(chunked).await;
        let request = requests.recv().await.unwrap();
        assert!(request.contains("\r\ntransfer-encoding: chunked\r\n"), "{request}");
    }
}

#[tokio::test]
async fn an_early_response_comes_before_the_request_is_over() {
    let upstream_ = RawUpstream::start(|mut exchange| async move {
        exchange.through("part").await;
        exchange.send("HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno").await;
        exchange.closed().await;
    })
    .await;
    let edge = Edge::forwarding(upstream(&[upstream_.address])).await;
    let mut client = RawClient::connect(edge.address).await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\npart").await;
    let response = client.response().await.expect("an answer");
    assert_eq!((response.status, response.text().as_str()), (401, "no"));
}

#[tokio::test]
async fn responses_without_a_body_leave_the_connection_usable() {
    let upstream_ = RawUpstream::start(|mut exchange| async move {
        while let Some(head) = exchange.request().await {
            let answer = match head.split(' ').nth(1).unwrap() {
                "/204" => "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
                "/304" => "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
                "/head" => "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
                _ => OK,
            };
            exchange.send(answer).await;
        }
    })
    .await;
    let edge = Edge::forwarding(upstream(&[upstream_.address])).await;
    let mut client = RawClient::connect(edge.address).await;
    client.send("HEAD /head HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.head().await.expect("a head").header("content-length"), Some("5"));
    for status in [204, 304, 200] {
        client.send(format!("GET /{status} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        assert_eq!(client.response().await.expect("an answer").status, status);
    }
    assert_eq!(upstream_.connections(), 1);
}

#[tokio::test]
async fn a_client_that_went_away_cancels_at_the_upstream() {
    let (sender, mut events) = mpsc::unbounded_channel();
    let upstream_ = RawUpstream::start(move |mut exchange| {
        let sender = sender.clone();
        async move {
            let head = exchange.request().await.unwrap();
            if head.starts_with("GET /body") {
                exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n").await;
                sender.send("asked").unwrap();
                while exchange.stream.write_all(&[0; 1 << 16]).await.is_ok() {}
            } else {
                sender.send("asked").unwrap();
                exchange.closed().await;
            }
            sender.send("cancelled").unwrap();
        }
    })
    .await;
    let edge = Edge::forwarding(upstream(&[upstream_.address])).await;
    for path in ["/head", "/body"] {
        let mut client = RawClient::connect(edge.address).await;
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        assert_eq!(events.recv().await, Some("asked"));
        drop(client);
        assert_eq!(events.recv().await, Some("cancelled"), "{path}");
    }
}

#[tokio::test]
async fn whoever_does_not_read_stalls_whoever_writes() {
    let (sender, mut stalled) = mpsc::unbounded_channel();
    let upstream_ = RawUpstream::start(move |mut exchange| {
        let sender = sender.clone();
        async move {
            let head = exchange.request().await.unwrap();
            if head.starts_with("GET") {
                exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n").await;
                sender.send(write_until_stalled(&mut exchange.stream).await).unwrap();
            }
            std::future::pending::<()>().await;
        }
    })
    .await;
    let edge = Edge::forwarding_with(ServerSettings::default(), upstream(&[upstream_.address])).await;
    let mut client = RawClient::connect(edge.address).await;
    client.send(GET).await;
    assert!(stalled.recv().await.unwrap() < 64 << 20, "the response is not held back");

    let mut client = RawClient::connect(edge.address).await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n").await;
    assert!(write_until_stalled(&mut client.stream).await < 64 << 20, "the request is not held back");
}

/// Writes until nothing was taken for a while; how much was.
async fn write_until_stalled(stream: &mut tokio::net::TcpStream) -> usize {
    let piece = vec![b'x'; 1 << 16];
    let mut sent = 0;
    while sent < 90 << 20
        && let Ok(written) = tokio::time::timeout(SHORT * 5, stream.write(&piece)).await
    {
        sent += written.unwrap();
    }
    sent
}
