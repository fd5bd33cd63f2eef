//! A body that waits wherever its tenant has moved more than it may.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::{Sleep, sleep};

use super::Pass;
use crate::body::{Body, BodyError};

/// A body in transit. Each piece is counted when it comes, and passed on when it is paid for.
pub(super) struct Paced {
    body: Body,
    pass: Pass,
    /// The piece that waits, and until when.
    held: Option<(Frame<Bytes>, Pin<Box<Sleep>>)>,
}

impl Paced {
    pub(super) fn new(body: Body, pass: Pass) -> Self {
        Self { body, pass, held: None }
    }
}

impl HttpBody for Paced {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.held.is_none() {
            let Some(frame) = ready!(Pin::new(&mut self.body).poll_frame(cx)?) else {
                return Poll::Ready(None);
            };
            let bytes = frame.data_ref().map_or(0, Bytes::len);
            let wait = self.pass.owe(bytes as u64);
            if wait.is_zero() {
                return Poll::Ready(Some(Ok(frame)));
            }
            self.held = Some((frame, Box::pin(sleep(wait))));
        }
        if let Some((_, sleeping)) = &mut self.held {
            ready!(sleeping.as_mut().poll(cx));
        }
        Poll::Ready(self.held.take().map(|(frame, _)| Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.held.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = self.body.size_hint();
        let held = self.held.as_ref().and_then(|(frame, _)| frame.data_ref()).map_or(0, Bytes::len) as u64;
        if held > 0 {
            let (lower, upper) = (hint.lower() + held, hint.upper());
            if let Some(upper) = upper {
                hint.set_upper(upper + held);
            }
            hint.set_lower(lower);
        }
        hint
    }
}
