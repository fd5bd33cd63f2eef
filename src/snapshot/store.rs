//! Holds the snapshot in force, and knows which earlier ones are still in use.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::watch;

use super::Snapshot;

/// The snapshot in force. Only the reloader stores into it; requests only load.
pub struct SnapshotStore {
    current: ArcSwap<Snapshot>,
    news: watch::Sender<u64>,
    // Touched by reloads and by the admin listener, never by requests.
    generations: Mutex<Vec<Generation>>,
}

struct Generation {
    published: Instant,
    snapshot: Weak<Snapshot>,
}

/// Generations that something still holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LiveGenerations {
    /// How many, the one in force included.
    pub count: usize,
    /// Age of the oldest.
    pub oldest: Duration,
}

impl SnapshotStore {
    /// A store with its first snapshot.
    pub fn new(first: Arc<Snapshot>) -> Self {
        let generations = Mutex::new(vec![Generation::of(&first)]);
        let news = watch::Sender::new(first.generation());
        Self { current: ArcSwap::new(first), news, generations }
    }

    /// The snapshot in force. A request calls this once.
    pub fn load(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// Puts `next` in force. Requests under way keep the snapshot that they loaded.
    pub fn publish(&self, next: Arc<Snapshot>) {
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        generations.retain(Generation::is_live);
        generations.push(Generation::of(&next));
        let generation = next.generation();
        self.current.store(next);
        self.news.send_replace(generation);
    }

    /// Tells of every generation that comes into force from now on.
    pub fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    /// What is still in use.
    pub fn live(&self) -> LiveGenerations {
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        generations.retain(Generation::is_live);
        let oldest = generations.iter().map(|generation| generation.published.elapsed()).max();
        LiveGenerations { count: generations.len(), oldest: oldest.unwrap_or_default() }
    }
}

impl Generation {
    fn of(snapshot: &Arc<Snapshot>) -> Self {
        Self { published: Instant::now(), snapshot: Arc::downgrade(snapshot) }
    }

    fn is_live(&self) -> bool {
        self.snapshot.strong_count() > 0
    }
}
