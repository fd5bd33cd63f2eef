//! What an upstream counts: requests by their end, and retries.

use std::sync::Arc;

use http::Response;
use prometheus_client::metrics::counter::Counter;

use crate::body::Body;
use crate::error::{Code, Refusal};
use crate::policy::Name;
use crate::telemetry::{Metrics, UpstreamLabels};

/// Counters of one upstream, looked up once: to count is one addition.
pub(super) struct Tally {
    answered: Counter,
    failed: Counter,
    unreachable: Counter,
    timeout: Counter,
    overloaded: Counter,
    refused: Counter,
    /// Requests that were sent again.
    pub(super) retried: Counter,
    /// Requests that were sent to a second endpoint while the first was waited for.
    pub(super) hedged: Counter,
    /// Requests that were not, because the budget had nothing left.
    pub(super) exhausted: Counter,
}

impl Tally {
    pub(super) fn new(upstream: &Name, metrics: &Metrics) -> Self {
        let labels = |outcome| UpstreamLabels { upstream: Arc::clone(upstream), outcome };
        let requests = |outcome| metrics.upstream_requests.get_or_create_owned(&labels(outcome));
        let retries = |outcome| metrics.upstream_retries.get_or_create_owned(&labels(outcome));
        Self {
            answered: requests("ok"),
            failed: requests("error"),
            unreachable: requests("unreachable"),
            timeout: requests("timeout"),
            overloaded: requests("overloaded"),
            refused: requests("client"),
            retried: retries("retried"),
            hedged: retries("hedged"),
            exhausted: retries("no-budget"),
        }
    }

    /// Counts a request by what came of it.
    pub(super) fn count(&self, outcome: &Result<Response<Body>, Refusal>) {
        let counter = match outcome {
            Ok(response) if response.status().is_server_error() => &self.failed,
            Ok(_) => &self.answered,
            Err(refusal) => match refusal.code() {
                Code::UpstreamTimeout => &self.timeout,
                Code::UpstreamOverloaded => &self.overloaded,
                Code::UpstreamUnreachable => &self.unreachable,
                _ => &self.refused,
            },
        };
        counter.inc();
    }

    /// Requests so far, those under way left out.
    pub(super) fn requests(&self) -> u64 {
        [&self.answered, &self.failed, &self.unreachable, &self.timeout]
            .iter()
            .map(|counter| counter.get())
            .sum()
    }
}
