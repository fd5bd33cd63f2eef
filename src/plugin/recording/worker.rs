//! Off the request path: from decided requests to cases, each asked once more before it is kept.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Weak};

use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use super::{LONGEST, MAX_BYTES, Recorder, Recording, Sample, redact};
use crate::plugin::failure::FailureClass;
use crate::plugin::loaded::LoadedPlugin;
use crate::policy::{Case, CaseAnswer};

/// Look-ups in which a decision on redacted inputs may stray from the recorded one.
const MAX_NEW_LOOK_UPS: usize = 16;

/// Different requests that are looked at. Where secrets are all that tells requests apart, few of
/// them become cases.
const MAX_DIFFERENT: usize = 100_000;

/// Makes cases until there are enough, or the plugin or its recorder is gone. It keeps neither
/// alive.
pub(super) async fn run(
    recorder: Weak<Recorder>,
    plugin: Weak<LoadedPlugin>,
    recording: Arc<Recording>,
    mut queue: mpsc::Receiver<Sample>,
) {
    let deadline = Instant::now() + LONGEST;
    let (mut seen, mut kept, hashes) = (HashSet::new(), HashSet::new(), RandomState::new());
    let why = loop {
        let sample = match timeout_at(deadline, queue.recv()).await {
            Ok(Some(sample)) => sample,
            Ok(None) => return,
            Err(_) => break "it ran out of time",
        };
        let Some(plugin) = plugin.upgrade() else { break "the plugin was replaced" };
        let Some(draft) = Draft::of(&sample, &recording) else { continue };
        // Most requests are like one before: these cost no second call.
        if !seen.insert(hashes.hash_one(draft.question())) {
            continue;
        }
        match draft.settle(&plugin, &recording).await {
            Some(case) if kept.insert(hashes.hash_one(case.body())) => recording.add(case),
            Some(_) => {}
            None => recording.lock().unrepeatable += 1,
        }
        if recording.count() >= recording.wanted {
            break "complete";
        }
        if recording.lock().bytes >= MAX_BYTES || seen.len() >= MAX_DIFFERENT {
            break "it is as long as it may get";
        }
    };
    if let Some(recorder) = recorder.upgrade() {
        recorder.end(&recording, why);
    }
}

/// A case that was not asked again yet.
struct Draft {
    case: Case,
    replaced: BTreeSet<String>,
}

impl Draft {
    /// `None` for a call whose end says nothing of its inputs.
    fn of(sample: &Sample, recording: &Recording) -> Option<Self> {
        let reads = sample.trace.reads();
        if reads.cut || !says_something(&sample.decided.clone().into()) {
            return None;
        }
        let (request, replaced) = redact::request(&sample.head, &reads, &recording.keep);
        let case = Case {
            name: String::new(),
            at: None,
            note: None,
            request: Arc::new(request),
            directory: reads.tenants,
            expected: redact::answer(sample.decided.clone().into(), &recording.keep),
        };
        Some(Self { case, replaced })
    }

    /// What decides how the plugin will answer. Where something was replaced, how it answered the
    /// secret says nothing.
    fn question(&self) -> String {
        if self.replaced.is_empty() {
            return self.case.body();
        }
        Case { directory: BTreeMap::new(), expected: CaseAnswer::Next, ..self.case.clone() }.body()
    }

    /// Asks the plugin again. A case in which something was replaced expects what comes now; any
    /// other must come out as it did.
    async fn settle(self, plugin: &LoadedPlugin, recording: &Recording) -> Option<Case> {
        let Self { mut case, replaced } = self;
        let mut replayed = plugin.replay(&case).await;
        if replaced.is_empty() {
            return replayed.agrees().then_some(case);
        }
        for _ in 0..MAX_NEW_LOOK_UPS {
            let Some(tenant) = replayed.unanswered else { break };
            case.directory.insert(tenant, None);
            replayed = plugin.replay(&case).await;
        }
        if replayed.unanswered.is_some() || !says_something(&replayed.answer) {
            return None;
        }
        // What was looked up for the secret's sake may be the secret.
        case.directory = replayed.reads.tenants;
        case.expected = redact::answer(replayed.answer, &recording.keep);
        let replaced: Vec<String> = replaced.into_iter().collect();
        case.note = Some(format!("Redacted: {}. Decided again on what stands here.", replaced.join(", ")));
        Some(case)
    }
}

impl Recording {
    fn add(&self, mut case: Case) {
        let mut progress = self.lock();
        case.name = format!("recorded {}: {}", progress.cases.len() + 1, case.expected);
        progress.bytes += case.to_string().len();
        progress.cases.push(case);
    }
}

/// Whether an answer follows from what the plugin read, and not from the machine's state.
fn says_something(answer: &CaseAnswer) -> bool {
    let circumstances = [
        FailureClass::Deadline,
        FailureClass::Capacity,
        FailureClass::DirectoryUnavailable,
        FailureClass::BreakerOpen,
    ];
    !matches!(answer, CaseAnswer::Failure(class) if circumstances.iter().any(|one| one.as_str() == class))
}
