//! Who watches a snapshot's plugins: recorders go on from one snapshot to the next, trials as long
//! as neither version nor rules change.

use std::future::ready;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Snapshot;
use super::active::ActivePlugin;
use super::build::Builder;
use super::history::{PluginFile, Served};
use crate::plugin::{LoadedPlugin, Trial, TrialState, Watchers};
use crate::policy::{Name, Plugin, Shadow, Signature};

impl Builder {
    /// Makes `next` ready to serve: has its plugins watched as those of `current` are, and begins the
    /// trials that its policy asks for and the fetching of keys. Waits for none of them.
    pub async fn watch(&self, next: &mut Snapshot, current: Option<&Snapshot>) {
        for verifier in next.verifiers.values() {
            verifier.start();
        }
        let mut plugins = Vec::with_capacity(next.plugins.len());
        for plugin in &next.plugins {
            let before = current.and_then(|current| current.plugin(plugin.name()));
            let recorder = before.map_or_else(Arc::default, |before| Arc::clone(before.recorder()));
            let trial = self.trial(plugin, before.and_then(|before| before.trial())).await;
            plugins.push(ActivePlugin::watched(plugin, recorder, trial));
        }
        next.bind(plugins);
    }

    /// Candidates that could not be tried, each with the reason. For a check: it waits for them.
    pub async fn unfit_candidates(&self, snapshot: &Snapshot) -> Vec<(Name, String)> {
        let mut unfit = Vec::new();
        for plugin in &snapshot.plugins {
            let Some(rules) = &plugin.settings().shadow else { continue };
            let loaded = match PluginFile::read(&rules.path).await {
                Ok(file) => self.load_candidate(plugin.settings(), rules, file).await.map(|_| ()),
                Err(why) => Err(why),
            };
            unfit.extend(loaded.err().map(|why| (Name::clone(plugin.name()), why)));
        }
        unfit
    }

    async fn trial(&self, plugin: &ActivePlugin, before: Option<&Arc<Trial>>) -> Option<Arc<Trial>> {
        let mut rules = plugin.settings().shadow.clone()?;
        let source = PluginFile::read(&rules.path).await;
        let version = source.as_ref().map(|file| Arc::clone(&file.version)).map_err(Clone::clone);
        if version.as_ref() == Ok(plugin.version()) {
            // It serves: there is nothing left to try.
            return None;
        }
        let served = |served: &Served| version.as_ref() == Ok(served.version());
        if self.history.of(plugin.name()).iter().any(served) {
            // It was promoted and rolled back: that was somebody's decision, and stands.
            rules.promote_after = None;
        }
        let same = |trial: &&Arc<Trial>| {
            Arc::ptr_eq(trial.active(), plugin.active())
                && *trial.rules() == rules
                && *trial.source() == version
                // What was missing may have been its signature, which is another file's change.
                && (plugin.settings().signature.is_none() || !matches!(trial.state(), TrialState::Unfit(_)))
        };
        if let Some(trial) = before.filter(same) {
            return Some(Arc::clone(trial));
        }
        let watchers = Watchers { metrics: Arc::clone(&self.metrics), earned: Arc::clone(&self.earned) };
        let active = plugin.active();
        Some(match source {
            Ok(file) => {
                let loading = self.load_candidate(plugin.settings(), &rules, file);
                Trial::start(active, rules, version, watchers, loading)
            }
            Err(why) => Trial::start(active, rules, version, watchers, ready(Err(why))),
        })
    }

    /// The candidate runs as the active version does, and must be trusted as it is.
    fn load_candidate(
        &self,
        settings: &Plugin,
        rules: &Shadow,
        file: PluginFile,
    ) -> impl Future<Output = Result<LoadedPlugin, String>> + Send + 'static {
        let candidate = Plugin {
            path: rules.path.clone(),
            sha256: rules.sha256,
            signature: settings
                .signature
                .clone()
                .map(|trusted| Signature { path: beside(&rules.path), ..trusted }),
            shadow: None,
            ..settings.clone()
        };
        let host = Arc::clone(&self.host);
        async move {
            let loaded = host.load(Arc::new(candidate), &file.bytes).await;
            loaded.map_err(|error| format!("cannot be run: {error}"))
        }
    }
}

/// Where a candidate's signature is: beside it, as a plugin's is by default.
fn beside(candidate: &Path) -> PathBuf {
    let mut path = candidate.as_os_str().to_owned();
    path.push(".sig");
    path.into()
}
