//! How long an endpoint lets requests wait: a moving average that rises at once and falls slowly
//! ("peak EWMA"), in one word that is changed without a lock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// What an endpoint is thought to take before it has answered: more than a near one takes, so that
/// a new one is not flooded.
const FIRST_GUESS: Duration = Duration::from_millis(30);
/// After this time an observation has lost two thirds of its weight.
const DECAY_MILLIS: f32 = 10_000.0;

/// The estimate for one endpoint.
pub(super) struct Latency {
    born: Instant,
    /// The estimate in microseconds (the bits of an `f32`) above the milliseconds from `born` to
    /// when it was made: of two that come at once, one is kept whole.
    packed: AtomicU64,
}

impl Latency {
    pub(super) fn new(now: Instant) -> Self {
        Self { born: now, packed: AtomicU64::new(pack(micros(FIRST_GUESS), 0)) }
    }

    /// Takes in how long an answer took.
    pub(super) fn observe(&self, took: Duration, now: Instant) {
        let (took, now) = (micros(took), self.millis(now));
        let update = |packed| {
            let (estimate, at) = unpack(packed);
            let weight = weight(at, now);
            let next = if took > estimate { took } else { estimate * weight + took * (1.0 - weight) };
            Some(pack(next, now.max(at)))
        };
        // It never declines, so that it cannot fail.
        let _ = self.packed.fetch_update(Ordering::Relaxed, Ordering::Relaxed, update);
    }

    /// The estimate now, in microseconds. It falls while nothing is observed: an endpoint that once
    /// was slow is tried again.
    pub(super) fn estimate(&self, now: Instant) -> f32 {
        let (estimate, at) = unpack(self.packed.load(Ordering::Relaxed));
        estimate * weight(at, self.millis(now))
    }

    fn millis(&self, now: Instant) -> u32 {
        u32::try_from(now.saturating_duration_since(self.born).as_millis()).unwrap_or(u32::MAX)
    }
}

fn micros(duration: Duration) -> f32 {
    duration.as_secs_f32() * 1e6
}

/// What is left of an estimate after a while.
fn weight(from: u32, to: u32) -> f32 {
    (-f32::from(u16::try_from(to.saturating_sub(from)).unwrap_or(u16::MAX)) / DECAY_MILLIS).exp()
}

fn pack(estimate: f32, at: u32) -> u64 {
    u64::from(estimate.to_bits()) << 32 | u64::from(at)
}

fn unpack(packed: u64) -> (f32, u32) {
    let [a, b, c, d, e, f, g, h] = packed.to_be_bytes();
    (f32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_rises_at_once_and_falls_slowly() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let latency = Latency::new(start);
        assert_eq!(latency.estimate(start).round(), 30_000.0);
        latency.observe(Duration::from_millis(200), after(1));
        assert_eq!(latency.estimate(after(1)).round(), 200_000.0);
        latency.observe(Duration::from_millis(1), after(2));
        let falling = latency.estimate(after(2));
        assert!((180_000.0..182_000.0).contains(&falling), "{falling}");
        for second in 3..100 {
            latency.observe(Duration::from_millis(1), after(second));
        }
        let settled = latency.estimate(after(99));
        assert!((1_000.0..1_050.0).contains(&settled), "{settled}");
    }

    #[test]
    fn what_is_not_used_becomes_worth_a_try() {
        let start = Instant::now();
        let latency = Latency::new(start);
        latency.observe(Duration::from_secs(10), start);
        assert!(latency.estimate(start + Duration::from_secs(60)) < 30_000.0);
        assert!(latency.estimate(start + Duration::from_secs(1_000_000)).abs() < 20_000.0);
    }
}
