//! What a connection's reader and its request handlers tell each other.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::framing::Framing;
use super::reason::Reason;
use crate::telemetry::Metrics;

/// One connection's requests, counted, and the verdicts of those not yet begun.
pub(super) struct Flow {
    begun: AtomicU64,
    answered: AtomicU64,
    finished: AtomicU64,
    verdicts: Mutex<VecDeque<Verdict>>,
    /// Requests of all connections.
    pub(super) metrics: Arc<Metrics>,
}

/// What the scanner found of one HTTP/1 request.
pub(super) type Verdict = Result<Framing, Reason>;

/// A request under way. It is over when this is dropped, however that comes about.
pub(super) struct InFlight {
    flow: Arc<Flow>,
    answered: bool,
}

impl Flow {
    pub(super) fn new(metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            begun: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            finished: AtomicU64::new(0),
            verdicts: Mutex::default(),
            metrics,
        })
    }

    /// Notes a head that was read, for the handler that will get it.
    pub(super) fn push(&self, verdict: Verdict) {
        self.begun.fetch_add(1, Ordering::Relaxed);
        self.verdicts.lock().unwrap_or_else(PoisonError::into_inner).push_back(verdict);
    }

    /// The verdict of the next request; none if the HTTP library found a request where the scanner
    /// found none.
    pub(super) fn pop(&self) -> Option<Verdict> {
        self.verdicts.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    /// Notes a request that came without a scanner.
    pub(super) fn begin(&self) {
        self.begun.fetch_add(1, Ordering::Relaxed);
    }

    /// Requests that were read and have no response yet.
    pub(super) fn waiting(&self) -> u64 {
        self.begun.load(Ordering::Relaxed).saturating_sub(self.answered.load(Ordering::Relaxed))
    }

    /// Requests that were read and whose response is not over.
    pub(super) fn open(&self) -> u64 {
        self.begun.load(Ordering::Relaxed).saturating_sub(self.finished.load(Ordering::Relaxed))
    }
}

impl InFlight {
    pub(super) fn new(flow: Arc<Flow>) -> Self {
        flow.metrics.requests_in_flight.inc();
        Self { flow, answered: false }
    }

    /// Notes that the response's head is there.
    pub(super) fn answered(&mut self) {
        if !std::mem::replace(&mut self.answered, true) {
            self.flow.answered.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.answered();
        self.flow.finished.fetch_add(1, Ordering::Relaxed);
        self.flow.metrics.requests_in_flight.dec();
    }
}
