//! The plugins of the next snapshot: each loaded, or held back in favour of the version that serves.

use std::sync::Arc;

use super::Snapshot;
use super::active::ActivePlugin;
use super::build::{BuildError, Builder};
use super::history::PluginFile;
use crate::plugin::{LoadError, LoadedPlugin, PluginHost};
use crate::policy::{self, Diagnostic, Diagnostics, Excerpt, OnFailure, Policy};
use crate::telemetry::Metrics;

/// What the next snapshot may hold of each plugin, in the policy's order.
pub(super) struct Candidates {
    plugins: Vec<Candidate>,
    /// Files that cannot be loaded.
    held_back: Vec<Diagnostic>,
}

/// What the next snapshot may hold of one plugin.
pub(super) struct Candidate {
    plugin: Arc<ActivePlugin>,
    origin: Origin,
}

enum Origin {
    /// It serves already, and its file is the same.
    Kept,
    /// It serves already, because its file cannot.
    HeldBack,
    /// It was loaded from its file.
    Loaded {
        file: Arc<PluginFile>,
        /// What serves now under the same settings, and goes on where the file is held back.
        stand_in: Option<Arc<ActivePlugin>>,
    },
}

/// Why a plugin's file is not in the next snapshot, as in "the plugin …".
#[derive(Debug, thiserror::Error)]
enum Absent {
    #[error("{0}")]
    Unfit(String),
    #[error("is still being loaded: it comes into force when that is done")]
    StillLoading,
}

impl Builder {
    /// Loads what changed.
    pub(super) async fn candidates(
        &self,
        policy: &Policy,
        previous: Option<&Snapshot>,
    ) -> Result<Candidates, BuildError> {
        let mut candidates =
            Candidates { plugins: Vec::with_capacity(policy.plugins.len()), held_back: Vec::new() };
        let mut failures = Vec::new();
        for (name, settings) in &policy.plugins {
            let serving = previous.and_then(|previous| previous.plugin(name));
            let stand_in = serving.filter(|serving| serving.settings() == settings);
            let absent = match self.candidate(settings, serving, stand_in).await {
                Ok(candidate) => {
                    candidates.plugins.push(candidate);
                    continue;
                }
                Err(absent) => absent,
            };
            let at = policy.places.plugins.get(name).expect("each plugin has a path").clone();
            let message = format!("the plugin `{name}` {absent}");
            let Some(stand_in) = stand_in else {
                failures.push(Diagnostic::error(at, message));
                continue;
            };
            candidates.held_back.push(match absent {
                Absent::Unfit(_) => held_back(at, message, stand_in),
                Absent::StillLoading => {
                    let help = format!("version {} serves meanwhile", stand_in.version());
                    Diagnostic { help: Some(help), ..Diagnostic::warning(at, message) }
                }
            });
            candidates.plugins.push(Candidate { plugin: Arc::clone(stand_in), origin: Origin::HeldBack });
        }
        if failures.is_empty() { Ok(candidates) } else { Err(Diagnostics::from(failures).into()) }
    }

    /// Runs the policy's tests with every candidate. Where some fail, those that bring failures are
    /// held back: the others must not wait for their repair.
    pub(super) async fn choose(
        &self,
        snapshot: &mut Snapshot,
        candidates: Candidates,
    ) -> Result<(Vec<Candidate>, Vec<Diagnostic>), BuildError> {
        let Candidates { mut plugins, mut held_back } = candidates;
        snapshot.bind(plugins.iter().map(|candidate| Arc::clone(&candidate.plugin)).collect());
        let mut failed = snapshot.rehearse().await;
        if failed.is_empty() {
            return Ok((plugins, held_back));
        }
        snapshot.bind(plugins.iter().map(|candidate| Arc::clone(candidate.stand_in())).collect());
        if !snapshot.rehearse().await.is_empty() {
            // The policy fails without them too.
            failed.extend(held_back);
            return Err(Diagnostics::from(failed).into());
        }
        for (place, candidate) in plugins.iter_mut().enumerate() {
            let Origin::Loaded { file, stand_in: Some(stand_in) } = &candidate.origin else { continue };
            let failed = snapshot.rehearse_with(place, &candidate.plugin).await;
            if failed.is_empty() {
                continue;
            }
            let (name, version) = (candidate.plugin.name(), &file.version);
            let messages: Vec<&str> = failed.iter().map(|one| one.message.as_str()).collect();
            self.held_back.fails_tests(name, version, messages.join("\n"));
            let at = snapshot.policy.places.plugins.get(name).expect("each plugin has a path").clone();
            let message = format!("with version {version} of the plugin `{name}` the policy's tests fail");
            held_back.push(self::held_back(at, message, stand_in));
            held_back.extend(failed);
            *candidate = Candidate { plugin: Arc::clone(stand_in), origin: Origin::HeldBack };
        }
        Ok((plugins, held_back))
    }

    /// Writes down which files are in force from now on.
    pub(super) fn remember(&self, policy: &Policy, chosen: Vec<Candidate>) {
        for Candidate { plugin, origin } in chosen {
            match origin {
                Origin::HeldBack => continue,
                Origin::Kept => {}
                Origin::Loaded { file, .. } => {
                    self.history.serves(plugin.name(), file, plugin.active().tally());
                }
            }
            self.held_back.release(plugin.name());
            self.loading.forget(plugin.name());
        }
        self.loading.keep_only(|name| policy.plugins.contains_key(name));
        self.history.keep_only(|name| policy.plugins.contains_key(name));
        self.held_back.keep_only(|name| policy.plugins.contains_key(name));
    }

    async fn candidate(
        &self,
        settings: &Arc<policy::Plugin>,
        serving: Option<&Arc<ActivePlugin>>,
        stand_in: Option<&Arc<ActivePlugin>>,
    ) -> Result<Candidate, Absent> {
        let file = self.read(settings).await.map_err(Absent::Unfit)?;
        if let Some(kept) = stand_in.filter(|serving| serving.file() == Some(&file.version)) {
            return Ok(Candidate { plugin: Arc::clone(kept), origin: Origin::Kept });
        }
        let serving = serving.map(|serving| &**serving);
        let loaded = match self.held_back.known(settings, &file.version) {
            Some(error) => Err(error),
            None => {
                let loaded = if stand_in.is_some() {
                    self.load_soon(settings, &file, serving).await?
                } else {
                    // Nothing serves in its place: without it, the policy is none.
                    self.load(settings, &file, serving).await
                };
                loaded.inspect_err(|error| self.held_back.unfit(settings, &file.version, error))
            }
        };
        let active = loaded.map_err(|error| Absent::Unfit(format!("cannot be run: {error}")))?;
        let previous = self.previous(settings, &file.version, serving).await;
        let plugin =
            Arc::new(ActivePlugin::new(active, previous, Some(Arc::clone(&file.version)), &self.metrics));
        Ok(Candidate { plugin, origin: Origin::Loaded { file, stand_in: stand_in.cloned() } })
    }

    /// Reads a plugin's file.
    pub(super) async fn read(&self, settings: &policy::Plugin) -> Result<Arc<PluginFile>, String> {
        let file = PluginFile::read(&settings.path).await.inspect_err(|why| {
            self.metrics.plugin_loaded(&settings.name, "unreadable");
            self.held_back.unreadable(&settings.name, why);
        })?;
        Ok(Arc::new(file))
    }

    /// [`Builder::load`], for a plugin of which another version serves: one that takes long is not
    /// waited for.
    async fn load_soon(
        &self,
        settings: &Arc<policy::Plugin>,
        file: &Arc<PluginFile>,
        serving: Option<&ActivePlugin>,
    ) -> Result<Result<Arc<LoadedPlugin>, LoadError>, Absent> {
        if let Some(loaded) = serving.and_then(|serving| serving.loaded(settings, &file.version)) {
            return Ok(Ok(loaded));
        }
        let load = || {
            let (host, metrics) = (Arc::clone(&self.host), Arc::clone(&self.metrics));
            let (settings, file) = (Arc::clone(settings), Arc::clone(file));
            async move { load(&host, &metrics, settings, &file).await }
        };
        self.loading.wait(settings, file, load).await.ok_or_else(|| {
            self.held_back.loading(&settings.name, &file.version, &Absent::StillLoading.to_string());
            Absent::StillLoading
        })
    }

    /// Loads a version of a plugin, unless it is loaded.
    pub(super) async fn load(
        &self,
        settings: &Arc<policy::Plugin>,
        file: &PluginFile,
        serving: Option<&ActivePlugin>,
    ) -> Result<Arc<LoadedPlugin>, LoadError> {
        if let Some(loaded) = serving.and_then(|serving| serving.loaded(settings, &file.version)) {
            return Ok(loaded);
        }
        load(&self.host, &self.metrics, Arc::clone(settings), file).await
    }

    /// The version to ask when the active one fails: the one that served before it, under the
    /// present settings. A key that was taken out of the configuration must not work again.
    pub(super) async fn previous(
        &self,
        settings: &Arc<policy::Plugin>,
        active: &str,
        serving: Option<&ActivePlugin>,
    ) -> Option<Arc<LoadedPlugin>> {
        if settings.on_failure != OnFailure::Previous {
            return None;
        }
        let file = self.history.before(&settings.name, active)?;
        let loaded = self.load(settings, &file, serving).await.inspect_err(|error| {
            let (plugin, version) = (&*settings.name, &*file.version);
            tracing::warn!(plugin, version, "the previous version cannot be asked any more: {error}");
        });
        loaded.ok()
    }
}

async fn load(
    host: &Arc<PluginHost>,
    metrics: &Metrics,
    settings: Arc<policy::Plugin>,
    file: &PluginFile,
) -> Result<Arc<LoadedPlugin>, LoadError> {
    let name = Arc::clone(&settings.name);
    let loaded = host.load(settings, &file.bytes).await;
    let outcome = loaded.as_ref().map_or_else(|error| error.class.as_str(), |_| "loaded");
    metrics.plugin_loaded(&name, outcome);
    loaded.map(Arc::new)
}

impl Snapshot {
    /// Puts a plugin in its place, and takes it out again where tests fail with it.
    async fn rehearse_with(&mut self, place: usize, plugin: &Arc<ActivePlugin>) -> Vec<Diagnostic> {
        let without = self.plugins.clone();
        let mut with = without.clone();
        with[place] = Arc::clone(plugin);
        self.bind(with);
        let failed = self.rehearse().await;
        if !failed.is_empty() {
            self.bind(without);
        }
        failed
    }
}

impl Candidate {
    /// What serves where its file is held back; itself where it cannot be.
    fn stand_in(&self) -> &Arc<ActivePlugin> {
        match &self.origin {
            Origin::Loaded { stand_in: Some(stand_in), .. } => stand_in,
            Origin::Kept | Origin::HeldBack | Origin::Loaded { stand_in: None, .. } => &self.plugin,
        }
    }
}

fn held_back(at: Excerpt, message: String, stand_in: &ActivePlugin) -> Diagnostic {
    let help = format!("version {} goes on serving until the file is repaired", stand_in.version());
    Diagnostic { help: Some(help), ..Diagnostic::error(at, message) }
}
