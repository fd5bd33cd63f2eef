//! What stands between the server, which reads requests, and whoever answers them.

use std::future::Future;
use std::net::SocketAddr;

use http::{Request, Response};

use crate::body::Body;
use crate::error::Refusal;
use crate::upgrade::Wish;

/// A client's connection.
#[derive(Debug, Clone)]
pub struct Connection {
    /// The other end.
    pub peer: SocketAddr,
    /// Our end.
    pub local: SocketAddr,
    /// `http` or `https`.
    pub scheme: &'static str,
}

/// A request as it came in, and whether its framing may be trusted.
#[derive(Debug)]
pub struct Inbound {
    /// The request. Where the verdict is a refusal it has no headers and no body, and its method
    /// and target are what could be read of them: enough for a record, nothing to act upon.
    pub request: Request<Body>,
    /// What the client would rather speak than HTTP. Whoever grants it answers with status 101 and
    /// [`Body::tunnel`], whatever version of HTTP the client speaks.
    pub upgrade: Option<Wish>,
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
