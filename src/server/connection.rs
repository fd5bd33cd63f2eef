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
use super::lent::{Home, Lent};
use super::listener::{Accepted, Terms};
use super::share::Share;
use super::taking::{Least, Streams};
use super::transport::Transport;
use super::wire::{Protocol, Wire};
use crate::handler::{Connection, Handler};
use crate::telemetry::ResultLabel;

/// Streams that a client may open and reset before we saw them: more is a rapid-reset attack
/// (CVE-2023-44487).
const HTTP2_PENDING_RESETS: usize = 20;
/// Streams that we may have to reset for a client's faults before it is shut out.
const HTTP2_FAULTS: usize = 256;
/// How often an HTTP/2 client with streams open is asked whether it lives.
const HTTP2_PING_INTERVAL: Duration = Duration::from_secs(20);
/// How long it may take to say so.
const HTTP2_PING_TIMEOUT: Duration = Duration::from_secs(20);
/// What may be on its way to us on one stream, bytes: hyper's own default is four times more, for
/// each of the streams.
const HTTP2_STREAM_WINDOW: u32 = 256 << 10;
/// What is written of one stream's response ahead of the client, bytes. What hyper reads of it next
/// comes on top.
const HTTP2_SEND_BUFFER: usize = 32 << 10;
/// What the HTTP library holds of a request that it reads, or of a response ahead of the client,
/// bytes: hyper's own default is six times more, which a client that reads nothing would fill.
const HTTP1_BUFFER: usize = 64 << 10;
/// Room for what comes in behind a head in the same read, bytes.
const HTTP1_READ: usize = 8 << 10;
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
        let mut whole = pin!(serve(accepted, &terms, Arc::clone(&flow), &shared));
        if shared.abort.run_until_cancelled(whole.as_mut()).await.is_none() {
            // Counted before the connection is dropped, and its requests with it.
            let open = usize::try_from(flow.open()).unwrap_or(usize::MAX);
            shared.cut_off.fetch_add(open, Ordering::Relaxed);
        }
        shared.metrics.connections.dec();
    }
}

/// A connection whose client has said what protocol it speaks.
struct Begun {
    wire: Box<Wire<Transport>>,
    protocol: Protocol,
    connection: Connection,
}

/// The parts of a connection's life are on the heap, each while it lasts: most connections rest most of
/// the time, and their tasks should be no larger than that takes.
async fn serve<H: Handler>(accepted: Accepted, terms: &Terms, flow: Arc<Flow>, shared: &Shared<H>) {
    let begun = Box::pin(begin(accepted, terms, Arc::clone(&flow), shared)).await;
    let Some(Begun { wire, protocol, connection }) = begun else { return };
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
    match protocol {
        Protocol::Http1 => serve_http1(wire, &exchange, terms, shared).await,
        Protocol::Http2 => Box::pin(serve_http2(wire, exchange, terms, shared)).await,
    }
}

/// Hears a client's greeting, and its first bytes.
async fn begin<H: Handler>(
    accepted: Accepted,
    terms: &Terms,
    flow: Arc<Flow>,
    shared: &Shared<H>,
) -> Option<Begun> {
    let peer = accepted.peer;
    let (patience, half_closed) = (shared.settings.timeouts.handshake, flow.half_closed.clone());
    let greeted = tokio::select! {
        biased;
        greeted = greeting::greet(accepted, terms, &shared.handshakes, patience, half_closed) => greeted,
        () = last_call(terms, shared) => return None,
    };
    let (transport, connection) = match greeted {
        Ok(greeted) => greeted,
        Err(ended) => {
            let result = ended.as_str();
            shared.metrics.connections_turned_away.get_or_create(&ResultLabel { result }).inc();
            tracing::debug!(%peer, "a connection ended before its first request: {ended}");
            return None;
        }
    };
    let limits = &shared.settings.limits;
    let head = HeadLimits { bytes: limits.header_bytes, fields: limits.header_count.min(MOST_FIELDS) };
    let (timeouts, least) = (shared.settings.timeouts.clone(), Least::of(&shared.settings));
    let mut wire = Box::new(Wire::new(transport, flow, head, timeouts, least));
    // Until its first byte a connection is idle, and idle connections end with the server.
    let protocol = tokio::select! {
        biased;
        protocol = wire.protocol() => protocol.ok().flatten()?,
        () = last_call(terms, shared) => return None,
    };
    Some(Begun { wire, protocol, connection })
}

/// Serves requests, and rests between those that are far apart.
async fn serve_http1<H: Handler>(
    mut wire: Box<Wire<Transport>>,
    exchange: &Arc<Exchange<H>>,
    terms: &Terms,
    shared: &Shared<H>,
) {
    let home = Home::default();
    loop {
        Box::pin(converse(home.lend(wire), exchange, terms, shared)).await;
        if let Some(tunnel) = exchange.take_tunnel() {
            return Box::pin(tunnel.run()).await;
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

/// Serves requests until the connection ends, or its client is silent.
async fn converse<H: Handler>(wire: Lent, exchange: &Arc<Exchange<H>>, terms: &Terms, shared: &Shared<H>) {
    let limits = &shared.settings.limits;
    let service = service_fn(move |request: Request<Incoming>| {
        let exchange = Arc::clone(exchange);
        async move { Ok::<_, Infallible>(exchange.answer(request, None).await) }
    });
    let mut builder = http1::Builder::new();
    // The wire has the clocks and the limits; these must merely not be in its way.
    builder.timer(TokioTimer::new()).header_read_timeout(None);
    if limits.header_count > HTTP1_FIELDS {
        builder.max_headers(limits.header_count.min(MOST_FIELDS));
    }
    builder.max_buf_size(limits.header_bytes.max(HTTP1_BUFFER).saturating_add(HTTP1_READ));
    let connection = pin!(builder.serve_connection(TokioIo::new(wire), service).with_upgrades());
    drive(connection, last_call(terms, shared), http1::UpgradeableConnection::graceful_shutdown).await;
}

async fn serve_http2<H: Handler>(
    wire: Box<Wire<Transport>>,
    exchange: Arc<Exchange<H>>,
    terms: &Terms,
    shared: &Shared<H>,
) {
    let limits = &shared.settings.limits;
    let share = Share::among(limits.connections.saturating_sub(shared.places.available_permits()));
    let streams = Streams::new(Least::of(&shared.settings));
    let begun = streams.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let (exchange, delivery) = (Arc::clone(&exchange), begun.begin());
        // On the heap, to be let go when there is an answer: a client may be slow to take it on
        // very many streams.
        Box::pin(async move { Ok::<_, Infallible>(exchange.answer(request, Some(delivery)).await) })
    });
    let connection = http2::Builder::new(streams)
        .timer(TokioTimer::new())
        .max_concurrent_streams(share.streams)
        .max_pending_accept_reset_streams(HTTP2_PENDING_RESETS)
        .max_local_error_reset_streams(HTTP2_FAULTS)
        .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX))
        .keep_alive_interval(HTTP2_PING_INTERVAL)
        .keep_alive_timeout(HTTP2_PING_TIMEOUT)
        .initial_stream_window_size(HTTP2_STREAM_WINDOW)
        .initial_connection_window_size(share.window)
        .max_send_buf_size(HTTP2_SEND_BUFFER)
        .enable_connect_protocol()
        .serve_connection(TokioIo::new(wire), service);
    drive(pin!(connection), ends(terms, shared), http2::Connection::graceful_shutdown).await;
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
