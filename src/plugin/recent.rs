//! The versions that were linked last: swapping back to one of them compiles nothing.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use super::supply::Parts;
use crate::policy::{Instances, Plugin};

/// Versions that are remembered, over all plugins. A small one has some hundred KiB of code.
const MAX_VERSIONS: usize = 8;

/// The largest file that is remembered, bytes: a whole JavaScript runtime would keep a hundred MiB.
const MAX_FILE_BYTES: usize = 4 << 20;

/// What a linked version depends on. Equal keys give equal parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key {
    version: Arc<str>,
    config: String,
    memory: usize,
    instances: Instances,
}

impl Key {
    pub(super) fn new(version: &Arc<str>, settings: &Plugin) -> Self {
        Self {
            version: Arc::clone(version),
            config: settings.config.clone(),
            memory: settings.limits.memory,
            instances: settings.instances,
        }
    }
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
