//! The server's clocks, limits and manners, on real sockets.

use std::sync::Arc;
use std::time::Duration;

use http::{Response, StatusCode};
use innkeeper::body::Body;
use innkeeper::error::Refusal;
use innkeeper::handler::{Connection, Inbound};
use innkeeper::server::ServerSettings;
use tokio::io::AsyncWriteExt;
use tokio::sync::{Notify, mpsc};

use super::support::edge::{Edge, echo, measure};
use super::support::raw_client::RawClient;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
/// A timeout that a test waits for.
const SHORT: Duration = Duration::from_millis(60);

fn settings(change: impl FnOnce(&mut ServerSettings)) -> ServerSettings {
    let mut settings = ServerSettings::default();
    change(&mut settings);
    settings
}

#[tokio::test]
async fn a_slow_head_is_answered_408() {
    let edge = Edge::start_with(settings(|it| it.timeouts.header_read = SHORT), measure).await;
    for half in ["G", "PRI * HTTP/2.0\r\n", "GET / HTTP/1.1\r\nHost: a\r\nX: "] {
        let mut client = RawClient::connect(edge.address).await;
        client.send(half).await;
        assert_eq!(client.response().await.expect("an answer").status, 408, "{half:?}");
        assert!(client.is_closed().await);
    }
    // After a response as well as at first.
    let mut client = RawClient::connect(edge.address).await;
    client.send(format!("{GET}GET /2")).await;
    assert_eq!(client.response().await.expect("an answer").status, 200);
    assert_eq!(client.response().await.expect("an answer").status, 408);
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn an_idle_connection_is_closed_without_a_word() {
    let edge = Edge::start_with(settings(|it| it.timeouts.keep_alive = SHORT), measure).await;
    let mut fresh = RawClient::connect(edge.address).await;
    assert!(fresh.is_closed().await);
    let mut used = RawClient::connect(edge.address).await;
    used.send(GET).await;
    assert_eq!(used.response().await.expect("an answer").status, 200);
    assert!(used.is_closed().await);
}

#[tokio::test]
async fn a_slow_answer_is_no_idle_connection() {
    let edge = Edge::start_with(settings(|it| it.timeouts.keep_alive = SHORT), |_, _| async {
        tokio::time::sleep(SHORT * 5).await;
        Ok(Response::new(Body::full("late")))
    })
    .await;
    let mut client = RawClient::connect(edge.address).await;
    client.send(GET).await;
    assert_eq!(client.response().await.expect("an answer").text(), "late");
}

#[tokio::test]
async fn a_slow_body_is_answered_408() {
    let edge = Edge::start_with(settings(|it| it.timeouts.body_idle = SHORT), measure).await;
    let mut client = RawClient::connect(edge.address).await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab").await;
    assert_eq!(client.response().await.expect("an answer").status, 408);
}

#[tokio::test]
async fn a_body_over_the_limit_is_answered_413() {
    let edge = Edge::start_with(settings(|it| it.limits.body_bytes = 8), measure).await;
    for (framing, body, status) in [
        ("Content-Length: 8", "12345678", 200),
        ("Content-Length: 9", "", 413),
        ("Transfer-Encoding: chunked", "8\r\n12345678\r\n0\r\n\r\n", 200),
        ("Transfer-Encoding: chunked", "8\r\n12345678\r\n1\r\n9\r\n", 413),
    ] {
        let mut client = RawClient::connect(edge.address).await;
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n{body}")).await;
        assert_eq!(client.response().await.expect("an answer").status, status, "{framing}: {body}");
    }
}

#[tokio::test]
async fn a_refusal_reaches_a_client_that_goes_on_sending() {
    let edge = Edge::start_with(settings(|it| it.limits.body_bytes = 8), measure).await;
    let mut client = RawClient::connect(edge.address).await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4000000\r\n\r\n").await;
    client.send(vec![b'x'; 4_000_000]).await;
    assert_eq!(client.response().await.expect("an answer").status, 413);
}

#[tokio::test]
async fn a_client_that_expects_to_be_asked_for_its_body_is_asked() {
    let edge = Edge::start_with(settings(|it| it.limits.body_bytes = 8), measure).await;
    let head = |length: u32| {
        format!("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: {length}\r\n\r\n")
    };
    let mut client = RawClient::connect(edge.address).await;
    client.send(head(3)).await;
    assert_eq!(client.response().await.expect("an invitation").status, 100);
    client.send("abc").await;
    assert_eq!(client.response().await.expect("an answer").text(), "3");

    let mut client = RawClient::connect(edge.address).await;
    client.send(head(9)).await;
    assert_eq!(client.response().await.expect("an answer").status, 413);
}

#[tokio::test]
async fn a_client_that_closed_its_half_gets_its_answer() {
    let edge = Edge::start(measure).await;
    let mut client = RawClient::connect(edge.address).await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc").await;
    client.half_close().await;
    assert_eq!(client.response().await.expect("an answer").text(), "3");
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn a_client_that_went_away_cancels_its_request() {
    struct Witness(mpsc::UnboundedSender<&'static str>);
    impl Drop for Witness {
        fn drop(&mut self) {
            let _ = self.0.send("dropped");
        }
    }
    let (sender, mut events) = mpsc::unbounded_channel();
    let edge = Edge::start(move |_, _| {
        let witness = Witness(sender.clone());
        async move {
            let _ = witness.0.send("begun");
            std::future::pending::<()>().await;
            Ok(Response::new(Body::empty()))
        }
    })
    .await;
    let mut client = RawClient::connect(edge.address).await;
    client.send(GET).await;
    assert_eq!(events.recv().await, Some("begun"));
    drop(client);
    assert_eq!(events.recv().await, Some("dropped"));
    assert_eq!(edge.drain().await.cut_off, 0);
}

#[tokio::test]
async fn a_panic_is_answered_500_and_harms_nobody_else() {
    async fn fragile(inbound: Inbound, _: Connection) -> Result<Response<Body>, Refusal> {
        assert_ne!(inbound.request.uri().path(), "/panic", "as the test asked");
        Ok(Response::new(Body::full("well")))
    }
    let edge = Edge::start(fragile).await;
    let mut client = RawClient::connect(edge.address).await;
    for (path, status) in [("/", 200), ("/panic", 500), ("/", 200)] {
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        let response = client.response().await.expect("an answer");
        assert_eq!(response.status, status, "{path}");
    }
    assert_eq!(edge.metrics.requests_in_flight.get(), 0);
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let edge = Edge::start(|inbound, _| async move {
        let path = inbound.request.uri().path().to_owned();
        Ok(Response::new(Body::full(path)))
    })
    .await;
    let mut client = RawClient::connect(edge.address).await;
    let requests: String = (0..50).map(|index| format!("GET /{index} HTTP/1.1\r\nHost: a\r\n\r\n")).collect();
    client.send(requests).await;
    for index in 0..50 {
        assert_eq!(client.response().await.expect("an answer").text(), format!("/{index}"));
    }
}

#[tokio::test]
async fn responses_without_a_body_have_none() {
    let edge = Edge::start(|inbound, _| async move {
        let status = inbound.request.uri().path()[1..].parse::<StatusCode>().unwrap();
        let body = if status == StatusCode::OK { Body::full("four") } else { Body::empty() };
        Ok(Response::builder().status(status).body(body).unwrap())
    })
    .await;
    let mut client = RawClient::connect(edge.address).await;
    client.send("HEAD /200 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let head = client.head().await.expect("a head");
    assert_eq!((head.status, head.header("content-length")), (200, Some("4")));
    for status in [204, 304, 200] {
        client.send(format!("GET /{status} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        assert_eq!(client.response().await.expect("an answer").status, status);
    }
}

#[tokio::test]
async fn a_body_that_nobody_reads_stalls_its_client() {
    let edge = Edge::start(|inbound, _| async move {
        let _unread = inbound.request.into_body();
        std::future::pending().await
    })
    .await;
    let mut client = RawClient::connect(edge.address).await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n").await;
    let piece = vec![b'x'; 1 << 16];
    let mut sent = 0;
    while let Ok(written) = tokio::time::timeout(SHORT * 5, client.stream.write(&piece)).await {
        sent += written.unwrap();
        assert!(sent < 64 << 20, "nothing holds the client back");
    }
}

#[tokio::test]
async fn connections_over_the_limit_wait() {
    let edge = Edge::start_with(settings(|it| it.limits.connections = 1), measure).await;
    let mut first = RawClient::connect(edge.address).await;
    first.send(GET).await;
    assert_eq!(first.response().await.expect("an answer").status, 200);
    let mut second = RawClient::connect(edge.address).await;
    second.send(GET).await;
    assert!(tokio::time::timeout(SHORT, second.response()).await.is_err(), "served over the limit");
    drop(first);
    assert_eq!(second.response().await.expect("an answer").status, 200);
}

#[tokio::test]
async fn a_drain_finishes_what_is_in_flight() {
    let release = Arc::new(Notify::new());
    let (begun, mut begins) = mpsc::unbounded_channel();
    let held = Arc::clone(&release);
    let edge = Edge::start(move |_, _| {
        let (held, begun) = (Arc::clone(&held), begun.clone());
        async move {
            begun.send(()).unwrap();
            held.notified().await;
            Ok(Response::new(Body::full("done")))
        }
    })
    .await;
    let address = edge.address;
    let mut idle = RawClient::connect(address).await;
    let mut busy = RawClient::connect(address).await;
    busy.send(GET).await;
    begins.recv().await.unwrap();
    edge.shutdown.cancel();
    assert!(idle.is_closed().await, "idle connections end, though not at once");
    let drained = tokio::spawn(edge.drain());
    release.notify_one();
    let response = busy.response().await.expect("an answer");
    assert_eq!((response.text().as_str(), response.header("connection")), ("done", Some("close")));
    assert!(busy.is_closed().await);
    assert_eq!(drained.await.unwrap().cut_off, 0);
    assert!(tokio::net::TcpStream::connect(address).await.is_err(), "still listening");
}

#[tokio::test]
async fn a_drain_has_an_end_and_counts_what_it_cut_off() {
    let (begun, mut begins) = mpsc::unbounded_channel();
    let edge = Edge::start_with(settings(|it| it.timeouts.drain = SHORT), move |_, _| {
        begun.send(()).unwrap();
        std::future::pending()
    })
    .await;
    let mut client = RawClient::connect(edge.address).await;
    client.send(GET).await;
    begins.recv().await.unwrap();
    let metrics = Arc::clone(&edge.metrics);
    assert_eq!(edge.drain().await.cut_off, 1);
    assert!(client.is_closed().await);
    assert_eq!((metrics.connections.get(), metrics.requests_in_flight.get()), (0, 0));
}

#[tokio::test]
async fn a_large_body_comes_back_as_it_was() {
    let edge = Edge::start(echo).await;
    let mut client = RawClient::connect(edge.address).await;
    let sent: Vec<u8> = (0_u32..3 << 20).map(|index| (index % 251).to_le_bytes()[0]).collect();
    let (mut reading, mut writing) = {
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", sent.len())).await;
        let RawClient { stream, .. } = client;
        stream.into_split()
    };
    let body = sent.clone();
    let written = tokio::spawn(async move {
        writing.write_all(&body).await.unwrap();
        writing
    });
    let mut received = Vec::new();
    let head = loop {
        tokio::io::AsyncReadExt::read_buf(&mut reading, &mut received).await.unwrap();
        if let Some(end) = received.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
    };
    while received.len() < head + sent.len() {
        assert_ne!(tokio::io::AsyncReadExt::read_buf(&mut reading, &mut received).await.unwrap(), 0);
    }
    assert!(received[head..] == sent);
    written.await.unwrap();
}
