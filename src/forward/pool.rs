//! Connections to one endpoint: made when needed, kept for a while, never shared by two requests
//! at a time unless they speak HTTP/2.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use http::uri::Authority;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::outgoing::Outgoing;
use crate::policy;

/// The port of an `http` authority that names none (RFC 9110, section 4.2.1).
const HTTP_PORT: u16 = 80;

/// One address of an upstream.
pub(super) struct Endpoint {
    authority: Authority,
    settings: Arc<policy::Upstream>,
    idle: Mutex<Idle>,
}

#[derive(Default)]
struct Idle {
    /// The one used last is at the end and is used next, so that a lull lets the rest expire.
    http1: Vec<Kept>,
    http2: Option<http2::SendRequest<Outgoing>>,
    reaped: bool,
}

struct Kept {
    sender: http1::SendRequest<Outgoing>,
    since: Instant,
}

/// A connection for one request.
pub(super) struct Lease {
    sender: Sender,
    endpoint: Arc<Endpoint>,
    reused: bool,
}

enum Sender {
    Http1(http1::SendRequest<Outgoing>),
    Http2(http2::SendRequest<Outgoing>),
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error("no connection within {0:?}")]
    Timeout(Duration),
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("handshake: {0}")]
    Handshake(#[from] hyper::Error),
}

impl Endpoint {
    pub(super) fn new(authority: Authority, settings: Arc<policy::Upstream>) -> Arc<Self> {
        Arc::new(Self { authority, settings, idle: Mutex::default() })
    }

    /// A kept connection if there is one and `fresh` does not forbid it, else a new one.
    pub(super) async fn connection(self: &Arc<Self>, fresh: bool) -> Result<Lease, ConnectError> {
        if !fresh {
            while let Some(mut sender) = self.take() {
                // Its last response is complete, so that it is ready as soon as its task has run.
                if sender.ready().await.is_ok() {
                    return Ok(self.lease(sender, true));
                }
            }
        }
        let limit = self.settings.connect_timeout;
        let sender =
            tokio::time::timeout(limit, self.connect()).await.map_err(|_| ConnectError::Timeout(limit))??;
        Ok(self.lease(sender, false))
    }

    fn lease(self: &Arc<Self>, sender: Sender, reused: bool) -> Lease {
        Lease { sender, endpoint: Arc::clone(self), reused }
    }

    fn take(&self) -> Option<Sender> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if self.settings.http2 {
            // Taken out if dead, so that the next request finds none rather than this one.
            let alive = idle.http2.take_if(|sender| sender.is_closed()).is_none();
            return alive.then(|| idle.http2.clone()).flatten().map(Sender::Http2);
        }
        while let Some(kept) = idle.http1.pop() {
            if !kept.sender.is_closed() && kept.since.elapsed() < self.settings.pool_idle_timeout {
                return Some(Sender::Http1(kept.sender));
            }
        }
        None
    }

    async fn connect(self: &Arc<Self>) -> Result<Sender, ConnectError> {
        let port = self.authority.port_u16().unwrap_or(HTTP_PORT);
        let host = self.authority.host().trim_start_matches('[').trim_end_matches(']');
        let stream = TcpStream::connect((host, port)).await?;
        stream.set_nodelay(true)?;
        if self.settings.http2 {
            let (sender, connection) = http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .handshake(TokioIo::new(stream))
                .await?;
            // It ends when the last sender is dropped, with the endpoint at the latest.
            tokio::spawn(connection);
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            // Of two that were made at once, the later one serves its one request.
            idle.http2.get_or_insert_with(|| sender.clone());
            return Ok(Sender::Http2(sender));
        }
        let (sender, connection) = http1::Builder::new().handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection.with_upgrades());
        Ok(Sender::Http1(sender))
    }

    fn keep(self: &Arc<Self>, sender: http1::SendRequest<Outgoing>) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.http1.len() >= self.settings.pool_max_idle || sender.is_closed() {
            return;
        }
        idle.http1.push(Kept { sender, since: Instant::now() });
        if !idle.reaped {
            idle.reaped = true;
            tokio::spawn(reap(Arc::downgrade(self), self.settings.pool_idle_timeout));
        }
    }
}

/// Closes connections that nobody used for too long. Ends when none is left, or with the endpoint.
async fn reap(endpoint: Weak<Endpoint>, limit: Duration) {
    loop {
        tokio::time::sleep(limit.max(Duration::from_millis(10))).await;
        let Some(endpoint) = endpoint.upgrade() else { return };
        let mut idle = endpoint.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.http1.retain(|kept| !kept.sender.is_closed() && kept.since.elapsed() < limit);
        if idle.http1.is_empty() {
            idle.reaped = false;
            return;
        }
    }
}

impl Sender {
    async fn ready(&mut self) -> hyper::Result<()> {
        match self {
            Self::Http1(sender) => sender.ready().await,
            Self::Http2(sender) => sender.ready().await,
        }
    }
}

impl Lease {
    /// Whether the connection has served a request before.
    pub(super) fn is_reused(&self) -> bool {
        self.reused
    }

    /// Sends a request. The error has the request in it if none of it was sent.
    pub(super) async fn send(
        &mut self,
        request: Request<Outgoing>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Outgoing>>> {
        match &mut self.sender {
            Sender::Http1(sender) => sender.try_send_request(request).await,
            Sender::Http2(sender) => sender.try_send_request(request).await,
        }
    }

    /// Keeps the connection for another request. Only for a request whose body was sent whole and
    /// whose response was read whole: a lease that is merely dropped closes its connection.
    pub(super) fn give_back(self) {
        if let Sender::Http1(sender) = self.sender {
            self.endpoint.keep(sender);
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.settings.name, self.authority)
    }
}
