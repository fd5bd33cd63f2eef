//! The admin listener: health, readiness, metrics and the policy in force. Loopback by default,
//! and without secrets, because it has no password.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::body::Body;
use crate::reload::{Reloader, Trigger};
use crate::telemetry::Metrics;

/// An operator's client is on the same machine: it has no reason to be slow.
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(5);

/// What the admin listener shows.
pub struct Admin {
    reloader: Arc<Reloader>,
    metrics: Arc<Metrics>,
    trigger: Trigger,
    ready: AtomicBool,
}

impl Admin {
    /// An admin surface that is ready until told otherwise.
    pub fn new(reloader: Arc<Reloader>, metrics: Arc<Metrics>, trigger: Trigger) -> Arc<Self> {
        Arc::new(Self { reloader, metrics, trigger, ready: AtomicBool::new(true) })
    }

    /// Takes this process out of rotation: `/readyz` says 503 from now on, while requests under
    /// way are finished.
    pub fn set_draining(&self) {
        self.ready.store(false, Ordering::Relaxed);
    }

    /// Serves until `shutdown`, and finishes what is under way.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, shutdown: CancellationToken) {
        let connections = TaskTracker::new();
        while let Some(accepted) = shutdown.run_until_cancelled(listener.accept()).await {
            let Ok((stream, _)) = accepted else {
                // Out of file descriptors, most likely: give connections a moment to close.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let (admin, shutdown) = (Arc::clone(&self), shutdown.clone());
            connections.spawn(async move {
                let service = service_fn(|request| {
                    let response = admin.answer(&request);
                    async { Ok::<_, Infallible>(response) }
                });
                let connection = hyper::server::conn::http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEADER_READ_TIMEOUT)
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

    fn answer(&self, request: &Request<Incoming>) -> Response<Body> {
        let path = request.uri().path();
        let allowed = if path == "/reload" { Method::POST } else { Method::GET };
        if request.method() != allowed && !(allowed == Method::GET && request.method() == Method::HEAD) {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, format!("{path} takes {allowed}\n"));
            let allow = HeaderValue::from_str(allowed.as_str()).expect("a method is a header value");
            response.headers_mut().insert(ALLOW, allow);
            return response;
        }
        match path {
            "/" => text(StatusCode::OK, INDEX.into()),
            "/healthz" => text(StatusCode::OK, "ok\n".into()),
            "/readyz" if self.ready.load(Ordering::Relaxed) => text(StatusCode::OK, "ready\n".into()),
            "/readyz" => text(StatusCode::SERVICE_UNAVAILABLE, "draining\n".into()),
            "/metrics" => self.metrics(),
            "/policy" => document(&self.policy()),
            "/reload" => {
                self.trigger.reload();
                text(StatusCode::ACCEPTED, "reloading; /policy tells what came of it\n".into())
            }
            _ => text(StatusCode::NOT_FOUND, format!("nothing at {path}\n\n{INDEX}")),
        }
    }

    fn metrics(&self) -> Response<Body> {
        let live = self.reloader.store().live();
        self.metrics.live_generations.set(i64::try_from(live.count).unwrap_or(i64::MAX));
        self.metrics.oldest_generation_age.set(live.oldest.as_secs_f64());
        let mut response = Response::new(Body::full(self.metrics.expose()));
        response.headers_mut().insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8"),
        );
        response
    }

    fn policy(&self) -> Value {
        let snapshot = self.reloader.store().load();
        let policy = snapshot.policy();
        let last = self.reloader.last_attempt();
        let live = self.reloader.store().live();
        json!({
            "file": self.reloader.path(),
            "generation": snapshot.generation(),
            "hash": policy.hash,
            "loaded_at": timestamp(snapshot.loaded_at()),
            "last_attempt": { "at": timestamp(last.at), "error": last.error },
            "live_generations": { "count": live.count, "oldest_seconds": live.oldest.as_secs_f64() },
            "routes": policy.routes.iter().map(|route| &route.name).collect::<Vec<_>>(),
            "upstreams": policy.upstreams.keys().collect::<Vec<_>>(),
            "databases": policy.databases.keys().collect::<Vec<_>>(),
            "plugins": snapshot.plugins().iter().map(|plugin| {
                json!({ "name": plugin.name(), "version": plugin.version() })
            }).collect::<Vec<_>>(),
            "tests": policy.tests.len(),
        })
    }
}

const INDEX: &str = "\
GET  /healthz  the process runs
GET  /readyz   it takes requests; 503 while it drains
GET  /metrics  Prometheus metrics
GET  /policy   the policy in force, and what came of the last reload
POST /reload   look at the policy files now
";

fn timestamp(at: SystemTime) -> String {
    humantime::format_rfc3339_millis(at).to_string()
}

fn text(status: StatusCode, text: String) -> Response<Body> {
    let mut response = Response::new(Body::full(text));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

fn document(value: &Value) -> Response<Body> {
    let mut response = Response::new(Body::full(format!("{value:#}\n")));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
