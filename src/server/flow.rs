//! What a connection's reader and its request handlers tell each other.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::framing::Head;
use super::reason::Reason;
use crate::telemetry::Metrics;

/// One connection's requests, counted, and the verdicts of those not yet begun.
pub(super) struct Flow {
    begun: AtomicU64,
    answered: AtomicU64,
    finished: AtomicU64,
    opened: Instant,
    /// Nanoseconds from `opened` to the end of the last response.
    quiet: AtomicU64,
    is_watched: AtomicBool,
    watcher: Mutex<Option<Waker>>,
    verdicts: Mutex<VecDeque<Verdict>>,
    /// Of the one request that the scanner waits for.
    decision: Mutex<Pending>,
    /// Requests of all connections.
    pub(super) metrics: Arc<Metrics>,
    /// Cancelled when the client stops sending.
    pub(super) half_closed: CancellationToken,
}

/// What the scanner found of one HTTP/1 request.
pub(super) type Verdict = Result<Head, Reason>;

/// What became of a request to leave HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    /// The next bytes are a request.
    Stay,
    /// The next bytes are another protocol's.
    Switch,
}

/// A decision, and who waits for it.
#[derive(Default)]
struct Pending {
    decision: Option<Decision>,
    waiting: Option<Waker>,
}

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
            opened: Instant::now(),
            quiet: AtomicU64::new(0),
            is_watched: AtomicBool::new(false),
            watcher: Mutex::default(),
            verdicts: Mutex::default(),
            decision: Mutex::default(),
            metrics,
            half_closed: CancellationToken::new(),
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

    /// Tells the reader what became of the request to leave HTTP that it waits for.
    pub(super) fn decide(&self, decision: Decision) {
        let mut pending = self.decision.lock().unwrap_or_else(PoisonError::into_inner);
        pending.decision = Some(decision);
        pending.waiting.take().inspect(Waker::wake_by_ref);
    }

    /// Waits to hear what became of that request.
    pub(super) fn poll_decision(&self, cx: &mut Context<'_>) -> Poll<Decision> {
        let mut pending = self.decision.lock().unwrap_or_else(PoisonError::into_inner);
        match pending.decision.take() {
            Some(decision) => Poll::Ready(decision),
            None => {
                pending.waiting = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Notes a request that came without a scanner.
    pub(super) fn begin(&self) {
        self.begun.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether no request was read yet.
    pub(super) fn is_new(&self) -> bool {
        self.begun.load(Ordering::Relaxed) == 0
    }

    /// Requests that were read and have no response yet.
    pub(super) fn waiting(&self) -> u64 {
        self.begun.load(Ordering::Relaxed).saturating_sub(self.answered.load(Ordering::Relaxed))
    }

    /// Requests that were read and whose response is not over.
    pub(super) fn open(&self) -> u64 {
        self.begun.load(Ordering::Relaxed).saturating_sub(self.finished.load(Ordering::Relaxed))
    }

    /// Since when no request is under way; none while one is.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        let quiet = Duration::from_nanos(self.quiet.load(Ordering::Acquire));
        (self.open() == 0).then(|| self.opened + quiet)
    }

    /// Wakes `waker` when the next request is over.
    pub(super) fn watch(&self, waker: &Waker) {
        *self.watcher.lock().unwrap_or_else(PoisonError::into_inner) = Some(waker.clone());
        self.is_watched.store(true, Ordering::Release);
    }

    fn finish(&self) {
        let quiet = u64::try_from(self.opened.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.quiet.store(quiet, Ordering::Release);
        self.finished.fetch_add(1, Ordering::Release);
        self.metrics.requests_in_flight.dec();
        if self.is_watched.swap(false, Ordering::AcqRel) {
            let watcher = self.watcher.lock().unwrap_or_else(PoisonError::into_inner).take();
            watcher.inspect(Waker::wake_by_ref);
        }
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
        self.flow.finish();
    }
}
