//! Requests by tenant: the busiest have series of their own, the rest are `other`, so that the
//! policy bounds the labels and customers do not.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::mem;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

use crate::tenant::TenantId;

/// The label of all tenants without series of their own. A tenant of this name is one of them.
const OTHER: &str = "other";

/// How often the ranking is looked at, at most: often enough to follow a day, seldom enough that a
/// tenant which left was scraped once more.
const RENEWAL: Duration = Duration::from_secs(60);

/// Parts of the list of candidates, so that workers seldom wait for each other.
const SHARDS: usize = 8;
/// Candidates in each part where few tenants have series: a tenant with more than 1/512 of the
/// traffic is surely among them.
const CANDIDATES: usize = 64;

/// What became of a request, as a label: its own fault, or ours.
const CLASSES: [&str; 3] = ["ok", "client-error", "server-error"];

/// Requests by tenant.
pub struct TenantMetrics {
    board: RwLock<Board>,
    other: Series,
    candidates: [Mutex<Vec<Candidate>>; SHARDS],
    hasher: RandomState,
}

/// A finished request.
#[derive(Debug, Clone, Copy)]
pub struct Finished {
    /// The status that was sent.
    pub status: u16,
    /// From its head to the response's.
    pub took: Duration,
    /// Bytes of its body.
    pub received: u64,
    /// Bytes of its answer.
    pub sent: u64,
}

/// Who has series.
struct Board {
    shown: HashMap<TenantId, Series>,
    /// Those that had until the last renewal. They count no more, and are shown until the next:
    /// whoever scrapes at least that often has seen their last value.
    leaving: Vec<(TenantId, Series)>,
    most: usize,
    renewed: Instant,
}

#[derive(Default)]
struct Series {
    classes: [AtomicU64; CLASSES.len()],
    nanoseconds: AtomicU64,
    received: AtomicU64,
    sent: AtomicU64,
    /// Requests, those of the past counting half at each renewal.
    weight: AtomicU64,
}

/// A tenant without series, and how much it asks (Metwally's space-saving counters).
struct Candidate {
    tenant: TenantId,
    count: u64,
    /// What of the count may be others', who had the place before.
    inherited: u64,
}

impl TenantMetrics {
    pub(super) fn new() -> Self {
        let board = Board { shown: HashMap::new(), leaving: Vec::new(), most: 0, renewed: Instant::now() };
        Self {
            board: RwLock::new(board),
            other: Series::default(),
            candidates: Default::default(),
            hasher: RandomState::new(),
        }
    }

    /// Counts a request of a tenant, where at most so many tenants have series.
    pub fn count(&self, most: usize, tenant: &TenantId, finished: &Finished) {
        let board = self.board.read().unwrap_or_else(PoisonError::into_inner);
        if board.most == most {
            if let Some(series) = board.shown.get(tenant) {
                series.count(finished);
                return;
            }
            if !board.has_room_for(tenant) {
                self.other.count(finished);
                self.nominate(tenant, most);
                return;
            }
        }
        drop(board);
        let mut board = self.board.write().unwrap_or_else(PoisonError::into_inner);
        board.most = most;
        if !board.shown.contains_key(tenant) && board.has_room_for(tenant) {
            board.shown.insert(tenant.clone(), Series::default());
        }
        board.shown.get(tenant).unwrap_or(&self.other).count(finished);
    }

    fn nominate(&self, tenant: &TenantId, most: usize) {
        let hash = self.hasher.hash_one(tenant) % SHARDS as u64;
        let mut candidates = self.shard(usize::try_from(hash).expect("less than the number of shards"));
        if let Some(known) = candidates.iter_mut().find(|candidate| candidate.tenant == *tenant) {
            known.count += 1;
            return;
        }
        if candidates.len() < CANDIDATES.max(most / SHARDS) {
            candidates.push(Candidate { tenant: tenant.clone(), count: 1, inherited: 0 });
            return;
        }
        if let Some(least) = candidates.iter_mut().min_by_key(|candidate| candidate.count) {
            let inherited = least.count;
            *least = Candidate { tenant: tenant.clone(), count: inherited + 1, inherited };
        }
    }

    fn shard(&self, index: usize) -> MutexGuard<'_, Vec<Candidate>> {
        self.candidates[index].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ranks anew, once what there was has been shown.
    fn renew(&self, board: &mut Board) {
        // Whoever has just left waits a round, so that its series is gone before it begins again.
        let left = mem::take(&mut board.leaving);
        let may_enter = |tenant: &TenantId| {
            let known = board.shown.contains_key(tenant) || left.iter().any(|(left, _)| left == tenant);
            !known && tenant.as_str() != OTHER
        };
        let mut candidates: Vec<(u64, TenantId)> = Vec::new();
        for index in 0..SHARDS {
            let mut shard = self.shard(index);
            candidates.extend(shard.iter().map(|one| (one.count - one.inherited, one.tenant.clone())));
            for candidate in shard.iter_mut() {
                candidate.count /= 2;
                candidate.inherited /= 2;
            }
            shard.retain(|candidate| candidate.count > 0);
        }
        candidates.retain(|(_, tenant)| may_enter(tenant));
        candidates.sort_unstable_by(|one, other| other.cmp(one));
        let mut shown: Vec<(TenantId, Series)> = board.shown.drain().collect();
        shown.sort_unstable_by_key(|(_, series)| std::cmp::Reverse(series.weight.load(Ordering::Relaxed)));
        board.leaving = shown.split_off(board.most.min(shown.len()));
        for (weight, tenant) in candidates {
            if shown.len() == board.most {
                // One that asks as much stays: a change has its price for whoever draws a graph.
                let weaker = shown.pop_if(|(_, series)| series.weight.load(Ordering::Relaxed) < weight);
                let Some(weakest) = weaker else { break };
                board.leaving.push(weakest);
            }
            let series = Series { weight: AtomicU64::new(weight), ..Series::default() };
            shown.insert(0, (tenant, series));
        }
        for (_, series) in &shown {
            series.weight.store(series.weight.load(Ordering::Relaxed) / 2, Ordering::Relaxed);
        }
        board.shown = shown.into_iter().collect();
    }

    fn write(&self, board: &Board, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let shown = board.shown.iter().map(|(tenant, series)| (tenant.as_str(), series));
        let leaving = board.leaving.iter().map(|(tenant, series)| (tenant.as_str(), series));
        let mut all: Vec<(&str, &Series)> = shown.chain(leaving).chain([(OTHER, &self.other)]).collect();
        all.sort_unstable_by_key(|(tenant, _)| *tenant);
        let help = "Finished requests of the busiest tenants, and of all others";
        let mut family = encoder.encode_descriptor("tenant_requests", help, None, MetricType::Counter)?;
        for (tenant, series) in &all {
            for (class, count) in CLASSES.iter().zip(&series.classes) {
                let labels = [("tenant", *tenant), ("class", *class)];
                let count = count.load(Ordering::Relaxed);
                family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
            }
        }
        let help = "From their heads to their responses' heads, summed";
        let unit = Some(&Unit::Seconds);
        let mut family = encoder.encode_descriptor("tenant_request", help, unit, MetricType::Counter)?;
        for (tenant, series) in &all {
            let took = Duration::from_nanos(series.nanoseconds.load(Ordering::Relaxed)).as_secs_f64();
            family
                .encode_family(&[("tenant", *tenant)])?
                .encode_counter::<NoLabelSet, _, u64>(&took, None)?;
        }
        for (name, help, is_sent) in [
            ("tenant_received", "Bytes of their bodies", false),
            ("tenant_sent", "Bytes of their answers", true),
        ] {
            let unit = Some(&Unit::Bytes);
            let mut family = encoder.encode_descriptor(name, help, unit, MetricType::Counter)?;
            for (tenant, series) in &all {
                let count = if is_sent { &series.sent } else { &series.received };
                let count = count.load(Ordering::Relaxed);
                family
                    .encode_family(&[("tenant", *tenant)])?
                    .encode_counter::<NoLabelSet, _, u64>(&count, None)?;
            }
        }
        Ok(())
    }
}

impl Board {
    /// Whether a tenant that has no series may have one at once.
    fn has_room_for(&self, tenant: &TenantId) -> bool {
        let is_leaving = self.leaving.iter().any(|(left, _)| left == tenant);
        self.shown.len() < self.most && !is_leaving && tenant.as_str() != OTHER
    }
}

impl Collector for TenantMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut board = self.board.write().unwrap_or_else(PoisonError::into_inner);
        if board.most == 0 {
            return Ok(());
        }
        self.write(&board, &mut encoder)?;
        if board.renewed.elapsed() >= RENEWAL {
            self.renew(&mut board);
            board.renewed = Instant::now();
        }
        Ok(())
    }
}

impl Series {
    fn count(&self, finished: &Finished) {
        let class = match finished.status {
            ..400 => 0,
            400..500 => 1,
            500.. => 2,
        };
        let nanoseconds = u64::try_from(finished.took.as_nanos()).unwrap_or(u64::MAX);
        self.classes[class].fetch_add(1, Ordering::Relaxed);
        self.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
        self.received.fetch_add(finished.received, Ordering::Relaxed);
        self.sent.fetch_add(finished.sent, Ordering::Relaxed);
        self.weight.fetch_add(1, Ordering::Relaxed);
    }
}

impl fmt::Debug for TenantMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let board = self.board.read().unwrap_or_else(PoisonError::into_inner);
        f.debug_struct("TenantMetrics").field("shown", &board.shown.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;
    use proptest::prelude::*;
    use std::sync::Arc;

    use super::*;

    const ANSWER: Finished = Finished { status: 200, took: Duration::from_millis(250), received: 3, sent: 5 };

    fn id(number: impl fmt::Display) -> TenantId {
        format!("t{number}").parse().unwrap()
    }

    /// Requests by tenant, as they are shown.
    fn requests(metrics: &TenantMetrics) -> BTreeMap<String, u64> {
        let board = metrics.board.read().unwrap();
        let sum = |series: &Series| series.classes.iter().map(|class| class.load(Ordering::Relaxed)).sum();
        let shown = board.shown.iter().map(|(tenant, series)| (tenant.as_str().to_owned(), sum(series)));
        let leaving = board.leaving.iter().map(|(tenant, series)| (tenant.as_str().to_owned(), sum(series)));
        shown.chain(leaving).chain([(OTHER.to_owned(), sum(&metrics.other))]).collect()
    }

    fn renew(metrics: &TenantMetrics) {
        metrics.renew(&mut metrics.board.write().unwrap());
    }

    #[test]
    fn the_busiest_have_series_and_the_rest_are_other() {
        let metrics = TenantMetrics::new();
        for round in 0..100 {
            metrics.count(2, &id("busy"), &ANSWER);
            metrics.count(2, &id("busier"), &ANSWER);
            metrics.count(2, &id(round), &Finished { status: 503, ..ANSWER });
        }
        let mut registry = Registry::with_prefix("innkeeper");
        registry.register_collector(Box::new(Arc::new(metrics)));
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for line in [
            "innkeeper_tenant_requests_total{tenant=\"tbusy\",class=\"ok\"} 100",
            "innkeeper_tenant_requests_total{tenant=\"other\",class=\"server-error\"} 100",
            "innkeeper_tenant_request_seconds_total{tenant=\"tbusy\"} 25.0",
            "innkeeper_tenant_received_bytes_total{tenant=\"other\"} 300",
            "innkeeper_tenant_sent_bytes_total{tenant=\"tbusier\"} 500",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }

    #[test]
    fn a_tenant_that_grows_takes_the_place_of_one_that_fell_silent() {
        let metrics = TenantMetrics::new();
        (0..10).for_each(|_| metrics.count(1, &id("old"), &ANSWER));
        (0..30).for_each(|_| metrics.count(1, &id("new"), &ANSWER));
        renew(&metrics);
        metrics.count(1, &id("new"), &ANSWER);
        metrics.count(1, &id("old"), &ANSWER);
        let expected = [("other", 31), ("tnew", 1), ("told", 10)].map(|(name, n)| (name.to_owned(), n));
        assert_eq!(
            requests(&metrics),
            expected.into(),
            "the one that leaves is still shown, and stands still"
        );
        renew(&metrics);
        assert!(!requests(&metrics).contains_key("told"));
    }

    #[test]
    fn a_tenant_called_other_and_a_smaller_number_are_no_trouble() {
        let metrics = TenantMetrics::new();
        metrics.count(2, &"other".parse().unwrap(), &ANSWER);
        metrics.count(2, &id(1), &ANSWER);
        metrics.count(2, &id(2), &ANSWER);
        metrics.count(1, &id(1), &ANSWER);
        renew(&metrics);
        renew(&metrics);
        let all = requests(&metrics);
        assert_eq!(all.len(), 2, "{all:?}");
        assert_eq!(all["other"], 1);
    }

    proptest! {
        #[test]
        fn what_is_shown_adds_up_and_never_goes_back(
            steps in proptest::collection::vec((0_u8..40, any::<bool>()), 1..800),
        ) {
            let metrics = TenantMetrics::new();
            let (mut total, mut seen) = (0, BTreeMap::<String, u64>::new());
            for (count, (tenant, renews)) in steps.into_iter().enumerate() {
                metrics.count(4, &id(tenant), &ANSWER);
                let shown = requests(&metrics);
                prop_assert!(shown.len() <= 9, "four, as many that leave, and the others");
                for (name, now) in &shown {
                    let before = seen.get(name).copied().unwrap_or(0);
                    prop_assert!(*now >= before, "{name} went back from {before} to {now}");
                    total += now - before;
                }
                prop_assert_eq!(total, count as u64 + 1, "what a scraper adds up is what there was");
                seen = shown;
                if renews {
                    renew(&metrics);
                    seen.retain(|name, _| requests(&metrics).contains_key(name));
                }
            }
        }
    }
}
