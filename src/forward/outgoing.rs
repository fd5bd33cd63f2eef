//! A request's body on its way to an upstream, and how long the upstream may take over it.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderName;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::Instant;

use super::headers;
use crate::body::{Body, BodyError};

/// The body as the upstream's connection reads it.
pub(super) struct Outgoing {
    body: Body,
    progress: Option<Arc<Progress>>,
}

/// How far a request's body has come. Requests without a body have none.
pub(super) struct Progress {
    begun: Instant,
    /// Nanoseconds from `begun` to when it last became the upstream's turn to do something.
    turn: AtomicU64,
    waits_for_client: AtomicBool,
    ended: AtomicBool,
    failure: Mutex<Option<BodyError>>,
}

/// The upstream took too long.
pub(super) struct TimedOut;

impl Outgoing {
    pub(super) fn new(body: Body) -> (Self, Option<Arc<Progress>>) {
        let progress = (!body.is_end_stream()).then(|| {
            Arc::new(Progress {
                begun: Instant::now(),
                turn: AtomicU64::new(0),
                waits_for_client: AtomicBool::new(false),
                ended: AtomicBool::new(false),
                failure: Mutex::new(None),
            })
        });
        (Self { body, progress: progress.clone() }, progress)
    }

    pub(super) fn empty() -> Self {
        Self { body: Body::empty(), progress: None }
    }
}

impl Progress {
    /// Why the body broke off, if it did.
    pub(super) fn failure(&self) -> Option<BodyError> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the last byte has been taken.
    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    fn upstreams_turn(&self) {
        let nanos = u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.turn.store(nanos, Ordering::Release);
        self.waits_for_client.store(false, Ordering::Release);
    }

    /// When the upstream will have taken too long, as far as is known now.
    fn deadline(&self, limit: Duration) -> Instant {
        if self.waits_for_client.load(Ordering::Acquire) {
            Instant::now() + limit
        } else {
            self.begun + Duration::from_nanos(self.turn.load(Ordering::Acquire)) + limit
        }
    }
}

/// Waits for `answer`, for at most `limit` from the moment when it became the upstream's turn: the
/// time that a client takes to send its body is not the upstream's.
pub(super) async fn within<F: Future>(
    limit: Duration,
    progress: Option<&Progress>,
    answer: F,
) -> Result<F::Output, TimedOut> {
    let mut answer = pin!(answer);
    let mut sleep = pin!(tokio::time::sleep(limit));
    std::future::poll_fn(|cx| {
        if let Poll::Ready(output) = answer.as_mut().poll(cx) {
            return Poll::Ready(Ok(output));
        }
        loop {
            ready!(sleep.as_mut().poll(cx));
            match progress.map(|progress| progress.deadline(limit)) {
                Some(deadline) if deadline > Instant::now() => sleep.as_mut().reset(deadline),
                _ => return Poll::Ready(Err(TimedOut)),
            }
        }
    })
    .await
}

impl HttpBody for Outgoing {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let polled = Pin::new(&mut this.body).poll_frame(cx);
        if let Some(progress) = &this.progress {
            match &polled {
                Poll::Pending => progress.waits_for_client.store(true, Ordering::Release),
                Poll::Ready(Some(Err(error))) => {
                    *progress.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.clone());
                }
                Poll::Ready(_) => {
                    progress.upstreams_turn();
                    if this.body.is_end_stream() {
                        progress.ended.store(true, Ordering::Release);
                    }
                }
            }
        }
        let frame = ready!(polled);
        Poll::Ready(frame.map(|frame| frame.map(without_reserved_trailers)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A client may not say in trailers what it may not say in headers: some backends merge them.
fn without_reserved_trailers(frame: Frame<Bytes>) -> Frame<Bytes> {
    match frame.into_trailers() {
        Ok(mut trailers) => {
            let reserved: Vec<HeaderName> =
                trailers.keys().filter(|name| headers::is_reserved(name)).cloned().collect();
            for name in reserved {
                trailers.remove(name);
            }
            Frame::trailers(trailers)
        }
        Err(frame) => frame,
    }
}
