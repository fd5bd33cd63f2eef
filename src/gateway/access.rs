//! The access record: one structured line a request, whatever became of it.

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::{Method, Response, StatusCode, Uri};
use serde::Serialize;
use uuid::Uuid;

use super::access_log::{AccessLog, Format};
use crate::body::{Body, BodyEnd, BodyOutcome};
use crate::error::Refusal;
use crate::forward::Errand;
use crate::forward::headers::X_REQUEST_ID;
use crate::handler::{Connection, Inbound};
use crate::snapshot::{Caller, Matched, PluginCall, ResolvedBy, Target, Trail};
use crate::telemetry::{Metrics, RequestLabels, RouteLabel};
use crate::tenant::TenantId;

/// An id that sorts by time (RFC 9562, UUID version 7).
pub(super) fn new_request_id() -> String {
    Uuid::now_v7().to_string()
}

/// What is known of a request so far.
pub(super) struct Record {
    request_id: String,
    started: Instant,
    generation: u64,
    peer: SocketAddr,
    method: Method,
    uri: Uri,
    route: Option<Arc<str>>,
    target: &'static str,
    tenant: Option<TenantId>,
    by: Option<ResolvedBy>,
    trail: Trail,
    reason: Option<String>,
    refusal: Option<Refusal>,
    endpoint: Option<Arc<str>>,
    attempts: u32,
    matched_at: Option<Instant>,
    recorded: bool,
}

impl Record {
    /// Opens the record of a request that a snapshot is about to serve.
    pub(super) fn open(inbound: &Inbound, connection: &Connection, generation: u64) -> Self {
        Self {
            request_id: new_request_id(),
            started: Instant::now(),
            generation,
            peer: connection.peer,
            method: inbound.request.method().clone(),
            uri: inbound.request.uri().clone(),
            route: None,
            target: "",
            tenant: None,
            by: None,
            trail: Trail::default(),
            reason: None,
            refusal: None,
            endpoint: None,
            attempts: 0,
            matched_at: None,
            recorded: true,
        }
    }

    /// The id that client, backend and log share.
    pub(super) fn request_id(&self) -> &str {
        &self.request_id
    }

    /// Whether a line is written; metrics always are.
    pub(super) fn set_recorded(&mut self, recorded: bool) {
        self.recorded = recorded;
    }

    pub(super) fn matched(&mut self, matched: &Matched<'_>) {
        self.route = Some(Arc::clone(matched.name()));
        self.target = match matched.target() {
            Target::Forward(_) => "forward",
            Target::Query(_) => "query",
            Target::Sql(_) => "sql",
        };
        self.matched_at = Some(Instant::now());
    }

    /// Where the way to the tenant is written down.
    pub(super) fn trail(&mut self) -> &mut Trail {
        &mut self.trail
    }

    pub(super) fn admitted(&mut self, caller: &Caller, metrics: &Metrics) {
        if let Caller::Tenant { admitted, placement, by } = caller {
            self.tenant = Some(admitted.tenant().id.clone());
            self.by = Some(by.clone());
            self.reason.clone_from(&placement.reason);
        }
        if let (Some(route), Some(matched_at)) = (&self.route, self.matched_at) {
            let label = RouteLabel { route: Arc::clone(route) };
            let took = matched_at.elapsed();
            metrics.resolution_duration.get_or_create(&label).observe(took.as_secs_f64());
        }
    }

    /// Which endpoint was asked last, and after how many tries.
    pub(super) fn sent(&mut self, errand: Errand<'_>) {
        (self.endpoint, self.attempts) = (errand.endpoint, errand.attempts);
    }

    pub(super) fn refused(&mut self, refusal: Refusal) {
        let (code, status) = (refusal.code().as_str(), refusal.status());
        let cause = refusal.cause().unwrap_or_default();
        let (request_id, detail, blame) =
            (&self.request_id, refusal.detail(), refusal.code().blame().as_str());
        // Who is at fault decides how loud it is: a client's mistake is no operator's alarm.
        if status.is_server_error() {
            tracing::warn!(request_id, code, status = status.as_u16(), blame, cause, "refused: {detail}");
        } else {
            tracing::debug!(request_id, code, status = status.as_u16(), blame, cause, "refused: {detail}");
        }
        self.refusal = Some(refusal);
    }

    /// Counts the request, names it to the client, and writes its line when the body has ended.
    pub(super) fn close(
        self,
        mut response: Response<Body>,
        metrics: &Metrics,
        log: &AccessLog,
    ) -> Response<Body> {
        let status = response.status();
        let until_head = self.started.elapsed();
        let route = self.route.clone().unwrap_or_default();
        let outcome = self.refusal.as_ref().map_or("ok", |refusal| refusal.code().as_str());
        let duration = metrics.request_duration.get_or_create(&RouteLabel { route: Arc::clone(&route) });
        duration.observe(until_head.as_secs_f64());
        drop(duration);
        let labels = RequestLabels { route, target: self.target, outcome, status: status.as_u16() };
        metrics.requests.get_or_create(&labels).inc();
        let id = self.request_id.parse().expect("a UUID is a header value");
        response.headers_mut().insert(X_REQUEST_ID, id);
        let log = log.clone();
        response.map(|body| body.observe(move |end| self.finish(status, until_head, &end, &log)))
    }

    fn finish(self, status: StatusCode, until_head: Duration, end: &BodyEnd, log: &AccessLog) {
        if !self.recorded {
            return;
        }
        let refusal = self.refusal.as_ref();
        let plugin = self.by.as_ref().and_then(|by| by.plugin.as_ref());
        let record = Finished {
            time: humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
            request_id: &self.request_id,
            peer: self.peer,
            method: self.method.as_str(),
            path: self.uri.path(),
            status: status.as_u16(),
            route: self.route.as_deref(),
            target: self.target,
            tenant: self.tenant.as_ref().map(TenantId::as_str),
            resolver: self.by.as_ref().map(|by| by.kind),
            plugin: plugin.map(|plugin| &*plugin.name),
            plugin_version: plugin.map(|plugin| &*plugin.version),
            plugin_calls: self.trail.calls.iter().map(Asked::new).collect(),
            reason: self.reason.as_deref(),
            endpoint: self.endpoint.as_deref(),
            attempts: Some(self.attempts).filter(|attempts| *attempts > 1),
            error: refusal.map(|refusal| refusal.code().as_str()),
            blame: refusal.map(|refusal| refusal.code().blame().as_str()),
            cause: refusal.and_then(Refusal::cause),
            generation: self.generation,
            head_ms: milliseconds(until_head),
            total_ms: milliseconds(self.started.elapsed()),
            bytes: end.bytes,
            bytes_received: end.received,
            // The answer to a HEAD has a body that nobody reads.
            complete: matches!(end.outcome, BodyOutcome::Complete) || self.method == Method::HEAD,
        };
        log.push(&record.line(log.format()));
    }
}

fn milliseconds(duration: Duration) -> f64 {
    // Microseconds are as fine as anyone reads.
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

/// A finished request, as it is written.
#[derive(Serialize)]
struct Finished<'a> {
    time: String,
    request_id: &'a str,
    peer: SocketAddr,
    method: &'a str,
    path: &'a str,
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<&'a str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    target: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resolver: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    plugin: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    plugin_version: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    plugin_calls: Vec<Asked<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint: Option<&'a str>,
    /// Tries at an upstream's endpoints, where one was not enough.
    #[serde(skip_serializing_if = "Option::is_none")]
    attempts: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    blame: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<&'a str>,
    generation: u64,
    head_ms: f64,
    total_ms: f64,
    bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_received: Option<u64>,
    complete: bool,
}

/// A question to a plugin version, whatever came of it.
#[derive(Serialize)]
struct Asked<'a> {
    plugin: &'a str,
    version: &'a str,
    outcome: &'static str,
    us: u128,
}

impl<'a> Asked<'a> {
    fn new(call: &'a PluginCall) -> Self {
        let PluginCall { asked, outcome, took } = call;
        Self { plugin: &asked.name, version: &asked.version, outcome, us: took.as_micros() }
    }
}

impl std::fmt::Display for Asked<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { plugin, version, outcome, us } = self;
        // As much of the hash as tells versions apart, as git does.
        let version = version.get(..12).unwrap_or(version);
        write!(f, "asked={plugin}@{version}:{outcome}:{us}us")
    }
}

impl Finished<'_> {
    fn line(&self, format: Format) -> Vec<u8> {
        let mut line = Vec::with_capacity(512);
        match format {
            Format::Json => {
                serde_json::to_writer(&mut line, self).expect("a record has no keys that are not strings");
            }
            Format::Text => write!(line, "{self}").expect("writing to a Vec cannot fail"),
        }
        line.push(b'\n');
        line
    }
}

impl std::fmt::Display for Finished<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { time, status, method, path, total_ms, bytes, request_id, generation, .. } = self;
        write!(f, "{time} {status} {method} {path} {total_ms}ms {bytes}B")?;
        for (name, value) in [
            ("route", self.route),
            ("tenant", self.tenant),
            ("resolver", self.resolver),
            ("plugin", self.plugin),
            ("endpoint", self.endpoint),
            ("error", self.error),
            ("blame", self.blame),
        ] {
            if let Some(value) = value {
                write!(f, " {name}={value}")?;
            }
        }
        if let Some(received) = self.bytes_received {
            write!(f, " received={received}B")?;
        }
        for asked in &self.plugin_calls {
            write!(f, " {asked}")?;
        }
        for (name, value) in [("reason", self.reason), ("cause", self.cause)] {
            if let Some(value) = value {
                // Quoted and escaped: a cause may hold anything, line ends included.
                write!(f, " {name}={value:?}")?;
            }
        }
        if let Some(attempts) = self.attempts {
            write!(f, " attempts={attempts}")?;
        }
        if !self.complete {
            f.write_str(" incomplete")?;
        }
        write!(f, " generation={generation} id={request_id}")
    }
}
