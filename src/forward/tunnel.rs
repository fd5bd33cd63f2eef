//! The upstream's side of a switch to another protocol: what it is asked, and whether it agreed.

use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode, request};
use hyper::body::Incoming;
use hyper::ext;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;

use super::outgoing::Outgoing;
use super::pool::Lease;
use crate::error::{Code, Refusal};
use crate::policy;
use crate::upgrade::{self, FarEnd, Protocol, Switch};

/// What an upstream must say to agree.
pub(super) struct Proposal {
    switch: Switch,
    accept: Option<HeaderValue>,
    by_connect: bool,
}

/// A request that is an extended CONNECT, and whether it is nothing else.
#[derive(Clone, Copy)]
struct Connecting {
    is_binding: bool,
}

impl Proposal {
    /// Puts the wish into a request whose headers were prepared, and nothing else of the client's
    /// `Connection` and `Upgrade`. An upstream that speaks HTTP/2 is asked for a stream of one of its
    /// connections (RFC 8441, section 4), where a WebSocket has no key.
    pub(super) fn put(switch: Switch, head: &mut request::Parts, settings: &policy::Upstream) -> Self {
        let key = head.headers.get(header::SEC_WEBSOCKET_KEY).filter(|_| switch.protocol.is_websocket());
        let accept = key.map(upgrade::websocket_accept);
        let by_connect = settings.http2;
        if by_connect {
            head.headers.remove(header::SEC_WEBSOCKET_KEY);
            head.method = Method::CONNECT;
            head.extensions.insert(ext::Protocol::from(switch.protocol.as_str()));
            head.extensions.insert(Connecting { is_binding: switch.is_binding });
        } else {
            let name = HeaderValue::from_str(switch.protocol.as_str()).expect("a token is a header value");
            head.headers.insert(header::UPGRADE, name);
            head.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        }
        Self { switch, accept, by_connect }
    }

    /// Reads the upstream's answer: the far end of the tunnel where it agreed, whose answer is then 101
    /// whatever its version of HTTP; none where it said something else, which is passed on like the
    /// answers to other requests.
    ///
    /// # Errors
    /// `upstream-unreachable` where it agreed to something else, or seems to have agreed without
    /// having switched.
    pub(super) async fn judge(self, response: &mut Response<Incoming>) -> Result<Option<Agreed>, Refusal> {
        // The HTTP library has a far end only for a CONNECT that was sent as one.
        let agrees = if self.by_connect {
            response.status() == StatusCode::OK && response.extensions().get::<OnUpgrade>().is_some()
        } else {
            response.status() == StatusCode::SWITCHING_PROTOCOLS
        };
        if !agrees {
            // To a CONNECT any success is consent (RFC 9110, section 9.3.6).
            if self.switch.is_binding && response.status().is_success() {
                return Err(refusal("the upstream did not switch protocols"));
            }
            return Ok(None);
        }
        if self.by_connect {
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            if let Some(accept) = self.accept {
                response.headers_mut().insert(header::SEC_WEBSOCKET_ACCEPT, accept);
            }
        } else {
            self.check(response.headers())?;
        }
        let stream = hyper::upgrade::on(response)
            .await
            .map_err(|error| refusal("the upstream broke off while it switched protocols").because(error))?;
        Ok(Some(Agreed { protocol: self.switch.protocol, stream }))
    }

    fn check(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let agreed = headers.get(header::UPGRADE).map(HeaderValue::as_bytes).unwrap_or_default();
        if !agreed.eq_ignore_ascii_case(self.switch.protocol.as_str().as_bytes()) {
            return Err(refusal("the upstream switched to a protocol that it was not asked for"));
        }
        if self.accept.is_some() && self.accept.as_ref() != headers.get(header::SEC_WEBSOCKET_ACCEPT) {
            return Err(refusal("the upstream did not understand the WebSocket handshake"));
        }
        Ok(())
    }
}

/// Whether a request is an extended CONNECT.
pub(super) fn is_connect(request: &Request<Outgoing>) -> bool {
    request.extensions().get::<Connecting>().is_some()
}

/// Makes an extended CONNECT fit the connection: where the other side does not offer that (RFC 8441,
/// section 3), a wish that can be left unheard is.
///
/// # Errors
/// `request-invalid` where the wish cannot be left unheard.
pub(super) async fn fit(request: &mut Request<Outgoing>, lease: &Lease) -> Result<(), Refusal> {
    if lease.offers_connect().await {
        return Ok(());
    }
    let connecting = request.extensions_mut().remove::<Connecting>();
    if connecting.is_some_and(|connecting| connecting.is_binding) {
        return Err(Refusal::new(Code::RequestInvalid, "this route cannot switch protocols")
            .with_status(StatusCode::NOT_IMPLEMENTED)
            .because("the upstream speaks HTTP/2 and offers no extended CONNECT"));
    }
    request.extensions_mut().remove::<ext::Protocol>();
    *request.method_mut() = Method::GET;
    Ok(())
}

/// An upstream that has left HTTP.
pub(super) struct Agreed {
    protocol: Protocol,
    stream: Upgraded,
}

impl Agreed {
    /// The far end of the tunnel, which counts as a request of its upstream for as long as it stands.
    pub(super) fn hold(self, lease: Lease) -> FarEnd {
        let Self { protocol, stream } = self;
        FarEnd { protocol, stream: Box::pin(TokioIo::new(stream)), held: Box::new(lease) }
    }
}

fn refusal(detail: &'static str) -> Refusal {
    Refusal::new(Code::UpstreamUnreachable, detail)
}
