//! Notices that a policy or plugin file changed: directory events, debounced, and a poll behind them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};

use super::{Reloader, files_of};

/// Silence after which a burst of events is over. Editors and `cp` write in several steps, yet a
/// change must be in force within 50 ms of the last one.
const QUIET: Duration = Duration::from_millis(15);

/// A directory that never falls silent is read all the same.
const LONGEST_BURST: Duration = Duration::from_millis(250);

/// Events get lost: on network file systems, on bind mounts of single files, when queues run over.
const POLL: Duration = Duration::from_secs(2);

/// When something is looked at once more that was wrong and whose files have not changed.
const SECOND_LOOK: Duration = Duration::from_secs(60);

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
    /// When the files were looked at last.
    looked: Instant,
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
        let (watched, stamps, looked) = (BTreeSet::new(), Stamps::new(), Instant::now());
        let mut watcher = Self { reloader, triggers, events, watched, stamps, looked };
        watcher.stamps = self::stamps(&watcher.files());
        watcher.watch_directories();
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
                    if self.stamps == stamps(&self.files()) && !self.is_worth_another_look() {
                        continue;
                    }
                }
            }
            // Taken before reading: a write during the reload must count as a change afterwards.
            let before = stamps(&self.files());
            // What became of it is in the log and on the admin listener.
            let _ = self.reloader.reload().await;
            self.stamps = before;
            self.looked = Instant::now();
            self.watch_directories();
        }
    }

    /// Whether what was wrong may have passed, though no file that we know has changed.
    fn is_worth_another_look(&self) -> bool {
        if self.reloader.builder().take_news() {
            return true;
        }
        let last = self.reloader.last_attempt();
        // A document that cannot be read may include a file that nobody watches yet; a plugin may
        // have failed because the machine was busy.
        last.error.is_some() && (last.files.is_none() || self.looked.elapsed() >= SECOND_LOOK)
    }

    async fn wait_for_quiet(&mut self) {
        let end = Instant::now() + LONGEST_BURST;
        while let Ok(Some(())) = timeout_at(end.min(Instant::now() + QUIET), self.triggers.recv()).await {
            if Instant::now() >= end {
                return;
            }
        }
    }

    /// Watches the directories, not the files: a file that is renamed over takes its watch with it,
    /// and Kubernetes swaps a link beside the file.
    fn watch_directories(&mut self) {
        let wanted: BTreeSet<PathBuf> = self.files().iter().map(|file| directory_of(file)).collect();
        let Some(events) = &mut self.events else { return };
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

    /// The files of the policy in force, and of the one that was tried last.
    fn files(&self) -> BTreeSet<PathBuf> {
        let snapshot = self.reloader.store().load();
        let tried = self.reloader.last_attempt().files.unwrap_or_default();
        let in_force = files_of(snapshot.policy());
        in_force.into_iter().chain(tried).chain([self.reloader.path().to_owned()]).collect()
    }
}

fn stamps(files: &BTreeSet<PathBuf>) -> Stamps {
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
