//! Counting: what each client saw, and the running sum of it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::cases::Case;
use super::expected::Verdict;

/// How many complaints of a kind are kept in full: the first ones tell the most.
const COMPLAINTS_OF_A_KIND: usize = 2;

/// What one client saw; summed up at the end.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Latencies of each kind of request, in microseconds.
    pub(super) latencies: BTreeMap<&'static str, Vec<u32>>,
    /// Wrong-tenant answers of each kind.
    pub(super) wrong_tenant: BTreeMap<&'static str, u64>,
    /// Failures of each kind.
    pub(super) failures: BTreeMap<&'static str, u64>,
    /// Rows that were acknowledged, by tenant.
    pub(super) written: BTreeMap<&'static str, u64>,
    /// The first complaints of each kind.
    pub(super) complaints: BTreeMap<&'static str, Vec<String>>,
}

/// Failures that belong to no request.
pub(super) const AFTERWARDS: &str = "afterwards";

impl Tally {
    /// Counts an answer.
    pub(super) fn count(&mut self, case: &Case, verdict: Verdict, took: Duration) {
        let microseconds = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
        self.latencies.entry(case.kind).or_default().push(microseconds);
        let (counts, complaint) = match verdict {
            Verdict::Right => {
                if let Some(tenant) = case.expected.writes_for() {
                    *self.written.entry(tenant).or_default() += 1;
                }
                return;
            }
            Verdict::WrongTenant(complaint) => (&mut self.wrong_tenant, complaint),
            Verdict::Failed(complaint) => (&mut self.failures, complaint),
        };
        *counts.entry(case.kind).or_default() += 1;
        let (method, uri) = (case.request.method(), case.request.uri());
        self.complain(case.kind, format!("{method} {}: {complaint}", uri.path()));
    }

    /// Counts a failure that belongs to no request.
    pub(super) fn fail(&mut self, complaint: String) {
        *self.failures.entry(AFTERWARDS).or_default() += 1;
        self.complain(AFTERWARDS, complaint);
    }

    /// Adds what another client saw.
    pub(super) fn merge(&mut self, other: Self) {
        for (kind, latencies) in other.latencies {
            self.latencies.entry(kind).or_default().extend(latencies);
        }
        add(&mut self.wrong_tenant, other.wrong_tenant);
        add(&mut self.failures, other.failures);
        add(&mut self.written, other.written);
        for (kind, complaints) in other.complaints {
            complaints.into_iter().for_each(|complaint| self.complain(kind, complaint));
        }
    }

    fn complain(&mut self, kind: &'static str, complaint: String) {
        let complaints = self.complaints.entry(kind).or_default();
        if complaints.len() < COMPLAINTS_OF_A_KIND {
            complaints.push(complaint);
        }
    }
}

fn add(sums: &mut BTreeMap<&'static str, u64>, others: BTreeMap<&'static str, u64>) {
    for (key, count) in others {
        *sums.entry(key).or_default() += count;
    }
}

/// The running sum, for whoever watches.
#[derive(Debug, Default)]
pub(super) struct Progress {
    requests: AtomicU64,
    wrong_tenant: AtomicU64,
    failures: AtomicU64,
    /// Policies that took effect.
    pub(super) policies: AtomicU64,
    /// Plugins that took effect.
    pub(super) plugins: AtomicU64,
    /// Broken policies that were refused.
    pub(super) refused: AtomicU64,
}

impl Progress {
    /// Counts an answer.
    pub(super) fn count(&self, verdict: &Verdict) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        match verdict {
            Verdict::Right => {}
            Verdict::WrongTenant(_) => drop(self.wrong_tenant.fetch_add(1, Ordering::Relaxed)),
            Verdict::Failed(_) => drop(self.failures.fetch_add(1, Ordering::Relaxed)),
        }
    }

    /// Answers so far.
    pub(super) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Whether a policy and a plugin took effect, and a broken policy was refused.
    pub(super) fn every_swap_was_seen(&self) -> bool {
        [&self.policies, &self.plugins, &self.refused].iter().all(|count| count.load(Ordering::Relaxed) > 0)
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        write!(
            f,
            "{} requests, {} policies and {} plugins swapped, {} wrong tenants, {} failures",
            self.requests(),
            read(&self.policies),
            read(&self.plugins),
            read(&self.wrong_tenant),
            read(&self.failures)
        )
    }
}
