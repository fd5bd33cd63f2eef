//! A wire that the HTTP library has while it is needed, and that comes home when it is let go.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::transport::Transport;
use super::wire::Wire;

/// Where a wire comes home to.
#[derive(Default)]
pub(super) struct Home(Arc<Mutex<Option<Box<Wire<Transport>>>>>);

impl Home {
    /// Gives `wire` away.
    pub(super) fn lend(&self, wire: Box<Wire<Transport>>) -> Lent {
        Lent { wire: Some(wire), home: Arc::clone(&self.0) }
    }

    /// The wire, if whoever had it has let it go.
    pub(super) fn take(&self) -> Option<Box<Wire<Transport>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// A wire that is lent.
pub(super) struct Lent {
    wire: Option<Box<Wire<Transport>>>,
    home: Arc<Mutex<Option<Box<Wire<Transport>>>>>,
}

impl Lent {
    fn wire(self: Pin<&mut Self>) -> Pin<&mut Wire<Transport>> {
        let wire = self.get_mut().wire.as_mut().expect("it goes home on drop only");
        Pin::new(&mut **wire)
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        *self.home.lock().unwrap_or_else(PoisonError::into_inner) = self.wire.take();
    }
}

impl AsyncRead for Lent {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.wire().poll_read(cx, buffer)
    }
}

impl AsyncWrite for Lent {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.wire().poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.wire().poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.wire.as_ref().is_some_and(AsyncWrite::is_write_vectored)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.wire().poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.wire().poll_shutdown(cx)
    }
}
