//! The versions that served: the bytes of their files, kept so that one can serve again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use crate::plugin::{Tally, version_of};
use crate::policy::Name;
use crate::surroundings::read_file;

/// Versions that are kept of each plugin.
const MAX_VERSIONS: usize = 8;

/// Bytes that all files together may have; the version that served least lately goes first. Three
/// Python runtimes fit, or thousands of small plugins.
const MAX_BYTES: usize = 64 << 20;

/// Bytes that one file of a plugin may have: a whole Python takes a fifth of it.
pub const MAX_PLUGIN_BYTES: u64 = 100 << 20;

/// A plugin's file, read.
pub(super) struct PluginFile {
    /// Its SHA-256 in lower-case hex.
    pub(super) version: Arc<str>,
    pub(super) bytes: Arc<[u8]>,
}

impl PluginFile {
    pub(super) fn new(bytes: Vec<u8>) -> Self {
        Self { version: version_of(&bytes).into(), bytes: bytes.into() }
    }

    /// Reads a file.
    ///
    /// # Errors
    /// What kept it from being read, as in "the plugin …".
    #[expect(clippy::disallowed_methods, reason = "a file's read cannot be cancelled, and ends")]
    pub(super) async fn read(path: &Path) -> Result<Self, String> {
        let aside = path.to_owned();
        let read = tokio::task::spawn_blocking(move || read_file(&aside, MAX_PLUGIN_BYTES)).await;
        let bytes = read.expect("reading a file does not panic");
        bytes.map(Self::new).map_err(|error| format!("cannot be read from `{}`: {error}", path.display()))
    }
}

/// A version that served.
#[derive(Clone)]
pub struct Served {
    file: Arc<PluginFile>,
    /// How its calls went when it served last.
    pub tally: Arc<Tally>,
    /// When it began to serve, the last time.
    pub since: SystemTime,
}

impl Served {
    /// The SHA-256 of its file in lower-case hex.
    pub fn version(&self) -> &Arc<str> {
        &self.file.version
    }

    /// The size of its file, bytes.
    pub fn bytes(&self) -> usize {
        self.file.bytes.len()
    }
}

/// Remembers files, not code: what was compiled is dropped with the last snapshot that uses it.
#[derive(Default)]
pub(super) struct History(Mutex<BTreeMap<Name, VecDeque<Served>>>);

impl History {
    /// Puts a version that serves from now on before the others of its plugin.
    pub(super) fn serves(&self, name: &Name, file: Arc<PluginFile>, tally: &Arc<Tally>) {
        let mut plugins = self.lock();
        let versions = plugins.entry(Arc::clone(name)).or_default();
        versions.retain(|served| served.file.version != file.version);
        versions.push_front(Served { file, tally: Arc::clone(tally), since: SystemTime::now() });
        versions.truncate(MAX_VERSIONS);
        while bytes(&plugins) > MAX_BYTES && forget_one(&mut plugins) {}
    }

    /// Forgets plugins that the policy does not have any more.
    pub(super) fn keep_only(&self, known: impl Fn(&str) -> bool) {
        self.lock().retain(|name, _| known(name));
    }

    /// The versions of a plugin, the one that served last first.
    pub(super) fn of(&self, name: &str) -> Vec<Served> {
        self.lock().get(name).into_iter().flatten().cloned().collect()
    }

    /// The version that served before the one that serves now.
    pub(super) fn before(&self, name: &str, active: &str) -> Option<Arc<PluginFile>> {
        let plugins = self.lock();
        let found = plugins.get(name)?.iter().find(|served| &*served.file.version != active)?;
        Some(Arc::clone(&found.file))
    }

    /// The only version whose hash begins so.
    ///
    /// # Errors
    /// Words for the operator, where there is none or several.
    pub(super) fn find(&self, name: &str, prefix: &str) -> Result<Arc<PluginFile>, String> {
        let versions = self.of(name);
        let mut fitting = versions.iter().filter(|served| served.file.version.starts_with(prefix));
        match (fitting.next(), fitting.next()) {
            (Some(only), None) => Ok(Arc::clone(&only.file)),
            (Some(_), Some(_)) => {
                Err(format!("more than one version begins with `{prefix}`: give more of it"))
            }
            (None, _) => {
                let known: Vec<&str> = versions.iter().map(|served| &**served.version()).collect();
                Err(format!("no version begins with `{prefix}`; the history has {}", known.join(", ")))
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Name, VecDeque<Served>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bytes of all files, each counted once however many plugins it served.
fn bytes(plugins: &BTreeMap<Name, VecDeque<Served>>) -> usize {
    let files: BTreeSet<(&str, usize)> =
        plugins.values().flatten().map(|served| (&**served.version(), served.bytes())).collect();
    files.into_iter().map(|(_, bytes)| bytes).sum()
}

fn forget_one(plugins: &mut BTreeMap<Name, VecDeque<Served>>) -> bool {
    let oldest = plugins
        .values_mut()
        .filter(|versions| !versions.is_empty())
        .min_by_key(|versions| versions.back().map(|served| served.since));
    oldest.is_some_and(|versions| versions.pop_back().is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(number: u8, bytes: usize) -> Arc<PluginFile> {
        Arc::new(PluginFile::new(vec![number; bytes]))
    }

    fn versions(history: &History, name: &str) -> Vec<Arc<str>> {
        history.of(name).iter().map(|served| Arc::clone(served.version())).collect()
    }

    #[test]
    fn the_last_versions_are_kept_newest_first() {
        let history = History::default();
        let name: Name = "keys".into();
        let files: Vec<_> = (0..10).map(|number| file(number, 1)).collect();
        for file in &files {
            history.serves(&name, Arc::clone(file), &Arc::default());
        }
        let expected: Vec<_> = files[2..].iter().rev().map(|file| Arc::clone(&file.version)).collect();
        assert_eq!(versions(&history, "keys"), expected);
        history.serves(&name, Arc::clone(&files[5]), &Arc::default());
        assert_eq!(versions(&history, "keys").len(), MAX_VERSIONS, "a version is there once");
        assert_eq!(versions(&history, "keys")[0], files[5].version);
        assert_eq!(history.before("keys", &files[5].version).unwrap().version, files[9].version);
        history.keep_only(|name| name != "keys");
        assert!(versions(&history, "keys").is_empty());
    }

    #[test]
    fn all_files_together_stay_within_their_bytes() {
        let history = History::default();
        let (one, other): (Name, Name) = ("one".into(), "other".into());
        let half = MAX_BYTES / 2;
        let (a, b, c) = (file(1, half), file(2, half), file(3, 1));
        history.serves(&one, Arc::clone(&a), &Arc::default());
        history.serves(&one, Arc::clone(&b), &Arc::default());
        // The same content again takes no room.
        history.serves(&other, Arc::clone(&b), &Arc::default());
        assert_eq!(versions(&history, "one").len(), 2);
        history.serves(&other, Arc::clone(&c), &Arc::default());
        assert_eq!(versions(&history, "one"), [Arc::clone(&b.version)], "the oldest went");
        assert_eq!(versions(&history, "other"), [Arc::clone(&c.version), Arc::clone(&b.version)]);
    }

    #[test]
    fn a_version_is_found_by_the_beginning_of_its_hash() {
        let history = History::default();
        let files: Vec<_> = (0..2).map(|number| file(number, 1)).collect();
        for file in &files {
            history.serves(&"keys".into(), Arc::clone(file), &Arc::default());
        }
        let found = history.find("keys", &files[0].version[..8]).ok().unwrap();
        assert_eq!(found.version, files[0].version);
        assert!(history.find("keys", "").err().unwrap().contains("more than one"));
        assert!(history.find("keys", "x").err().unwrap().contains(&*files[1].version));
    }
}
