//! A connection, or a stream of one, that has left HTTP: bytes both ways until both sides are done.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional};
use tokio::sync::Notify;

use super::flow::InFlight;
use crate::body::Body;
use crate::telemetry::Metrics;
use crate::upgrade::FarEnd;

/// How long one half may be silent when the other is closed: there is no answer to wait for that
/// a protocol would take an hour over.
const HALF_CLOSED_IDLE: Duration = Duration::from_secs(30);

/// A tunnel whose client has been told that it stands.
pub(super) struct Tunnel {
    pub(super) client: OnUpgrade,
    pub(super) far_end: FarEnd,
    /// What remains of the answer, and ends with the tunnel.
    pub(super) answer: Body,
    pub(super) in_flight: InFlight,
    pub(super) idle: Duration,
    pub(super) metrics: Arc<Metrics>,
}

impl Tunnel {
    /// Carries bytes until both sides have closed, one of them broke off, or neither said anything
    /// for too long. Dropping the future cuts it off.
    pub(super) async fn run(self) {
        let Self { client, far_end, mut answer, in_flight: _in_flight, idle, metrics } = self;
        let Ok(client) = client.await else { return };
        let _open = Open::new(&metrics);
        let traffic = Arc::new(Traffic::default());
        let FarEnd { stream: mut upstream, held: _held, .. } = far_end;
        let mut client = Watched { stream: TokioIo::new(client), traffic: Arc::clone(&traffic) };
        let account = Account { answer: &mut answer, traffic: &traffic };
        tokio::select! {
            ended = copy_bidirectional(&mut client, &mut upstream) => {
                if ended.is_ok() {
                    account.answer.end_tunnel();
                }
            }
            () = traffic.ceases(idle) => {}
            () = std::future::poll_fn(|cx| account.answer.poll_break_off(cx)) => {}
        }
    }
}

/// What passed, in bytes, and whether one side has said that it is done.
#[derive(Default)]
struct Traffic {
    to_client: AtomicU64,
    from_client: AtomicU64,
    is_half_closed: AtomicBool,
    half_closed: Notify,
}

impl Traffic {
    /// Waits until nothing has passed for `idle`, to within as much again.
    async fn ceases(&self, idle: Duration) {
        let both = || (self.to_client.load(Ordering::Relaxed), self.from_client.load(Ordering::Relaxed));
        let mut before = both();
        loop {
            if self.is_half_closed.load(Ordering::Acquire) {
                tokio::time::sleep(idle.min(HALF_CLOSED_IDLE)).await;
            } else {
                tokio::select! {
                    () = tokio::time::sleep(idle) => {}
                    () = self.half_closed.notified() => continue,
                }
            }
            let now = both();
            if now == before {
                return;
            }
            before = now;
        }
    }

    fn half_close(&self) {
        self.is_half_closed.store(true, Ordering::Release);
        self.half_closed.notify_one();
    }
}

/// Writes down what passed, however the tunnel comes to its end.
struct Account<'a> {
    answer: &'a mut Body,
    traffic: &'a Traffic,
}

impl Drop for Account<'_> {
    fn drop(&mut self) {
        let Traffic { to_client, from_client, .. } = self.traffic;
        self.answer.tunnelled(to_client.load(Ordering::Relaxed), from_client.load(Ordering::Relaxed));
    }
}

/// A tunnel as the metrics see it.
struct Open<'a>(&'a Metrics);

impl<'a> Open<'a> {
    fn new(metrics: &'a Metrics) -> Self {
        metrics.tunnels.inc();
        Self(metrics)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.tunnels.dec();
    }
}

/// The client's side, counted.
struct Watched<S> {
    stream: S,
    traffic: Arc<Traffic>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        let read = buffer.filled().len() - before;
        if read == 0 {
            self.traffic.half_close();
        }
        self.traffic.from_client.fetch_add(read as u64, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
        self.traffic.to_client.fetch_add(written as u64, Ordering::Relaxed);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.traffic.half_close();
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
