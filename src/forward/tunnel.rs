//! The upstream's side of a switch to another protocol: what it is asked, and whether it agreed.

use http::header::{self, HeaderMap, HeaderValue};
use http::{Response, StatusCode, request};
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;

use super::pool::Lease;
use crate::error::{Code, Refusal};
use crate::policy;
use crate::upgrade::{self, FarEnd, Protocol, Switch};

/// What an upstream must say to agree.
pub(super) struct Proposal {
    switch: Switch,
    accept: Option<HeaderValue>,
}

impl Proposal {
    /// Puts the wish into a request whose headers were prepared, and nothing else of the client's
    /// `Connection` and `Upgrade`. An upstream that speaks HTTP/2 is not asked: its connections have
    /// other requests and cannot become another protocol. Then a wish that can be left unheard is.
    ///
    /// # Errors
    /// `request-invalid` where the wish cannot be left unheard.
    pub(super) fn put(
        switch: Switch,
        head: &mut request::Parts,
        settings: &policy::Upstream,
    ) -> Result<Option<Self>, Refusal> {
        if settings.http2 {
            return if switch.is_binding {
                Err(Refusal::new(Code::RequestInvalid, "this route cannot switch protocols")
                    .with_status(StatusCode::NOT_IMPLEMENTED)
                    .because(format_args!("upstream {} speaks HTTP/2", settings.name)))
            } else {
                Ok(None)
            };
        }
        let name = HeaderValue::from_str(switch.protocol.as_str()).expect("a token is a header value");
        head.headers.insert(header::UPGRADE, name);
        head.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        let key = head.headers.get(header::SEC_WEBSOCKET_KEY).filter(|_| switch.protocol.is_websocket());
        let accept = key.map(upgrade::websocket_accept);
        Ok(Some(Self { switch, accept }))
    }

    /// Reads the upstream's answer: the far end of the tunnel where it agreed; none where it said
    /// something else, which is passed on like the answers to other requests.
    ///
    /// # Errors
    /// `upstream-unreachable` where it agreed to something else, or seems to have agreed without
    /// having switched.
    pub(super) async fn judge(self, response: &mut Response<Incoming>) -> Result<Option<Agreed>, Refusal> {
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            // To a CONNECT any success is consent (RFC 9110, section 9.3.6).
            if self.switch.is_binding && response.status().is_success() {
                return Err(refusal("the upstream did not switch protocols"));
            }
            return Ok(None);
        }
        self.check(response.headers())?;
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
