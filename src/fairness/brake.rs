//! Slows down whoever is refused and asks again at once: over so many refusals a second on one account,
//! a tenant's or a failing plugin's, the next one comes later.
//!
//! A limit keeps a tenant from the database and from upstreams, but not from the processor: hundreds of
//! connections that ask again as soon as they are refused take all of it for refusals. Each of them waits
//! for its answer, so a late one slows them down, and nobody else.

use std::collections::HashMap;
use std::hash::Hash;
use std::num::NonZeroU64;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::bucket::Bucket;
use crate::tenant::Quota;

/// Refusals on one account in a second that are not slowed down: about a hundredth of a processor.
const REFUSALS: u64 = 200;

/// Refusals at once that are not slowed down, such as those of a page that asks for much.
const BURST: u64 = 20;

/// The latest that a refusal comes: well before clients give up on an answer.
const LATEST: Duration = Duration::from_secs(5);

/// Accounts that are remembered before those with nothing to pay are looked for.
const FIRST_SWEEP: usize = 64;

/// How often requests were refused of late, on whose account. It remembers accounts for as long as their
/// refusals are slowed down, and some for a moment longer.
pub(super) struct Brake<K> {
    quota: Quota,
    // Held for a few instructions, never across an await.
    accounts: Mutex<Accounts<K>>,
}

struct Accounts<K> {
    refused: HashMap<K, Bucket>,
    sweep_at: usize,
}

impl<K: Clone + Eq + Hash> Brake<K> {
    pub(super) fn new() -> Self {
        let nonzero = |count| NonZeroU64::new(count).expect("neither is zero");
        let quota = Quota::new(nonzero(REFUSALS), Duration::from_secs(1), nonzero(BURST));
        Self { quota, accounts: Mutex::new(Accounts { refused: HashMap::new(), sweep_at: FIRST_SWEEP }) }
    }

    /// Counts a refusal, and says how long to wait with it.
    pub(super) fn count(&self, account: &K, now: Duration) -> Duration {
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bucket) = accounts.refused.get_mut(account) {
            // Not counted beyond that, or the refusals of an hour would have to be paid for.
            let due = bucket.debt(&self.quota, now);
            return if due < LATEST { bucket.owe(&self.quota, 1, now).min(LATEST) } else { LATEST };
        }
        if accounts.refused.len() >= accounts.sweep_at {
            accounts.refused.retain(|_, bucket| !bucket.is_full(now));
            accounts.sweep_at = FIRST_SWEEP.max(accounts.refused.len() * 2);
        }
        accounts.refused.entry(account.clone()).or_default().owe(&self.quota, 1, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tenant::TenantId;

    const START: Duration = Duration::from_secs(1000);

    fn tenant(name: &str) -> TenantId {
        name.parse().unwrap()
    }

    #[test]
    fn a_few_refusals_are_not_slowed_down_and_many_are_spread_over_time() {
        let brake = Brake::new();
        let (flooding, other) = (tenant("flooding"), tenant("other"));
        let waits: Vec<_> = (0..BURST + REFUSALS).map(|_| brake.count(&flooding, START)).collect();
        assert!(waits[..20].iter().all(Duration::is_zero), "{waits:?}");
        assert!(waits[20..].windows(2).all(|pair| pair[0] < pair[1]), "{waits:?}");
        assert_eq!(waits[waits.len() - 1], Duration::from_secs(1));
        assert_eq!(brake.count(&other, START), Duration::ZERO);
        assert_eq!(brake.count(&flooding, START + Duration::from_secs(3)), Duration::ZERO);
    }

    #[test]
    fn no_refusal_comes_later_than_clients_wait() {
        let brake = Brake::new();
        let flooding = tenant("flooding");
        let waits: Vec<_> = (0..100_000).map(|_| brake.count(&flooding, START)).collect();
        assert_eq!(waits.iter().max(), Some(&LATEST));
        assert_eq!(brake.count(&flooding, START + LATEST + Duration::from_secs(1)), Duration::ZERO);
    }

    #[test]
    fn accounts_with_nothing_to_pay_are_forgotten() {
        let brake = Brake::new();
        for number in 0..10_000_u32 {
            brake.count(&tenant(&format!("t-{number}")), START + Duration::from_secs(1) * number);
        }
        assert!(brake.accounts.lock().unwrap().refused.len() <= FIRST_SWEEP);
    }
}
