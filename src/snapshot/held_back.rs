//! Files that were held back: the version before them went on serving.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crate::plugin::{LoadError, LoadErrorClass};
use crate::policy::{self, Name};

/// After how long a file is tried again that may have failed for lack of time or room.
const SECOND_TRY: Duration = Duration::from_secs(30);

/// A plugin's file that is not in force, and why.
#[derive(Debug, Clone)]
pub struct HeldBack {
    /// The SHA-256 of the file; nothing where it could not be read.
    pub version: Option<Arc<str>>,
    /// The class of the load error, `unreadable`, `loading`, or `tests-failed`.
    pub class: &'static str,
    /// What is wrong with it.
    pub message: String,
    /// When it was found.
    pub at: SystemTime,
}

/// The file of each plugin that is held back now.
#[derive(Default)]
pub(super) struct HeldBackFiles(Mutex<BTreeMap<Name, Entry>>);

struct Entry {
    held_back: HeldBack,
    /// The load that failed, if one did.
    load: Option<FailedLoad>,
}

struct FailedLoad {
    settings: Arc<policy::Plugin>,
    error: LoadError,
    tried: Instant,
}

impl HeldBackFiles {
    /// Holds a file back that cannot be read.
    pub(super) fn unreadable(&self, name: &Name, message: &str) {
        self.hold(name, None, "unreadable", message.to_owned(), None);
    }

    /// Holds a file back that does not load.
    pub(super) fn unfit(&self, settings: &Arc<policy::Plugin>, version: &Arc<str>, error: &LoadError) {
        let load = FailedLoad { settings: Arc::clone(settings), error: error.clone(), tried: Instant::now() };
        let message = error.message.clone();
        self.hold(&settings.name, Some(version), error.class.as_str(), message, Some(load));
    }

    /// Holds a file back until it is loaded.
    pub(super) fn loading(&self, name: &Name, version: &Arc<str>, message: &str) {
        self.hold(name, Some(version), "loading", message.to_owned(), None);
    }

    /// Holds a file back with which the policy's tests fail.
    pub(super) fn fails_tests(&self, name: &Name, version: &Arc<str>, message: String) {
        self.hold(name, Some(version), "tests-failed", message, None);
    }

    /// The error of an earlier try, which another one would only repeat: compiling a broken file
    /// every few seconds takes the time of requests.
    pub(super) fn known(&self, settings: &policy::Plugin, version: &str) -> Option<LoadError> {
        let files = self.lock();
        let entry = files.get(&settings.name)?;
        let load = entry.load.as_ref()?;
        let same = entry.held_back.version.as_deref() == Some(version) && *load.settings == *settings;
        let lasts = match load.error.class {
            // The signature is another file, which may have been repaired.
            LoadErrorClass::SignatureInvalid => false,
            // Time or room may have been short.
            LoadErrorClass::ConfigureFailed | LoadErrorClass::Capacity => load.tried.elapsed() < SECOND_TRY,
            LoadErrorClass::NotAComponent
            | LoadErrorClass::PinMismatch
            | LoadErrorClass::TooLarge
            | LoadErrorClass::CompileFailed
            | LoadErrorClass::ImportNotGranted
            | LoadErrorClass::WrongWorld => true,
        };
        (same && lasts).then(|| load.error.clone())
    }

    /// The plugin's file is in force.
    pub(super) fn release(&self, name: &str) {
        self.lock().remove(name);
    }

    /// Forgets plugins that the policy does not have any more.
    pub(super) fn keep_only(&self, known: impl Fn(&str) -> bool) {
        self.lock().retain(|name, _| known(name));
    }

    /// The file of a plugin that is held back.
    pub(super) fn of(&self, name: &str) -> Option<HeldBack> {
        self.lock().get(name).map(|entry| entry.held_back.clone())
    }

    fn hold(
        &self,
        name: &Name,
        version: Option<&Arc<str>>,
        class: &'static str,
        message: String,
        load: Option<FailedLoad>,
    ) {
        let mut files = self.lock();
        // The same finding again is not news: it keeps its time.
        let known = files.get(name).map(|entry| &entry.held_back);
        let at = known
            .filter(|known| {
                known.version.as_ref() == version && known.class == class && known.message == message
            })
            .map_or_else(SystemTime::now, |known| known.at);
        let held_back = HeldBack { version: version.cloned(), class, message, at };
        files.insert(Arc::clone(name), Entry { held_back, load });
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Name, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
