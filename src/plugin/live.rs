//! Which versions are alive: a version is freed when nothing holds it any more, and this shows it.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

/// Versions that something still holds: a snapshot, a call under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LiveVersions {
    /// How many.
    pub count: usize,
    /// Age of the oldest.
    pub oldest: Duration,
}

/// What a version holds as long as it lives.
pub(super) struct Life {
    began: Instant,
}

/// Every life that may not have ended.
#[derive(Default)]
pub(super) struct Lives(Mutex<Vec<Weak<Life>>>);

impl Lives {
    pub(super) fn begin(&self) -> Arc<Life> {
        let life = Arc::new(Life { began: Instant::now() });
        let mut lives = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lives.retain(|life| life.strong_count() > 0);
        lives.push(Arc::downgrade(&life));
        life
    }

    pub(super) fn count(&self) -> LiveVersions {
        let lives = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let ages: Vec<Duration> =
            lives.iter().filter_map(Weak::upgrade).map(|life| life.began.elapsed()).collect();
        LiveVersions { count: ages.len(), oldest: ages.into_iter().max().unwrap_or_default() }
    }
}
