//! One request and its response, between the HTTP library and the handler.

use std::error::Error;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use tokio_util::task::TaskTracker;

use super::ServerSettings;
use super::flow::{Decision, Flow, InFlight};
use super::framing::{Framing, Head};
use super::patience::Patience;
use super::reason::{BrokenFraming, Reason};
use super::switch::{self, Asking};
use super::taking::Delivery;
use super::tunnel::Tunnel;
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
    /// Where tunnels of streams are served.
    pub(super) tasks: TaskTracker,
    pub(super) tunnel: Mutex<Option<Tunnel>>,
}

impl<H: Handler> Exchange<H> {
    /// Answers one request. It cannot fail, and it does not panic.
    pub(super) async fn answer(
        &self,
        mut request: Request<Incoming>,
        delivery: Option<Arc<Delivery>>,
    ) -> Response<Answer> {
        let head = match self.protocol {
            Protocol::Http1 => Some(self.flow.pop().unwrap_or(Err(Reason::Disagreement))),
            Protocol::Http2 => {
                self.flow.begin();
                None
            }
        };
        let mut in_flight = InFlight::new(Arc::clone(&self.flow));
        let asking = match head {
            Some(Ok(Head { asks_to_switch: true, .. })) => Asking::over_http1(&mut request),
            Some(_) => None,
            None => Asking::over_http2(&mut request),
        };
        let verdict = self.judge(&request, head);
        let refused = verdict.is_err();
        let is_answered = (!request.body().is_end_stream()).then(Arc::<AtomicBool>::default);
        let upgrade = asking.as_ref().map(|asking| asking.wish.clone());
        let inbound = if refused {
            let mut bare = Request::new(Body::empty());
            *bare.method_mut() = request.method().clone();
            *bare.uri_mut() = request.uri().clone();
            *bare.version_mut() = request.version();
            Inbound { request: bare, upgrade, verdict }
        } else {
            let request = request.map(|body| self.receive(body, is_answered.clone()));
            Inbound { request, upgrade, verdict }
        };
        let answering = Guarded(pin!(self.handler.handle(inbound, &self.connection)));
        let mut response = answering.await.unwrap_or_else(|panic| {
            let refusal =
                Refusal::new(Code::InternalError, "the request could not be handled").because(panic);
            self.handler.refuse(&refusal)
        });
        in_flight.answered();
        if let Some(is_answered) = is_answered {
            is_answered.store(true, Ordering::Release);
        }
        let is_last = refused || self.draining.load(Ordering::Relaxed);
        if is_last && self.protocol == Protocol::Http1 {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        let switched = match asking {
            Some(asking) => asking.answer(&mut response),
            None if response.status() == StatusCode::SWITCHING_PROTOCOLS => Err(switch::unfounded()),
            None => Ok(None),
        };
        if let Some(Ok(Head { asks_to_switch: true, .. })) = head {
            let switches = matches!(switched, Ok(Some(_)));
            self.flow.decide(if switches { Decision::Switch } else { Decision::Stay });
        }
        match switched {
            Ok(None) => response.map(|body| Answer { body, delivery, _in_flight: Some(in_flight) }),
            Ok(Some((client, far_end))) => {
                let (head, answer) = response.into_parts();
                let idle = self.settings.timeouts.tunnel_idle;
                let metrics = Arc::clone(&self.flow.metrics);
                self.begin(Tunnel { client, far_end, answer, in_flight, idle, metrics });
                Response::from_parts(head, Answer { body: Body::empty(), delivery: None, _in_flight: None })
            }
            Err(refusal) => {
                let response = self.handler.refuse(&refusal);
                response.map(|body| Answer { body, delivery, _in_flight: Some(in_flight) })
            }
        }
    }

    /// The tunnel that the connection has become, if it has left HTTP/1.1.
    pub(super) fn take_tunnel(&self) -> Option<Tunnel> {
        self.tunnel.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn begin(&self, tunnel: Tunnel) {
        match self.protocol {
            // The connection is the tunnel: whoever served the one serves the other.
            Protocol::Http1 => {
                *self.tunnel.lock().unwrap_or_else(PoisonError::into_inner) = Some(tunnel);
            }
            // The connection has other streams, and breaks this one when it is cut off.
            Protocol::Http2 => {
                self.tasks.spawn(tunnel.run());
            }
        }
    }

    fn judge(&self, request: &Request<Incoming>, head: Option<Result<Head, Reason>>) -> Result<(), Refusal> {
        let length = request.body().size_hint().exact();
        match head {
            Some(Err(reason)) => return Err(reason.refusal()),
            Some(Ok(head)) => {
                let same = match head.framing {
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

    fn receive(&self, body: Incoming, is_answered: Option<Arc<AtomicBool>>) -> Body {
        let Some(is_answered) = is_answered else { return Body::empty() };
        Body::stream(Received {
            body,
            passed: 0,
            limit: self.settings.limits.body_bytes,
            idle: self.settings.timeouts.body_idle,
            conversation_idle: self.settings.timeouts.tunnel_idle,
            is_answered,
            patience: Patience::new(),
            waited: Duration::ZERO,
            min_rate: self.settings.limits.min_body_rate,
        })
    }
}

/// A request's body, held to its limits.
struct Received {
    body: Incoming,
    passed: u64,
    limit: u64,
    idle: Duration,
    conversation_idle: Duration,
    /// Whether the response has begun. From then on the two sides may be in conversation, as those
    /// of a gRPC stream are, and a client may be silent because it listens.
    is_answered: Arc<AtomicBool>,
    patience: Patience,
    /// How long its client has kept us waiting in all.
    waited: Duration,
    min_rate: u64,
}

impl Received {
    /// How long the client may be silent.
    fn limit(&self) -> Duration {
        if self.is_answered.load(Ordering::Acquire) { self.conversation_idle } else { self.idle }
    }

    /// Whether the client drips: each piece comes in time, and the body never ends.
    fn is_dripping(&self) -> bool {
        !self.is_answered.load(Ordering::Acquire)
            && self.waited > self.idle
            && self.passed < self.min_rate.saturating_mul(self.waited.as_secs())
    }
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
            let limit = this.limit();
            ready!(this.patience.poll_over(cx, limit));
            return Poll::Ready(Some(Err(BodyError::ClientSlow(limit))));
        };
        this.waited += this.patience.end();
        Poll::Ready(match frame {
            Some(Ok(frame)) => {
                this.passed += frame.data_ref().map_or(0, |data| data.len() as u64);
                if this.passed > this.limit {
                    Some(Err(BodyError::TooLarge { limit: this.limit }))
                } else if this.is_dripping() {
                    Some(Err(BodyError::ClientSlow(this.waited)))
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
    delivery: Option<Arc<Delivery>>,
    _in_flight: Option<InFlight>,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.delivery.as_ref().is_some_and(|delivery| !delivery.is_taken()) {
            return Poll::Ready(Some(Err(BodyError::ClientGone("it reads too slowly".to_owned()))));
        }
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let (Some(delivery), Poll::Ready(Some(Ok(frame)))) = (&self.delivery, &polled) {
            delivery.hand(frame.data_ref().map_or(0, |data| data.len() as u64));
        }
        polled
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
