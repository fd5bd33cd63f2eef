//! One request and its response, between the HTTP library and the handler.

use std::error::Error;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Request, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;

use super::ServerSettings;
use super::flow::{Flow, InFlight};
use super::framing::Framing;
use super::patience::Patience;
use super::reason::{BrokenFraming, Reason};
use super::wire::Protocol;
use crate::body::{Body, BodyError};
use crate::error::{Code, Refusal};
use crate::handler::{Connection, Handler, Inbound};

/// What the requests of one connection share.
pub(super) struct Exchange<H> {
    pub(super) handler: Arc<H>,
    pub(super) settings: Arc<ServerSettings>,
    /// Whether each response is to be its connection's last.
    pub(super) draining: Arc<AtomicBool>,
    pub(super) connection: Connection,
    pub(super) flow: Arc<Flow>,
    pub(super) protocol: Protocol,
}

impl<H: Handler> Exchange<H> {
    /// Answers one request. It cannot fail, and it does not panic.
    pub(super) async fn answer(&self, request: Request<Incoming>) -> Response<Answer> {
        let framing = match self.protocol {
            Protocol::Http1 => Some(self.flow.pop().unwrap_or(Err(Reason::Disagreement))),
            Protocol::Http2 => {
                self.flow.begin();
                None
            }
        };
        let mut in_flight = InFlight::new(Arc::clone(&self.flow));
        let verdict = self.judge(&request, framing);
        let refused = verdict.is_err();
        let inbound = if refused {
            let mut bare = Request::new(Body::empty());
            *bare.method_mut() = request.method().clone();
            *bare.uri_mut() = request.uri().clone();
            *bare.version_mut() = request.version();
            Inbound { request: bare, verdict }
        } else {
            Inbound { request: request.map(|body| self.receive(body)), verdict }
        };
        let answering = Guarded(pin!(self.handler.handle(inbound, &self.connection)));
        let mut response = answering.await.unwrap_or_else(|panic| {
            let refusal =
                Refusal::new(Code::InternalError, "the request could not be handled").because(panic);
            self.handler.refuse(&refusal)
        });
        in_flight.answered();
        let is_last = refused || self.draining.load(Ordering::Relaxed);
        if is_last && self.protocol == Protocol::Http1 {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response.map(|body| Answer { body, _in_flight: in_flight })
    }

    fn judge(
        &self,
        request: &Request<Incoming>,
        framing: Option<Result<Framing, Reason>>,
    ) -> Result<(), Refusal> {
        let length = request.body().size_hint().exact();
        match framing {
            Some(Err(reason)) => return Err(reason.refusal()),
            Some(Ok(framing)) => {
                let same = match framing {
                    Framing::Length(expected) => length == Some(expected),
                    Framing::Chunked => length.is_none(),
                };
                if !same {
                    return Err(Reason::Disagreement.refusal());
                }
            }
            None if request.headers().len() > self.settings.limits.header_count => {
                return Err(Reason::TooManyFields.refusal());
            }
            None => {}
        }
        let limit = self.settings.limits.body_bytes;
        if length.is_some_and(|length| length > limit) {
            return Err(BodyError::TooLarge { limit }.refusal());
        }
        Ok(())
    }

    fn receive(&self, body: Incoming) -> Body {
        if body.is_end_stream() {
            return Body::empty();
        }
        Body::stream(Received {
            body,
            passed: 0,
            limit: self.settings.limits.body_bytes,
            idle: self.settings.timeouts.body_idle,
            patience: Patience::new(),
        })
    }
}

/// A request's body, held to its limits.
struct Received {
    body: Incoming,
    passed: u64,
    limit: u64,
    idle: Duration,
    patience: Patience,
}

impl HttpBody for Received {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) else {
            ready!(this.patience.poll_over(cx, this.idle));
            return Poll::Ready(Some(Err(BodyError::ClientSlow(this.idle))));
        };
        this.patience.calm();
        Poll::Ready(match frame {
            Some(Ok(frame)) => {
                this.passed += frame.data_ref().map_or(0, |data| data.len() as u64);
                if this.passed > this.limit {
                    Some(Err(BodyError::TooLarge { limit: this.limit }))
                } else {
                    Some(Ok(frame))
                }
            }
            Some(Err(error)) => Some(Err(broken(&error))),
            None => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Tells framing that we refused from a client that went away.
fn broken(error: &hyper::Error) -> BodyError {
    let mut source = error.source();
    while let Some(inner) = source {
        let framing = inner
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::get_ref)
            .and_then(|inner| inner.downcast_ref::<BrokenFraming>());
        if let Some(BrokenFraming(reason)) = framing {
            return BodyError::ClientMalformed(reason.detail());
        }
        source = inner.source();
    }
    BodyError::ClientGone(error.to_string())
}

/// A response's body, which keeps its request in flight.
pub(super) struct Answer {
    body: Body,
    _in_flight: InFlight,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A future whose panic is a value: one request's bug must not end the connection's others, nor
/// go unanswered.
struct Guarded<'a, F>(Pin<&'a mut F>);

impl<F: Future> Future for Guarded<'_, F> {
    type Output = Result<F::Output, String>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // Sound to assert: after a panic the future is not polled again, and what it shares with
        // other requests is behind locks that recover from poisoning.
        match catch_unwind(AssertUnwindSafe(|| self.0.as_mut().poll(cx))) {
            Ok(polled) => polled.map(Ok),
            Err(panic) => {
                let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
                let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
                Poll::Ready(Err(format!("panic: {}", text.as_deref().unwrap_or("of unknown kind"))))
            }
        }
    }
}
