//! The versions that were linked last: swapping back to one of them compiles nothing.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use super::supply::Parts;
use crate::policy::{Plugin, PluginLimits};

/// Versions that are remembered, over all plugins. A small one has some hundred KiB of code.
const MAX_VERSIONS: usize = 8;

/// The largest file that is remembered, bytes: a whole JavaScript runtime would keep a hundred MiB.
const MAX_FILE_BYTES: usize = 4 << 20;

/// What a linked version depends on. Equal keys give equal parts.
pub(super) struct Key {
    version: Arc<str>,
    settings: Arc<Plugin>,
}

impl Key {
    pub(super) fn new(version: &Arc<str>, settings: &Arc<Plugin>) -> Self {
        Self { version: Arc::clone(version), settings: Arc::clone(settings) }
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.version == other.version && what_matters(&self.settings) == what_matters(&other.settings)
    }
}

/// The settings that parts are made from. It names every field: whoever adds one decides here.
fn what_matters(settings: &Plugin) -> impl PartialEq {
    let Plugin {
        config,
        kv,
        capabilities,
        limits: PluginLimits { memory, time: _ },
        instances,
        name: _,
        path: _,
        sha256: _,
        signature: _,
        reuse: _,
        on_failure: _,
        breaker: _,
        shadow: _,
    } = settings;
    (config, kv, capabilities, memory, instances)
}

/// Remembers the last versions.
#[derive(Default)]
pub(super) struct Recent(Mutex<VecDeque<(Key, Parts)>>);

impl Recent {
    pub(super) fn find(&self, key: &Key) -> Option<Parts> {
        let versions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        versions.iter().find(|(known, _)| known == key).map(|(_, parts)| parts.clone())
    }

    /// Puts a version first, and forgets the one that was asked for least lately.
    pub(super) fn remember(&self, key: Key, parts: &Parts, file_bytes: usize) {
        if file_bytes > MAX_FILE_BYTES {
            return;
        }
        let mut versions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        versions.retain(|(known, _)| *known != key);
        versions.push_front((key, parts.clone()));
        versions.truncate(MAX_VERSIONS);
    }
}
