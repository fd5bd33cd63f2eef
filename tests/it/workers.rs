//! Which of a process's threads has a connection of an upstream, and that they share them where there
//! may be no more.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http_body_util::Empty;
use hyper::body::Bytes;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

use super::support::gateway::{Harness, TestGateway};
use super::support::raw_client::RawClient;
use super::support::raw_upstream::RawUpstream;

const WORKERS: usize = 2;
const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

async fn gateway(upstream: SocketAddr, settings: &str) -> TestGateway {
    let policy = format!(
        "version: 1
upstreams: {{ app: {{ endpoints: [ 'http://{upstream}' ]{settings} }} }}
routes: [ {{ name: app, tenant: none, forward: app }} ]
"
    );
    Harness::new().workers(WORKERS).policy(&policy).start().await
}

/// Three clients a worker, each of which asks four times, one after the other.
async fn ask(gateway: &TestGateway) {
    let mut clients = Vec::new();
    for _ in 0..3 * WORKERS {
        clients.push(RawClient::connect(gateway.address()).await);
    }
    for _ in 0..4 {
        for client in &mut clients {
            client.send(GET).await;
            assert_eq!(client.response().await.unwrap().status, 200);
        }
    }
}

#[tokio::test]
async fn each_worker_keeps_to_connections_of_its_own() {
    let upstream = RawUpstream::answering(OK).await;
    ask(&gateway(upstream.address, "").await).await;
    assert_eq!(upstream.connections(), WORKERS);
}

#[tokio::test]
async fn workers_share_connections_where_there_may_be_no_more() {
    let upstream = RawUpstream::answering(OK).await;
    ask(&gateway(upstream.address, ", max_connections: 1").await).await;
    assert_eq!(upstream.connections(), 1);
}

#[tokio::test]
async fn each_worker_has_an_http2_connection_of_its_own() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&connections);
    let _accepting = AbortOnDropHandle::new(tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            counter.fetch_add(1, Ordering::SeqCst);
            let service =
                service_fn(async |_| Ok::<_, http::Error>(http::Response::new(Empty::<Bytes>::new())));
            let builder = http2::Builder::new(TokioExecutor::new());
            tokio::spawn(builder.serve_connection(TokioIo::new(stream), service));
        }
    }));
    ask(&gateway(address, ", protocol: http2").await).await;
    assert_eq!(connections.load(Ordering::SeqCst), WORKERS);
}
