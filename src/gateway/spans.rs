//! A request as spans: made from what its record knows, once it is over, by the names of
//! OpenTelemetry's semantic conventions for HTTP and databases.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use http::header::HOST;
use http::{HeaderValue, Method, Request, StatusCode, Version};
use opentelemetry::KeyValue;
use opentelemetry::trace::SpanKind;

use super::access::Record;
use crate::body::Body;
use crate::decision::host_of;
use crate::otlp::{Exporter, Span};
use crate::tenant::TenantId;
use crate::trace::{Position, new_span};

/// A request's part of a trace.
pub(super) struct Traced {
    traces: Arc<Exporter>,
    position: Position,
    scheme: &'static str,
    version: Version,
    /// What the client asked for, kept where somebody will read it.
    host: Option<HeaderValue>,
}

/// Instants as the times that everybody's clocks share.
struct Clock {
    instant: Instant,
    time: SystemTime,
}

impl Traced {
    /// Finds a request's place in a trace.
    pub(super) fn begin(traces: &Arc<Exporter>, request: &Request<Body>, scheme: &'static str) -> Self {
        let position = Position::of(request.headers(), traces.settings().share);
        let host = if position.is_sampled() { request.headers().get(HOST).cloned() } else { None };
        Self { traces: Arc::clone(traces), position, scheme, version: request.version(), host }
    }

    /// What a backend is told.
    pub(super) fn outgoing(&self) -> HeaderValue {
        self.position.outgoing().header()
    }

    /// Whether the request's spans are recorded.
    pub(super) fn is_sampled(&self) -> bool {
        self.position.is_sampled()
    }

    /// The trace's id, as everybody writes it.
    pub(super) fn id(&self) -> String {
        format!("{:032x}", self.position.trace())
    }

    /// Sends the spans of a finished request on their way.
    pub(super) fn finish(
        &self,
        record: &Record,
        status: StatusCode,
        answered_at: Instant,
        ended_at: Instant,
        complete: bool,
    ) {
        let clock = Clock { instant: ended_at, time: SystemTime::now() };
        let mut spans = vec![self.request(record, status, complete, &clock)];
        self.resolution(record, answered_at, &clock, &mut spans);
        if let Some(admitted_at) = record.admitted_at {
            spans.push(self.call(record, status, &clock, (admitted_at, answered_at)));
        }
        self.traces.export(self.position.trace(), spans);
    }

    /// The whole request, as the gateway serves it.
    fn request(&self, record: &Record, status: StatusCode, complete: bool, clock: &Clock) -> Span {
        let (name, method) = method(&record.place.method);
        let (route, client) = (record.route(), record.peer);
        let mut attributes = vec![
            KeyValue::new("http.request.method", method),
            KeyValue::new("url.path", record.place.uri.path().to_owned()),
            KeyValue::new("url.scheme", self.scheme),
            KeyValue::new(
                "network.protocol.version",
                if self.version == Version::HTTP_2 { "2" } else { "1.1" },
            ),
            KeyValue::new("http.response.status_code", i64::from(status.as_u16())),
            KeyValue::new("client.address", client.host()),
            KeyValue::new("innkeeper.request_id", record.place.id.to_string()),
            KeyValue::new("innkeeper.generation", i64::try_from(record.generation).unwrap_or(i64::MAX)),
        ];
        let authority = self.host.as_ref().and_then(|host| host.to_str().ok());
        let authority = authority.or_else(|| record.place.uri.authority().map(http::uri::Authority::as_str));
        let plugin = record.by.as_ref().and_then(|by| by.plugin.as_ref());
        let texts = [
            ("server.address", authority.map(host_of)),
            ("http.route", route.map(ToString::to_string)),
            ("innkeeper.tenant", record.tenant.as_ref().map(TenantId::to_string)),
            ("innkeeper.resolver", record.by.as_ref().map(|by| by.kind.to_owned())),
            ("innkeeper.plugin.name", plugin.map(|plugin| plugin.name.to_string())),
            ("innkeeper.plugin.version", plugin.map(|plugin| plugin.version.to_string())),
            ("error.type", record.refusal.as_ref().map(|refusal| refusal.code().as_str().to_owned())),
        ];
        attributes.extend(texts.into_iter().filter_map(|(key, text)| Some(KeyValue::new(key, text?))));
        Span {
            id: self.position.request(),
            parent: self.position.parent(),
            parent_is_remote: self.position.parent().is_some(),
            kind: SpanKind::Server,
            name: route.map_or(Cow::Borrowed(name), |route| format!("{name} {route}").into()),
            began: clock.at(record.place.started),
            ended: clock.time,
            attributes,
            // A client's mistake is no error of ours (the conventions say so).
            failed: status.is_server_error() || !complete,
        }
    }

    /// The way to the tenant, and the plugins on it.
    fn resolution(&self, record: &Record, answered_at: Instant, clock: &Clock, spans: &mut Vec<Span>) {
        let Some(matched_at) = record.matched_at else { return };
        let resolution = new_span();
        let ended = clock.at(record.admitted_at.unwrap_or(answered_at));
        let inner = |id, parent, name: Cow<'static, str>, began, ended, attributes, failed| Span {
            id,
            parent: Some(parent),
            parent_is_remote: false,
            kind: SpanKind::Internal,
            name,
            began,
            ended,
            attributes,
            failed,
        };
        let refused = record.admitted_at.is_none();
        let (began, request) = (clock.at(matched_at), self.position.request());
        spans.push(inner(resolution, request, "resolve".into(), began, ended, Vec::new(), refused));
        for call in &record.trail.calls {
            let ended = clock.at(call.ended);
            let attributes = vec![
                KeyValue::new("innkeeper.plugin.name", call.asked.name.to_string()),
                KeyValue::new("innkeeper.plugin.version", call.asked.version.to_string()),
                KeyValue::new("innkeeper.plugin.outcome", call.outcome),
            ];
            let name = format!("plugin {}", call.asked.name).into();
            let failed = !matches!(call.outcome, "place" | "next" | "deny");
            spans.push(inner(new_span(), resolution, name, ended - call.took, ended, attributes, failed));
        }
    }

    /// The call to whoever served it: until the upstream's response began, or the statement's answer.
    fn call(
        &self,
        record: &Record,
        status: StatusCode,
        clock: &Clock,
        (began, ended): (Instant, Instant),
    ) -> Span {
        let route = record.route().unwrap_or_default();
        let (name, mut attributes) = if record.target() == Some("forward") {
            let (name, method) = method(&record.place.method);
            let path = record.place.uri.path().to_owned();
            let mut attributes =
                vec![KeyValue::new("http.request.method", method), KeyValue::new("url.path", path)];
            if record.refusal.is_none() {
                attributes.push(KeyValue::new("http.response.status_code", i64::from(status.as_u16())));
            }
            (Cow::Borrowed(name), attributes)
        } else {
            let name = format!("{} {route}", record.target().unwrap_or_default()).into();
            (name, vec![KeyValue::new("db.system.name", "postgresql")])
        };
        if let Some(refusal) = &record.refusal {
            attributes.push(KeyValue::new("error.type", refusal.code().as_str()));
        }
        Span {
            id: self.position.call(),
            parent: Some(self.position.request()),
            parent_is_remote: false,
            kind: SpanKind::Client,
            name,
            began: clock.at(began),
            ended: clock.at(ended),
            attributes,
            // Seen from here, an upstream's 4xx is one (the conventions say so).
            failed: record.refusal.is_some() || status.as_u16() >= 400,
        }
    }
}

impl Clock {
    fn at(&self, instant: Instant) -> SystemTime {
        self.time - self.instant.saturating_duration_since(instant)
    }
}

/// A method as the name of a span and as an attribute: those that anybody may invent are one.
fn method(method: &Method) -> (&'static str, &'static str) {
    match method.as_str() {
        "GET" => ("GET", "GET"),
        "POST" => ("POST", "POST"),
        "PUT" => ("PUT", "PUT"),
        "DELETE" => ("DELETE", "DELETE"),
        "HEAD" => ("HEAD", "HEAD"),
        "OPTIONS" => ("OPTIONS", "OPTIONS"),
        "CONNECT" => ("CONNECT", "CONNECT"),
        "PATCH" => ("PATCH", "PATCH"),
        "TRACE" => ("TRACE", "TRACE"),
        _ => ("HTTP", "_OTHER"),
    }
}
