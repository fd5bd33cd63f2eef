//! A client's wish to leave HTTP, made the same for both versions: whoever answers sees a GET and
//! answers 101, however the client asked.

use http::header::{self, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::ext;
use hyper::upgrade::OnUpgrade;

use super::wire::Protocol;
use crate::body::Body;
use crate::error::{Code, Refusal};
use crate::upgrade::{self, FarEnd, Wish};

/// A client that waits to hear whether it may leave HTTP.
pub(super) struct Asking {
    /// What it wishes.
    pub(super) wish: Wish,
    client: OnUpgrade,
    protocol: Protocol,
}

impl Asking {
    /// Reads the wish out of an HTTP/1.1 request whose framing leaves room for one.
    pub(super) fn over_http1(request: &mut Request<Incoming>) -> Option<Self> {
        let wish = Wish::of_headers(request.headers())?;
        Some(Self { wish, client: hyper::upgrade::on(request), protocol: Protocol::Http1 })
    }

    /// Reads it out of an extended CONNECT (RFC 8441, section 4), which becomes the GET that the
    /// same wish would have been over HTTP/1.1: a route need not know the difference.
    pub(super) fn over_http2(request: &mut Request<Incoming>) -> Option<Self> {
        if request.method() != Method::CONNECT {
            return None;
        }
        let protocol = request.extensions_mut().remove::<ext::Protocol>()?;
        let wish = Wish::of_connect(protocol.as_str());
        *request.method_mut() = Method::GET;
        if wish.is_for_websocket() {
            request.headers_mut().insert(header::SEC_WEBSOCKET_KEY, upgrade::new_websocket_key());
        }
        Some(Self { wish, client: hyper::upgrade::on(request), protocol: Protocol::Http2 })
    }

    /// Makes the answer say what the client's version of HTTP says. Where there is a far end, the
    /// client has left HTTP as soon as it has read the answer.
    ///
    /// # Errors
    /// An answer that a client would take for consent, though nobody consented: a success is one to
    /// a CONNECT (RFC 9110, section 9.3.6).
    pub(super) fn answer(
        self,
        response: &mut Response<Body>,
    ) -> Result<Option<(OnUpgrade, FarEnd)>, Refusal> {
        let Some(far_end) = response.body_mut().take_far_end() else {
            let is_consent = match self.protocol {
                Protocol::Http1 => response.status() == StatusCode::SWITCHING_PROTOCOLS,
                Protocol::Http2 => response.status().is_success(),
            };
            return if is_consent { Err(unfounded()) } else { Ok(None) };
        };
        let headers = response.headers_mut();
        match self.protocol {
            Protocol::Http1 => {
                let name =
                    HeaderValue::from_str(far_end.protocol.as_str()).expect("a token is a header value");
                headers.insert(header::UPGRADE, name);
                headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            }
            Protocol::Http2 => {
                headers.remove(header::SEC_WEBSOCKET_ACCEPT);
                *response.status_mut() = StatusCode::OK;
            }
        }
        Ok(Some((self.client, far_end)))
    }
}

/// The refusal that takes the place of an answer that says a protocol was switched when none was.
pub(super) fn unfounded() -> Refusal {
    Refusal::new(Code::InternalError, "the request could not be handled")
        .because("the answer switches protocols, and nobody is there to speak another one")
}
