//! What carries a connection's bytes: TCP at first hand, everything else behind a pointer.

use std::os::unix;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::{io, net};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// Bytes that may be read past a greeting in one go.
const READ: usize = 1024;

/// Bytes both ways.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A connection's socket that no runtime watches yet: who accepts it need not be who serves it.
pub(super) enum Unattended {
    Tcp(net::TcpStream),
    Unix(unix::net::UnixStream),
}

impl Unattended {
    /// Has the runtime that this is called on watch it from now on.
    pub(super) fn attend(self) -> io::Result<Transport> {
        Ok(match self {
            Self::Tcp(stream) => Transport::Tcp(TcpStream::from_std(stream)?),
            Self::Unix(stream) => Transport::Other(Box::new(UnixStream::from_std(stream)?)),
        })
    }
}

/// A connection's bytes.
pub(super) enum Transport {
    /// Plain TCP, which most sidecars speak: it costs no indirection.
    Tcp(TcpStream),
    /// A Unix socket, TLS, or bytes of which some were read already.
    Other(Box<dyn Duplex>),
}

impl AsyncRead for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Other(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Other(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Other(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(stream) => stream.is_write_vectored(),
            Self::Other(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Other(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Other(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// A transport whose first bytes were looked at before anybody took them.
pub(super) struct Looked {
    held: BytesMut,
    transport: Transport,
}

impl Looked {
    pub(super) fn new(transport: Transport) -> Self {
        Self { held: BytesMut::new(), transport }
    }

    /// What was read and not taken.
    pub(super) fn held(&self) -> &[u8] {
        &self.held
    }

    /// Reads once more. False at the end of the stream.
    pub(super) async fn look(&mut self) -> io::Result<bool> {
        self.held.reserve(READ);
        Ok(self.transport.read_buf(&mut self.held).await? > 0)
    }

    /// Takes the first `length` bytes that are held.
    pub(super) fn take(&mut self, length: usize) {
        self.held.advance(length);
    }

    /// The transport with all that was not taken.
    pub(super) fn into_transport(self) -> Transport {
        if self.held.is_empty() { self.transport } else { Transport::Other(Box::new(self)) }
    }
}

impl AsyncRead for Looked {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.held.is_empty() {
            return Pin::new(&mut this.transport).poll_read(cx, buffer);
        }
        let length = this.held.len().min(buffer.remaining());
        buffer.put_slice(&this.held.split_to(length));
        if this.held.is_empty() {
            // An idle connection must not keep the space that its greeting took.
            this.held = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Looked {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.transport).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.transport).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.transport.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_shutdown(cx)
    }
}
