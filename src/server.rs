//! The server: accepts connections, lets a handler answer their requests, and drains.

pub mod census;
mod connection;
mod exchange;
mod flow;
pub mod framing;
mod greeting;
mod lent;
mod listener;
mod patience;
pub mod proxy_protocol;
pub mod reason;
mod share;
mod switch;
mod taking;
mod tls;
mod transport;
mod tunnel;
mod wire;
mod workers;

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::connection::ConnectionTask;
use self::listener::{Accepted, Terms};
use crate::handler::Handler;
use crate::policy::{Limits, Timeouts};
use crate::telemetry::Metrics;

pub use listener::{Listener, Successor, TermsHandle};
pub use workers::Workers;

/// First pause after the machine could not give us a connection (no file descriptor, no memory).
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);
/// Longest such pause: short enough that service resumes soon after descriptors are free.
const ACCEPT_PAUSE_MAX: Duration = Duration::from_secs(1);
/// How long a listener whose successor is there lets the connections in that are half made.
const HALF_MADE: Duration = Duration::from_millis(200);

/// What the policy says of a server.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServerSettings {
    /// Size limits.
    pub limits: Limits,
    /// Timeouts.
    pub timeouts: Timeouts,
}

/// How a drain went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    /// Requests that were still under way when the time was over, and were cut off.
    pub cut_off: usize,
}

/// Serves until `shutdown` is cancelled, then drains: no new connection but those that the kernel
/// has made already, `Connection: close` and GOAWAY on the open ones, what is in flight finishes,
/// and what has not finished within the drain time is cut off. Dropping the future cuts everything
/// off at once.
pub async fn serve<H: Handler>(
    listeners: Vec<Listener>,
    settings: ServerSettings,
    handler: Arc<H>,
    metrics: Arc<Metrics>,
    workers: Arc<Workers>,
    shutdown: CancellationToken,
) -> Drained {
    let abort = CancellationToken::new();
    let _abort_on_drop = abort.clone().drop_guard();
    let drain = settings.timeouts.drain;
    let shared = Arc::new(Shared {
        places: places(settings.limits.connections),
        handshakes: places(settings.limits.handshakes),
        settings: Arc::new(settings),
        handler,
        metrics,
        workers,
        shutdown: shutdown.clone(),
        draining: Arc::default(),
        abort: abort.clone(),
        tasks: TaskTracker::new(),
        cut_off: AtomicUsize::new(0),
    });
    for listener in listeners {
        shared.tasks.spawn(accept(listener, Arc::clone(&shared)));
    }
    shared.tasks.close();
    shutdown.cancelled().await;
    shared.draining.store(true, Ordering::Relaxed);
    if tokio::time::timeout(drain, shared.tasks.wait()).await.is_err() {
        abort.cancel();
        shared.tasks.wait().await;
    }
    Drained { cut_off: shared.cut_off.load(Ordering::Relaxed) }
}

fn places(limit: usize) -> Arc<Semaphore> {
    // The semaphore cannot count further; nor has any machine as many descriptors.
    Arc::new(Semaphore::new(limit.min(Semaphore::MAX_PERMITS)))
}

/// What the connections of one server share.
struct Shared<H> {
    settings: Arc<ServerSettings>,
    handler: Arc<H>,
    metrics: Arc<Metrics>,
    workers: Arc<Workers>,
    places: Arc<Semaphore>,
    handshakes: Arc<Semaphore>,
    shutdown: CancellationToken,
    /// What `shutdown` says, for those who ask at each request.
    draining: Arc<AtomicBool>,
    abort: CancellationToken,
    tasks: TaskTracker,
    cut_off: AtomicUsize,
}

impl<H: Handler> Shared<H> {
    fn begin(self: &Arc<Self>, accepted: Accepted, terms: Arc<Terms>, place: OwnedSemaphorePermit) {
        let task = ConnectionTask { accepted, terms, shared: Arc::clone(self), _place: place };
        self.workers.spawn(&self.tasks, task.run());
    }
}

async fn accept<H: Handler>(listener: Listener, shared: Arc<Shared<H>>) {
    accept_until(shared.shutdown.cancelled(), &listener, &shared).await;
    if listener.turn_away() {
        accept_until(tokio::time::sleep(HALF_MADE), &listener, &shared).await;
    }
    let terms = listener.current_terms();
    for accepted in listener.close() {
        // Over the limit there is nobody else who could serve it.
        let Ok(place) = Arc::clone(&shared.places).try_acquire_owned() else { break };
        shared.begin(accepted, Arc::clone(&terms), place);
    }
}

async fn accept_until<H: Handler>(
    end: impl Future<Output = ()>,
    listener: &Listener,
    shared: &Arc<Shared<H>>,
) {
    let mut end = pin!(end);
    let mut pause = ACCEPT_PAUSE;
    loop {
        // A place first: a client over the limit waits in the kernel's queue, and finds no
        // connection that is open and dead.
        let accepted = async {
            let place = Arc::clone(&shared.places).acquire_owned().await.expect("it is never closed");
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            biased;
            () = end.as_mut() => return,
            accepted = accepted => accepted,
        };
        match accepted {
            Ok(Some(accepted)) => {
                pause = ACCEPT_PAUSE;
                shared.begin(accepted, listener.current_terms(), place);
            }
            Ok(None) => {}
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, ?pause, "cannot accept a connection");
                let _ = tokio::time::timeout(pause, end.as_mut()).await;
                pause = (pause * 2).min(ACCEPT_PAUSE_MAX);
            }
        }
    }
}

/// Whether the next connection may well be accepted.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind as K;
    matches!(error.kind(), K::ConnectionAborted | K::ConnectionReset | K::ConnectionRefused | K::Interrupted)
}
