//! Asks a plugin what a case asks, in the world that the case describes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use http::{HeaderName, HeaderValue};

use super::failure::PluginFailure;
use super::loaded::LoadedPlugin;
use super::recording::Keep;
use super::trace::{Reads, Trace};
use crate::decision::{Decision, DirectoryUnavailable, FindTenant, Lookup, Placement};
use crate::policy::{Case, CaseAnswer, Difference, REDACTED};
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

    /// What the case must expect so that the plugin agrees: what came, as far as the case says such a thing.
    /// A header that it did not name is written as a recording writes it, without a secret.
    pub fn expectation(&self, case: &Case) -> CaseAnswer {
        match (&case.expected, self.answer.clone()) {
            (
                CaseAnswer::Deny { code, message, .. },
                CaseAnswer::Deny { status, code: came, message: said },
            ) => CaseAnswer::Deny {
                status,
                code: came.filter(|_| code.is_some()),
                message: said.filter(|_| message.is_some()),
            },
            (expected, CaseAnswer::Place(came)) => {
                let expected = match expected {
                    CaseAnswer::Place(expected) => Some(expected),
                    _ => None,
                };
                CaseAnswer::Place(placement(expected, came))
            }
            (_, came) => came,
        }
    }
}

fn placement(expected: Option<&Placement>, came: Placement) -> Placement {
    let written = |name: &HeaderName| {
        expected.into_iter().flat_map(|expected| &expected.headers).find(|(known, _)| known == name)
    };
    let headers = came.headers.into_iter().map(|(name, value)| {
        let hidden = match written(&name) {
            Some((_, written)) => written == REDACTED,
            None => Keep::default().hides(name.as_str(), &String::from_utf8_lossy(value.as_bytes())),
        };
        let value = if hidden { HeaderValue::from_static(REDACTED) } else { value };
        (name, value)
    });
    let says_why = expected.is_some_and(|expected| expected.reason.is_some());
    Placement { headers: headers.collect(), reason: came.reason.filter(|_| says_why), ..came }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Cases;

    fn expectation(expected: &str, answer: &str) -> String {
        let case = |expect: &str| {
            let text = format!("cases: [ {{ name: it, expect: {expect} }} ]");
            Cases::read("cases.yaml".as_ref(), &text).unwrap().cases.remove(0)
        };
        let answer = case(answer).expected;
        let replayed = Replayed {
            answer,
            differences: Vec::new(),
            failure: None,
            reads: Arc::<Trace>::default().reads(),
            unanswered: None,
        };
        replayed.expectation(&case(expected)).to_json().to_string()
    }

    #[test]
    fn an_expectation_leaves_open_what_it_left_open() {
        let deny = "{ deny: { status: 403, code: a, message: b } }";
        assert_eq!(expectation("{ deny: { status: 401 } }", deny), r#"{"deny":{"status":403}}"#);
        assert_eq!(
            expectation("{ deny: { status: 401, code: x } }", deny),
            r#"{"deny":{"status":403,"code":"a"}}"#
        );
        assert_eq!(
            expectation("{ next: true }", deny),
            r#"{"deny":{"status":403,"code":"a","message":"b"}}"#
        );
        let place = "{ tenant: acme, reason: habit }";
        assert_eq!(expectation("{ tenant: globex }", place), r#"{"tenant":"acme"}"#);
        assert_eq!(
            expectation("{ tenant: globex, reason: x }", place),
            r#"{"tenant":"acme","reason":"habit"}"#
        );
    }

    #[test]
    fn a_secret_gets_into_a_file_only_where_one_was_spelt_out() {
        let came = "{ tenant: acme, headers: { x-token: s3cret, x-plan: gold } }";
        let hidden = r#"{"tenant":"acme","headers":{"x-token":"[redacted]","x-plan":"gold"}}"#;
        assert_eq!(expectation("{ tenant: acme }", came), hidden);
        assert_eq!(expectation("{ next: true }", came), hidden);
        assert_eq!(expectation("{ tenant: a, headers: { x-token: '[redacted]' } }", came), hidden);
        assert_eq!(
            expectation("{ tenant: a, headers: { x-token: old, x-plan: '[redacted]' } }", came),
            r#"{"tenant":"acme","headers":{"x-token":"s3cret","x-plan":"[redacted]"}}"#
        );
    }
}
