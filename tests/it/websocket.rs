//! WebSocket through a real client library and a whole sidecar, over HTTP/1.1 and over HTTP/2.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::{HeaderValue, Request, StatusCode};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper::ext::Protocol;
use hyper::server::conn::http2 as server;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::server::{
    ErrorResponse, Request as Asked, Response as Agreed,
};
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async, client_async};

use super::support::gateway::{Harness, TestGateway, until};

/// A backend that says first whose connection it is, then echoes. To `close` it answers with a
/// close of its own; at the path `/forbidden` it refuses.
struct EchoBackend {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<http::HeaderMap>>>,
    accepting: AbortHandle,
}

impl EchoBackend {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let heads = Arc::clone(&asked);
        let accepting = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(echo(stream, Arc::clone(&heads)));
            }
        });
        Self { address, asked, accepting: accepting.abort_handle() }
    }
}

impl Drop for EchoBackend {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn echo(stream: TcpStream, heads: Arc<Mutex<Vec<http::HeaderMap>>>) {
    let mut tenant = String::new();
    #[allow(clippy::result_large_err, reason = "the library's own type")]
    let greet = |asked: &Asked, agreed: Agreed| -> Result<Agreed, ErrorResponse> {
        heads.lock().unwrap().push(asked.headers().clone());
        if asked.uri().path() == "/forbidden" {
            let mut refusal = ErrorResponse::new(Some("not here".into()));
            *refusal.status_mut() = StatusCode::FORBIDDEN;
            return Err(refusal);
        }
        let told = asked.headers().get("x-tenant-id").and_then(|value| value.to_str().ok());
        tenant = told.unwrap_or("nobody").to_owned();
        Ok(agreed)
    };
    let Ok(mut socket) = accept_hdr_async(stream, greet).await else { return };
    socket.send(Message::text(tenant)).await.unwrap();
    while let Some(Ok(message)) = socket.next().await {
        if message == Message::text("close") {
            let reason = CloseFrame { code: CloseCode::Away, reason: "as asked".into() };
            let _ = socket.close(Some(reason)).await;
        } else if message.is_text() || message.is_binary() {
            let _ = socket.send(message).await;
        }
    }
}

async fn gateway(backend: &EchoBackend, more: &str) -> TestGateway {
    gateway_to(backend.address, "", more).await
}

async fn gateway_to(address: SocketAddr, settings: &str, more: &str) -> TestGateway {
    let policy = format!(
        "version: 1
{more}
tenants: {{ list: [ {{ id: acme, schema: acme }}, {{ id: globex, schema: globex }} ] }}
upstreams: {{ app: {{ endpoints: [ http://{address} ]{settings} }} }}
routes:
  - {{ name: none, match: {{ path: /none }}, tenant: none, forward: {{ upstream: app, upgrade: none }} }}
  - {{ name: app, tenant: {{ header: X-Tenant-ID }}, forward: app }}
"
    );
    Harness::new().policy(&policy).start().await
}

/// Opens a WebSocket over HTTP/1.1.
async fn open(gateway: &TestGateway, path: &str, tenant: &str) -> Result<WebSocketStream<TcpStream>, Error> {
    let stream = TcpStream::connect(gateway.address()).await.unwrap();
    let mut request = format!("ws://app.example{path}").into_client_request().unwrap();
    request.headers_mut().insert("x-tenant-id", HeaderValue::from_str(tenant).unwrap());
    client_async(request, stream).await.map(|(socket, _)| socket)
}

/// Asks for one over HTTP/2 (RFC 8441).
async fn ask_http2(gateway: &TestGateway, path: &str, protocol: &'static str) -> http::Response<Incoming> {
    let stream = TcpStream::connect(gateway.address()).await.unwrap();
    let (mut sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    // The server's settings say whether it takes an extended CONNECT.
    while !connection.is_extended_connect_protocol_enabled() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    tokio::spawn(connection);
    let request = Request::connect(format!("http://app.example{path}"))
        .extension(Protocol::from_static(protocol))
        .header("sec-websocket-version", "13")
        .header("x-tenant-id", "acme")
        .body(Empty::<Bytes>::new())
        .unwrap();
    sender.send_request(request).await.unwrap()
}

async fn told(socket: &mut WebSocketStream<impl AsyncRead + AsyncWrite + Unpin>) -> Message {
    socket.next().await.expect("a message").expect("a sound one")
}

/// Everything that a WebSocket is used for.
async fn exercise(socket: &mut WebSocketStream<impl AsyncRead + AsyncWrite + Unpin>) {
    socket.send(Message::text("hällo")).await.unwrap();
    assert_eq!(told(socket).await, Message::text("hällo"));

    // One message in three frames, with a ping between them.
    let part = |text: &'static str, code, is_last| Message::Frame(Frame::message(text, code, is_last));
    socket.send(part("one, ", OpCode::Data(Data::Text), false)).await.unwrap();
    socket.send(part("two, ", OpCode::Data(Data::Continue), false)).await.unwrap();
    socket.send(Message::Ping(Bytes::from_static(b"there?"))).await.unwrap();
    socket.send(part("three", OpCode::Data(Data::Continue), true)).await.unwrap();
    assert_eq!(told(socket).await, Message::Pong(Bytes::from_static(b"there?")));
    assert_eq!(told(socket).await, Message::text("one, two, three"));

    let large: Vec<u8> = (0_u32..16 << 20).map(|index| (index % 251).to_le_bytes()[0]).collect();
    let large = Bytes::from(large);
    let (mut writing, mut reading) = socket.split();
    let (sent, read) = tokio::join!(writing.send(Message::Binary(large.clone())), reading.next());
    sent.unwrap();
    assert!(read.unwrap().unwrap() == Message::Binary(large), "16 MiB came back changed");
}

#[tokio::test]
async fn a_websocket_is_its_tenants_and_echoes_whatever_is_sent() {
    let backend = EchoBackend::start().await;
    let gateway = gateway(&backend, "").await;
    let both = ["acme", "globex"].map(async |tenant| {
        let mut socket = open(&gateway, "/", tenant).await.unwrap();
        assert_eq!(told(&mut socket).await, Message::text(tenant));
        exercise(&mut socket).await;
        let code = CloseCode::Library(4001);
        socket.close(Some(CloseFrame { code, reason: "done".into() })).await.unwrap();
        let Message::Close(Some(echoed)) = told(&mut socket).await else { panic!("a close") };
        assert_eq!((echoed.code, echoed.reason.as_str()), (code, "done"));
        assert!(socket.next().await.is_none(), "the connection goes on");
    });
    futures_util::future::join_all(both).await;
    for head in &*backend.asked.lock().unwrap() {
        assert!(head.contains_key("x-request-id") && head.contains_key("sec-websocket-key"), "{head:?}");
        assert_eq!(
            (&head["connection"], &head["upgrade"]),
            (&"upgrade".parse().unwrap(), &"websocket".parse().unwrap())
        );
    }
}

#[tokio::test]
async fn a_websocket_over_http2_is_one_over_http1_behind_us() {
    let backend = EchoBackend::start().await;
    let gateway = gateway(&backend, "").await;
    let response = ask_http2(&gateway, "/", "websocket").await;
    assert_eq!(response.status(), StatusCode::OK);
    assert!(!response.headers().contains_key("sec-websocket-accept"), "{response:?}");
    let stream = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    let mut socket = WebSocketStream::from_raw_socket(stream, Role::Client, None).await;
    assert_eq!(told(&mut socket).await, Message::text("acme"));
    exercise(&mut socket).await;
    socket.send(Message::text("close")).await.unwrap();
    let Message::Close(Some(frame)) = told(&mut socket).await else { panic!("a close") };
    assert_eq!((frame.code, frame.reason.as_str()), (CloseCode::Away, "as asked"));
    assert!(socket.next().await.is_none(), "the stream goes on");
}

#[tokio::test]
async fn a_websocket_goes_on_over_http2_behind_us() {
    let backend = EchoBackend::start().await;
    let behind = gateway(&backend, "").await;
    let gateway = gateway_to(behind.address(), ", protocol: http2", "").await;
    let mut first = open(&gateway, "/", "globex").await.unwrap();
    assert_eq!(told(&mut first).await, Message::text("globex"));
    exercise(&mut first).await;
    let response = ask_http2(&gateway, "/", "websocket").await;
    let stream = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    let mut second = WebSocketStream::from_raw_socket(stream, Role::Client, None).await;
    assert_eq!(told(&mut second).await, Message::text("acme"));
    exercise(&mut second).await;
    // Both are streams of one connection, which has other requests too.
    assert_eq!(ask_http2(&gateway, "/forbidden", "websocket").await.status(), StatusCode::FORBIDDEN);
    assert_eq!(behind.sidecar.metrics.connections.get(), 1);
    first.close(None).await.unwrap();
    assert!(matches!(told(&mut first).await, Message::Close(_)));
    assert!(first.next().await.is_none(), "the connection goes on");
}

#[tokio::test]
async fn an_http2_upstream_without_extended_connect_is_not_asked_for_it() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let service = service_fn(|request: Request<Incoming>| async move {
                let response = http::Response::builder().header("x-method", request.method().as_str());
                response.body(Empty::<Bytes>::new())
            });
            let builder = server::Builder::new(TokioExecutor::new());
            tokio::spawn(builder.serve_connection(TokioIo::new(stream), service));
        }
    });
    let gateway = gateway_to(address, ", protocol: http2", "").await;
    assert_eq!(ask_http2(&gateway, "/", "websocket").await.status(), StatusCode::NOT_IMPLEMENTED);
    // Over HTTP/1.1 the wish can be left unheard, and the request is an ordinary one.
    let Err(Error::Http(response)) = open(&gateway, "/", "acme").await else { panic!("it was switched") };
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["x-method"], "GET");
    serving.abort();
}

#[tokio::test]
async fn what_is_not_granted_is_not_switched() {
    let backend = EchoBackend::start().await;
    let gateway = gateway(&backend, "").await;
    let refused = |outcome: Result<WebSocketStream<TcpStream>, Error>| match outcome {
        Err(Error::Http(response)) => (
            response.status().as_u16(),
            String::from_utf8(response.body().clone().unwrap_or_default()).unwrap(),
        ),
        other => panic!("{other:?}"),
    };
    // Before anybody behind us hears of it.
    let (status, problem) = refused(open(&gateway, "/", "initech").await);
    assert!(status == 404 && problem.contains("tenant-unknown"), "{problem}");
    assert!(backend.asked.lock().unwrap().is_empty());
    // The backend's own answer.
    let (status, body) = refused(open(&gateway, "/forbidden", "acme").await);
    assert!(status == 403 && body.contains("not here"), "{body}");
    // A route without upgrades sends an ordinary request on, which the backend does not take.
    refused(open(&gateway, "/none", "acme").await);
    let heads = backend.asked.lock().unwrap().len();
    assert_eq!(heads, 1, "the backend was asked to switch");

    for (path, protocol) in [("/none", "websocket"), ("/", "webtransport"), ("/", "h2c")] {
        let response = ask_http2(&gateway, path, protocol).await;
        assert_eq!(response.status(), StatusCode::NOT_IMPLEMENTED, "{path} {protocol}");
    }
    assert_eq!(ask_http2(&gateway, "/forbidden", "websocket").await.status(), StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn a_tunnel_is_recorded_when_it_ends() {
    let backend = EchoBackend::start().await;
    let gateway = gateway(&backend, "").await;
    let mut socket = open(&gateway, "/", "acme").await.unwrap();
    assert_eq!(told(&mut socket).await, Message::text("acme"));
    socket.send(Message::text("x".repeat(1000))).await.unwrap();
    told(&mut socket).await;
    let metrics = gateway.admin("/metrics").send().await.text();
    assert!(metrics.contains("innkeeper_tunnels 1\n"), "{metrics}");
    assert!(gateway.lines_so_far().is_empty(), "recorded while it stands");
    socket.close(None).await.unwrap();
    drop(socket);
    let records = gateway.records(|_| true).await;
    let record = &records[0];
    assert_eq!(
        (&record["status"], &record["tenant"], &record["complete"]),
        (&101.into(), &"acme".into(), &true.into())
    );
    assert!(record["bytes"].as_u64().unwrap() >= 1000, "{record}");
    assert!(record["bytes_received"].as_u64().unwrap() >= 1000, "{record}");
    until(|| gateway.sidecar.metrics.tunnels.get() == 0).await;
}

#[tokio::test]
async fn a_tunnel_without_traffic_is_ended() {
    let backend = EchoBackend::start().await;
    let gateway = gateway(&backend, "server: { timeouts: { tunnel_idle: 100ms } }").await;
    for version in [1, 2] {
        if version == 1 {
            let mut socket = open(&gateway, "/", "acme").await.unwrap();
            while let Some(Ok(_)) = socket.next().await {}
        } else {
            let response = ask_http2(&gateway, "/", "websocket").await;
            let stream = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
            let mut socket = WebSocketStream::from_raw_socket(stream, Role::Client, None).await;
            while let Some(Ok(_)) = socket.next().await {}
        }
    }
    let records = gateway.records(|record| record["status"] == 101).await;
    assert_eq!(records[0]["complete"], false);
}

#[tokio::test]
async fn a_drain_ends_tunnels_when_its_time_is_over() {
    let backend = EchoBackend::start().await;
    let gateway = gateway(&backend, "server: { timeouts: { drain: 200ms } }").await;
    let mut first = open(&gateway, "/", "acme").await.unwrap();
    told(&mut first).await;
    let response = ask_http2(&gateway, "/", "websocket").await;
    let stream = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    let mut second = WebSocketStream::from_raw_socket(stream, Role::Client, None).await;
    told(&mut second).await;
    let drained = gateway.sidecar.drain().await;
    assert_eq!(drained.cut_off, 2);
    assert!(!matches!(first.next().await, Some(Ok(_))));
    assert!(!matches!(second.next().await, Some(Ok(_))));
}
