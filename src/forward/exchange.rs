//! One try of a request at one endpoint.

use http::header::{self, HeaderMap, HeaderValue};
use http::{Request, Response, Uri, Version, uri};
use http_body::Body as _;
use hyper::body::Incoming;

use super::connect::ConnectError;
use super::endpoint::Endpoint;
use super::outgoing::{Outgoing, Progress, TimedOut, within};
use super::pool::Lease;
use super::{retry, tunnel};
use crate::error::{self, Code, Refusal};
use crate::policy;

/// What came of a try.
pub(super) struct Tried {
    pub(super) outcome: Result<Answer, Failure>,
    /// The request once more, where it may be sent again as far as its method and its body tell.
    pub(super) again: Option<Request<Outgoing>>,
}

/// An upstream's answer, and the connection that it comes over.
pub(super) struct Answer {
    pub(super) response: Response<Incoming>,
    pub(super) lease: Lease,
}

/// Why there is none.
pub(super) enum Failure {
    /// There was no connection to be had: nothing was sent.
    Connect(ConnectError),
    /// The connection broke.
    Broke(String),
    /// It took too long.
    Slow(std::time::Duration),
    /// Not the endpoint's fault: the client's body broke off, or its target cannot be said.
    Refused(Refusal),
}

/// Sends a request to an endpoint and waits for the response's head.
pub(super) async fn attempt(
    endpoint: &Endpoint,
    mut request: Request<Outgoing>,
    progress: Option<&Progress>,
    settings: &policy::Upstream,
) -> Tried {
    let mut fresh = false;
    // A kept connection may turn out to be closed: then once more, over a new one.
    loop {
        let mut lease = match endpoint.pool.lease(fresh).await {
            Ok(lease) => lease,
            Err(error) => return Tried { outcome: Err(Failure::Connect(error)), again: Some(request) },
        };
        if tunnel::is_connect(&request)
            // On the heap: most requests would carry it with them for nothing.
            && let Err(refusal) = Box::pin(tunnel::fit(&mut request, &lease)).await
        {
            return Tried { outcome: Err(Failure::Refused(refusal)), again: None };
        }
        let safe = retry::is_safe(request.method());
        let repeatable = progress.is_none()
            && (safe && (lease.is_reused() || settings.hedge.is_some())
                || settings.retries.attempts > 0 && retry::is_idempotent(request.method()));
        let spare = repeatable.then(|| copy_of(&request));
        if let Err(refusal) = address(&mut request, &lease) {
            return Tried { outcome: Err(Failure::Refused(refusal)), again: None };
        }
        let limit = settings.response_timeout;
        match within(limit, progress, lease.send(request)).await {
            Ok(Ok(response)) => return Tried { outcome: Ok(Answer { response, lease }), again: spare },
            Ok(Err(mut error)) => {
                if let Some(broken) = progress.and_then(Progress::failure) {
                    return Tried { outcome: Err(Failure::Refused(broken.refusal())), again: None };
                }
                let unsent = error.take_message();
                let harmless = unsent.is_some() || safe;
                let error = error.into_error();
                match unsent.or(spare) {
                    Some(again) if lease.is_reused() && !fresh && harmless && !error.is_parse() => {
                        request = again;
                        fresh = true;
                    }
                    again => return Tried { outcome: Err(Failure::Broke(error::in_full(&error))), again },
                }
            }
            Err(TimedOut) => return Tried { outcome: Err(Failure::Slow(limit)), again: spare },
        }
    }
}

impl Failure {
    /// What the client is told, and the operator besides.
    pub(super) fn refusal(self, endpoint: &Endpoint) -> Refusal {
        match self {
            Self::Connect(error @ ConnectError::Timeout(_)) => {
                Refusal::new(Code::UpstreamTimeout, "the upstream could not be connected to in time")
                    .because(format_args!("{endpoint}: {error}"))
            }
            Self::Connect(error @ ConnectError::Busy(_)) => {
                super::overloaded().because(format_args!("{endpoint}: {error}"))
            }
            Self::Connect(error) => super::unreachable("the upstream cannot be connected to")
                .because(format_args!("{endpoint}: {error}")),
            Self::Broke(error) => super::unreachable("the upstream broke off before it answered")
                .because(format_args!("{endpoint}: {error}")),
            Self::Slow(limit) => Refusal::new(Code::UpstreamTimeout, "the upstream did not answer in time")
                .because(format_args!("{endpoint}: no response head within {limit:?}")),
            Self::Refused(refusal) => refusal,
        }
    }
}

/// Makes a request say what the connection's protocol says: an origin-form target and `Host`, or
/// `:scheme` and `:authority`. It may have been addressed to another connection before.
fn address(request: &mut Request<Outgoing>, lease: &Lease) -> Result<(), Refusal> {
    let whole = !request.body().is_end_stream() && request.body().size_hint().exact().is_none();
    let target = request.uri().path_and_query().cloned().unwrap_or(uri::PathAndQuery::from_static("/"));
    let said = request.uri().authority().filter(|_| request.version() == Version::HTTP_2).cloned();
    let mut parts = uri::Parts::default();
    parts.path_and_query = Some(target);
    if lease.is_http2() {
        let headers = request.headers_mut();
        headers.remove(header::TRANSFER_ENCODING);
        let authority = match (headers.remove(header::HOST), said) {
            (Some(host), _) => uri::Authority::try_from(host.as_bytes())
                .map_err(|_| Refusal::new(Code::RequestInvalid, "header `host` is not a host"))?,
            (None, Some(said)) => said,
            (None, None) => lease.authority().clone(),
        };
        let encrypted = lease.is_encrypted();
        parts.scheme = Some(if encrypted { uri::Scheme::HTTPS } else { uri::Scheme::HTTP });
        parts.authority = Some(authority);
        *request.version_mut() = Version::HTTP_2;
    } else {
        let headers = request.headers_mut();
        headers.remove(header::TE);
        join_cookies(headers);
        if !headers.contains_key(header::HOST) {
            let host = said.as_ref().unwrap_or(lease.authority());
            let host = HeaderValue::from_str(host.as_str()).expect("an authority is a header value");
            headers.insert(header::HOST, host);
        }
        // Said outright: for a GET the client library would leave a body of unknown length out.
        if whole {
            headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        *request.version_mut() = Version::HTTP_11;
    }
    *request.uri_mut() = Uri::from_parts(parts).map_err(|error| {
        Refusal::new(Code::RequestInvalid, "the request target cannot be forwarded").because(error)
    })?;
    Ok(())
}

/// Puts the crumbs of a cookie together: HTTP/2 may send them one by one, HTTP/1.1 may not
/// (RFC 9113, section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let mut crumbs = headers.get_all(header::COOKIE).iter();
    if let (Some(_), Some(_)) = (crumbs.next(), crumbs.next()) {
        let crumbs: Vec<&[u8]> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
        let whole = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])).expect("its parts are values");
        headers.insert(header::COOKIE, whole);
    }
}

/// The same request; only for one without a body.
pub(super) fn copy_of(request: &Request<Outgoing>) -> Request<Outgoing> {
    let mut copy = Request::new(Outgoing::empty());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = HeaderMap::clone(request.headers());
    copy
}
