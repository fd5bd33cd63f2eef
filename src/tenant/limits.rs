//! What one tenant may take of the gateway: so often, so much, so many at once.

use std::fmt;
use std::num::NonZeroU64;
use std::time::Duration;

/// A tenant's limits, defaults applied. What is `None` is not limited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Requests.
    pub requests: Option<Quota>,
    /// Bytes of request and response bodies together.
    pub bytes: Option<Quota>,
    /// Requests under way at once, from admission to the end of the response's body.
    pub concurrency: Option<u32>,
    /// Requests that wait for one of those places.
    pub queue: u32,
    /// How long one of them waits.
    pub wait: Duration,
    /// Connections of a database's pool at once, in place of the pool's `per_tenant.connections`.
    pub connections: Option<u32>,
}

impl Limits {
    /// Whether requests have to be counted for them.
    pub fn count_requests(&self) -> bool {
        self.requests.is_some() || self.bytes.is_some() || self.concurrency.is_some()
    }
}

/// So much in so long, of which some may come at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    amount: NonZeroU64,
    per: Duration,
    burst: NonZeroU64,
}

impl Quota {
    /// `amount` in every `per`, and `burst` at once after a rest.
    pub fn new(amount: NonZeroU64, per: Duration, burst: NonZeroU64) -> Self {
        Self { amount, per, burst }
    }

    /// What may come at once after a rest.
    pub fn burst(&self) -> u64 {
        self.burst.get()
    }

    /// How long it takes to earn `amount`, rounded down to a nanosecond.
    pub fn time_of(&self, amount: u64) -> Duration {
        let nanos = u128::from(amount).saturating_mul(self.per.as_nanos()) / u128::from(self.amount.get());
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// How much is earned in `time`, rounded down.
    pub fn earned_in(&self, time: Duration) -> u64 {
        let earned = time.as_nanos().saturating_mul(self.amount.get().into()) / self.per.as_nanos().max(1);
        u64::try_from(earned).unwrap_or(u64::MAX)
    }

    /// The time in which a whole burst is earned.
    pub fn window(&self) -> Duration {
        self.time_of(self.burst.get())
    }
}

impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let requests = self.requests.map(|quota| format!("requests {quota}"));
        let bytes = self.bytes.map(|quota| format!("bytes {quota}"));
        let places = self.concurrency.map(|most| format!("{most} under way, {} waiting", self.queue));
        let connections = self.connections.map(|most| format!("{most} database connections"));
        let parts: Vec<String> = [requests, bytes, places, connections].into_iter().flatten().collect();
        f.write_str(&parts.join("; "))
    }
}

impl fmt::Display for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} per {}, {} at once", self.amount, humantime::format_duration(self.per), self.burst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_amount_and_its_time_are_the_same_thing() {
        let number = |number| NonZeroU64::new(number).unwrap();
        let quota = Quota::new(number(6000), Duration::from_secs(60), number(50));
        assert_eq!(quota.time_of(1), Duration::from_millis(10));
        assert_eq!(quota.window(), Duration::from_millis(500));
        assert_eq!(quota.earned_in(Duration::from_secs(1)), 100);
        assert_eq!(quota.time_of(u64::MAX), Duration::from_nanos(u64::MAX));
        let slowest = Quota::new(number(1), Duration::MAX, number(u64::MAX));
        assert_eq!(slowest.window(), Duration::from_nanos(u64::MAX));
        assert_eq!(slowest.earned_in(Duration::from_secs(60)), 0);
    }
}
