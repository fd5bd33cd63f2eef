//! Reloads the policy: reads, builds and rehearses in the background, swaps once, keeps the last
//! good one on any error.

mod watch;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crate::plugin::TrialState;
use crate::policy::{self, Diagnostics, Name, Policy, Severity};
use crate::snapshot::{BuildError, Builder, Built, ReplaceError, Replacement, Snapshot, SnapshotStore};
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
    /// The diagnostics of a policy that was rejected, or of files that were held back; `None` where
    /// all that was found is in force.
    pub error: Option<String>,
    /// Every file that the policy names, where it could be read: a repair may touch any of them.
    files: Option<Vec<PathBuf>>,
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
        let Parsed { policy, files, .. } = parse(path, None)?;
        let mut snapshot = builder.build(policy, None).await?.snapshot;
        builder.watch(&mut snapshot, None).await;
        snapshot.start();
        metrics.generation.set(1);
        let store = Arc::new(SnapshotStore::new(Arc::new(snapshot)));
        let last = Mutex::new(Attempt { at: SystemTime::now(), error: None, files: Some(files) });
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

    /// What builds snapshots, and knows which versions there were.
    pub fn builder(&self) -> &Builder {
        &self.builder
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
        let mut attempt = Attempt { at: SystemTime::now(), error: None, files: None };
        let outcome = self.attempt(&mut attempt).await;
        if let Err(error) = &outcome {
            attempt.error = Some(error.to_string());
        }
        let last = self.last_attempt();
        let known = attempt.error.is_some() && attempt.error == last.error;
        if known && outcome.is_err() {
            // The watcher looks again every few seconds, the log need not.
            attempt.at = last.at;
        } else {
            let news = attempt.error.as_ref().filter(|_| !known);
            self.tell(&outcome, news, started.elapsed());
            attempt.at = SystemTime::now();
        }
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = attempt;
        outcome
    }

    /// Puts another version of one plugin in force, without looking at the policy's files.
    ///
    /// # Errors
    /// Why the version in force stays.
    pub async fn replace(&self, plugin: &str, with: &Replacement) -> Result<u64, ReplaceError> {
        let _turn = self.turn.lock().await;
        let current = self.store.load();
        let mut next = self.builder.replace(&current, plugin, with).await?;
        self.builder.watch(&mut next, Some(&current)).await;
        Ok(self.publish(&current, next).await)
    }

    /// Puts an override in force for a while, beside the policy's, and gives its id.
    ///
    /// # Errors
    /// What is wrong with it.
    pub async fn add_override(&self, text: &str) -> Result<Name, Diagnostics> {
        let _turn = self.turn.lock().await;
        let current = self.store.load();
        let (id, next) = self.builder.add_override(&current, text)?;
        self.publish(&current, next).await;
        Ok(id)
    }

    /// Ends an override that was given for a while. `false` where there is none of that id.
    pub async fn end_override(&self, id: &str) -> bool {
        let _turn = self.turn.lock().await;
        let current = self.store.load();
        let Some(next) = self.builder.end_override(&current, id) else { return false };
        self.publish(&current, next).await;
        true
    }

    /// Puts every candidate in force that earns it, until it is dropped.
    pub async fn promote_earned(self: Arc<Self>) {
        loop {
            self.builder.earned().notified().await;
            for plugin in self.store.load().plugins() {
                if plugin.trial().is_none_or(|trial| trial.state() != TrialState::Earned) {
                    continue;
                }
                let name = &**plugin.name();
                if let Err(error) = self.replace(name, &Replacement::Promote).await {
                    tracing::error!(plugin = name, "the candidate agreed and cannot serve: {error}");
                }
            }
        }
    }

    async fn attempt(&self, attempt: &mut Attempt) -> Result<Reloaded, ReloadError> {
        let current = self.store.load();
        let Parsed { policy, files, mut held_back } = parse(&self.path, Some(current.policy()))?;
        attempt.files = Some(files);
        let Built { snapshot: mut next, held_back: plugins } =
            self.builder.build(policy, Some(&current)).await?;
        held_back.extend(plugins);
        self.builder.watch(&mut next, Some(&current)).await;
        if next.same_as(&current) {
            return if held_back.is_empty() {
                Ok(Reloaded::Unchanged)
            } else {
                Err(BuildError(held_back).into())
            };
        }
        if !held_back.is_empty() {
            attempt.error = Some(held_back.to_string());
        }
        warn_of_restart(&current, &next);
        Ok(Reloaded::Applied(self.publish(&current, next).await))
    }

    fn tell(&self, outcome: &Result<Reloaded, ReloadError>, news: Option<&String>, took: Duration) {
        let generation = self.store.load().generation();
        let result = match (outcome, news) {
            (Ok(Reloaded::Applied(_)), None) => {
                tracing::info!(generation, ?took, "the policy is reloaded");
                "applied"
            }
            (Ok(Reloaded::Applied(_)), Some(found)) => {
                tracing::error!(
                    generation,
                    ?took,
                    "the policy is reloaded but for what cannot serve:\n{found}"
                );
                "applied"
            }
            (Ok(Reloaded::Unchanged), _) => "unchanged",
            (Err(ReloadError::Build(BuildError(found))), _) if is_only_late(found) => {
                tracing::info!(generation, "generation {generation} stays in force for now:\n{found}");
                "unchanged"
            }
            (Err(error), _) => {
                tracing::error!(
                    generation,
                    "the policy was rejected and generation {generation} stays in force:\n{error}"
                );
                "rejected"
            }
        };
        self.metrics.reloads.get_or_create(&ResultLabel { result }).inc();
    }

    async fn publish(&self, current: &Snapshot, next: Snapshot) -> u64 {
        for plugin in next.plugins() {
            let (name, version) = (&**plugin.name(), &**plugin.version());
            let before = current.plugin(name).map(|before| &**before.version());
            if before != Some(version) {
                tracing::info!(plugin = name, version, before, "another version of the plugin serves");
            }
        }
        next.start();
        let generation = next.generation();
        let next = Arc::new(next);
        self.store.publish(Arc::clone(&next));
        current.release_held(&next).await;
        self.metrics.generation.set(i64::try_from(generation).unwrap_or(i64::MAX));
        generation
    }
}

/// Whether nothing is wrong but that something is not ready yet.
fn is_only_late(found: &Diagnostics) -> bool {
    found.iter().all(|one| one.severity == Severity::Warning)
}

/// A policy that was read.
struct Parsed {
    policy: Policy,
    files: Vec<PathBuf>,
    /// Certificates whose files cannot serve; those in force go on in it.
    held_back: Diagnostics,
}

/// Reads the policy that is to follow `in_force`, and tells which files it names.
fn parse(path: &Path, in_force: Option<&Policy>) -> Result<Parsed, ReloadError> {
    let parsed = Policy::parse_after(in_force, path, &ProcessSurroundings);
    let (policy, findings) = parsed.map_err(ReloadError::Policy)?;
    let (held_back, warnings): (Vec<_>, Vec<_>) =
        findings.into_iter().partition(|finding| finding.severity == Severity::HeldBack);
    for warning in &warnings {
        tracing::warn!("{warning}");
    }
    Ok(Parsed { files: files_of(&policy), policy, held_back: held_back.into() })
}

/// Every file whose change can change the policy.
fn files_of(policy: &Policy) -> Vec<PathBuf> {
    let plugins = policy.plugins.values();
    let candidates = plugins.clone().filter_map(|plugin| Some(plugin.shadow.as_ref()?.path.clone()));
    let plugins = plugins.flat_map(|plugin| {
        let signature = plugin.signature.as_ref().map(|signature| signature.path.clone());
        [Some(plugin.path.clone()), signature].into_iter().flatten()
    });
    policy.files.iter().cloned().chain(plugins).chain(candidates).collect()
}

fn warn_of_restart(current: &Snapshot, next: &Snapshot) {
    let (current, next) = (&current.policy().server, &next.policy().server);
    let places = |server: &policy::Server| -> Vec<_> {
        server.listen.iter().map(|listener| (listener.address.to_string(), listener.mode)).collect()
    };
    let is_moved = places(current) != places(next)
        || (&current.admin, current.reuse_port) != (&next.admin, next.reuse_port);
    if is_moved {
        tracing::warn!(
            listen = ?next.listen.iter().map(|listener| listener.address.to_string()).collect::<Vec<_>>(),
            admin = %next.admin,
            "the listeners changed: this needs a restart, the old addresses stay bound"
        );
    }
    if current.limits != next.limits || current.timeouts != next.timeouts {
        tracing::warn!("limits and timeouts of the server changed: connections get them after a restart");
    }
}
