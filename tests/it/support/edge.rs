//! The server alone, with a handler that a test writes.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::Response;
use innkeeper::body::Body;
use innkeeper::error::Refusal;
use innkeeper::forward::headers::{self, Caller, Hop};
use innkeeper::forward::{Errand, Upstream};
use innkeeper::handler::{Connection, Handler, Inbound};
use innkeeper::policy::{self, Endpoint};
use innkeeper::request_id::RequestId;
use innkeeper::server::{Drained, Listener, ServerSettings, Successor, Workers, serve};
use innkeeper::telemetry::Metrics;
use innkeeper::upgrade::Protocol;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

type Answering = Pin<Box<dyn Future<Output = Result<Response<Body>, Refusal>> + Send>>;

/// A running server.
pub(crate) struct Edge {
    pub(crate) address: SocketAddr,
    pub(crate) metrics: Arc<Metrics>,
    /// Requests that the handler saw and whose framing was sound: method and target.
    pub(crate) seen: Arc<Mutex<Vec<String>>>,
    pub(crate) shutdown: CancellationToken,
    served: JoinHandle<Drained>,
}

struct TestHandler<F> {
    answer: F,
    seen: Arc<Mutex<Vec<String>>>,
}

impl<F: Fn(Inbound, Connection) -> Answering + Send + Sync + 'static> Handler for TestHandler<F> {
    async fn handle(&self, inbound: Inbound, connection: &Connection) -> Response<Body> {
        if let Err(refusal) = &inbound.verdict {
            return self.refuse(refusal);
        }
        let line = format!("{} {}", inbound.request.method(), inbound.request.uri());
        self.seen.lock().unwrap().push(line);
        match (self.answer)(inbound, connection.clone()).await {
            Ok(response) => response,
            Err(refusal) => self.refuse(&refusal),
        }
    }

    fn refuse(&self, refusal: &Refusal) -> Response<Body> {
        Response::builder()
            .status(refusal.status())
            .header("content-type", "application/problem+json")
            .body(Body::full(refusal.to_string()))
            .unwrap()
    }
}

impl Edge {
    /// Serves with default limits.
    pub(crate) async fn start<F, Fut>(answer: F) -> Self
    where
        F: Fn(Inbound, Connection) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Response<Body>, Refusal>> + Send + 'static,
    {
        Self::start_with(ServerSettings::default(), answer).await
    }

    pub(crate) async fn start_with<F, Fut>(settings: ServerSettings, answer: F) -> Self
    where
        F: Fn(Inbound, Connection) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Response<Body>, Refusal>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let plain = policy::Listener::plain(address.into());
        let listener = Listener::tcp(listener, &plain, Successor::None).unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let handler = TestHandler {
            answer: move |inbound, connection| -> Answering { Box::pin(answer(inbound, connection)) },
            seen: Arc::clone(&seen),
        };
        let metrics = Metrics::new();
        let shutdown = CancellationToken::new();
        let served = tokio::spawn(serve(
            vec![listener],
            settings,
            Arc::new(handler),
            Arc::clone(&metrics),
            Arc::new(Workers::start(0).unwrap()),
            shutdown.clone(),
        ));
        Self { address, metrics, seen, shutdown, served }
    }

    /// Serves a gateway that forwards everything.
    pub(crate) async fn forwarding(settings: policy::Upstream) -> Self {
        Self::forwarding_with(ServerSettings::default(), settings).await
    }

    pub(crate) async fn forwarding_with(server: ServerSettings, settings: policy::Upstream) -> Self {
        let upstream = Arc::new(Upstream::new(Arc::new(settings), &Metrics::new()));
        Self::forwarding_to(server, upstream).await
    }

    /// Serves a gateway that forwards everything to this upstream.
    pub(crate) async fn forwarding_to(server: ServerSettings, upstream: Arc<Upstream>) -> Self {
        Self::start_with(server, move |inbound, connection| {
            let upstream = Arc::clone(&upstream);
            async move {
                let mut request = inbound.request;
                let switch = inbound.upgrade.and_then(|wish| wish.grant(&[Protocol::websocket()]));
                let authority = request
                    .headers()
                    .get("host")
                    .map(|host| host.to_str().unwrap().to_owned())
                    .or_else(|| request.uri().authority().map(ToString::to_string))
                    .unwrap_or_default();
                let hop = Hop { scheme: "http", authority: &authority, peer: connection.peer, hops: &[] };
                headers::prepare(request.headers_mut(), hop, Caller::NoTenant, &RequestId::fresh());
                upstream.send(request, &mut Errand { switch, ..Errand::default() }).await
            }
        })
        .await
    }

    /// Shuts down and waits until everything has ended.
    pub(crate) async fn drain(self) -> Drained {
        self.shutdown.cancel();
        self.served.await.unwrap()
    }
}

/// An upstream with patience for a busy test machine.
pub(crate) fn upstream(endpoints: &[SocketAddr]) -> policy::Upstream {
    policy::Upstream {
        connect_timeout: Duration::from_secs(20),
        response_timeout: Duration::from_secs(20),
        body_idle_timeout: Duration::from_secs(20),
        ..policy::Upstream::new("app".into(), endpoints.iter().copied().map(endpoint).collect())
    }
}

/// An endpoint at this address, without encryption.
pub(crate) fn endpoint(address: SocketAddr) -> Endpoint {
    Endpoint::Http(address.to_string().parse().unwrap())
}

/// Answers with what was sent.
pub(crate) async fn echo(inbound: Inbound, _: Connection) -> Result<Response<Body>, Refusal> {
    Ok(Response::new(inbound.request.into_body()))
}

/// Reads the whole body, then says how long it was.
pub(crate) async fn measure(inbound: Inbound, _: Connection) -> Result<Response<Body>, Refusal> {
    let body = inbound.request.into_body().read_whole(usize::MAX).await.map_err(|error| error.refusal())?;
    Ok(Response::new(Body::full(body.len().to_string())))
}
