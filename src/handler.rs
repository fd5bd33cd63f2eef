//! What stands between the server, which reads requests, and whoever answers them.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use http::{Request, Response};
use tokio_util::sync::CancellationToken;

use crate::body::Body;
use crate::error::Refusal;

/// What a client that closed its half of the connection is still given for an answer that must not
/// outlive it: most answers need less.
const HALF_CLOSED_GRACE: Duration = Duration::from_millis(30);

/// A client's connection.
#[derive(Debug, Clone)]
pub struct Connection {
    /// The other end.
    pub peer: SocketAddr,
    /// Our end.
    pub local: SocketAddr,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// Whether the client has stopped sending.
    pub half_closed: CancellationToken,
}

impl Connection {
    /// Comes when the client seems to have gone away: it stopped sending, and a moment has passed. One
    /// that merely closed its half looks the same, so that this is for work which must not outlive its
    /// client, such as a query.
    pub fn abandoned(&self) -> impl Future<Output = ()> + Send + 'static {
        let half_closed = self.half_closed.clone();
        async move {
            half_closed.cancelled_owned().await;
            tokio::time::sleep(HALF_CLOSED_GRACE).await;
        }
    }
}

/// A request as it came in, and whether its framing may be trusted.
#[derive(Debug)]
pub struct Inbound {
    /// The request. Where the verdict is a refusal it has no headers and no body, and its method
    /// and target are what could be read of them: enough for a record, nothing to act upon.
    pub request: Request<Body>,
    /// Whether it may be answered in earnest. A refusal is to be answered as such.
    pub verdict: Result<(), Refusal>,
}

/// Whoever answers requests. It cannot fail: every error has become a response.
pub trait Handler: Send + Sync + 'static {
    /// Answers one request. The future is dropped when the client goes away.
    fn handle(
        &self,
        inbound: Inbound,
        connection: &Connection,
    ) -> impl Future<Output = Response<Body>> + Send;

    /// The response to what the server itself has to refuse: a request whose handling panicked.
    fn refuse(&self, refusal: &Refusal) -> Response<Body>;
}
