//! A response's body on its way from an upstream, and the connection that goes back when it ends.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

use super::outgoing::Progress;
use super::pool::Lease;
use crate::body::{Body, BodyError};
use crate::error;

/// The body as our server reads it.
struct Received {
    body: Incoming,
    lease: Option<Lease>,
    progress: Option<Arc<Progress>>,
    idle: Duration,
    /// Made when the upstream first keeps us waiting, which most responses never do.
    sleep: Option<Pin<Box<Sleep>>>,
    waiting: bool,
}

/// Wraps an upstream's response body, so that its end gives the connection back and a pause of
/// more than `idle` breaks it off.
pub(super) fn receive(body: Incoming, lease: Lease, progress: Option<Arc<Progress>>, idle: Duration) -> Body {
    let mut received = Received { body, lease: Some(lease), progress, idle, sleep: None, waiting: false };
    if received.body.is_end_stream() {
        received.settle();
        return Body::empty();
    }
    Body::stream(received)
}

impl Received {
    /// Gives the connection back if the exchange is over on both sides.
    fn settle(&mut self) {
        let sent = self.progress.as_ref().is_none_or(|progress| progress.has_ended());
        if let Some(lease) = self.lease.take()
            && sent
        {
            lease.give_back();
        }
    }

    fn poll_patience(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let idle = self.idle;
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep(idle)));
        if !self.waiting {
            self.waiting = true;
            sleep.as_mut().reset(Instant::now() + idle);
        }
        sleep.as_mut().poll(cx)
    }
}

impl HttpBody for Received {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                ready!(self.poll_patience(cx));
                self.lease = None;
                return Poll::Ready(Some(Err(BodyError::UpstreamSlow(self.idle))));
            }
        };
        self.waiting = false;
        Poll::Ready(match frame {
            Some(Ok(frame)) => {
                if self.body.is_end_stream() {
                    self.settle();
                }
                Some(Ok(frame))
            }
            Some(Err(error)) => {
                self.lease = None;
                Some(Err(BodyError::UpstreamGone(error::in_full(&error))))
            }
            None => {
                self.settle();
                None
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
