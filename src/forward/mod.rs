//! Forwarding: a request goes to one of an upstream's endpoints, its response comes back, both
//! streamed.

pub mod forwarded;
pub mod headers;
pub mod rewrite;

mod outgoing;
mod pool;
mod response;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::header::{self, HeaderValue};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, Version, request, uri};
use http_body::Body as _;
use hyper::body::Incoming;

use self::outgoing::Outgoing;
use self::pool::{ConnectError, Endpoint, Lease};
use crate::body::Body;
use crate::error::{Code, Refusal};
use crate::policy;

/// An upstream with its connections. It is shared by every snapshot whose policy describes the
/// upstream alike, so that a reload keeps connections open.
pub struct Upstream {
    settings: Arc<policy::Upstream>,
    endpoints: Vec<Arc<Endpoint>>,
    turn: AtomicUsize,
}

impl Upstream {
    /// An upstream without a connection yet.
    pub fn new(settings: Arc<policy::Upstream>) -> Self {
        let endpoints = settings
            .endpoints
            .iter()
            .map(|endpoint| Endpoint::new(endpoint.authority.clone(), Arc::clone(&settings)))
            .collect();
        Self { settings, endpoints, turn: AtomicUsize::new(0) }
    }

    /// What the policy says of it.
    pub fn settings(&self) -> &Arc<policy::Upstream> {
        &self.settings
    }

    /// Sends a request whose headers were prepared ([`headers::prepare`]) and waits for the
    /// response's head. Endpoints are tried in turn until one can be connected to; nothing that
    /// may have reached an endpoint is sent twice, but for a request that is safe to repeat and
    /// that met a kept connection in the moment of its closing.
    ///
    /// Dropping the future, or the response's body, cancels the request at the upstream.
    ///
    /// # Errors
    /// `upstream-unreachable` or `upstream-timeout`, whose cause names the endpoint; or what was
    /// wrong with the request's own body.
    pub async fn send(&self, request: Request<Body>) -> Result<Response<Body>, Refusal> {
        let (mut head, body) = request.into_parts();
        self.address(&mut head, &body)?;
        let (outgoing, progress) = Outgoing::new(body);
        let mut request = Request::from_parts(head, outgoing);
        let first = self.turn.fetch_add(1, Ordering::Relaxed);
        let mut failure = None;
        for offset in 0..self.endpoints.len() {
            let endpoint = &self.endpoints[first.wrapping_add(offset) % self.endpoints.len()];
            let mut fresh = false;
            // A kept connection may turn out to be closed: then once more, over a new one.
            loop {
                let mut lease = match endpoint.connection(fresh).await {
                    Ok(lease) => lease,
                    Err(error) => {
                        failure = Some((endpoint, error));
                        break;
                    }
                };
                let spare = (lease.is_reused() && progress.is_none() && is_safe(request.method()))
                    .then(|| copy_of(&request));
                let limit = self.settings.response_timeout;
                match outgoing::within(limit, progress.as_deref(), lease.send(request)).await {
                    Ok(Ok(response)) => return accept(response, lease, progress, &self.settings),
                    Ok(Err(mut error)) => {
                        if let Some(broken) = progress.as_deref().and_then(outgoing::Progress::failure) {
                            return Err(broken.refusal());
                        }
                        let unsent = error.take_message();
                        let error = error.into_error();
                        let again =
                            if lease.is_reused() && !error.is_parse() { unsent.or(spare) } else { None };
                        match again {
                            Some(again) if !fresh => {
                                request = again;
                                fresh = true;
                            }
                            _ => {
                                return Err(unreachable("the upstream broke off before it answered")
                                    .because(format_args!("{endpoint}: {}", chain(&error))));
                            }
                        }
                    }
                    Err(outgoing::TimedOut) => {
                        return Err(Refusal::new(
                            Code::UpstreamTimeout,
                            "the upstream did not answer in time",
                        )
                        .because(format_args!("{endpoint}: no response head within {limit:?}")));
                    }
                }
            }
        }
        Err(match failure {
            Some((endpoint, error @ ConnectError::Timeout(_))) => {
                Refusal::new(Code::UpstreamTimeout, "the upstream could not be connected to in time")
                    .because(format_args!("{endpoint}: {error}"))
            }
            Some((endpoint, error)) => unreachable("the upstream cannot be connected to")
                .because(format_args!("{endpoint}: {error}")),
            None => unreachable("the upstream has no endpoint"),
        })
    }

    /// Makes a head say what the upstream's protocol says: an origin-form target and `Host`, or
    /// `:scheme` and `:authority`.
    fn address(&self, head: &mut request::Parts, body: &Body) -> Result<(), Refusal> {
        let target = head.uri.path_and_query().cloned().unwrap_or(uri::PathAndQuery::from_static("/"));
        let mut uri = uri::Parts::default();
        uri.path_and_query = Some(target);
        if self.settings.http2 {
            head.version = Version::HTTP_2;
            let host = head.headers.remove(header::HOST);
            let authority = match &host {
                Some(host) => uri::Authority::try_from(host.as_bytes())
                    .map_err(|_| Refusal::new(Code::RequestInvalid, "header `host` is not a host"))?,
                None => self
                    .settings
                    .endpoints
                    .first()
                    .map(|first| first.authority.clone())
                    .ok_or_else(|| unreachable("the upstream has no endpoint"))?,
            };
            uri.scheme = Some(uri::Scheme::HTTP);
            uri.authority = Some(authority);
        } else {
            head.version = Version::HTTP_11;
            head.headers.remove(header::TE);
            if !head.headers.contains_key(header::HOST)
                && let Some(first) = self.settings.endpoints.first()
                && let Ok(host) = HeaderValue::from_str(first.authority.as_str())
            {
                head.headers.insert(header::HOST, host);
            }
            // Said outright: for a GET the client library would leave a body of unknown length out.
            if !body.is_end_stream() && body.size_hint().exact().is_none() {
                head.headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
            }
        }
        head.uri = Uri::from_parts(uri).map_err(|error| {
            Refusal::new(Code::RequestInvalid, "the request target cannot be forwarded").because(error)
        })?;
        Ok(())
    }
}

/// Turns an upstream's response into ours.
fn accept(
    response: Response<Incoming>,
    lease: Lease,
    progress: Option<Arc<outgoing::Progress>>,
    settings: &policy::Upstream,
) -> Result<Response<Body>, Refusal> {
    // We never ask for an upgrade, so that what follows a 101 would be bytes of no protocol.
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Err(unreachable("the upstream switched protocols unasked"));
    }
    let (mut head, body) = response.into_parts();
    headers::clean_response(&mut head.headers);
    let body = response::receive(body, lease, progress, settings.body_idle_timeout);
    Ok(Response::from_parts(head, body))
}

/// Methods that change nothing, so that a repetition does no harm (RFC 9110, section 9.2.1).
fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

fn copy_of(request: &Request<Outgoing>) -> Request<Outgoing> {
    let mut copy = Request::new(Outgoing::empty());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = HeaderMap::clone(request.headers());
    copy
}

fn unreachable(detail: &'static str) -> Refusal {
    Refusal::new(Code::UpstreamUnreachable, detail)
}

/// An error with everything that it wraps, for the log.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        source = inner.source();
    }
    text
}
