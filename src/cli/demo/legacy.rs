//! The demo's old application: a small HTTP server that believes whatever stands in `X-Tenant-ID`.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

/// The running application; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Legacy {
    address: SocketAddr,
    _accepting: AbortOnDropHandle<()>,
}

impl Legacy {
    /// Starts the application on a free port of the loopback interface.
    pub(super) async fn start() -> std::io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        Ok(Self { address, _accepting: AbortOnDropHandle::new(tokio::spawn(accept(listener))) })
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

/// What the application answers: what it was told, and what it made of it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Answer {
    /// Always `legacy`.
    pub(super) application: String,
    /// The path that was asked for.
    pub(super) path: String,
    /// The tenant that it believes to serve.
    pub(super) tenant: Option<String>,
    /// How many tickets that tenant has open.
    pub(super) open_tickets: Option<u32>,
    /// Every header that a backend could read as naming a tenant, with all of its values.
    pub(super) told: BTreeMap<String, Vec<String>>,
    /// How long the request's body was.
    pub(super) received_bytes: usize,
}

async fn accept(listener: TcpListener) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                // A connection that broke before it was accepted is its client's affair.
                let Ok((stream, _)) = accepted else { continue };
                connections.spawn(
                    hyper::server::conn::http1::Builder::new()
                        .timer(TokioTimer::new())
                        .serve_connection(TokioIo::new(stream), service_fn(answer)),
                );
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let mut told: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in request.headers() {
        // As CGI and WSGI fold names: `X_Tenant_ID` is `X-Tenant-ID` to them.
        if name.as_str().replace('_', "-").starts_with("x-tenant-") {
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            told.entry(name.to_string()).or_default().push(value);
        }
    }
    let tenant = told.get("x-tenant-id").and_then(|values| values.first()).cloned();
    let path = request.uri().path().to_owned();
    let mut received_bytes = 0;
    let mut body = request.into_body();
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return Ok(respond(StatusCode::BAD_REQUEST, Bytes::new())) };
        received_bytes += frame.data_ref().map_or(0, Bytes::len);
    }
    let answer = Answer {
        application: "legacy".into(),
        path,
        open_tickets: tenant.as_deref().and_then(open_tickets),
        tenant,
        told,
        received_bytes,
    };
    let json = serde_json::to_vec(&answer).expect("an answer is made of texts and numbers");
    Ok(respond(StatusCode::OK, json.into()))
}

/// The application's own data, which it keeps by tenant in memory, as old applications do.
fn open_tickets(tenant: &str) -> Option<u32> {
    [("acme", 7), ("globex", 11), ("initech", 13)]
        .into_iter()
        .find_map(|(name, tickets)| (name == tenant).then_some(tickets))
}

fn respond(status: StatusCode, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}
