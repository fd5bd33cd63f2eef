//! The databases in force: how their pools are used.

use std::sync::Arc;

use crate::reload::Reloader;
use crate::telemetry::{ConnectionLabels, DatabaseLabel, Metrics};

/// Gauges that are measured when somebody looks, so that a request does not count them.
pub(super) fn measure(reloader: &Reloader, metrics: &Metrics) {
    // A database that left the policy leaves the metrics too.
    metrics.pool_connections.clear();
    metrics.pool_waiting.clear();
    for database in reloader.store().load().databases() {
        let (name, status) = (&database.settings().name, database.pool_status());
        for (state, count) in [("in-use", status.in_use), ("idle", status.idle)] {
            let labels = ConnectionLabels { database: Arc::clone(name), state };
            metrics.pool_connections.get_or_create(&labels).set(gauge(count));
        }
        let label = DatabaseLabel { database: Arc::clone(name) };
        metrics.pool_waiting.get_or_create(&label).set(gauge(status.waiting));
    }
}

fn gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
