//! Notices that a policy or plugin file changed: directory events, debounced, and a poll behind them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};

use super::{ReloadError, Reloaded, Reloader};

/// Silence after which a burst of events is over. Editors and `cp` write in several steps, yet a
/// change must be in force within 50 ms of the last one.
const QUIET: Duration = Duration::from_millis(15);

/// A directory that never falls silent is read all the same.
const LONGEST_BURST: Duration = Duration::from_millis(250);

/// Events get lost: on network file systems, on bind mounts of single files, when queues run over.
const POLL: Duration = Duration::from_secs(2);

/// Asks a [`Watcher`] to look at once, as SIGHUP does.
#[derive(Debug, Clone)]
pub struct Trigger(mpsc::Sender<()>);

impl Trigger {
    /// Asks. A request that is already waiting serves for this one too.
    pub fn reload(&self) {
        let _ = self.0.try_send(());
    }
}

/// Watches every file of the policy in force. Ends when it is dropped.
pub struct Watcher {
    reloader: Arc<Reloader>,
    triggers: mpsc::Receiver<()>,
    events: Option<RecommendedWatcher>,
    watched: BTreeSet<PathBuf>,
    stamps: Stamps,
}

/// What tells two states of the files apart without reading them.
type Stamps = BTreeMap<PathBuf, Option<(SystemTime, u64)>>;

impl Watcher {
    /// A watcher, and the way to trigger it by hand.
    pub fn new(reloader: Arc<Reloader>) -> (Self, Trigger) {
        // One place is enough: whatever comes while one waits is seen by the same look.
        let (sender, triggers) = mpsc::channel(1);
        let trigger = Trigger(sender);
        let from_events = trigger.clone();
        let events = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Our own reading is an event too on some systems, and would keep us reading for ever.
            if !event.is_ok_and(|event| event.kind.is_access()) {
                from_events.reload();
            }
        });
        let events = events
            .inspect_err(|error| tracing::warn!(%error, "no file events: changes are polled for instead"))
            .ok();
        let mut watcher =
            Self { reloader, triggers, events, watched: BTreeSet::new(), stamps: Stamps::new() };
        watcher.follow_policy();
        (watcher, trigger)
    }

    /// Reloads whenever something changes, until every [`Trigger`] is gone.
    pub async fn run(mut self) {
        let mut poll = interval(POLL);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                triggered = self.triggers.recv() => {
                    if triggered.is_none() {
                        return;
                    }
                    self.wait_for_quiet().await;
                }
                _ = poll.tick() => {
                    // A rejected policy may name a file that nobody watches yet: look again.
                    let rejected = self.reloader.last_attempt().error.is_some();
                    if !rejected && self.stamps == stamps(&self.files()) {
                        continue;
                    }
                }
            }
            // Taken before reading: a write during the reload must count as a change afterwards.
            let before = stamps(&self.files());
            let outcome: Result<Reloaded, ReloadError> = self.reloader.reload().await;
            self.stamps = before;
            if outcome.is_ok_and(|reloaded| reloaded != Reloaded::Unchanged) {
                self.follow_policy();
            }
        }
    }

    async fn wait_for_quiet(&mut self) {
        let end = Instant::now() + LONGEST_BURST;
        while let Ok(Some(())) = timeout_at(end.min(Instant::now() + QUIET), self.triggers.recv()).await {
            if Instant::now() >= end {
                return;
            }
        }
    }

    /// Watches the directories of the policy in force, not the files: a file that is renamed over
    /// takes its watch with it, and Kubernetes swaps a link beside the file.
    fn follow_policy(&mut self) {
        let files = self.files();
        self.stamps = stamps(&files);
        let Some(events) = &mut self.events else { return };
        let wanted: BTreeSet<PathBuf> = files.iter().map(|file| directory_of(file)).collect();
        for gone in self.watched.difference(&wanted) {
            // It may be gone from the disk as well, and with it the watch.
            let _ = events.unwatch(gone);
        }
        self.watched.retain(|directory| wanted.contains(directory));
        for directory in wanted {
            if self.watched.contains(&directory) {
                continue;
            }
            match events.watch(&directory, RecursiveMode::NonRecursive) {
                Ok(()) => drop(self.watched.insert(directory)),
                Err(error) => {
                    tracing::warn!(%error, directory = %directory.display(), "cannot watch: polling instead");
                }
            }
        }
    }

    fn files(&self) -> Vec<PathBuf> {
        let snapshot = self.reloader.store().load();
        let policy = snapshot.policy();
        let plugins = policy.plugins.values().flat_map(|plugin| {
            let signature = plugin.signature.as_ref().map(|signature| signature.path.clone());
            [Some(plugin.path.clone()), signature].into_iter().flatten()
        });
        policy.files.iter().cloned().chain(plugins).chain([self.reloader.path().to_owned()]).collect()
    }
}

fn stamps(files: &[PathBuf]) -> Stamps {
    let stamp = |file: &Path| {
        let metadata = std::fs::metadata(file).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    };
    files.iter().map(|file| (file.clone(), stamp(file))).collect()
}

fn directory_of(file: &Path) -> PathBuf {
    match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}
