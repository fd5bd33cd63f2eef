//! Records what a plugin decides on live requests, as cases that decide the same again.

mod redact;
mod worker;

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::failure::PluginFailure;
use super::loaded::LoadedPlugin;
use super::trace::Trace;
use crate::decision::{Decision, RequestHead};
use crate::policy::{Case, Cases};

pub use redact::Keep;

/// Requests that wait to be made a case of. One that finds no room is dropped and counted.
const QUEUE: usize = 64;

/// All cases of a recording together, bytes of YAML: what an editor opens without a sigh.
const MAX_BYTES: usize = 1 << 20;

/// A recording that found too little by then ends: each request that is looked at costs a little.
const LONGEST: Duration = Duration::from_secs(15 * 60);

/// Records the decisions of one plugin, whenever it is told to. Requests ask it with one load.
#[derive(Default)]
pub struct Recorder {
    on: AtomicBool,
    current: Mutex<Option<Current>>,
}

struct Current {
    recording: Arc<Recording>,
    samples: mpsc::Sender<Sample>,
    _worker: AbortOnDropHandle<()>,
}

/// A request that was decided.
struct Sample {
    head: Arc<RequestHead>,
    trace: Arc<Trace>,
    decided: Result<Decision, PluginFailure>,
}

/// What was recorded so far.
pub struct Recording {
    plugin: Arc<str>,
    version: Arc<str>,
    wanted: usize,
    keep: Keep,
    progress: Mutex<Progress>,
    dropped: AtomicU64,
}

#[derive(Default)]
struct Progress {
    cases: Vec<Case>,
    bytes: usize,
    unrepeatable: u64,
    ended: Option<&'static str>,
}

impl Recorder {
    /// Starts a recording of `wanted` different cases, in place of any earlier one. It ends by
    /// itself when it has them, and with this version of the plugin.
    pub fn start(self: &Arc<Self>, plugin: &Arc<LoadedPlugin>, wanted: usize, keep: Keep) -> Arc<Recording> {
        let recording = Arc::new(Recording {
            plugin: Arc::clone(plugin.name()),
            version: Arc::clone(plugin.version()),
            wanted,
            keep,
            progress: Mutex::default(),
            dropped: AtomicU64::new(0),
        });
        let (samples, queue) = mpsc::channel(QUEUE);
        let work = worker::run(Arc::downgrade(self), Arc::downgrade(plugin), Arc::clone(&recording), queue);
        let worker = AbortOnDropHandle::new(tokio::spawn(work));
        *self.lock() = Some(Current { recording: Arc::clone(&recording), samples, _worker: worker });
        self.on.store(true, Ordering::Relaxed);
        recording
    }

    /// The recording under way, or the last one.
    pub fn recording(&self) -> Option<Arc<Recording>> {
        self.lock().as_ref().map(|current| Arc::clone(&current.recording))
    }

    /// Stops, and forgets what was recorded. Tells whether there was something.
    pub fn forget(&self) -> bool {
        self.on.store(false, Ordering::Relaxed);
        self.lock().take().is_some()
    }

    /// What a call of the plugin is to be traced with, if it is recorded.
    pub fn trace(&self) -> Option<Arc<Trace>> {
        self.on.load(Ordering::Relaxed).then(Arc::default)
    }

    /// Hands a decision of `plugin` over. Never waits.
    pub fn offer(
        &self,
        plugin: &LoadedPlugin,
        head: &Arc<RequestHead>,
        trace: Arc<Trace>,
        decided: &Result<Decision, PluginFailure>,
    ) {
        let current = self.lock();
        let Some(current) = current.as_ref() else { return };
        if plugin.version() != &current.recording.version {
            current.recording.end("the plugin was replaced");
            self.on.store(false, Ordering::Relaxed);
            return;
        }
        let sample = Sample { head: Arc::clone(head), trace, decided: decided.clone() };
        if current.samples.try_send(sample).is_err() {
            current.recording.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Ends a recording, unless another one has taken its place.
    fn end(&self, recording: &Arc<Recording>, why: &'static str) {
        recording.end(why);
        if self.lock().as_ref().is_some_and(|current| Arc::ptr_eq(&current.recording, recording)) {
            self.on.store(false, Ordering::Relaxed);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Current>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").field("on", &self.on).finish_non_exhaustive()
    }
}

impl Recording {
    /// Cases so far.
    pub fn count(&self) -> usize {
        self.lock().cases.len()
    }

    /// Cases that it was asked for.
    pub fn wanted(&self) -> usize {
        self.wanted
    }

    /// Why it ended, if it has.
    pub fn ended(&self) -> Option<&'static str> {
        self.lock().ended
    }

    fn end(&self, why: &'static str) {
        self.lock().ended.get_or_insert(why);
    }

    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The file of cases so far.
impl fmt::Display for Recording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let progress = self.lock();
        let (plugin, version) = (&self.plugin, &self.version);
        writeln!(f, "# Recorded from live traffic, version {version}.")?;
        writeln!(f, "# {} of {} cases; {}.", progress.cases.len(), self.wanted, progress.state())?;
        let (dropped, unrepeatable) = (self.dropped.load(Ordering::Relaxed), progress.unrepeatable);
        if dropped + unrepeatable > 0 {
            writeln!(f, "# Left out: {dropped} while busy, {unrepeatable} that came out differently again.")?;
        }
        writeln!(f, "# The plugin's configuration is not in here. It is taken from the policy:")?;
        writeln!(f, "# innkeeper plugin test PLUGIN.wasm CASES.yaml --policy POLICY.yaml --plugin {plugin}")?;
        let cases =
            Cases { plugin: Some(plugin.to_string()), cases: progress.cases.clone(), ..Cases::default() };
        write!(f, "{cases}")
    }
}

impl Progress {
    fn state(&self) -> &'static str {
        self.ended.unwrap_or("still recording")
    }
}
