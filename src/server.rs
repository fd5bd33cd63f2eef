//! The server: accepts connections, lets a handler answer their requests, and drains.

mod connection;
mod exchange;
mod flow;
pub mod framing;
mod patience;
pub mod reason;
mod wire;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::connection::ConnectionTask;
use crate::handler::{Connection, Handler};
use crate::policy::{Limits, Timeouts};
use crate::telemetry::Metrics;

/// First pause after the machine could not give us a connection (no file descriptor, no memory).
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);
/// Longest such pause: short enough that service resumes soon after descriptors are free.
const ACCEPT_PAUSE_MAX: Duration = Duration::from_secs(1);

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

/// Serves until `shutdown` is cancelled, then drains: no new connection, `Connection: close` and
/// GOAWAY on the open ones, what is in flight finishes, and what has not finished within the drain
/// time is cut off. Dropping the future cuts everything off at once.
pub async fn serve<H: Handler>(
    listeners: Vec<TcpListener>,
    settings: ServerSettings,
    handler: Arc<H>,
    metrics: Arc<Metrics>,
    shutdown: CancellationToken,
) -> Drained {
    let abort = CancellationToken::new();
    let _abort_on_drop = abort.clone().drop_guard();
    let drain = settings.timeouts.drain;
    let shared = Arc::new(Shared {
        // The semaphore cannot count further; nor has any machine as many descriptors.
        places: Arc::new(Semaphore::new(settings.limits.connections.min(Semaphore::MAX_PERMITS))),
        settings: Arc::new(settings),
        handler,
        metrics,
        shutdown: shutdown.clone(),
        abort: abort.clone(),
        tasks: TaskTracker::new(),
        cut_off: AtomicUsize::new(0),
    });
    for listener in listeners {
        shared.tasks.spawn(accept(listener, Arc::clone(&shared)));
    }
    shared.tasks.close();
    shutdown.cancelled().await;
    if tokio::time::timeout(drain, shared.tasks.wait()).await.is_err() {
        abort.cancel();
        shared.tasks.wait().await;
    }
    Drained { cut_off: shared.cut_off.load(Ordering::Relaxed) }
}

/// What the connections of one server share.
struct Shared<H> {
    settings: Arc<ServerSettings>,
    handler: Arc<H>,
    metrics: Arc<Metrics>,
    places: Arc<Semaphore>,
    shutdown: CancellationToken,
    abort: CancellationToken,
    tasks: TaskTracker,
    cut_off: AtomicUsize,
}

async fn accept<H: Handler>(listener: TcpListener, shared: Arc<Shared<H>>) {
    let mut pause = ACCEPT_PAUSE;
    loop {
        // A place first: a client over the limit waits in the kernel's queue, and finds no
        // connection that is open and dead.
        let accepted = shared
            .shutdown
            .run_until_cancelled(async {
                let place = Arc::clone(&shared.places).acquire_owned().await.expect("it is never closed");
                (place, listener.accept().await)
            })
            .await;
        let Some((place, accepted)) = accepted else { return };
        match accepted {
            Ok((stream, peer)) => {
                pause = ACCEPT_PAUSE;
                let Some(connection) = describe(&stream, peer) else { continue };
                let task = ConnectionTask { stream, connection, shared: Arc::clone(&shared), _place: place };
                shared.tasks.spawn(task.run());
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, ?pause, "cannot accept a connection");
                let _ = shared.shutdown.run_until_cancelled(tokio::time::sleep(pause)).await;
                pause = (pause * 2).min(ACCEPT_PAUSE_MAX);
            }
        }
    }
}

/// None where the client has gone already.
fn describe(stream: &TcpStream, peer: std::net::SocketAddr) -> Option<Connection> {
    stream.set_nodelay(true).ok()?;
    let local = stream.local_addr().ok()?;
    Some(Connection { peer, local, scheme: "http", half_closed: CancellationToken::new() })
}

/// Whether the next connection may well be accepted.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind as K;
    matches!(error.kind(), K::ConnectionAborted | K::ConnectionReset | K::ConnectionRefused | K::Interrupted)
}
