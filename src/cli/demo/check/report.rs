//! What the check found: a short table for people, JSON for scripts.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::swaps::Swaps;
use super::tally::{AFTERWARDS, Tally};

/// What the check found.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    ok: bool,
    requests: u64,
    wrong_tenant: u64,
    failures: u64,
    seconds: f64,
    latency: Latency,
    policy_swaps: u64,
    plugin_swaps: u64,
    refused_policies: u64,
    slowest_policy_swap_ms: f64,
    slowest_plugin_swap_ms: f64,
    kinds: Vec<Kind>,
    complaints: BTreeMap<&'static str, Vec<String>>,
}

/// One kind of request.
#[derive(Debug, Serialize)]
struct Kind {
    kind: &'static str,
    requests: u64,
    wrong_tenant: u64,
    failures: u64,
    latency: Latency,
}

/// Latencies, as the client saw them.
#[derive(Debug, Default, Clone, Copy, Serialize)]
struct Latency {
    p50_ms: f64,
    p99_ms: f64,
}

impl Report {
    /// Sums up.
    pub(super) fn new(tally: Tally, swaps: &Swaps, took: Duration) -> Self {
        let Tally { latencies, wrong_tenant, failures, complaints, written: _ } = tally;
        let mut all: Vec<u32> = latencies.values().flatten().copied().collect();
        let kinds = latencies
            .into_iter()
            .map(|(kind, mut latencies)| Kind {
                kind,
                requests: latencies.len() as u64,
                wrong_tenant: wrong_tenant.get(kind).copied().unwrap_or(0),
                failures: failures.get(kind).copied().unwrap_or(0),
                latency: Latency::of(&mut latencies),
            })
            .chain(failures.get(AFTERWARDS).map(|&failures| Kind {
                kind: AFTERWARDS,
                requests: 0,
                wrong_tenant: 0,
                failures,
                latency: Latency::default(),
            }))
            .collect();
        let (wrong_tenant, failures) = (wrong_tenant.values().sum(), failures.values().sum());
        Self {
            ok: wrong_tenant == 0 && failures == 0 && !all.is_empty(),
            requests: all.len() as u64,
            wrong_tenant,
            failures,
            seconds: took.as_secs_f64(),
            latency: Latency::of(&mut all),
            policy_swaps: swaps.policies,
            plugin_swaps: swaps.plugins,
            refused_policies: swaps.refused,
            slowest_policy_swap_ms: milliseconds(swaps.slowest_policy),
            slowest_plugin_swap_ms: milliseconds(swaps.slowest_plugin),
            kinds,
            complaints,
        }
    }

    /// Whether there was neither a wrong tenant nor a failure.
    pub(crate) fn is_good(&self) -> bool {
        self.ok
    }
}

impl Latency {
    fn of(microseconds: &mut [u32]) -> Self {
        microseconds.sort_unstable();
        let at = |percent: usize| {
            let index = (microseconds.len() * percent).div_ceil(100).saturating_sub(1);
            microseconds.get(index).map_or(0.0, |&found| f64::from(found) / 1000.0)
        };
        Self { p50_ms: at(50), p99_ms: at(99) }
    }
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<22} {:>9} {:>13} {:>9} {:>9} {:>9}",
            "", "requests", "wrong tenant", "failures", "p50 ms", "p99 ms"
        )?;
        let total = Kind {
            kind: "all",
            requests: self.requests,
            wrong_tenant: self.wrong_tenant,
            failures: self.failures,
            latency: self.latency,
        };
        for kind in self.kinds.iter().chain([&total]) {
            writeln!(
                f,
                "{:<22} {:>9} {:>13} {:>9} {:>9.2} {:>9.2}",
                kind.kind,
                kind.requests,
                kind.wrong_tenant,
                kind.failures,
                kind.latency.p50_ms,
                kind.latency.p99_ms
            )?;
        }
        writeln!(
            f,
            "\n{:.1} s; meanwhile {} policies (slowest in force after {:.0} ms) and {} plugins ({:.0} ms) were \
             swapped, {} broken policies refused",
            self.seconds,
            self.policy_swaps,
            self.slowest_policy_swap_ms,
            self.plugin_swaps,
            self.slowest_plugin_swap_ms,
            self.refused_policies
        )?;
        for (kind, complaints) in &self.complaints {
            for complaint in complaints {
                writeln!(f, "- {kind}: {complaint}")?;
            }
        }
        let verdict = if self.ok { "every answer was right" } else { "NOT every answer was right" };
        writeln!(f, "{verdict}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let mut hundred: Vec<u32> = (1..=100).rev().map(|n| n * 1000).collect();
        let Latency { p50_ms, p99_ms } = Latency::of(&mut hundred);
        assert_eq!((p50_ms, p99_ms), (50.0, 99.0));
        assert_eq!(Latency::of(&mut [7000]).p99_ms, 7.0);
        assert_eq!(Latency::of(&mut []).p50_ms, 0.0);
    }

    #[test]
    fn a_failure_after_the_requests_counts_and_nothing_sent_is_not_good() {
        let report = |tally| Report::new(tally, &Swaps::default(), Duration::from_secs(1));
        assert!(!report(Tally::default()).is_good());
        let mut good = Tally::default();
        good.latencies.insert("query", vec![1000]);
        let mut bad = Tally::default();
        bad.merge(good);
        bad.fail("a row is missing".into());
        assert!(!report(bad).is_good());
        let mut good = Tally::default();
        good.latencies.insert("query", vec![1000]);
        assert!(report(good).is_good());
    }
}
