//! A candidate version on trial: asked beside the active one, without effect, and compared.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::SystemTime;

use serde::Serialize;
use tokio::sync::{Notify, Semaphore};
use tokio_util::task::AbortOnDropHandle;

use super::failure::{FailureClass, PluginFailure};
use super::loaded::LoadedPlugin;
use crate::decision::{Decision, FindTenant, RequestHead};
use crate::policy::{CaseAnswer, Difference, Shadow};
use crate::telemetry::Metrics;

/// Questions that a candidate may be working on at once. It is no faster than the active version,
/// and must not take the instances that live requests need.
const MAX_AT_ONCE: usize = 16;

/// Differences that are remembered, the newest first.
const MAX_SAMPLES: usize = 20;

/// The longest path that a remembered difference shows, bytes.
const MAX_PATH_BYTES: usize = 200;

/// One candidate compared with one active version.
pub struct Trial {
    rules: Shadow,
    /// The candidate's version, or why its file cannot be read.
    source: Result<Arc<str>, String>,
    /// The active version that the candidate is compared with.
    active: Arc<LoadedPlugin>,
    candidate: OnceLock<Result<Arc<LoadedPlugin>, String>>,
    /// What loads it; it ends with the trial.
    loading: OnceLock<AbortOnDropHandle<()>>,
    watchers: Watchers,
    turns: Arc<Semaphore>,
    over: AtomicBool,
    seen: AtomicU64,
    score: Mutex<Score>,
}

/// Who is told how a trial goes.
#[derive(Clone)]
pub struct Watchers {
    /// Counts every answer.
    pub metrics: Arc<Metrics>,
    /// Told when a candidate has earned its promotion.
    pub earned: Arc<Notify>,
}

/// How a candidate fares.
#[derive(Debug, Clone, Default)]
pub struct Score {
    /// Answers of the candidate that mean the same as the active version's.
    pub agreed: u64,
    /// Answers that do not, failures among them.
    pub differed: u64,
    /// Failures of the candidate where the active version did not fail alike.
    pub failed: u64,
    /// Requests that were sampled and not compared: too many at once, or no fault of a version.
    pub dropped: u64,
    /// The newest differences, the newest first.
    pub differences: VecDeque<Disagreement>,
}

/// One request that the candidate decided differently. Without header values: they may be secrets.
#[derive(Debug, Clone, Serialize)]
pub struct Disagreement {
    #[serde(serialize_with = "as_timestamp")]
    at: SystemTime,
    method: String,
    path: String,
    differences: Vec<Difference>,
}

/// Where a trial stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrialState {
    /// The candidate is being compiled.
    Loading,
    /// It cannot be run.
    Unfit(String),
    /// It is asked and compared.
    Running,
    /// It agreed as often as its rules ask, and is to become the active version.
    Earned,
    /// It differed, and its rules end the trial there.
    Failed,
}

impl TrialState {
    /// The word for it.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Loading => "loading",
            Self::Unfit(_) => "unfit",
            Self::Running => "running",
            Self::Earned => "earned",
            Self::Failed => "failed",
        }
    }
}

impl Trial {
    /// A trial that begins when its candidate is loaded. Nobody waits for that.
    pub fn start(
        active: &Arc<LoadedPlugin>,
        rules: Shadow,
        source: Result<Arc<str>, String>,
        watchers: Watchers,
        loading: impl Future<Output = Result<LoadedPlugin, String>> + Send + 'static,
    ) -> Arc<Self> {
        let trial = Arc::new(Self {
            rules,
            source,
            active: Arc::clone(active),
            candidate: OnceLock::new(),
            loading: OnceLock::new(),
            watchers,
            turns: Arc::new(Semaphore::new(MAX_AT_ONCE)),
            over: AtomicBool::new(false),
            seen: AtomicU64::new(0),
            score: Mutex::default(),
        });
        let begun = Self::begin(Arc::downgrade(&trial), loading);
        trial.loading.get_or_init(|| AbortOnDropHandle::new(tokio::spawn(begun)));
        trial
    }

    /// Lets the candidate in once it is loaded, if its trial is still wanted by then.
    async fn begin(
        trial: Weak<Self>,
        loading: impl Future<Output = Result<LoadedPlugin, String>> + Send + 'static,
    ) {
        let loaded = loading.await;
        let Some(trial) = trial.upgrade() else { return };
        let plugin = &**trial.active.name();
        match &loaded {
            Ok(candidate) => {
                tracing::info!(plugin, version = &**candidate.version(), "a candidate is on trial");
            }
            Err(why) => tracing::error!(plugin, "the candidate {why}"),
        }
        trial.candidate.get_or_init(|| loaded.map(Arc::new));
    }

    /// The rules of the trial.
    pub fn rules(&self) -> &Shadow {
        &self.rules
    }

    /// The version that the candidate is compared with.
    pub fn active(&self) -> &Arc<LoadedPlugin> {
        &self.active
    }

    /// The candidate's version, or why its file cannot be read.
    pub fn source(&self) -> &Result<Arc<str>, String> {
        &self.source
    }

    /// The candidate, once it is loaded.
    pub fn candidate(&self) -> Option<&Arc<LoadedPlugin>> {
        self.candidate.get()?.as_ref().ok()
    }

    /// Where it stands.
    pub fn state(&self) -> TrialState {
        match self.candidate.get() {
            None => TrialState::Loading,
            Some(Err(why)) => TrialState::Unfit(why.clone()),
            Some(Ok(_)) if self.has_earned(&self.lock()) => TrialState::Earned,
            Some(Ok(_)) if self.over.load(Ordering::Relaxed) => TrialState::Failed,
            Some(Ok(_)) => TrialState::Running,
        }
    }

    /// How the candidate fares.
    pub fn score(&self) -> Score {
        self.lock().clone()
    }

    /// Asks the candidate what the active version has just decided, if this request is one of the
    /// sample. Never waits.
    pub fn observe(
        self: &Arc<Self>,
        head: &Arc<RequestHead>,
        directory: &Arc<dyn FindTenant>,
        decided: &Result<Decision, PluginFailure>,
    ) {
        let Some(Ok(candidate)) = self.candidate.get() else { return };
        if self.over.load(Ordering::Relaxed) || !self.samples_next() {
            return;
        }
        let turn = match Arc::clone(&self.turns).try_acquire_owned() {
            Ok(turn) if says_something(decided) => turn,
            _ => return self.drop_one(candidate),
        };
        let (trial, candidate) = (Arc::clone(self), Arc::clone(candidate));
        let (head, directory, expected) = (Arc::clone(head), Arc::clone(directory), decided.clone());
        // It ends within the plugin's own time limit, whatever becomes of the request or the trial.
        tokio::spawn(async move {
            let answered = candidate.ask(&head, directory, None).await.decided;
            match says_something(&answered) {
                true => trial.count(&candidate, &head, expected, answered),
                false => trial.drop_one(&candidate),
            }
            drop(turn);
        });
    }

    /// Every request's share of the sample is added up, and it is in where that fills a whole: a tenth
    /// is every tenth, without a die. Beyond 2^53 requests a share may be off by one.
    fn samples_next(&self) -> bool {
        let before = self.seen.fetch_add(1, Ordering::Relaxed) as f64;
        ((before + 1.0) * self.rules.sample).floor() > (before * self.rules.sample).floor()
    }

    fn count(
        &self,
        candidate: &LoadedPlugin,
        head: &RequestHead,
        expected: Result<Decision, PluginFailure>,
        answered: Result<Decision, PluginFailure>,
    ) {
        let failed = answered.is_err();
        let differences = differences(expected, answered);
        let mut score = self.lock();
        if differences.is_empty() {
            score.agreed += 1;
            self.watchers.metrics.plugin_tried(candidate.name(), "agreed");
            let earned = self.has_earned(&score);
            drop(score);
            if earned && !self.over.swap(true, Ordering::Relaxed) {
                self.watchers.earned.notify_one();
            }
            return;
        }
        score.differed += 1;
        score.failed += u64::from(failed);
        self.watchers.metrics.plugin_tried(candidate.name(), if failed { "failed" } else { "differed" });
        score.differences.push_front(Disagreement::new(head, differences));
        score.differences.truncate(MAX_SAMPLES);
        if self.rules.drop_on_difference {
            self.over.store(true, Ordering::Relaxed);
        }
    }

    fn drop_one(&self, candidate: &LoadedPlugin) {
        self.lock().dropped += 1;
        self.watchers.metrics.plugin_tried(candidate.name(), "dropped");
    }

    fn has_earned(&self, score: &Score) -> bool {
        score.differed == 0 && self.rules.promote_after.is_some_and(|wanted| score.agreed >= wanted.get())
    }

    fn lock(&self) -> MutexGuard<'_, Score> {
        self.score.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trial")
            .field("rules", &self.rules)
            .field("source", &self.source)
            .finish_non_exhaustive()
    }
}

impl Disagreement {
    fn new(head: &RequestHead, differences: Vec<Difference>) -> Self {
        let path = head.uri.path();
        Self {
            at: SystemTime::now(),
            method: head.method.to_string(),
            path: path[..path.floor_char_boundary(MAX_PATH_BYTES)].to_owned(),
            differences,
        }
    }
}

/// What differs by meaning: not the reason, and of headers only their names.
fn differences(
    expected: Result<Decision, PluginFailure>,
    answered: Result<Decision, PluginFailure>,
) -> Vec<Difference> {
    let mut expected = CaseAnswer::from(expected);
    if let CaseAnswer::Place(placement) = &mut expected {
        placement.reason = None;
    }
    let mut differences = expected.differences(&answered.into());
    for one in &mut differences {
        if one.field.starts_with("header ") || one.field == "message" {
            let presence = |text: &Option<String>| text.as_ref().map(|_| "[not shown]".to_owned());
            (one.expected, one.got) = (presence(&one.expected), presence(&one.got));
        }
    }
    differences
}

/// Whether an answer is a version's own word, and not the machine's or the directory's.
fn says_something(decided: &Result<Decision, PluginFailure>) -> bool {
    let circumstances =
        [FailureClass::Capacity, FailureClass::DirectoryUnavailable, FailureClass::BreakerOpen];
    !decided.as_ref().is_err_and(|failure| circumstances.contains(&failure.class))
}

fn as_timestamp<S: serde::Serializer>(at: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_rfc3339_millis(*at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::Placement;
    use crate::tenant::TenantId;

    fn place(tenant: &str, header: &str, reason: &str) -> Result<Decision, PluginFailure> {
        let tenant: TenantId = tenant.parse().unwrap();
        Ok(Decision::Place(Placement {
            headers: vec![("x-plan".parse().unwrap(), header.parse().unwrap())],
            reason: Some(reason.into()),
            ..Placement::from(tenant)
        }))
    }

    #[test]
    fn a_reason_is_no_difference_and_a_headers_value_is_not_shown() {
        assert!(differences(place("acme", "gold", "a"), place("acme", "gold", "b")).is_empty());
        let found = differences(place("acme", "gold", "a"), place("globex", "lead", "a"));
        let text = serde_json::to_string(&found).unwrap();
        assert_eq!(found.len(), 2, "{text}");
        assert!(text.contains("acme") && text.contains("globex") && text.contains("header x-plan"), "{text}");
        assert!(!text.contains("gold") && !text.contains("lead"), "{text}");
    }

    #[test]
    fn a_failure_is_a_difference_unless_both_fail_alike() {
        let failure = |class| Err(PluginFailure::new(class, "it happens"));
        assert!(differences(failure(FailureClass::Trap), failure(FailureClass::Trap)).is_empty());
        assert_eq!(differences(failure(FailureClass::Trap), failure(FailureClass::Memory)).len(), 1);
        assert_eq!(differences(Ok(Decision::Next), failure(FailureClass::Trap)).len(), 1);
    }
}
