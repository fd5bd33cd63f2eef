//! Passive health: an endpoint that fails request after request is passed over for a while.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::endpoint::Set;
use crate::policy::Ejection;

/// The longest that an endpoint is out, however often it failed.
const LONGEST: Duration = Duration::from_secs(300);

/// How an endpoint has fared lately.
#[derive(Default)]
pub(super) struct Standing {
    failures: AtomicU32,
    /// Whether `ban` is worth a look.
    banned: AtomicBool,
    ban: Mutex<Option<Ban>>,
}

#[derive(Clone, Copy)]
struct Ban {
    ends: Instant,
    length: Duration,
}

impl Standing {
    /// Whether it is passed over now.
    pub(super) fn is_out(&self, now: Instant) -> bool {
        self.banned.load(Ordering::Relaxed) && self.ban().is_some_and(|ban| now < ban.ends)
    }

    /// A request went well.
    pub(super) fn succeeded(&self) {
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
    }

    /// A request went wrong. Whether that was one too many.
    pub(super) fn failed(&self, rules: &Ejection) -> bool {
        let before = self.failures.fetch_add(1, Ordering::Relaxed);
        rules.failures > 0 && before.saturating_add(1) >= rules.failures
    }

    /// Passes it over from now on: twice as long as the last time, if it came back only to fail.
    /// When it returns, the first failure sends it out again.
    pub(super) fn eject(&self, rules: &Ejection, now: Instant) -> Duration {
        let mut ban = self.ban.lock().unwrap_or_else(PoisonError::into_inner);
        let length = match *ban {
            Some(last) if now < last.ends + last.length => (last.length * 2).min(LONGEST.max(rules.time)),
            _ => rules.time,
        };
        *ban = Some(Ban { ends: now + length, length });
        self.failures.store(rules.failures.saturating_sub(1), Ordering::Relaxed);
        self.banned.store(true, Ordering::Relaxed);
        length
    }

    fn ban(&self) -> Option<Ban> {
        *self.ban.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether one more of these endpoints may be out: always one, never all, and no more than the
/// rules' share of them.
pub(super) fn may_eject(set: &Set, rules: &Ejection, now: Instant) -> bool {
    let out = set.iter().filter(|endpoint| endpoint.standing.is_out(now)).count();
    out < most_out(set.len(), rules.max_share)
}

fn most_out(endpoints: usize, share: f64) -> usize {
    let within_share = (1..=endpoints).take_while(|out| *out as f64 <= endpoints as f64 * share).count();
    within_share.max(1).min(endpoints.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Ejection = Ejection { failures: 3, time: Duration::from_secs(30), max_share: 0.5 };

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn failures_in_a_row_are_too_many_and_a_success_between_them_forgives() {
        let standing = Standing::default();
        let failed = || standing.failed(&RULES);
        assert_eq!([failed(), failed(), failed()], [false, false, true]);
        standing.succeeded();
        assert_eq!([failed(), failed(), failed()], [false, false, true]);
        let never = Ejection { failures: 0, ..RULES };
        assert!((0..100).all(|_| !Standing::default().failed(&never)));
    }

    #[test]
    fn who_comes_back_only_to_fail_is_out_for_longer() {
        let (standing, start) = (Standing::default(), Instant::now());
        assert!(!standing.is_out(start));
        assert_eq!(standing.eject(&RULES, start), seconds(30));
        assert!(standing.is_out(start + seconds(29)) && !standing.is_out(start + seconds(30)));
        // The first failure after the return is one too many.
        assert!(standing.failed(&RULES));
        assert_eq!(standing.eject(&RULES, start + seconds(31)), seconds(60));
        assert_eq!(standing.eject(&RULES, start + seconds(92)), seconds(120));
        // It stood for longer than it had been out.
        assert_eq!(standing.eject(&RULES, start + seconds(1000)), seconds(30));
        let mut now = start + seconds(1000);
        for _ in 0..10 {
            now += standing.eject(&RULES, now);
        }
        assert_eq!(standing.eject(&RULES, now), LONGEST);
    }

    #[test]
    fn some_may_be_out_and_never_all() {
        let cases =
            [(1, 1.0, 0), (2, 0.1, 1), (2, 1.0, 1), (3, 0.5, 1), (4, 0.5, 2), (10, 0.3, 3), (10, 1.0, 9)];
        for (endpoints, share, most) in cases {
            assert_eq!(most_out(endpoints, share), most, "{endpoints} endpoints, {share}");
        }
    }
}
