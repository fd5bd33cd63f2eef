//! What is sent again: requests that are safe to repeat, within a budget that keeps retries from
//! doubling the load on an upstream that is down.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::Method;
use tokio::time::Instant;

use crate::policy::Retries;

/// How long what was earned or spent counts.
const MEMORY: Duration = Duration::from_secs(10);
/// Tenants whose spending is remembered before those who spent next to nothing are forgotten.
const MANY_TENANTS: usize = 1000;
/// Spending that is next to nothing.
const NOTHING: f64 = 0.1;

/// Methods that change nothing, so that a repetition does no harm (RFC 9110, section 9.2.1).
pub(super) fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE)
}

/// Methods that may be repeated: doing it twice is doing it once (RFC 9110, section 9.2.2).
pub(super) fn is_idempotent(method: &Method) -> bool {
    is_safe(method) || matches!(*method, Method::PUT | Method::DELETE)
}

/// Retries that may still be made. Requests pay in by being counted; nothing is done for them here
/// until one is to be sent again.
pub(super) struct Budget {
    share: f64,
    floor: f64,
    account: Mutex<Account>,
}

struct Account {
    balance: f64,
    requests: u64,
    at: Instant,
    /// What each tenant spent lately.
    spent: HashMap<Box<str>, f64>,
}

impl Budget {
    /// A budget with its floor; `requests` is how many there have been before it.
    pub(super) fn new(rules: &Retries, requests: u64, now: Instant) -> Self {
        let floor = f64::from(rules.floor);
        let balance = floor * MEMORY.as_secs_f64();
        let account = Account { balance, requests, at: now, spent: HashMap::new() };
        Self { share: rules.budget, floor, account: Mutex::new(account) }
    }

    /// Takes one retry out, if there is one to take; `requests` is how many there have been in all.
    /// A tenant gets none once it has spent as much as is left for everyone else.
    pub(super) fn withdraw(&self, tenant: Option<&str>, requests: u64, now: Instant) -> bool {
        let mut account = self.account.lock().unwrap_or_else(PoisonError::into_inner);
        account.settle(self, requests, now);
        if account.balance < 1.0 {
            return false;
        }
        if let Some(tenant) = tenant {
            let spent = account.spent.get(tenant).copied().unwrap_or(0.0);
            if spent + 1.0 > account.balance {
                return false;
            }
            if account.spent.len() >= MANY_TENANTS {
                account.spent.retain(|_, spent| *spent > NOTHING);
            }
            account.spent.insert(tenant.into(), spent + 1.0);
        }
        account.balance -= 1.0;
        true
    }
}

impl Account {
    /// Pays in what was earned since the last look, and lets go of what is too old.
    fn settle(&mut self, budget: &Budget, requests: u64, now: Instant) {
        let (memory, elapsed) = (MEMORY.as_secs_f64(), now.saturating_duration_since(self.at).as_secs_f64());
        let kept = (1.0 - elapsed / memory).max(0.0);
        let fresh = requests.saturating_sub(self.requests) as f64;
        let earned = budget.share * fresh + budget.floor * elapsed;
        // Of what was earned over a longer time, only the last seconds count.
        let counted = if elapsed > memory { memory / elapsed } else { 1.0 };
        self.balance = self.balance * kept + earned * counted;
        for spent in self.spent.values_mut() {
            *spent *= kept;
        }
        (self.requests, self.at) = (requests, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(share: f64, floor: u32, now: Instant) -> Budget {
        Budget::new(&Retries { budget: share, floor, ..Retries::default() }, 0, now)
    }

    fn withdrawn(budget: &Budget, tenant: Option<&str>, requests: u64, now: Instant) -> u32 {
        (0..10_000).map(|_| u32::from(budget.withdraw(tenant, requests, now))).sum()
    }

    #[test]
    fn a_floor_is_there_from_the_start_and_comes_again() {
        let start = Instant::now();
        let budget = budget(0.2, 3, start);
        assert_eq!(withdrawn(&budget, None, 0, start), 30);
        assert_eq!(withdrawn(&budget, None, 0, start + Duration::from_secs(2)), 6);
        assert_eq!(withdrawn(&budget, None, 0, start + Duration::from_secs(3600)), 30);
    }

    #[test]
    fn requests_earn_their_share() {
        let start = Instant::now();
        let budget = budget(0.2, 0, start);
        assert_eq!(withdrawn(&budget, None, 0, start), 0);
        assert_eq!(withdrawn(&budget, None, 1000, start + Duration::from_secs(5)), 200);
        // Over a hundred seconds only the last ten count.
        assert_eq!(withdrawn(&budget, None, 11_001, start + Duration::from_secs(105)), 200);
    }

    #[test]
    fn one_tenant_leaves_as_much_as_it_takes() {
        let start = Instant::now();
        let budget = budget(0.2, 10, start);
        assert_eq!(withdrawn(&budget, Some("noisy"), 0, start), 50);
        assert_eq!(withdrawn(&budget, Some("quiet"), 0, start), 25);
        assert!(!budget.withdraw(Some("noisy"), 0, start));
        assert!(budget.withdraw(None, 0, start));
        assert!(budget.withdraw(Some("noisy"), 0, start + Duration::from_secs(11)));
    }

    #[test]
    fn tenants_who_spent_nothing_lately_are_forgotten() {
        let start = Instant::now();
        let budget = budget(0.2, 1_000_000, start);
        for number in 0..MANY_TENANTS {
            assert!(budget.withdraw(Some(&number.to_string()), 0, start));
        }
        assert!(budget.withdraw(Some("new"), 0, start + Duration::from_secs(10)));
        assert_eq!(budget.account.lock().unwrap().spent.len(), 1);
    }

    #[test]
    fn what_may_be_repeated() {
        let verdicts = ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE", "POST", "PATCH", "CONNECT", "X"]
            .map(|method| (is_safe(&method.parse().unwrap()), is_idempotent(&method.parse().unwrap())));
        assert_eq!(verdicts[..4], [(true, true); 4]);
        assert_eq!(verdicts[4..6], [(false, true); 2]);
        assert_eq!(verdicts[6..], [(false, false); 4]);
    }
}
