//! A finished request as a line of the access log: words for people, or JSON for machines.

use std::io::Write as _;
use std::time::{Duration, SystemTime};

use http::StatusCode;
use serde::Serialize;

use super::access::Record;
use super::access_log::Format;
use super::spans::Traced;
use crate::address::Peer;
use crate::error::Refusal;
use crate::snapshot::PluginCall;
use crate::tenant::TenantId;

/// A record, and how its request ended.
pub(super) struct Finished<'a> {
    pub(super) record: &'a Record,
    pub(super) status: StatusCode,
    pub(super) until_answer: Duration,
    pub(super) took: Duration,
    pub(super) bytes: u64,
    pub(super) complete: bool,
}

impl<'a> Finished<'a> {
    /// The line, with its end.
    pub(super) fn line(&self, format: Format) -> Vec<u8> {
        let mut line = Vec::with_capacity(512);
        let fields = self.fields();
        match format {
            Format::Json => {
                serde_json::to_writer(&mut line, &fields).expect("a record has no keys that are not strings");
            }
            Format::Text => write!(line, "{fields}").expect("writing to a Vec cannot fail"),
        }
        line.push(b'\n');
        line
    }

    fn fields(&self) -> Fields<'a> {
        let record = self.record;
        let refusal = record.refusal.as_ref();
        let plugin = record.by.as_ref().and_then(|by| by.plugin.as_ref());
        Fields {
            time: humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
            request_id: &record.place.id,
            trace_id: record.traced.as_ref().map(Traced::id),
            peer: record.peer,
            method: record.place.method.as_str(),
            path: record.place.uri.path(),
            status: self.status.as_u16(),
            route: record.route.as_deref(),
            target: record.target,
            tenant: record.tenant.as_ref().map(TenantId::as_str),
            resolver: record.by.as_ref().map(|by| by.kind),
            plugin: plugin.map(|plugin| &*plugin.name),
            plugin_version: plugin.map(|plugin| &*plugin.version),
            plugin_calls: record.trail.calls.iter().map(Asked::new).collect(),
            reason: record.reason.as_deref(),
            overridden: record.overridden.as_deref(),
            waited_ms: Some(record.pass.waited()).filter(|waited| !waited.is_zero()).map(milliseconds),
            endpoint: record.endpoint.as_deref(),
            attempts: Some(record.attempts).filter(|attempts| *attempts > 1),
            error: refusal.map(|refusal| refusal.code().as_str()),
            blame: refusal.map(|refusal| refusal.code().blame().as_str()),
            cause: refusal.and_then(Refusal::cause),
            generation: record.generation,
            head_ms: milliseconds(self.until_answer),
            total_ms: milliseconds(self.took),
            bytes: self.bytes,
            bytes_received: record.place.received(),
            complete: self.complete,
        }
    }
}

fn milliseconds(duration: Duration) -> f64 {
    // Microseconds are as fine as anyone reads.
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

/// What is written (`docs/operations.md` says what each means).
#[derive(Serialize)]
struct Fields<'a> {
    time: String,
    request_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<String>,
    peer: Peer,
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
    #[serde(rename = "override", skip_serializing_if = "Option::is_none")]
    overridden: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    waited_ms: Option<f64>,
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
    bytes_received: u64,
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
        let PluginCall { asked, outcome, took, .. } = call;
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

impl std::fmt::Display for Fields<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { time, status, method, path, total_ms, bytes, request_id, generation, .. } = self;
        write!(f, "{time} {status} {method} {path} {total_ms}ms {bytes}B")?;
        for (name, value) in [
            ("route", self.route),
            ("tenant", self.tenant),
            ("resolver", self.resolver),
            ("plugin", self.plugin),
            ("override", self.overridden),
            ("endpoint", self.endpoint),
            ("error", self.error),
            ("blame", self.blame),
        ] {
            if let Some(value) = value {
                write!(f, " {name}={value}")?;
            }
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
        write!(f, " generation={generation} id={request_id}")?;
        match &self.trace_id {
            Some(trace) => write!(f, " trace={trace}"),
            None => Ok(()),
        }
    }
}
