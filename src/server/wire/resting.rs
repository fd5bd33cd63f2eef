//! A connection that rests: idle for so long that the HTTP library was let go.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::Instant;

use super::{State, Wire};

/// How long a connection is idle before it rests: the HTTP library is let go, whose buffers are most
/// of what an idle connection takes, and set up again for the next request. Long enough that clients
/// in a hurry never wait for that.
pub(super) const REST: Duration = Duration::from_millis(250);

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    /// Whether the HTTP library ended because there was nothing to do.
    pub(in crate::server) fn is_resting(&self) -> bool {
        matches!(self.state, State::Resting)
    }

    /// Waits for the first bytes of another request. False: the client left, or sent nothing in time.
    pub(in crate::server) async fn rest(&mut self) -> bool {
        self.held = BytesMut::new();
        std::future::poll_fn(|cx| self.poll_rest(cx)).await
    }

    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        let mut space = [0; 1024];
        let mut buffer = ReadBuf::new(&mut space);
        match Pin::new(&mut self.stream).poll_read(cx, &mut buffer) {
            Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                self.held.extend_from_slice(buffer.filled());
                self.unscanned = true;
                self.reading.calm();
                self.state = State::Open;
                Poll::Ready(true)
            }
            Poll::Ready(_) => Poll::Ready(false),
            Poll::Pending => {
                let idle = self.flow.idle_since().unwrap_or_else(Instant::now);
                self.reading.poll_at(cx, idle + self.timeouts.keep_alive).map(|()| false)
            }
        }
    }

    /// Ends a connection that rests.
    pub(in crate::server) async fn end(&mut self) {
        self.state = State::HalfClosed;
        let _ = self.shutdown().await;
    }
}
