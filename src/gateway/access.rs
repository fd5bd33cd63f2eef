//! The access record: what is known of a request, told to whoever counts, traces and writes down,
//! whatever became of it.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http::{HeaderValue, Method, Response, StatusCode};

use super::access_line::Finished;
use super::access_log::AccessLog;
use super::spans::Traced;
use crate::address::Peer;
use crate::body::{Body, BodyEnd, BodyError, BodyOutcome, Observer};
use crate::error::{Code, Refusal};
use crate::fairness::Pass;
use crate::forward::Errand;
use crate::forward::headers::X_REQUEST_ID;
use crate::handler::{Connection, Inbound};
use crate::policy;
use crate::request_id::RequestId;
use crate::snapshot::{Caller, Matched, ResolvedBy, Snapshot, Trail};
use crate::telemetry::{self, Metrics, RouteMetrics};
use crate::tenant::TenantId;
use crate::trace;
use crate::underway::{Phase, Place, Progress, Underway};

/// What a request without an answer is counted as.
const CANCELLED: &str = "cancelled";
/// Its status in records; nobody is sent it. The number is nginx's.
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// Who is told of a request.
#[derive(Clone, Copy)]
pub(super) struct Around<'a> {
    pub(super) underway: &'a Arc<Underway>,
    pub(super) metrics: &'a Arc<Metrics>,
    pub(super) log: &'a AccessLog,
}

/// What is known of a request so far.
pub(super) struct Record {
    pub(super) place: Place,
    pub(super) generation: u64,
    pub(super) peer: Peer,
    pub(super) tenant: Option<TenantId>,
    /// Once a route took it.
    counts: Option<Arc<RouteMetrics>>,
    pub(super) by: Option<ResolvedBy>,
    pub(super) trail: Trail,
    pub(super) reason: Option<String>,
    pub(super) overridden: Option<policy::Name>,
    /// Occupies one of the tenant's places until the response has ended.
    pub(super) pass: Pass,
    pub(super) refusal: Option<Refusal>,
    pub(super) endpoint: Option<Arc<str>>,
    pub(super) attempts: u32,
    pub(super) matched_at: Option<Instant>,
    pub(super) admitted_at: Option<Instant>,
    pub(super) traced: Option<Traced>,
    rule: policy::AccessLog,
    tenants_shown: usize,
    metrics: Arc<Metrics>,
    log: AccessLog,
    is_closed: bool,
}

impl Record {
    /// Opens the record of a request that `snapshot` is about to serve.
    pub(super) fn open(
        inbound: &mut Inbound,
        connection: &Connection,
        snapshot: &Snapshot,
        around: Around<'_>,
    ) -> Self {
        let Around { underway, metrics, log } = around;
        let request = &mut inbound.request;
        let (method, uri) = (request.method().clone(), request.uri().clone());
        let place = underway.enter(Progress::begin(RequestId::fresh(), connection.peer, method, uri));
        if !http_body::Body::is_end_stream(request.body()) {
            let body = std::mem::take(request.body_mut());
            *request.body_mut() = body.observe(Receiving(Arc::clone(place.progress())));
        }
        let server = &snapshot.policy().server;
        Self {
            generation: snapshot.generation(),
            peer: connection.peer,
            tenant: None,
            counts: None,
            by: None,
            trail: Trail::default(),
            reason: None,
            overridden: None,
            pass: Pass::default(),
            refusal: None,
            endpoint: None,
            attempts: 0,
            matched_at: None,
            admitted_at: None,
            traced: snapshot.traces().map(|traces| Traced::begin(traces, request, connection.scheme)),
            rule: server.access_log,
            tenants_shown: server.tenant_metrics,
            place,
            metrics: Arc::clone(metrics),
            log: log.clone(),
            is_closed: false,
        }
    }

    /// The id that client, backend and log share.
    pub(super) fn request_id(&self) -> &RequestId {
        &self.place.id
    }

    /// The route that took it.
    pub(super) fn route(&self) -> Option<&str> {
        self.counts.as_ref().map(|counts| &**counts.route())
    }

    /// What the route does.
    pub(super) fn target(&self) -> Option<&'static str> {
        self.counts.as_ref().map(|counts| counts.target())
    }

    /// When the request came.
    pub(super) fn arrived(&self) -> tokio::time::Instant {
        self.place.started.into()
    }

    /// The request is served by another snapshot from now on.
    pub(super) fn starts_anew(&mut self, generation: u64) {
        self.generation = generation;
        self.trail = Trail::default();
    }

    /// What a backend is told of the trace; `None` where the client's word on it stands.
    pub(super) fn traceparent(&self) -> Option<HeaderValue> {
        self.traced.as_ref().map(Traced::outgoing)
    }

    /// Who the client is, where a trusted hop tells.
    pub(super) fn came_from(&mut self, client: Peer) {
        if client != self.peer {
            self.peer = client;
            self.place.set_peer(client);
        }
    }

    pub(super) fn matched(&mut self, matched: &Matched<'_>) {
        self.place.set_route(Arc::clone(matched.counts().route()));
        self.counts = Some(Arc::clone(matched.counts()));
        self.matched_at = Some(Instant::now());
    }

    /// Where the way to the tenant is written down.
    pub(super) fn trail(&mut self) -> &mut Trail {
        &mut self.trail
    }

    pub(super) fn admitted(&mut self, caller: &Caller) {
        if let Caller::Tenant { admitted, placement, by, ruling } = caller {
            self.pass = admitted.pass().clone();
            self.overridden = ruling.placed().map(|placed| policy::Name::clone(&placed.rule().id));
            self.place.set_tenant(admitted.tenant().id.clone());
            self.tenant = Some(admitted.tenant().id.clone());
            self.by = Some(by.clone());
            self.reason.clone_from(&placement.reason);
        }
        self.place.set_phase(if self.target() == Some("forward") {
            Phase::Upstream
        } else {
            Phase::Database
        });
        let now = Instant::now();
        self.admitted_at = Some(now);
        if let (Some(counts), Some(matched_at)) = (&self.counts, self.matched_at) {
            counts.resolved(now.duration_since(matched_at));
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
            (self.place.id.as_str(), refusal.detail(), refusal.code().blame().as_str());
        // Who is at fault decides how loud it is: a client's mistake is no operator's alarm.
        if status.is_server_error() {
            tracing::warn!(request_id, code, status = status.as_u16(), blame, cause, "refused: {detail}");
        } else {
            tracing::debug!(request_id, code, status = status.as_u16(), blame, cause, "refused: {detail}");
        }
        self.refusal = Some(refusal);
    }

    /// Counts the request, names it to the client, and writes its line when the body has ended.
    pub(super) fn close(mut self, mut response: Response<Body>) -> Response<Body> {
        let (status, answered_at) = (response.status(), Instant::now());
        let outcome = self.refusal.as_ref().map(|refusal| refusal.code().as_str());
        self.count(outcome, status, answered_at);
        self.is_closed = true;
        response.headers_mut().insert(X_REQUEST_ID, self.place.id.header().clone());
        let switches = status == StatusCode::SWITCHING_PROTOCOLS;
        self.place.set_phase(if switches { Phase::Tunnel } else { Phase::Streaming });
        let answering = Answering { record: self, status, answered_at };
        response.map(|body| body.observe(answering))
    }

    fn count(&self, outcome: Option<&'static str>, status: StatusCode, answered_at: Instant) {
        let took = answered_at.duration_since(self.place.started);
        match &self.counts {
            Some(counts) => counts.answered(outcome, status, took),
            None => RouteMetrics::new(&self.metrics, &Arc::default(), "").answered(outcome, status, took),
        }
    }

    /// Tells of the request once nothing more happens to it.
    fn finish(&self, status: StatusCode, answered_at: Instant, bytes: u64, complete: bool) {
        let ended_at = Instant::now();
        let took = ended_at.duration_since(self.place.started);
        let until_answer = answered_at.duration_since(self.place.started);
        if self.tenants_shown > 0
            && let Some(tenant) = &self.tenant
        {
            let received = self.place.received();
            let finished =
                telemetry::Finished { status: status.as_u16(), took: until_answer, received, sent: bytes };
            self.metrics.tenants.count(self.tenants_shown, tenant, &finished);
        }
        if self.is_recorded(status, took) {
            let finished = Finished { record: self, status, until_answer, took, bytes, complete };
            if !self.log.push(finished.line(self.log.format()).as_bytes()) {
                self.metrics.access_records_dropped.inc();
            }
        }
        if let Some(traced) = self.traced.as_ref().filter(|traced| traced.is_sampled()) {
            traced.finish(self, status, answered_at, ended_at, complete);
        }
    }

    /// Whether an operator wants a line of it.
    fn is_recorded(&self, status: StatusCode, took: Duration) -> bool {
        match self.rule {
            policy::AccessLog::On => true,
            policy::AccessLog::Off => false,
            policy::AccessLog::Sampled(sampling) => {
                let failed = self.refusal.is_some() || status.is_server_error();
                (sampling.every_error && failed) || took >= sampling.slow || self.falls_on(sampling.share)
            }
        }
    }

    /// Whether the request is part of a sample. A recorded trace and its record go together.
    fn falls_on(&self, share: f64) -> bool {
        if self.traced.as_ref().is_some_and(Traced::is_sampled) {
            return true;
        }
        trace::falls_on(self.place.id.as_u128(), share)
    }
}

/// Counts a request's body as it is read.
struct Receiving(Arc<Progress>);

impl Observer for Receiving {
    fn passed(&mut self, bytes: u64) {
        self.0.receive(bytes);
    }

    fn ended(self: Box<Self>, _: BodyEnd) {}
}

/// Counts an answer's body as it is sent, and finishes the record with it.
struct Answering {
    record: Record,
    status: StatusCode,
    answered_at: Instant,
}

impl Observer for Answering {
    fn passed(&mut self, bytes: u64) {
        self.record.place.send(bytes);
    }

    fn poll_break_off(&mut self, cx: &mut Context<'_>) -> Poll<BodyError> {
        self.record.place.poll_ended(cx).map(|()| BodyError::AnswerBroken(Code::RequestEnded.as_str()))
    }

    fn ended(self: Box<Self>, end: BodyEnd) {
        // The answer to a HEAD has a body that nobody reads.
        if let Some(received) = end.received {
            self.record.place.receive(received);
        }
        let unread = self.record.place.method == Method::HEAD;
        let complete = matches!(end.outcome, BodyOutcome::Complete) || unread;
        self.record.finish(self.status, self.answered_at, end.bytes, complete);
    }
}

/// A request that is dropped before it has an answer has a record too: its client went away, a drain
/// cut it off, or answering it panicked.
impl Drop for Record {
    fn drop(&mut self) {
        if self.is_closed {
            return;
        }
        let (outcome, status) = if std::thread::panicking() {
            (Code::InternalError.as_str(), StatusCode::INTERNAL_SERVER_ERROR)
        } else {
            (CANCELLED, CLIENT_CLOSED_REQUEST.try_into().expect("three digits are a status"))
        };
        let now = Instant::now();
        self.count(Some(outcome), status, now);
        self.finish(status, now, 0, false);
    }
}
