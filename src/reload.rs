//! Reloads the policy: reads, builds and rehearses in the background, swaps once, keeps the last
//! good one on any error.

mod watch;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use crate::policy::{Diagnostics, Policy};
use crate::snapshot::{BuildError, Builder, Snapshot, SnapshotStore};
use crate::surroundings::ProcessSurroundings;
use crate::telemetry::{Metrics, ResultLabel};

pub use watch::{Trigger, Watcher};

/// Why a policy did not come into force.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The document has errors.
    #[error("{0}")]
    Policy(Diagnostics),
    /// The document is sound, and something that it names is not.
    #[error("{0}")]
    Build(#[from] BuildError),
}

/// What came of a reload that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reloaded {
    /// A new generation serves.
    Applied(u64),
    /// Nothing had changed.
    Unchanged,
}

/// The last attempt, for the admin listener.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// When it ended.
    pub at: SystemTime,
    /// The diagnostics of a policy that was rejected; `None` after a good one.
    pub error: Option<String>,
}

/// Loads policies for one process. The only one that stores a snapshot.
pub struct Reloader {
    path: PathBuf,
    builder: Builder,
    store: Arc<SnapshotStore>,
    metrics: Arc<Metrics>,
    last: Mutex<Attempt>,
    // One reload at a time; requests never touch it.
    turn: tokio::sync::Mutex<()>,
}

impl Reloader {
    /// Loads the first policy. Without one there is nothing to keep, so its errors end the start.
    ///
    /// # Errors
    /// Everything that is wrong with the policy.
    pub async fn start(
        path: &Path,
        builder: Builder,
        metrics: Arc<Metrics>,
    ) -> Result<Arc<Self>, ReloadError> {
        let snapshot = Arc::new(build(path, &builder, None).await?);
        metrics.generation.set(1);
        let store = Arc::new(SnapshotStore::new(snapshot));
        let last = Mutex::new(Attempt { at: SystemTime::now(), error: None });
        let path = path.to_owned();
        Ok(Arc::new(Self { path, builder, store, metrics, last, turn: tokio::sync::Mutex::default() }))
    }

    /// Where requests load their snapshot.
    pub fn store(&self) -> &Arc<SnapshotStore> {
        &self.store
    }

    /// The policy's main file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The last attempt.
    pub fn last_attempt(&self) -> Attempt {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the policy again and puts it in force, if it differs and is sound.
    ///
    /// # Errors
    /// Everything that is wrong with it; the policy in force stays.
    pub async fn reload(&self) -> Result<Reloaded, ReloadError> {
        let _turn = self.turn.lock().await;
        let started = Instant::now();
        let outcome = self.attempt().await;
        let error = outcome.as_ref().err().map(ToString::to_string);
        if error.is_some() && error == self.last_attempt().error {
            // Known already: the watcher looks again every few seconds, the log need not.
            return outcome;
        }
        let result = match &outcome {
            Ok(Reloaded::Applied(generation)) => {
                tracing::info!(generation, took = ?started.elapsed(), "the policy is reloaded");
                "applied"
            }
            Ok(Reloaded::Unchanged) => "unchanged",
            Err(error) => {
                let generation = self.store.load().generation();
                tracing::error!(
                    generation,
                    "the policy was rejected and generation {generation} stays in force:\n{error}"
                );
                "rejected"
            }
        };
        self.metrics.reloads.get_or_create(&ResultLabel { result }).inc();
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Attempt { at: SystemTime::now(), error };
        outcome
    }

    async fn attempt(&self) -> Result<Reloaded, ReloadError> {
        let current = self.store.load();
        let next = build(&self.path, &self.builder, Some(&current)).await?;
        if next.same_as(&current) {
            return Ok(Reloaded::Unchanged);
        }
        warn_of_restart(&current, &next);
        let generation = next.generation();
        self.store.publish(Arc::new(next));
        self.metrics.generation.set(i64::try_from(generation).unwrap_or(i64::MAX));
        Ok(Reloaded::Applied(generation))
    }
}

async fn build(path: &Path, builder: &Builder, current: Option<&Snapshot>) -> Result<Snapshot, ReloadError> {
    let (policy, warnings) = Policy::parse(path, &ProcessSurroundings).map_err(ReloadError::Policy)?;
    for warning in &warnings {
        tracing::warn!("{warning}");
    }
    Ok(builder.build(policy, current).await?)
}

fn warn_of_restart(current: &Snapshot, next: &Snapshot) {
    let (current, next) = (&current.policy().server, &next.policy().server);
    if current.listen != next.listen || current.admin != next.admin {
        tracing::warn!(
            listen = ?next.listen,
            admin = %next.admin,
            "the listeners changed: this needs a restart, the old addresses stay bound"
        );
    }
    if current.limits != next.limits || current.timeouts != next.timeouts {
        tracing::warn!("limits and timeouts of the server changed: connections get them after a restart");
    }
}
