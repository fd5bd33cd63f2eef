//! The upstreams in force: which of their endpoints take requests, and how they fare.

use std::sync::Arc;

use serde_json::{Value, json};

use super::Answer;
use super::answer::{document, timestamp};
use crate::forward::{EndpointState, EndpointStatus, LookUpFailure, Upstream};
use crate::reload::Reloader;
use crate::telemetry::{EndpointLabels, Metrics, UpstreamLabel};

/// `GET /upstreams`.
pub(super) async fn list(reloader: &Reloader) -> Answer {
    let snapshot = reloader.store().load();
    let upstreams: Vec<Value> = snapshot.upstreams().map(|upstream| describe(upstream)).collect();
    Ok(document(&json!({ "upstreams": upstreams })))
}

/// Gauges that are measured when somebody looks.
pub(super) fn measure(reloader: &Reloader, metrics: &Metrics) {
    // An upstream that left the policy leaves the metrics too.
    metrics.upstream_endpoints.clear();
    metrics.upstream_in_flight.clear();
    metrics.upstream_pending.clear();
    metrics.upstream_connections.clear();
    for upstream in reloader.store().load().upstreams() {
        let (name, status) = (&upstream.settings().name, upstream.status());
        for state in EndpointState::ALL {
            let labels = EndpointLabels { upstream: Arc::clone(name), state: state.as_str() };
            let count = status.endpoints.iter().filter(|endpoint| endpoint.state == state).count();
            metrics.upstream_endpoints.get_or_create(&labels).set(gauge(count));
        }
        let label = UpstreamLabel { upstream: Arc::clone(name) };
        metrics.upstream_in_flight.get_or_create(&label).set(gauge(status.in_flight));
        metrics.upstream_pending.get_or_create(&label).set(gauge(status.pending));
        metrics.upstream_connections.get_or_create(&label).set(gauge(status.connections));
    }
}

fn describe(upstream: &Upstream) -> Value {
    let status = upstream.status();
    json!({
        "name": upstream.settings().name,
        "in_flight": status.in_flight,
        "pending": status.pending,
        "connections": status.connections,
        "endpoints": status.endpoints.iter().map(endpoint).collect::<Vec<_>>(),
        "last_failure": status.last_failure.as_ref().map(failure),
    })
}

fn failure(failure: &LookUpFailure) -> Value {
    json!({
        "host": &*failure.host,
        "reason": format!("the host cannot be looked up: {}", failure.reason),
        "at": timestamp(failure.at),
    })
}

fn endpoint(status: &EndpointStatus) -> Value {
    json!({
        "endpoint": status.endpoint,
        "state": status.state.as_str(),
        "latency_ms": status.latency.map(|latency| (latency.as_secs_f64() * 1e6).round() / 1e3),
        "in_flight": status.in_flight,
        "pending": status.pending,
        "connections": status.connections,
    })
}

fn gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
