//! One connection from its first byte to its last.

use std::convert::Infallible;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;

use super::Shared;
use super::exchange::Exchange;
use super::flow::Flow;
use super::framing::HeadLimits;
use super::wire::{Protocol, Wire};
use crate::handler::{Connection, Handler};

/// Streams of one HTTP/2 connection at a time: RFC 9113 recommends no less than 100.
const HTTP2_STREAMS: u32 = 200;
/// Streams that a client may open and reset before we saw them: more is a rapid-reset attack
/// (CVE-2023-44487).
const HTTP2_PENDING_RESETS: usize = 20;
/// Streams that we may have to reset for a client's faults before it is shut out.
const HTTP2_FAULTS: usize = 256;
/// How often an HTTP/2 client with streams open is asked whether it lives.
const HTTP2_PING_INTERVAL: Duration = Duration::from_secs(20);
/// How long it may take to say so.
const HTTP2_PING_TIMEOUT: Duration = Duration::from_secs(20);
/// What may be on its way to us on one stream, bytes: hyper's own default is sixteen times more,
/// for each of the streams.
const HTTP2_STREAM_WINDOW: u32 = 256 << 10;
/// What may be on its way to us on all streams of a connection, bytes.
const HTTP2_CONNECTION_WINDOW: u32 = 1 << 20;
/// What we hold of one stream's response until the client takes it, bytes.
const HTTP2_SEND_BUFFER: usize = 128 << 10;
/// Fields that the HTTP library has room for without asking for memory.
const HTTP1_FIELDS: usize = 100;
/// More fields than the header map can be given room for at once.
const MOST_FIELDS: usize = 10_000;

/// A connection that was accepted.
pub(super) struct ConnectionTask<H> {
    pub(super) stream: TcpStream,
    pub(super) connection: Connection,
    pub(super) shared: Arc<Shared<H>>,
    pub(super) _place: OwnedSemaphorePermit,
}

impl<H: Handler> ConnectionTask<H> {
    /// Serves it to its end.
    pub(super) async fn run(self) {
        let Self { stream, connection, shared, _place } = self;
        shared.metrics.connections.inc();
        let flow = Flow::new(Arc::clone(&shared.metrics), connection.half_closed.clone());
        let mut whole = pin!(serve(stream, connection, Arc::clone(&flow), &shared));
        if shared.abort.run_until_cancelled(whole.as_mut()).await.is_none() {
            // Counted before the connection is dropped, and its requests with it.
            let open = usize::try_from(flow.open()).unwrap_or(usize::MAX);
            shared.cut_off.fetch_add(open, Ordering::Relaxed);
        }
        shared.metrics.connections.dec();
    }
}

async fn serve<H: Handler>(stream: TcpStream, connection: Connection, flow: Arc<Flow>, shared: &Shared<H>) {
    let limits = &shared.settings.limits;
    let fields = limits.header_count.min(MOST_FIELDS);
    let head = HeadLimits { bytes: limits.header_bytes, fields };
    let mut wire = Wire::new(stream, Arc::clone(&flow), head, shared.settings.timeouts.clone());
    // Until its first byte a connection is idle, and idle connections end with the server.
    let Some(Ok(Some(protocol))) = shared.shutdown.run_until_cancelled(wire.protocol()).await else { return };
    let exchange = Arc::new(Exchange {
        handler: Arc::clone(&shared.handler),
        settings: Arc::clone(&shared.settings),
        connection,
        flow,
        protocol,
    });
    let service = service_fn(move |request: Request<Incoming>| {
        let exchange = Arc::clone(&exchange);
        async move { Ok::<_, Infallible>(exchange.answer(request).await) }
    });
    let io = TokioIo::new(wire);
    match protocol {
        Protocol::Http1 => {
            let mut builder = http1::Builder::new();
            // The wire has the clocks and the limits; these must merely not be in its way.
            builder.timer(TokioTimer::new()).header_read_timeout(None);
            if fields > HTTP1_FIELDS {
                builder.max_headers(fields);
            }
            if limits.header_bytes > (64 << 10) {
                builder.max_buf_size(limits.header_bytes * 2 + (64 << 10));
            }
            let connection = pin!(builder.serve_connection(io, service));
            drive(connection, shared, http1::Connection::graceful_shutdown).await;
        }
        Protocol::Http2 => {
            let connection = http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .max_concurrent_streams(HTTP2_STREAMS)
                .max_pending_accept_reset_streams(HTTP2_PENDING_RESETS)
                .max_local_error_reset_streams(HTTP2_FAULTS)
                .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX))
                .keep_alive_interval(HTTP2_PING_INTERVAL)
                .keep_alive_timeout(HTTP2_PING_TIMEOUT)
                .initial_stream_window_size(HTTP2_STREAM_WINDOW)
                .initial_connection_window_size(HTTP2_CONNECTION_WINDOW)
                .max_send_buf_size(HTTP2_SEND_BUFFER)
                .serve_connection(io, service);
            drive(pin!(connection), shared, http2::Connection::graceful_shutdown).await;
        }
    }
}

/// Polls a connection to its end, and asks it once to come to it when the server shuts down.
async fn drive<H, C>(mut connection: Pin<&mut C>, shared: &Shared<H>, ask_to_end: impl FnOnce(Pin<&mut C>))
where
    C: Future<Output = hyper::Result<()>>,
{
    let ended = match shared.shutdown.run_until_cancelled(connection.as_mut()).await {
        Some(ended) => ended,
        None => {
            ask_to_end(connection.as_mut());
            connection.await
        }
    };
    if let Err(error) = ended {
        // The client's doing, as a rule; what became of its requests has its own records.
        tracing::debug!(%error, "a connection ended early");
    }
}
