//! One connection from its first byte to its last.

use std::convert::Infallible;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::OwnedSemaphorePermit;

use super::Shared;
use super::exchange::Exchange;
use super::flow::Flow;
use super::framing::HeadLimits;
use super::greeting;
use super::lent::Home;
use super::listener::{Accepted, Terms};
use super::taking::{Least, Streams};
use super::transport::Transport;
use super::wire::{Protocol, Wire};
use crate::handler::{Connection, Handler};
use crate::telemetry::ResultLabel;

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

/// How long an idle HTTP/1 connection may still send a request when the server shuts down, which is
/// answered with `Connection: close`: a request and our closing would else cross on the way. HTTP/2
/// says by itself which requests it took (RFC 9113, section 6.8).
const LAST_CALL: Duration = Duration::from_secs(1);

/// A connection that was accepted.
pub(super) struct ConnectionTask<H> {
    pub(super) accepted: Accepted,
    pub(super) terms: Arc<Terms>,
    pub(super) shared: Arc<Shared<H>>,
    pub(super) _place: OwnedSemaphorePermit,
}

impl<H: Handler> ConnectionTask<H> {
    /// Serves it to its end.
    pub(super) async fn run(self) {
        let Self { accepted, terms, shared, _place } = self;
        shared.metrics.connections.inc();
        let flow = Flow::new(Arc::clone(&shared.metrics));
        let mut whole = pin!(begin(accepted, &terms, Arc::clone(&flow), &shared));
        if shared.abort.run_until_cancelled(whole.as_mut()).await.is_none() {
            // Counted before the connection is dropped, and its requests with it.
            let open = usize::try_from(flow.open()).unwrap_or(usize::MAX);
            shared.cut_off.fetch_add(open, Ordering::Relaxed);
        }
        shared.metrics.connections.dec();
    }
}

async fn begin<H: Handler>(accepted: Accepted, terms: &Terms, flow: Arc<Flow>, shared: &Shared<H>) {
    let peer = accepted.peer;
    let (patience, half_closed) = (shared.settings.timeouts.handshake, flow.half_closed.clone());
    let greeted = tokio::select! {
        biased;
        greeted = greeting::greet(accepted, terms, &shared.handshakes, patience, half_closed) => greeted,
        () = last_call(terms, shared) => return,
    };
    match greeted {
        Ok((transport, connection)) => serve(transport, connection, terms, flow, shared).await,
        Err(ended) => {
            let result = ended.as_str();
            shared.metrics.connections_turned_away.get_or_create(&ResultLabel { result }).inc();
            tracing::debug!(%peer, "a connection ended before its first request: {ended}");
        }
    }
}

async fn serve<H: Handler>(
    transport: Transport,
    connection: Connection,
    terms: &Terms,
    flow: Arc<Flow>,
    shared: &Shared<H>,
) {
    let limits = &shared.settings.limits;
    let fields = limits.header_count.min(MOST_FIELDS);
    let head = HeadLimits { bytes: limits.header_bytes, fields };
    let (timeouts, least) = (shared.settings.timeouts.clone(), Least::of(&shared.settings));
    let mut wire = Wire::new(transport, Arc::clone(&flow), head, timeouts, least);
    // Until its first byte a connection is idle, and idle connections end with the server.
    let protocol = tokio::select! {
        biased;
        protocol = wire.protocol() => protocol,
        () = last_call(terms, shared) => return,
    };
    let Ok(Some(protocol)) = protocol else { return };
    let exchange = Arc::new(Exchange {
        handler: Arc::clone(&shared.handler),
        settings: Arc::clone(&shared.settings),
        draining: Arc::clone(&shared.draining),
        connection,
        flow,
        protocol,
        tasks: shared.tasks.clone(),
        tunnel: Mutex::default(),
    });
    let answering = Arc::clone(&exchange);
    match protocol {
        Protocol::Http1 => {
            let service = service_fn(move |request: Request<Incoming>| {
                let exchange = Arc::clone(&answering);
                async move { Ok::<_, Infallible>(exchange.answer(request, None).await) }
            });
            let mut builder = http1::Builder::new();
            // The wire has the clocks and the limits; these must merely not be in its way.
            builder.timer(TokioTimer::new()).header_read_timeout(None);
            if fields > HTTP1_FIELDS {
                builder.max_headers(fields);
            }
            if limits.header_bytes > (64 << 10) {
                builder.max_buf_size(limits.header_bytes * 2 + (64 << 10));
            }
            let (home, mut wire) = (Home::default(), Box::new(wire));
            loop {
                let io = TokioIo::new(home.lend(wire));
                // On the heap, to be let go while the client is silent.
                let mut connection = Box::pin(builder.serve_connection(io, service.clone()).with_upgrades());
                let ask_to_end = http1::UpgradeableConnection::graceful_shutdown;
                drive(connection.as_mut(), last_call(terms, shared), ask_to_end).await;
                drop(connection);
                if let Some(tunnel) = exchange.take_tunnel() {
                    return tunnel.run().await;
                }
                let Some(back) = home.take().filter(|wire| wire.is_resting()) else { return };
                wire = back;
                let wakes = tokio::select! {
                    biased;
                    wakes = wire.rest() => wakes,
                    () = last_call(terms, shared) => false,
                };
                if !wakes {
                    return wire.end().await;
                }
            }
        }
        Protocol::Http2 => {
            let streams = Streams::new(least);
            let begun = streams.clone();
            let service = service_fn(move |request: Request<Incoming>| {
                let (exchange, delivery) = (Arc::clone(&answering), begun.begin());
                // On the heap, to be let go when there is an answer: a client may be slow to take it on
                // very many streams.
                Box::pin(async move { Ok::<_, Infallible>(exchange.answer(request, Some(delivery)).await) })
            });
            let connection = http2::Builder::new(streams)
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
                .enable_connect_protocol()
                .serve_connection(TokioIo::new(wire), service);
            drive(Box::pin(connection).as_mut(), ends(terms, shared), http2::Connection::graceful_shutdown)
                .await;
        }
    }
}

/// Returns when a connection must come to its end: the server shuts down, or whom the listener
/// believes has changed.
async fn ends<H>(terms: &Terms, shared: &Shared<H>) {
    let _ = shared.shutdown.run_until_cancelled(terms.outdated.cancelled()).await;
}

/// Returns when that was so for as long as an idle client is given.
async fn last_call<H>(terms: &Terms, shared: &Shared<H>) {
    ends(terms, shared).await;
    tokio::time::sleep(LAST_CALL).await;
}

/// Polls a connection to its end, and asks it once to come to it when `ends` says so.
async fn drive<C>(
    mut connection: Pin<&mut C>,
    ends: impl Future<Output = ()>,
    ask_to_end: impl FnOnce(Pin<&mut C>),
) where
    C: Future<Output = hyper::Result<()>>,
{
    // The connection first: what it has read already is a request, and not to be lost.
    let ended = tokio::select! {
        biased;
        ended = connection.as_mut() => ended,
        () = ends => {
            ask_to_end(connection.as_mut());
            connection.await
        }
    };
    if let Err(error) = ended {
        // The client's doing, as a rule; what became of its requests has its own records.
        tracing::debug!(%error, "a connection ended early");
    }
}
