//! Faults in the middle of things, and clients that are slow on purpose, in both directions.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::channel::Channel;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use innkeeper::body::{Body, BodyError};
use innkeeper::server::ServerSettings;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::support::edge::{Edge, measure, upstream};
use super::support::gateway::{Harness, PATIENCE, until};
use super::support::raw_client::RawClient;
use super::support::raw_upstream::RawUpstream;

const GET: &str = "GET / HTTP/1.1\r\nHost: app.example\r\n\r\n";

#[tokio::test]
async fn an_upstream_that_dies_is_502_until_its_answer_has_begun() {
    // After how much of the request, and with what answered, it goes.
    for (until_text, answered, status) in [
        ("\r\n\r\n", "", 502),
        ("part", "", 502),
        ("part", "HTTP/1.1 200 OK\r\nContent-Le", 502),
        ("part", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", 200),
        ("part", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhalf", 200),
    ] {
        let upstream_ = RawUpstream::start(move |mut exchange| async move {
            exchange.through(until_text).await;
            exchange.send(answered).await;
        })
        .await;
        let edge = Edge::forwarding(upstream(&[upstream_.address])).await;
        let mut client = RawClient::connect(edge.address).await;
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\npart").await;
        let response = client.response().await.expect("an answer");
        assert_eq!(response.status, status, "{until_text:?}, {answered:?}");
        assert_eq!(response.complete, status == 502, "a broken answer looks whole: {answered:?}");
    }
}

#[tokio::test]
async fn a_body_that_drips_is_refused_though_each_drop_comes_in_time() {
    let mut settings = ServerSettings::default();
    settings.timeouts.body_idle = Duration::from_millis(500);
    settings.limits.min_body_rate = 1_000_000;
    let edge = Edge::start_with(settings, measure).await;
    let mut client = RawClient::connect(edge.address).await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n").await;
    let (reading, mut writing) = client.stream.split();
    let dripping = async {
        while writing.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        () = dripping => {}
        readable = reading.readable() => readable.unwrap(),
        () = tokio::time::sleep(PATIENCE) => panic!("it drips on"),
    }
    assert_eq!(client.response().await.expect("an answer").status, 408);
}

/// An upstream that answers with more than anyone reads, as fast as it is taken.
async fn pouring() -> RawUpstream {
    RawUpstream::start(|mut exchange| async move {
        exchange.request().await;
        exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n").await;
        while exchange.stream.write_all(&[0; 1 << 16]).await.is_ok() {}
    })
    .await
}

#[tokio::test]
async fn a_client_that_does_not_read_is_not_waited_for() {
    let upstream_ = pouring().await;
    let mut settings = ServerSettings::default();
    settings.timeouts.body_idle = Duration::from_millis(100);
    let edge = Edge::forwarding_with(settings, upstream(&[upstream_.address])).await;
    let mut client = RawClient::connect(edge.address).await;
    client.send(GET).await;
    until(|| edge.metrics.connections.get() == 1).await;
    until(|| edge.metrics.connections.get() == 0).await;
    assert_eq!(edge.metrics.requests_in_flight.get(), 0);
}

#[tokio::test]
async fn a_client_that_reads_little_now_and_then_is_not_waited_for() {
    let upstream_ = pouring().await;
    let mut settings = ServerSettings::default();
    // No single wait is as long as that.
    settings.timeouts.body_idle = Duration::from_secs(2);
    settings.limits.min_body_rate = 1 << 30;
    let edge = Edge::forwarding_with(settings, upstream(&[upstream_.address])).await;
    let mut client = RawClient::connect(edge.address).await;
    client.send(GET).await;
    until(|| edge.metrics.connections.get() == 1).await;
    let reading = async {
        let mut some = vec![0; 256 << 10];
        while client.stream.read(&mut some).await.is_ok_and(|read| read > 0) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.expect("it is cut off");
    until(|| edge.metrics.requests_in_flight.get() == 0).await;
}

#[tokio::test]
async fn a_stream_whose_answer_is_not_taken_is_reset_and_its_connection_goes_on() {
    let mut settings = ServerSettings::default();
    settings.timeouts.body_idle = Duration::from_millis(100);
    let edge = Edge::start_with(settings, |inbound, _| async move {
        let (mut sender, body) = Channel::<Bytes, BodyError>::new(1);
        let is_slow = inbound.request.uri().path() == "/quiet";
        tokio::spawn(async move {
            // A backend that has nothing to say is nobody's slowness.
            for _ in 0..3 {
                if is_slow {
                    tokio::time::sleep(Duration::from_millis(300)).await;
                }
                let size = if is_slow { 10 } else { 64 << 10 };
                if sender.send_data(Bytes::from(vec![b'x'; size])).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(Body::stream(body)))
    })
    .await;
    let stream = TcpStream::connect(edge.address).await.unwrap();
    let (mut sender, connection) = http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(1000)
        .handshake(TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    let ask =
        |path: &str| Request::get(format!("http://app.example{path}")).body(Empty::<Bytes>::new()).unwrap();
    let untaken = sender.send_request(ask("/")).await.unwrap();
    until(|| edge.metrics.requests_in_flight.get() == 0).await;
    let ended = untaken.into_body().collect().await;
    assert!(ended.is_err(), "it was reset");

    let quiet = sender.send_request(ask("/quiet")).await.unwrap();
    assert_eq!(quiet.into_body().collect().await.unwrap().to_bytes().len(), 30);
}

#[tokio::test]
async fn a_body_is_asked_for_only_when_its_request_is_admitted() {
    let upstream_ = RawUpstream::start(|mut exchange| async move {
        let request = exchange.through("body").await;
        assert!(!request.to_ascii_lowercase().contains("expect:"), "{request}");
        exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    })
    .await;
    let policy = format!(
        "version: 1
tenants: {{ list: [ {{ id: acme, schema: acme }} ] }}
upstreams: {{ app: {{ endpoints: [ http://{} ] }} }}
routes: [ {{ name: app, tenant: {{ header: X-Tenant-ID }}, forward: app }} ]
",
        upstream_.address
    );
    let gateway = Harness::new().policy(&policy).start().await;
    let head = |tenant: &str| {
        format!(
            "POST / HTTP/1.1\r\nHost: a\r\nX-Tenant-ID: {tenant}\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n"
        )
    };
    let mut client = RawClient::connect(gateway.address()).await;
    client.send(head("nobody")).await;
    assert_eq!(client.response().await.expect("a refusal").status, 404);
    let mut client = RawClient::connect(gateway.address()).await;
    client.send(head("acme")).await;
    assert_eq!(client.response().await.expect("an invitation").status, 100);
    client.send("body").await;
    assert_eq!(client.response().await.expect("an answer").text(), "ok");
}

#[tokio::test]
async fn interim_answers_of_an_upstream_are_dropped() {
    let upstream_ = RawUpstream::answering(
        "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    )
    .await;
    let edge = Edge::forwarding(upstream(&[upstream_.address])).await;
    let mut client = RawClient::connect(edge.address).await;
    for _ in 0..2 {
        client.send(GET).await;
        let response = client.response().await.expect("an answer");
        assert_eq!((response.status, response.text().as_str()), (200, "ok"));
        assert_eq!(response.header("link"), None);
    }
}

#[tokio::test]
async fn the_crumbs_of_a_cookie_are_one_cookie_over_http1() {
    let (sender, mut heads) = mpsc::unbounded_channel();
    let upstream_ = RawUpstream::start(move |mut exchange| {
        let sender = sender.clone();
        async move {
            sender.send(exchange.request().await.unwrap().to_ascii_lowercase()).unwrap();
            exchange.send("HTTP/1.1 204 No Content\r\n\r\n").await;
        }
    })
    .await;
    let edge = Edge::forwarding(upstream(&[upstream_.address])).await;
    let stream = TcpStream::connect(edge.address).await.unwrap();
    let (mut http2, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let crumbs = ["a=b", "c=d", "e=f"];
    let request =
        crumbs.iter().fold(Request::get("http://app.example/"), |it, one| it.header("cookie", *one));
    let response = http2.send_request(request.body(Empty::<Bytes>::new()).unwrap()).await.unwrap();
    assert_eq!(response.status(), StatusCode::NO_CONTENT);
    let head = heads.recv().await.unwrap();
    assert!(head.contains("\r\ncookie: a=b; c=d; e=f\r\n") && head.matches("cookie:").count() == 1, "{head}");
}

#[tokio::test]
async fn an_early_response_comes_over_http2_too() {
    let upstream_ = RawUpstream::start(|mut exchange| async move {
        exchange.through("part").await;
        exchange.send("HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno").await;
        exchange.closed().await;
    })
    .await;
    let edge = Edge::forwarding(upstream(&[upstream_.address])).await;
    let stream = TcpStream::connect(edge.address).await.unwrap();
    let (mut http2, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let (mut sender, body) = Channel::<Bytes, std::convert::Infallible>::new(2);
    sender.send_data(Bytes::from_static(b"part")).await.unwrap();
    let response =
        http2.send_request(Request::post("http://app.example/").body(body).unwrap()).await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "no");
}
