//! A plugin as a snapshot holds it: the version that serves, the one before it, and the walk of one
//! question.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::resolve::Surroundings;
use super::trail::Trail;
use crate::decision::{Decision, RequestHead};
use crate::error::{Code, Refusal};
use crate::plugin::{Answer, FailureClass, LoadedPlugin, PluginFailure, Recorder, Trace, Trial};
use crate::policy;
use crate::telemetry::{Metrics, PluginMetrics};

/// A plugin of a policy, ready to be asked.
#[derive(Debug)]
pub struct ActivePlugin {
    active: Arc<LoadedPlugin>,
    /// Asked when the active version fails. One, never a chain: it holds no previous version.
    previous: Option<Arc<LoadedPlugin>>,
    /// What the plugin's file held when this was made. Another version than the active one where
    /// an operator rolled back, nothing where the file could not be read.
    file: Option<Arc<str>>,
    recorder: Arc<Recorder>,
    /// A candidate that is asked what the active version has decided.
    trial: Option<Arc<Trial>>,
    counts: Arc<PluginMetrics>,
}

/// One version of a plugin, by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginVersion {
    /// The plugin's name in the policy.
    pub name: Arc<str>,
    /// The SHA-256 of its file.
    pub version: Arc<str>,
}

/// One question to one version, for the record.
#[derive(Debug, Clone)]
pub struct PluginCall {
    /// Who was asked.
    pub asked: PluginVersion,
    /// `place`, `next`, `deny`, or the class of the failure.
    pub outcome: &'static str,
    /// When it was over.
    pub ended: Instant,
    /// How long it took.
    pub took: Duration,
}

impl PluginCall {
    /// Whether no decision came of it.
    pub(super) fn failed(&self) -> bool {
        !matches!(self.outcome, "place" | "next" | "deny")
    }
}

impl ActivePlugin {
    pub(super) fn new(
        active: Arc<LoadedPlugin>,
        previous: Option<Arc<LoadedPlugin>>,
        file: Option<Arc<str>>,
        metrics: &Metrics,
    ) -> Self {
        let counts = Arc::new(PluginMetrics::new(metrics, active.name()));
        Self { active, previous, file, recorder: Arc::default(), trial: None, counts }
    }

    /// The same plugin, watched by these.
    pub(super) fn watched(
        plugin: &Arc<Self>,
        recorder: Arc<Recorder>,
        trial: Option<Arc<Trial>>,
    ) -> Arc<Self> {
        let same_trial = plugin.trial.as_ref().map(Arc::as_ptr) == trial.as_ref().map(Arc::as_ptr);
        if same_trial && Arc::ptr_eq(&plugin.recorder, &recorder) {
            return Arc::clone(plugin);
        }
        let (active, previous) = (Arc::clone(&plugin.active), plugin.previous.clone());
        let (file, counts) = (plugin.file.clone(), Arc::clone(&plugin.counts));
        Arc::new(Self { active, previous, file, recorder, trial, counts })
    }

    /// Its name in the policy.
    pub fn name(&self) -> &Arc<str> {
        self.active.name()
    }

    /// The version that serves.
    pub fn version(&self) -> &Arc<str> {
        self.active.version()
    }

    /// Its part of the policy.
    pub fn settings(&self) -> &Arc<policy::Plugin> {
        self.active.settings()
    }

    /// The version that serves, loaded.
    pub fn active(&self) -> &Arc<LoadedPlugin> {
        &self.active
    }

    /// The version that is asked when the active one fails.
    pub fn previous(&self) -> Option<&Arc<LoadedPlugin>> {
        self.previous.as_ref()
    }

    /// Records what the active version decides, when it is told to.
    pub fn recorder(&self) -> &Arc<Recorder> {
        &self.recorder
    }

    /// The trial of a candidate, where there is one.
    pub fn trial(&self) -> Option<&Arc<Trial>> {
        self.trial.as_ref()
    }

    /// What the plugin's file held when this was made, if it could be read.
    pub fn file(&self) -> Option<&Arc<str>> {
        self.file.as_ref()
    }

    /// Whether another version serves than the one in the plugin's file, because an operator said so.
    pub fn overrides_file(&self) -> bool {
        self.file.as_ref() != Some(self.active.version())
    }

    /// One of the two versions as it is loaded, where it is this one under these settings.
    pub(super) fn loaded(&self, settings: &policy::Plugin, version: &str) -> Option<Arc<LoadedPlugin>> {
        let mut versions = [Some(&self.active), self.previous.as_ref()].into_iter().flatten();
        versions.find(|loaded| **loaded.settings() == *settings && **loaded.version() == *version).cloned()
    }

    /// The walk of one question: the active version, and if it fails the previous one.
    pub(super) async fn ask(
        &self,
        head: &Arc<RequestHead>,
        around: Surroundings<'_>,
        trail: &mut Trail,
    ) -> Result<(Decision, PluginVersion), Refusal> {
        let failure = match self.ask_active(head, around, trail).await {
            Ok(decision) => return Ok((decision, PluginVersion::of(&self.active))),
            Err(failure) => failure,
        };
        let refusal = refuse(&self.active, &failure);
        // A rehearsal tries the new version: the old one must not hide that it fails.
        let previous = self.previous.as_ref().filter(|_| !trail.is_rehearsal());
        let Some(previous) = previous.filter(|_| refusal.code() == Code::PluginFailed) else {
            return Err(refusal);
        };
        match self.ask_version(previous, head, around, trail, None).await {
            Ok(decision) => Ok((decision, PluginVersion::of(previous))),
            Err(second) => {
                let cause =
                    format!("{}; then {}", describe(&self.active, &failure), describe(previous, &second));
                Err(refusal.because(cause))
            }
        }
    }

    /// Asks the active version, and shows its answer to whoever watches.
    async fn ask_active(
        &self,
        head: &Arc<RequestHead>,
        around: Surroundings<'_>,
        trail: &mut Trail,
    ) -> Result<Decision, PluginFailure> {
        if trail.is_rehearsal() {
            return self.ask_version(&self.active, head, around, trail, None).await;
        }
        let trace = self.recorder.trace();
        let decided = self.ask_version(&self.active, head, around, trail, trace.clone()).await;
        if let Some(trace) = trace {
            self.recorder.offer(&self.active, head, trace, &decided);
        }
        if let Some(trial) = &self.trial {
            trial.observe(head, around.directory, &decided);
        }
        decided
    }

    async fn ask_version(
        &self,
        plugin: &LoadedPlugin,
        head: &Arc<RequestHead>,
        around: Surroundings<'_>,
        trail: &mut Trail,
        trace: Option<Arc<Trace>>,
    ) -> Result<Decision, PluginFailure> {
        let directory = Arc::clone(around.directory);
        if trail.is_rehearsal() {
            // Neither counted nor stopped by the breaker: what live requests met says nothing of a test,
            // nor a test of them.
            return plugin.resolve(head, directory).await;
        }
        let answer = plugin.ask(head, directory, trace).await;
        let outcome = answer.outcome();
        self.counts.called(outcome, answer.took);
        let Answer { decided, ended, took } = answer;
        trail.calls.push(PluginCall { asked: PluginVersion::of(plugin), outcome, ended, took });
        decided
    }
}

impl PluginVersion {
    fn of(plugin: &LoadedPlugin) -> Self {
        Self { name: Arc::clone(plugin.name()), version: Arc::clone(plugin.version()) }
    }
}

fn refuse(plugin: &LoadedPlugin, failure: &PluginFailure) -> Refusal {
    let refusal = match failure.class {
        FailureClass::DirectoryUnavailable => {
            Refusal::new(Code::DirectoryUnavailable, "tenants cannot be looked up now; try again later")
        }
        _ => Refusal::new(Code::PluginFailed, "the tenant cannot be resolved now; try again later"),
    };
    refusal.because(describe(plugin, failure))
}

fn describe(plugin: &LoadedPlugin, failure: &PluginFailure) -> String {
    format!("plugin `{}` version {}: {failure}", plugin.name(), plugin.version())
}
