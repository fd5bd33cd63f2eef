//! A finished request as a line of the access log: words for people, or JSON for machines.

use std::fmt;
use std::time::{Duration, SystemTime};

use http::StatusCode;

use super::access::Record;
use super::access_log::Format;
use super::json_line::JsonLine;
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

impl Finished<'_> {
    /// The line, with its end (`docs/operations.md` says what each field means).
    pub(super) fn line(&self, format: Format) -> String {
        match format {
            Format::Json => self.json(),
            Format::Text => format!("{self}\n"),
        }
    }

    fn json(&self) -> String {
        let Record { place, refusal, by, pass, .. } = self.record;
        let record = self.record;
        let mut line = JsonLine::begin();
        line.shown("time", humantime::format_rfc3339_millis(SystemTime::now()));
        line.text("request_id", place.id.as_str());
        if let Some(traced) = &record.traced {
            line.text("trace_id", &traced.id());
        }
        line.peer("peer", record.peer);
        line.text("method", place.method.as_str());
        line.text("path", place.uri.path());
        line.number("status", self.status.as_u16());
        line.maybe("route", record.route());
        line.maybe("target", record.target());
        line.maybe("tenant", record.tenant.as_ref().map(TenantId::as_str));
        if let Some(by) = by {
            line.text("resolver", by.kind);
            if let Some(plugin) = &by.plugin {
                line.text("plugin", &plugin.name);
                line.text("plugin_version", &plugin.version);
            }
        }
        if !record.trail.calls.is_empty() {
            line.list("plugin_calls", &record.trail.calls, |line, call| {
                line.text("plugin", &call.asked.name);
                line.text("version", &call.asked.version);
                line.text("outcome", call.outcome);
                line.number("us", call.took.as_micros());
            });
        }
        line.maybe("reason", record.reason.as_deref());
        line.maybe("override", record.overridden.as_deref());
        if !pass.waited().is_zero() {
            line.milliseconds("waited_ms", pass.waited());
        }
        line.maybe("endpoint", record.endpoint.as_deref());
        if record.attempts > 1 {
            line.number("attempts", record.attempts);
        }
        if let Some(refusal) = refusal {
            line.text("error", refusal.code().as_str());
            line.text("blame", refusal.code().blame().as_str());
            line.maybe("cause", refusal.cause());
        }
        line.number("generation", record.generation);
        line.milliseconds("head_ms", self.until_answer);
        line.milliseconds("total_ms", self.took);
        line.number("bytes", self.bytes);
        line.number("bytes_received", place.received());
        line.flag("complete", self.complete);
        line.end()
    }
}

impl fmt::Display for Finished<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Record { place, refusal, by, .. } = self.record;
        let record = self.record;
        let (time, status) = (humantime::format_rfc3339_millis(SystemTime::now()), self.status.as_u16());
        let (method, path) = (&place.method, place.uri.path());
        // Microseconds are as fine as anyone reads.
        let milliseconds = (self.took.as_secs_f64() * 1e6).round() / 1e3;
        write!(f, "{time} {status} {method} {path} {milliseconds}ms {}B", self.bytes)?;
        let plugin = by.as_ref().and_then(|by| by.plugin.as_ref());
        for (name, value) in [
            ("route", record.route()),
            ("tenant", record.tenant.as_ref().map(TenantId::as_str)),
            ("resolver", by.as_ref().map(|by| by.kind)),
            ("plugin", plugin.map(|plugin| &*plugin.name)),
            ("override", record.overridden.as_deref()),
            ("endpoint", record.endpoint.as_deref()),
            ("error", refusal.as_ref().map(|refusal| refusal.code().as_str())),
            ("blame", refusal.as_ref().map(|refusal| refusal.code().blame().as_str())),
        ] {
            if let Some(value) = value {
                write!(f, " {name}={value}")?;
            }
        }
        for PluginCall { asked, outcome, took, .. } in &record.trail.calls {
            // As much of the hash as tells versions apart, as git does.
            let version = asked.version.get(..12).unwrap_or(&asked.version);
            write!(f, " asked={}@{version}:{outcome}:{}us", asked.name, took.as_micros())?;
        }
        let cause = refusal.as_ref().and_then(Refusal::cause);
        for (name, value) in [("reason", record.reason.as_deref()), ("cause", cause)] {
            if let Some(value) = value {
                // Quoted and escaped: a cause may hold anything, line ends included.
                write!(f, " {name}={value:?}")?;
            }
        }
        if record.attempts > 1 {
            write!(f, " attempts={}", record.attempts)?;
        }
        if !self.complete {
            f.write_str(" incomplete")?;
        }
        write!(f, " generation={} id={}", record.generation, place.id)?;
        match &record.traced {
            Some(traced) => write!(f, " trace={}", traced.id()),
            None => Ok(()),
        }
    }
}
