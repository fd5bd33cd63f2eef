//! Replaces one plugin's version in a snapshot, beside its file: what an operator asks for.

use std::sync::Arc;
use std::time::SystemTime;

use super::active::ActivePlugin;
use super::build::Builder;
use super::history::PluginFile;
use super::overrides::Overrides;
use super::{Route, Snapshot};

/// Which version is to serve.
#[derive(Debug, Clone)]
pub enum Replacement {
    /// One that served before: the one whose hash begins so, or the last other one.
    RollBack(Option<String>),
    /// The one in the plugin's file.
    Follow,
    /// The candidate on trial.
    Promote,
}

/// Why the version in force stays. For the operator.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ReplaceError(String);

impl Builder {
    /// Builds the snapshot that follows `current` with another version of one plugin, and runs the
    /// policy's tests against it. Nothing else changes: it works while the policy's files are broken.
    ///
    /// # Errors
    /// Where there is no such version, it cannot be loaded under the present settings, or a test
    /// fails with it.
    pub async fn replace(
        &self,
        current: &Snapshot,
        name: &str,
        with: &Replacement,
    ) -> Result<Snapshot, ReplaceError> {
        let serving =
            current.plugin(name).ok_or_else(|| ReplaceError(format!("the policy has no plugin `{name}`")))?;
        let settings = serving.settings();
        let (file, held) = match with {
            Replacement::RollBack(version) => {
                let file = match version {
                    Some(prefix) => self.history.find(name, prefix).map_err(ReplaceError)?,
                    None => self.history.before(name, serving.version()).ok_or_else(|| {
                        ReplaceError(format!("no other version of `{name}` served since the start"))
                    })?,
                };
                // What the file holds by then may be broken, or gone: it only matters that it changes.
                (file, self.read(settings).await.ok().map(|file| Arc::clone(&file.version)))
            }
            Replacement::Promote => {
                let file = candidate(serving).await?;
                (file, self.read(settings).await.ok().map(|file| Arc::clone(&file.version)))
            }
            Replacement::Follow => {
                let file =
                    self.read(settings).await.map_err(|why| ReplaceError(format!("the file {why}")))?;
                let held = Some(Arc::clone(&file.version));
                (file, held)
            }
        };
        if *serving.version() == file.version && serving.file() == held.as_ref() {
            return Err(ReplaceError(format!("version {} serves already", file.version)));
        }
        let refused = |why: String| ReplaceError(format!("version {} {why}", file.version));
        let loaded = self.load(settings, &file, Some(serving)).await;
        let active = loaded.map_err(|error| refused(format!("cannot be run: {error}")))?;
        let previous = match with {
            // The version that was rolled back from is no version to fall back on.
            Replacement::RollBack(_) => None,
            Replacement::Follow | Replacement::Promote => {
                self.previous(settings, &file.version, Some(serving)).await
            }
        };
        let next = current.with_plugin(ActivePlugin::new(active, previous, held, &self.metrics));
        let failed = next.rehearse().await;
        if let Some(first) = failed.first() {
            return Err(refused(format!("does not pass the policy's tests: {}", first.message)));
        }
        let tally = next.plugin(name).expect("it was put there").active().tally();
        self.history.serves(&settings.name, file, tally);
        Ok(next)
    }
}

/// The file of the candidate that was compared, and no other that has taken its place since.
async fn candidate(serving: &ActivePlugin) -> Result<Arc<PluginFile>, ReplaceError> {
    let refused = |why: String| Err(ReplaceError(why));
    let Some(trial) = serving.trial() else {
        return refused(format!("no candidate of `{}` is on trial", serving.name()));
    };
    let Some(candidate) = trial.candidate() else {
        return refused(format!("the candidate is {}", trial.state().as_str()));
    };
    match PluginFile::read(&trial.rules().path).await {
        Ok(file) if file.version == *candidate.version() => Ok(Arc::new(file)),
        Ok(_) => refused("the candidate's file has changed: another trial begins".into()),
        Err(why) => refused(format!("the candidate {why}")),
    }
}

impl Snapshot {
    /// The next generation, with another version of one of its plugins.
    fn with_plugin(&self, plugin: ActivePlugin) -> Self {
        let plugin = Arc::new(plugin);
        let swap = |other: &Arc<ActivePlugin>| {
            Arc::clone(if other.name() == plugin.name() { &plugin } else { other })
        };
        self.next(self.plugins.iter().map(swap).collect(), Arc::clone(&self.overrides))
    }

    /// The next generation, with these plugins and overrides.
    pub(super) fn next(&self, plugins: Vec<Arc<ActivePlugin>>, overrides: Arc<Overrides>) -> Self {
        let mut next = Self {
            generation: self.generation + 1,
            loaded_at: SystemTime::now(),
            policy: Arc::clone(&self.policy),
            routes: Vec::<Route>::new(),
            upstreams: self.upstreams.clone(),
            databases: self.databases.clone(),
            plugins: Vec::new(),
            directory: Arc::clone(&self.directory),
            verifiers: self.verifiers.clone(),
            overrides,
            fairness: Arc::clone(&self.fairness),
            tickets: Arc::clone(&self.tickets),
            traces: self.traces.clone(),
            assertion_keys: Arc::clone(&self.assertion_keys),
            metrics: Arc::clone(&self.metrics),
        };
        next.bind(plugins);
        next
    }
}
