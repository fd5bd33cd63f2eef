//! One endpoint of an upstream: its connections, and how it fares.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::time::Instant;

use super::connect::Connector;
use super::latency::Latency;
use super::pool::Pool;
use super::standing::Standing;
use crate::policy;

/// The endpoints of an upstream at one time.
pub(super) type Set = Arc<[Arc<Endpoint>]>;

/// One address that requests can go to.
pub(super) struct Endpoint {
    /// As it is called in logs and the admin listener: as it is written, and its address where that
    /// was looked up.
    pub(super) label: Arc<str>,
    pub(super) pool: Arc<Pool>,
    pub(super) latency: Latency,
    pub(super) standing: Standing,
    /// Whether health checks failed lately.
    unwell: AtomicBool,
    upstream: policy::Name,
}

impl Endpoint {
    pub(super) fn new(label: String, connector: Connector, settings: &Arc<policy::Upstream>) -> Arc<Self> {
        Arc::new(Self {
            label: label.into(),
            pool: Pool::new(connector, Arc::clone(settings)),
            latency: Latency::new(Instant::now()),
            standing: Standing::default(),
            unwell: AtomicBool::new(false),
            upstream: Arc::clone(&settings.name),
        })
    }

    /// Whether requests should go to it.
    pub(super) fn is_well(&self, now: Instant) -> bool {
        self.passes_checks() && !self.standing.is_out(now)
    }

    /// Whether its health checks have nothing against it.
    pub(super) fn passes_checks(&self) -> bool {
        !self.unwell.load(Ordering::Relaxed)
    }

    /// Says what health checks have found.
    pub(super) fn set_passes_checks(&self, passes: bool) {
        self.unwell.store(!passes, Ordering::Relaxed);
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.upstream, self.label)
    }
}
