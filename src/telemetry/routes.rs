//! What is counted of one route's requests.

use std::hash::Hash;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::StatusCode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::histogram::Histogram;

use super::{Durations, Metrics, RequestLabels, RouteLabel};

/// The outcome of a request that was answered as it asked.
const OK: &str = "ok";

/// A route's series. Each is looked up by its labels once, and not for each request: that hashes
/// them, and takes the family's lock.
pub struct RouteMetrics {
    route: Arc<str>,
    target: &'static str,
    requests: Family<RequestLabels, Counter>,
    answered: Series<RequestLabels, Counter>,
    duration: Series<RouteLabel, Histogram>,
    resolution: Series<RouteLabel, Histogram>,
}

impl RouteMetrics {
    /// Those of the route of this name, which does this (`forward`, `query`, `sql`).
    pub fn new(metrics: &Metrics, route: &Arc<str>, target: &'static str) -> Self {
        let of_route = |family: &Durations<RouteLabel>| {
            Series::new(family.clone(), RouteLabel { route: Arc::clone(route) })
        };
        Self {
            route: Arc::clone(route),
            target,
            requests: metrics.requests.clone(),
            answered: Series::new(metrics.requests.clone(), labels(route, target, OK, StatusCode::OK)),
            duration: of_route(&metrics.request_duration),
            resolution: of_route(&metrics.resolution_duration),
        }
    }

    /// The route's name; empty for requests that no route took.
    pub fn route(&self) -> &Arc<str> {
        &self.route
    }

    /// What the route does; empty for requests that no route took.
    pub fn target(&self) -> &'static str {
        self.target
    }

    /// Counts the time from a matched route to a tenant.
    pub fn resolved(&self, took: Duration) {
        self.resolution.get().observe(took.as_secs_f64());
    }

    /// Counts a request that was answered after `took`; `outcome` is `None` where it was served, else
    /// what it was refused for, or `cancelled`.
    pub fn answered(&self, outcome: Option<&'static str>, status: StatusCode, took: Duration) {
        self.duration.get().observe(took.as_secs_f64());
        match outcome {
            None if status == StatusCode::OK => self.answered.get().inc(),
            outcome => {
                let labels = labels(&self.route, self.target, outcome.unwrap_or(OK), status);
                self.requests.get_or_create(&labels).inc()
            }
        };
    }
}

fn labels(
    route: &Arc<str>,
    target: &'static str,
    outcome: &'static str,
    status: StatusCode,
) -> RequestLabels {
    RequestLabels { route: Arc::clone(route), target, outcome, status: status.as_u16() }
}

/// One series of a family, there from its first use on.
pub(super) struct Series<L, M, C = fn() -> M> {
    family: Family<L, M, C>,
    labels: L,
    found: OnceLock<M>,
}

impl<L: Clone + Hash + Eq, M: Clone, C: MetricConstructor<M>> Series<L, M, C> {
    pub(super) fn new(family: Family<L, M, C>, labels: L) -> Self {
        Self { family, labels, found: OnceLock::new() }
    }

    pub(super) fn get(&self) -> &M {
        self.found.get_or_init(|| self.family.get_or_create_owned(&self.labels))
    }
}
