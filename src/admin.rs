//! The admin listener: health, readiness, metrics, the policy and the plugins in force. Loopback by
//! default, and without secrets, because it has no password.

mod answer;
mod call;
mod databases;
mod host;
mod log;
mod overrides;
mod plugins;
mod policy;
mod readiness;
mod requests;
mod trials;
mod upstreams;

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::header::ORIGIN;
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::body::Body;
use crate::log_filter::LogFilter;
use crate::reload::{Reloader, Trigger};
use crate::telemetry::Metrics;
use crate::underway::Underway;

use answer::{Problem, document, open_metrics, text};
use call::Call;

/// An operator's client is on the same machine: it has no reason to be slow.
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest head: what can be asked is short.
const MAX_HEAD_BYTES: usize = 16 << 10;
/// Connections at once. An operator, a scraper and a few health checks need no more, and whoever
/// opens them all does not take the gateway's descriptors.
const MAX_CONNECTIONS: usize = 64;

/// Paths longer than this stand out of their column in the list of what there is.
const WIDEST_PATH: usize = 60;

/// What the admin listener shows.
pub struct Admin {
    reloader: Arc<Reloader>,
    metrics: Arc<Metrics>,
    trigger: Trigger,
    underway: Arc<Underway>,
    log: Option<Arc<LogFilter>>,
    draining: AtomicBool,
}

/// Where operators connect.
pub enum AdminListener {
    /// Anyone who reaches the address.
    Tcp(TcpListener),
    /// Whoever may open the socket's path.
    Unix(UnixListener),
}

/// One thing that can be asked of the admin listener.
struct Entry {
    method: &'static str,
    /// Segments, of which `{…}` takes any text, and the query parameters that it knows.
    path: &'static str,
    what: &'static str,
    answer: for<'a> fn(&'a Admin, Call<'a>) -> Answering<'a>,
}

type Answering<'a> = Pin<Box<dyn Future<Output = Answer> + Send + 'a>>;
type Answer = Result<Response<Body>, Problem>;

/// Everything that can be asked: the only list.
const SURFACE: &[Entry] = &[
    Entry::new("GET", "/", "this list", |_, _| Box::pin(async { Ok(text(StatusCode::OK, index())) })),
    Entry::new("GET", "/healthz", "the process runs", |_, _| {
        Box::pin(async { Ok(text(StatusCode::OK, "ok\n".into())) })
    }),
    Entry::new(
        "GET",
        "/readyz?verbose=",
        "it takes requests, 503 while it drains; and how what it stands on fares",
        |admin, call| Box::pin(readiness::show(&admin.reloader, admin.is_draining(), call)),
    ),
    Entry::new("GET", "/metrics", "Prometheus metrics", |admin, _| Box::pin(async { Ok(admin.metrics()) })),
    Entry::new(
        "GET",
        "/requests?tenant=ID&older_than=TIME&limit=N&format=json|text",
        "what is in flight, the oldest first",
        |admin, call| Box::pin(requests::list(&admin.underway, call)),
    ),
    Entry::new("DELETE", "/requests/{id}", "end a request in flight", |admin, call| {
        Box::pin(requests::end(&admin.underway, call))
    }),
    Entry::new("GET", "/log", "what is logged", |admin, _| Box::pin(log::show(admin.log.as_ref()))),
    Entry::new("PUT", "/log?filter=FILTER&for=TIME", "log something else for a while", |admin, call| {
        Box::pin(log::change(admin.log.as_ref(), call))
    }),
    Entry::new("DELETE", "/log", "log what is usual", |admin, _| Box::pin(log::revert(admin.log.as_ref()))),
    Entry::new("GET", "/policy", "the policy in force, and what came of the last reload", |admin, _| {
        Box::pin(policy::show(&admin.reloader))
    }),
    Entry::new("POST", "/reload", "look at the policy files now", |admin, _| {
        Box::pin(policy::reload(&admin.trigger))
    }),
    Entry::new("GET", "/upstreams", "every upstream: its endpoints and how they fare", |admin, _| {
        Box::pin(upstreams::list(&admin.reloader))
    }),
    Entry::new("GET", "/overrides", "every override: whose, what, until when", |admin, _| {
        Box::pin(overrides::list(&admin.reloader))
    }),
    Entry::new(
        "POST",
        overrides::GIVE,
        "override where a tenant's requests go, for a while",
        |admin, call| Box::pin(overrides::give(&admin.reloader, call)),
    ),
    Entry::new("DELETE", "/overrides/{id}", "end an override that was given here", |admin, call| {
        Box::pin(overrides::end(&admin.reloader, call))
    }),
    Entry::new("GET", "/.well-known/jwks.json", "the public keys of assertions to backends", |admin, _| {
        Box::pin(async { Ok(document(&admin.reloader.store().load().assertion_keys().key_set())) })
    }),
    Entry::new("GET", "/plugins", "every plugin: its version, calls and failures", |admin, _| {
        Box::pin(plugins::list(&admin.reloader))
    }),
    Entry::new("GET", "/plugins/{name}", "one plugin", |admin, call| {
        Box::pin(plugins::show(&admin.reloader, call))
    }),
    Entry::new(
        "POST",
        "/plugins/{name}/rollback?version=HASH",
        "go back to the version before, or to that one",
        |admin, call| Box::pin(plugins::roll_back(&admin.reloader, call)),
    ),
    Entry::new(
        "DELETE",
        "/plugins/{name}/rollback",
        "serve the version in the plugin's file",
        |admin, call| Box::pin(plugins::follow(&admin.reloader, call)),
    ),
    Entry::new("GET", "/plugins/{name}/shadow", "how its candidate fares", |admin, call| {
        Box::pin(trials::show(&admin.reloader, call))
    }),
    Entry::new("POST", "/plugins/{name}/promote", "serve its candidate", |admin, call| {
        Box::pin(trials::promote(&admin.reloader, call))
    }),
    Entry::new(
        "POST",
        "/plugins/{name}/recording?count=N&keep=NAME,NAME",
        "record what it decides, as cases; secrets are replaced but for these headers and query fields",
        |admin, call| Box::pin(trials::record(&admin.reloader, call)),
    ),
    Entry::new("GET", "/plugins/{name}/recording", "the cases so far", |admin, call| {
        Box::pin(trials::download(&admin.reloader, call))
    }),
    Entry::new(
        "DELETE",
        "/plugins/{name}/recording",
        "stop recording and forget the cases",
        |admin, call| Box::pin(trials::forget(&admin.reloader, call)),
    ),
];

impl Admin {
    /// An admin surface that is ready until told otherwise. Without a `log`, its filter belongs to
    /// the program around.
    pub fn new(
        reloader: Arc<Reloader>,
        metrics: Arc<Metrics>,
        trigger: Trigger,
        underway: Arc<Underway>,
        log: Option<Arc<LogFilter>>,
    ) -> Arc<Self> {
        Arc::new(Self { reloader, metrics, trigger, underway, log, draining: AtomicBool::new(false) })
    }

    /// Takes this process out of rotation: `/readyz` says 503 from now on, while requests under
    /// way are finished.
    pub fn set_draining(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Serves until `shutdown`, and finishes what is under way.
    pub async fn serve(self: Arc<Self>, listener: AdminListener, shutdown: CancellationToken) {
        let connections = TaskTracker::new();
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let accept = async || {
            let place = Arc::clone(&places).acquire_owned().await.expect("it is never closed");
            listener.accept().await.map(|stream| (stream, place))
        };
        while let Some(accepted) = shutdown.run_until_cancelled(accept()).await {
            let Ok((stream, place)) = accepted else {
                // Out of file descriptors, most likely: give connections a moment to close.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let (admin, shutdown) = (Arc::clone(&self), shutdown.clone());
            connections.spawn(async move {
                let _place = place;
                let admin = &admin;
                let service = service_fn(|request| async move {
                    let answer = admin.answer(&request).await;
                    Ok::<_, Infallible>(answer.unwrap_or_else(Problem::into_response))
                });
                let connection = hyper::server::conn::http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEADER_READ_TIMEOUT)
                    .max_buf_size(MAX_HEAD_BYTES)
                    .serve_connection(TokioIo::new(stream), service);
                let mut connection = std::pin::pin!(connection);
                tokio::select! {
                    _ = connection.as_mut() => {}
                    () = shutdown.cancelled() => {
                        connection.as_mut().graceful_shutdown();
                        let _ = connection.await;
                    }
                }
            });
        }
        connections.close();
        connections.wait().await;
    }

    async fn answer(&self, request: &Request<Incoming>) -> Answer {
        let snapshot = self.reloader.store().load();
        host::check(request.uri(), request.headers(), &snapshot.policy().server.admin_hosts)?;
        drop(snapshot);
        let path = request.uri().path();
        let here: Vec<&Entry> = SURFACE.iter().filter(|entry| entry.is_at(path)).collect();
        if here.is_empty() {
            return Err(Problem::new(
                StatusCode::NOT_FOUND,
                format!("nothing at {path}; / lists what there is"),
            ));
        }
        let wanted = if request.method() == Method::HEAD { "GET" } else { request.method().as_str() };
        let Some(entry) = here.iter().find(|entry| entry.method == wanted) else {
            return Err(Problem::method_not_allowed(path, here.iter().map(|entry| entry.method)));
        };
        if wanted != "GET" && request.headers().contains_key(ORIGIN) {
            // Browsers name the page that sends a request; without a password, that page could be
            // anybody's.
            return Err(Problem::new(StatusCode::FORBIDDEN, "a web page may not change anything here"));
        }
        let call = Call::read(entry.path, request.uri())?;
        (entry.answer)(self, call).await
    }

    fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    fn metrics(&self) -> Response<Body> {
        let live = self.reloader.store().live();
        self.metrics.live_generations.set(i64::try_from(live.count).unwrap_or(i64::MAX));
        self.metrics.oldest_generation_age.set(live.oldest.as_secs_f64());
        plugins::measure(&self.reloader, &self.metrics);
        upstreams::measure(&self.reloader, &self.metrics);
        databases::measure(&self.reloader, &self.metrics);
        open_metrics(self.metrics.expose())
    }
}

/// An operator's connection.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl AdminListener {
    async fn accept(&self) -> io::Result<Box<dyn Stream>> {
        Ok(match self {
            Self::Tcp(listener) => Box::new(listener.accept().await?.0),
            Self::Unix(listener) => Box::new(listener.accept().await?.0),
        })
    }
}

impl Entry {
    const fn new(
        method: &'static str,
        path: &'static str,
        what: &'static str,
        answer: for<'a> fn(&'a Admin, Call<'a>) -> Answering<'a>,
    ) -> Self {
        Self { method, path, what, answer }
    }

    fn is_at(&self, path: &str) -> bool {
        call::is_at(self.path, path)
    }
}

fn index() -> String {
    let widest = SURFACE.iter().map(|entry| entry.path.len().min(WIDEST_PATH)).max().unwrap_or(0);
    let line = |entry: &Entry| format!("{:<6} {:<widest$}  {}\n", entry.method, entry.path, entry.what);
    SURFACE.iter().map(line).collect()
}
