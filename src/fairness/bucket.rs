//! A leaky bucket that remembers one point in time: when it will be full again (GCRA, ITU-T I.371).

use std::time::Duration;

use crate::tenant::Quota;

/// What has been taken under a quota. It is kept as time, so that a quota which changes finds the
/// debt of the one before.
#[derive(Debug, Default)]
pub(super) struct Bucket {
    /// When everything that was taken will have been earned again.
    full_at: Duration,
}

/// What is left in a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Level {
    /// What may be taken at once.
    pub(super) left: u64,
    /// How long until it is full.
    pub(super) full_in: Duration,
}

impl Bucket {
    /// Takes one, or says how long it is until one may be taken.
    pub(super) fn take(&mut self, quota: &Quota, now: Duration) -> Result<Level, Duration> {
        let full_at = self.full_at.max(now).saturating_add(quota.time_of(1));
        let overdraft = full_at.saturating_sub(now.saturating_add(quota.window()));
        if !overdraft.is_zero() {
            return Err(overdraft);
        }
        self.full_at = full_at;
        let full_in = full_at - now;
        let left = quota.burst().saturating_sub(quota.earned_in(full_in));
        Ok(Level { left, full_in })
    }

    /// Takes `amount`, though it may not be there, and says how long it is until it is paid for.
    pub(super) fn owe(&mut self, quota: &Quota, amount: u64, now: Duration) -> Duration {
        self.full_at = self.full_at.max(now).saturating_add(quota.time_of(amount));
        self.debt(quota, now)
    }

    /// How long it is until everything taken beyond the burst is paid for.
    pub(super) fn debt(&self, quota: &Quota, now: Duration) -> Duration {
        self.full_at.saturating_sub(now.saturating_add(quota.window()))
    }

    /// Whether forgetting the bucket would change nothing.
    pub(super) fn is_full(&self, now: Duration) -> bool {
        self.full_at <= now
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use proptest::prelude::*;

    use super::*;

    fn quota(amount: u64, per: Duration, burst: u64) -> Quota {
        Quota::new(NonZeroU64::new(amount).unwrap(), per, NonZeroU64::new(burst).unwrap())
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_burst_passes_and_then_one_at_a_time() {
        let quota = quota(10, SECOND, 3);
        let mut bucket = Bucket::default();
        let now = Duration::from_secs(5);
        for left in [2, 1, 0] {
            assert_eq!(bucket.take(&quota, now).unwrap().left, left);
        }
        assert_eq!(bucket.take(&quota, now), Err(Duration::from_millis(100)));
        let later = now + Duration::from_millis(99);
        assert_eq!(bucket.take(&quota, later), Err(Duration::from_millis(1)));
        assert!(bucket.take(&quota, now + Duration::from_millis(100)).is_ok());
        assert!(bucket.take(&quota, now + Duration::from_millis(100)).is_err());
        assert!(!bucket.is_full(now + Duration::from_millis(399)));
        assert!(bucket.is_full(now + Duration::from_millis(400)));
    }

    #[test]
    fn a_burst_that_no_second_divides_is_whole_all_the_same() {
        let quota = quota(3, SECOND, 3);
        let mut bucket = Bucket::default();
        assert!((0..3).all(|_| bucket.take(&quota, SECOND).is_ok()));
        assert!(bucket.take(&quota, SECOND).is_err());
    }

    #[test]
    fn debt_is_paid_at_the_quotas_pace() {
        let quota = quota(1000, SECOND, 1000);
        let mut bucket = Bucket::default();
        assert_eq!(bucket.owe(&quota, 1000, SECOND), Duration::ZERO);
        assert_eq!(bucket.owe(&quota, 500, SECOND), Duration::from_millis(500));
        assert_eq!(bucket.debt(&quota, SECOND + Duration::from_millis(200)), Duration::from_millis(300));
        assert_eq!(bucket.owe(&quota, 0, SECOND * 2), Duration::ZERO);
    }

    #[test]
    fn a_changed_quota_finds_the_debt_of_the_one_before() {
        let (slow, fast) = (quota(10, SECOND, 10), quota(1000, SECOND, 1000));
        let mut bucket = Bucket::default();
        while bucket.take(&slow, SECOND).is_ok() {}
        assert!(bucket.take(&fast, SECOND).is_err());
        assert!(bucket.take(&fast, SECOND + Duration::from_millis(1)).is_ok());
    }

    proptest! {
        /// Over any stretch, no more passes than the burst and what was earned meanwhile.
        #[test]
        fn nothing_passes_beyond_the_quota(
            amount in 1_u64..5000,
            burst in 1_u64..50,
            steps in proptest::collection::vec(0_u64..50_000_000, 1..300),
        ) {
            let quota = quota(amount, SECOND, burst);
            let mut bucket = Bucket::default();
            let start = Duration::from_secs(1000);
            let (mut now, mut passed) = (start, 0_u64);
            for step in steps {
                now += Duration::from_nanos(step);
                match bucket.take(&quota, now) {
                    Ok(_) => passed += 1,
                    Err(wait) => {
                        prop_assert!(wait > Duration::ZERO && wait <= quota.time_of(1));
                        // The wait is told exactly: a nanosecond less is too early.
                        let early = now + wait - Duration::from_nanos(1);
                        let mut other = Bucket { full_at: bucket.full_at };
                        prop_assert!(other.take(&quota, early).is_err());
                        prop_assert!(other.take(&quota, now + wait).is_ok());
                    }
                }
                prop_assert!(passed <= burst + quota.earned_in(now - start) + 1);
            }
        }
    }
}
