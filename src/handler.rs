//! What stands between the server, which reads requests, and whoever answers them.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response, StatusCode};
use tokio_util::sync::CancellationToken;

use crate::address::{ListenAddress, Peer};
use crate::body::Body;
use crate::client_certificate::ClientCertificate;
use crate::error::{Code, Refusal};
use crate::server_names::ServerNames;
use crate::upgrade::Wish;

/// What a client that closed its half of the connection is still given for an answer that must not
/// outlive it: most answers need less.
const HALF_CLOSED_GRACE: Duration = Duration::from_millis(30);

/// A client's connection.
#[derive(Debug, Clone)]
pub struct Connection {
    /// The other end: who a trusted hop says it is, where one spoke for it (PROXY protocol).
    pub peer: Peer,
    /// Our end.
    pub local: ListenAddress,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// Whom the client proved to be, where the listener asks for a certificate and it gave one.
    pub client_certificate: Option<Arc<ClientCertificate>>,
    /// The hosts that our certificate on this connection speaks for, where the listener asks clients
    /// for theirs: other hosts are refused here, as who the client is was settled for these.
    pub names: Option<Arc<ServerNames>>,
    /// Whether the client has stopped sending.
    pub half_closed: CancellationToken,
}

impl Connection {
    /// Whether a request for `host`, in lower case, may be answered here.
    ///
    /// # Errors
    /// `request-invalid` with the status 421 (RFC 9110, section 15.5.20).
    pub fn serves(&self, host: &str) -> Result<(), Refusal> {
        if self.names.as_ref().is_none_or(|names| names.cover(host)) {
            return Ok(());
        }
        let detail = "this connection was made for another host: make a new one for this";
        Err(Refusal::new(Code::RequestInvalid, detail).with_status(StatusCode::MISDIRECTED_REQUEST))
    }

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
