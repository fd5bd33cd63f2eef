//! Asks a plugin what a case asks, in the world that the case describes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::failure::PluginFailure;
use super::loaded::LoadedPlugin;
use super::trace::{Reads, Trace};
use crate::decision::{Decision, DirectoryUnavailable, FindTenant, Lookup};
use crate::policy::{Case, CaseAnswer, Difference};
use crate::tenant::{Tenant, TenantId, TenantSchema, TenantState};

/// What a plugin made of a case.
#[derive(Debug, Clone)]
pub struct Replayed {
    /// What it answered.
    pub answer: CaseAnswer,
    /// What differs from what the case expects.
    pub differences: Vec<Difference>,
    /// Why it failed, if it did.
    pub failure: Option<PluginFailure>,
    /// What it read.
    pub reads: Reads,
    /// The tenant that it looked up and that the case says nothing of. The call ended there.
    pub unanswered: Option<TenantId>,
}

impl Replayed {
    /// Whether the plugin answered as expected, in a world that had every answer.
    pub fn agrees(&self) -> bool {
        self.differences.is_empty() && self.unanswered.is_none()
    }
}

impl LoadedPlugin {
    /// Asks the plugin what `case` asks, and compares.
    pub async fn replay(&self, case: &Case) -> Replayed {
        let directory =
            Arc::new(CaseDirectory { answers: case.directory.clone(), unanswered: Mutex::default() });
        let trace: Arc<Trace> = Arc::default();
        let asked: Arc<dyn FindTenant> = Arc::<CaseDirectory>::clone(&directory);
        let decided = self.resolve_traced(&case.request, asked, Arc::clone(&trace)).await;
        let failure = decided.as_ref().err().cloned();
        let answer = CaseAnswer::from(decided);
        let unanswered = directory.unanswered.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let differences = case.expected.differences(&answer);
        Replayed { answer, differences, failure, reads: trace.reads(), unanswered }
    }
}

impl From<Result<Decision, PluginFailure>> for CaseAnswer {
    fn from(decided: Result<Decision, PluginFailure>) -> Self {
        match decided {
            Ok(decision) => decision.into(),
            Err(failure) => Self::Failure(failure.class.as_str().to_owned()),
        }
    }
}

/// Knows what a case says, and notes what it does not.
struct CaseDirectory {
    answers: BTreeMap<TenantId, Option<TenantSchema>>,
    unanswered: Mutex<Option<TenantId>>,
}

impl FindTenant for CaseDirectory {
    fn find<'a>(&'a self, id: &'a TenantId) -> Lookup<'a> {
        let found = match self.answers.get(id) {
            Some(known) => Ok(known.as_ref().map(|schema| Arc::new(tenant(id, schema)))),
            None => {
                *self.unanswered.lock().unwrap_or_else(PoisonError::into_inner) = Some(id.clone());
                Err(DirectoryUnavailable(format!("the case says nothing of `{id}`").into()))
            }
        };
        Box::pin(std::future::ready(found))
    }
}

fn tenant(id: &TenantId, schema: &TenantSchema) -> Tenant {
    Tenant {
        id: id.clone(),
        schema: schema.clone(),
        role: None,
        database: None,
        state: TenantState::Active,
        isolation: None,
        limits: None,
    }
}
