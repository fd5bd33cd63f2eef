//! HTTP/2 with prior knowledge, through a real client, in front and behind.

use bytes::Bytes;
use http::{Request, Response, StatusCode, Version};
use http_body_util::channel::Channel;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use innkeeper::body::Body;
use innkeeper::server::ServerSettings;
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::support::edge::{Edge, echo, measure, upstream};
use super::support::frames::{END_HEADERS, END_STREAM, FrameClient, HEADERS, SETTINGS, fields, frame};
use super::support::raw_upstream::RawUpstream;

async fn client(edge: &Edge) -> SendRequest<Full<Bytes>> {
    let stream = TcpStream::connect(edge.address).await.unwrap();
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

fn post(path: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    Request::post(format!("http://app.example{path}")).body(Full::new(body.into())).unwrap()
}

async fn text(response: Response<Incoming>) -> (StatusCode, String) {
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn one_port_speaks_both_versions() {
    let edge = Edge::start(echo).await;
    let mut http2 = client(&edge).await;
    let response = http2.send_request(post("/", "two")).await.unwrap();
    assert_eq!(response.version(), Version::HTTP_2);
    assert_eq!(text(response).await, (StatusCode::OK, "two".into()));
    let mut http1 = super::support::raw_client::RawClient::connect(edge.address).await;
    http1.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\none").await;
    assert_eq!(http1.response().await.unwrap().text(), "one");
}

#[tokio::test]
async fn many_streams_share_a_connection() {
    let edge = Edge::start(echo).await;
    let http2 = client(&edge).await;
    let mut asked = tokio::task::JoinSet::new();
    for index in 0..100 {
        let mut http2 = http2.clone();
        asked.spawn(async move {
            let body = format!("{index:0>30000}");
            let answer = text(http2.send_request(post("/", body.clone())).await.unwrap()).await;
            assert_eq!(answer, (StatusCode::OK, body));
        });
    }
    while let Some(done) = asked.join_next().await {
        done.unwrap();
    }
}

#[tokio::test]
async fn limits_hold_for_both_versions() {
    let mut settings = ServerSettings::default();
    settings.limits.body_bytes = 8;
    settings.limits.header_count = 10;
    let edge = Edge::start_with(settings, measure).await;
    let mut http2 = client(&edge).await;
    let (status, _) = text(http2.send_request(post("/", "123456789")).await.unwrap()).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    let mut many = post("/", "");
    for index in 0..11 {
        many.headers_mut()
            .insert(http::HeaderName::try_from(format!("x-{index}")).unwrap(), "y".parse().unwrap());
    }
    let (status, _) = text(http2.send_request(many).await.unwrap()).await;
    assert_eq!(status, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    assert_eq!(text(http2.send_request(post("/", "12345678")).await.unwrap()).await.1, "8");
}

#[tokio::test]
async fn a_reset_stream_cancels_its_request_alone() {
    let (sender, mut events) = mpsc::unbounded_channel();
    let edge = Edge::start(move |inbound, _| {
        let sender = sender.clone();
        async move {
            if inbound.request.uri().path() == "/slow" {
                struct Witness(mpsc::UnboundedSender<&'static str>);
                impl Drop for Witness {
                    fn drop(&mut self) {
                        let _ = self.0.send("dropped");
                    }
                }
                let witness = Witness(sender);
                let _ = witness.0.send("begun");
                std::future::pending::<()>().await;
            }
            Ok(Response::new(Body::full("well")))
        }
    })
    .await;
    let mut http2 = client(&edge).await;
    let slow = tokio::spawn(http2.send_request(post("/slow", "")));
    assert_eq!(events.recv().await, Some("begun"));
    slow.abort();
    assert_eq!(events.recv().await, Some("dropped"));
    assert_eq!(text(http2.send_request(post("/", "")).await.unwrap()).await.1, "well");
}

#[tokio::test]
async fn a_drain_says_goaway_and_finishes_open_streams() {
    let (sender, mut begun) = mpsc::unbounded_channel();
    let release = std::sync::Arc::new(tokio::sync::Notify::new());
    let held = std::sync::Arc::clone(&release);
    let edge = Edge::start(move |_, _| {
        let (sender, held) = (sender.clone(), std::sync::Arc::clone(&held));
        async move {
            sender.send(()).unwrap();
            held.notified().await;
            Ok(Response::new(Body::full("done")))
        }
    })
    .await;
    let mut http2 = client(&edge).await;
    let answer = tokio::spawn(http2.send_request(post("/", "")));
    begun.recv().await.unwrap();
    let drained = tokio::spawn(edge.drain());
    release.notify_one();
    assert_eq!(text(answer.await.unwrap().unwrap()).await.1, "done");
    assert_eq!(drained.await.unwrap().cut_off, 0);
}

#[tokio::test]
async fn an_upstream_may_speak_http2_and_hear_trailers() {
    let backend = Edge::start(|inbound, _| async move {
        let request = inbound.request;
        let (version, authority) = (request.version(), request.uri().authority().unwrap().to_string());
        let collected = request.into_body().collect().await.map_err(|error| error.refusal())?;
        let trailers = collected.trailers().cloned().unwrap_or_default();
        let names: Vec<&str> = trailers.keys().map(http::HeaderName::as_str).collect();
        let text = format!("{version:?} {authority} {} {names:?}", collected.to_bytes().len());
        Ok(Response::new(Body::full(text)))
    })
    .await;
    let mut settings = upstream(&[backend.address]);
    settings.http2 = true;
    let edge = Edge::forwarding(settings).await;
    let stream = TcpStream::connect(edge.address).await.unwrap();
    let (mut http2, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let (mut sender, body) = Channel::<Bytes, std::convert::Infallible>::new(2);
    let trailers = [("x-sum", "1"), ("x_tenant_id", "evil")]
        .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
        .into_iter()
        .collect();
    sender.send_data(Bytes::from_static(b"four")).await.unwrap();
    sender.send_trailers(trailers).await.unwrap();
    drop(sender);
    let request = Request::post("http://app.example/").header("te", "trailers").body(body).unwrap();
    let (_, told) = text(http2.send_request(request).await.unwrap()).await;
    assert_eq!(told, r#"HTTP/2.0 app.example 4 ["x-sum"]"#);
}

#[tokio::test]
async fn answers_that_nobody_takes_hold_up_no_other_of_their_upstreams_connection() {
    const STALLED: u32 = 20;
    let large = Bytes::from(vec![b'x'; 1 << 20]);
    let answer = large.clone();
    let backend = Edge::start(move |_, _| {
        let answer = answer.clone();
        async move { Ok(Response::new(Body::full(answer))) }
    })
    .await;
    let mut settings = upstream(&[backend.address]);
    settings.http2 = true;
    let edge = Edge::forwarding(settings).await;

    let mut stalled = FrameClient::connect(edge.address).await;
    stalled.send(&frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])).await;
    let get = fields(&[(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a")]);
    for index in 0..STALLED {
        stalled.send(&frame(HEADERS, END_HEADERS | END_STREAM, 2 * index + 1, &get)).await;
    }
    let mut answered = 0;
    while answered < STALLED {
        answered += u32::from(stalled.frame().await.expect("it goes on").kind == HEADERS);
    }
    let mut http2 = client(&edge).await;
    let response = http2.send_request(post("/", "")).await.unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), large);
}

#[tokio::test]
async fn a_response_that_breaks_off_resets_its_stream() {
    let upstream_ = RawUpstream::start(|mut exchange| async move {
        exchange.request().await;
        exchange.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n").await;
    })
    .await;
    let edge = Edge::forwarding(upstream(&[upstream_.address])).await;
    let mut http2 = client(&edge).await;
    let response = http2.send_request(post("/", "")).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert!(response.into_body().collect().await.is_err());
}
