//! How a plugin version fares: calls by outcome, their time, the last failure.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use super::failure::{FailureClass, PluginFailure};
use crate::decision::Decision;

/// Counts the calls of one version. Shared with whoever shows it after the version is gone.
#[derive(Default)]
pub struct Tally {
    placed: AtomicU64,
    passed_on: AtomicU64,
    denied: AtomicU64,
    failed: [AtomicU64; FailureClass::ALL.len()],
    total_micros: AtomicU64,
    longest_micros: AtomicU64,
    // Only failures touch it, which cost much more.
    last_failure: Mutex<Option<LastFailure>>,
}

/// The failure that came last.
#[derive(Debug, Clone)]
pub struct LastFailure {
    /// What happened.
    pub failure: PluginFailure,
    /// When.
    pub at: SystemTime,
}

impl Tally {
    pub(super) fn count(&self, answer: &Result<Decision, PluginFailure>, took: Duration) {
        let counter = match answer {
            Ok(Decision::Place(_)) => &self.placed,
            Ok(Decision::Next) => &self.passed_on,
            Ok(Decision::Deny(_)) => &self.denied,
            Err(failure) => &self.failed[failure.class as usize],
        };
        counter.fetch_add(1, Ordering::Relaxed);
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.total_micros.fetch_add(micros, Ordering::Relaxed);
        // Looked at first: most calls are not the longest, and need not write.
        if self.longest_micros.load(Ordering::Relaxed) < micros {
            self.longest_micros.fetch_max(micros, Ordering::Relaxed);
        }
        // What was not asked tells nothing; that it failed before does.
        if let Err(failure) = answer
            && failure.class != FailureClass::BreakerOpen
        {
            let last = LastFailure { failure: failure.clone(), at: SystemTime::now() };
            *self.last_failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(last);
        }
    }

    /// Calls so far by outcome, without those that never came.
    pub fn calls(&self) -> Vec<(&'static str, u64)> {
        let decided = [("place", &self.placed), ("next", &self.passed_on), ("deny", &self.denied)];
        let failed = FailureClass::ALL.iter().map(|class| (class.as_str(), &self.failed[*class as usize]));
        let counted = decided.into_iter().chain(failed);
        counted
            .map(|(outcome, count)| (outcome, count.load(Ordering::Relaxed)))
            .filter(|(_, n)| *n > 0)
            .collect()
    }

    /// The time of all calls together.
    pub fn total(&self) -> Duration {
        Duration::from_micros(self.total_micros.load(Ordering::Relaxed))
    }

    /// The time of the longest call.
    pub fn longest(&self) -> Duration {
        Duration::from_micros(self.longest_micros.load(Ordering::Relaxed))
    }

    /// The failure that came last, if any did; not that the plugin was not asked.
    pub fn last_failure(&self) -> Option<LastFailure> {
        self.last_failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
