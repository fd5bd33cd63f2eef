//! Rehearses a policy: its inline tests, run before it may serve.

use std::sync::Arc;

use crate::decision::{RequestHead, host_of};
use crate::error::{Code, Refusal};
use crate::policy::{Diagnostic, DirectorySource, Expectation, SampleRequest};

use super::{Caller, Snapshot, Trail};

/// What became of a request that is never sent.
#[derive(Debug, Default)]
struct Outcome {
    route: Option<String>,
    tenant: Option<Option<String>>,
    schema: Option<String>,
    refusal: Option<Refusal>,
}

impl Snapshot {
    /// Runs every inline test of the policy and gives those that failed. A directory in a database is not asked: a test of
    /// the mapping must not depend on rows, so such a test ends at the resolved tenant.
    pub(super) async fn rehearse(&self) -> Vec<Diagnostic> {
        let mut failed = Vec::new();
        for test in &self.policy.tests {
            let differences = compare(test, &self.outcome(&test.request).await);
            if !differences.is_empty() {
                failed.push(Diagnostic::failed_test(test, &differences.join("; ")));
            }
        }
        failed
    }

    async fn outcome(&self, sample: &SampleRequest) -> Outcome {
        let mut outcome = Outcome::default();
        if let Err(refusal) = self.follow(sample, &mut outcome).await {
            outcome.refusal = Some(refusal);
        }
        outcome
    }

    async fn follow(&self, sample: &SampleRequest, outcome: &mut Outcome) -> Result<(), Refusal> {
        let head = Arc::new(sample.head());
        let matched = self.route(&head)?;
        outcome.route = Some(matched.counts().route().to_string());
        let mut trail = Trail::rehearsing();
        if matches!(self.policy.directory, Some(DirectorySource::Table(_))) {
            let resolution = matched.resolve(&head, &mut trail).await?;
            outcome.tenant = Some(resolution.map(|resolution| resolution.placement.tenant.to_string()));
            return Ok(());
        }
        match matched.admit(&head, &mut trail).await? {
            Caller::NoTenant => outcome.tenant = Some(None),
            Caller::Tenant { admitted, .. } => {
                outcome.tenant = Some(Some(admitted.tenant().id.to_string()));
                outcome.schema = Some(admitted.tenant().schema.as_str().to_owned());
            }
        }
        Ok(())
    }
}

impl SampleRequest {
    /// The head that a client would send.
    pub fn head(&self) -> RequestHead {
        let nowhere = RequestHead::default();
        RequestHead {
            method: self.method.clone(),
            authority: self.host.clone(),
            host: host_of(&self.host),
            uri: self.uri.clone(),
            headers: self.headers.clone(),
            local: self.listener.clone().unwrap_or(nowhere.local),
            ..nowhere
        }
    }
}

fn compare(test: &Expectation, outcome: &Outcome) -> Vec<String> {
    let expected = &test.expected;
    let mut differences = Vec::new();
    let mut differ = |what: &str, wanted: &str, got: &str| {
        differences.push(format!("expected {what} {wanted}, got {got}"));
    };
    let refused = outcome.refusal.as_ref();
    let refusal_text = refused.map(|refusal| format!("the refusal {refusal}"));
    let got = |value: Option<&str>| match (value, &refusal_text) {
        (Some(value), _) => format!("`{value}`"),
        (None, Some(refusal)) => refusal.clone(),
        (None, None) => "none".to_owned(),
    };
    if let Some(route) = &expected.route
        && outcome.route.as_ref() != Some(route)
    {
        differ("route", &format!("`{route}`"), &got(outcome.route.as_deref()));
    }
    if let Some(tenant) = &expected.tenant
        && outcome.tenant.as_ref() != Some(tenant)
    {
        let wanted = tenant.as_ref().map_or("none".to_owned(), |tenant| format!("`{tenant}`"));
        differ("tenant", &wanted, &got(outcome.tenant.as_ref().and_then(Option::as_deref)));
    }
    if let Some(schema) = &expected.schema
        && outcome.schema.as_ref() != Some(schema)
    {
        differ("schema", &format!("`{schema}`"), &got(outcome.schema.as_deref()));
    }
    if let Some(error) = &expected.error
        && !refused.is_some_and(|refusal| is_called(refusal, error))
    {
        differ("error", &format!("`{error}`"), &refusal_text.clone().unwrap_or_else(|| "no refusal".into()));
    }
    if let Some(status) = expected.status
        && refused.map(|refusal| refusal.status().as_u16()) != Some(status)
    {
        differ("status", &status.to_string(), &refusal_text.clone().unwrap_or_else(|| "no refusal".into()));
    }
    let refusal_expected = expected.error.is_some() || expected.status.is_some();
    if let Some(refusal) = &refusal_text
        && !refusal_expected
        && differences.is_empty()
    {
        differences.push(format!("expected the request to be served, got {refusal}"));
    }
    differences
}

fn is_called(refusal: &Refusal, name: &str) -> bool {
    refusal.code().as_str() == name
        || (refusal.code() == Code::Denied && refusal.extension().is_some_and(|(_, code)| code == name))
}
