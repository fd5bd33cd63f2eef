//! The first bytes of a connection: which version of HTTP its client speaks.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Wire;
use crate::server::census::Census;
use crate::server::framing::RequestLine;
use crate::server::reason::Reason;

/// What an HTTP/2 client with prior knowledge sends first (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The version of HTTP that a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::server) enum Protocol {
    Http1,
    Http2,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    /// Reads as far as it takes to tell the protocol. None: the client left or sent nothing.
    pub(in crate::server) async fn protocol(&mut self) -> io::Result<Option<Protocol>> {
        std::future::poll_fn(|cx| self.poll_protocol(cx)).await
    }

    fn poll_protocol(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Protocol>>> {
        loop {
            let seen = self.held.len().min(PREFACE.len());
            if self.held[..seen] != PREFACE[..seen] {
                self.unscanned = true;
                return Poll::Ready(Ok(Some(Protocol::Http1)));
            }
            if seen == PREFACE.len() {
                self.scanner = None;
                self.sound = self.held.len();
                let mut census = Census::new();
                census.count(&self.held[seen..]).map_err(io::Error::other)?;
                self.census = Some(census);
                return Poll::Ready(Ok(Some(Protocol::Http2)));
            }
            let mut space = [0; 1024];
            let mut buffer = ReadBuf::new(&mut space);
            match Pin::new(&mut self.stream).poll_read(cx, &mut buffer) {
                Poll::Ready(result) => {
                    result?;
                    if buffer.filled().is_empty() {
                        return Poll::Ready(Ok(None));
                    }
                    self.held.extend_from_slice(buffer.filled());
                    self.reading.calm();
                }
                Poll::Pending => {
                    let limit = if seen == 0 { self.timeouts.keep_alive } else { self.timeouts.header_read };
                    ready!(self.reading.poll_over(cx, limit));
                    if seen == 0 {
                        return Poll::Ready(Ok(None));
                    }
                    self.refuse(Reason::Late, &[], &RequestLine::default());
                    return Poll::Ready(Ok(Some(Protocol::Http1)));
                }
            }
        }
    }
}
