//! Which of an upstream's endpoints a request goes to.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::time::Instant;

use super::endpoint::{Endpoint, Set};
use crate::policy::Balance;

/// Chooses among endpoints, request after request.
pub(super) struct Balancer {
    balance: Balance,
    turn: AtomicUsize,
}

impl Balancer {
    pub(super) fn new(balance: Balance) -> Self {
        Self { balance, turn: AtomicUsize::new(0) }
    }

    /// The number of the endpoint that the next request goes to: a well one that it has not tried;
    /// any that it has not tried where none of them is well; none where all were tried.
    pub(super) fn choose(&self, set: &Set, tried: &[usize]) -> Option<usize> {
        if set.len() == 1 {
            return tried.is_empty().then_some(0);
        }
        let now = Instant::now();
        let open = |index: &usize| !tried.contains(index);
        let well = |index: &usize| open(index) && set[*index].is_well(now);
        let load = |index: usize| load(&set[index], now);
        match (0..set.len()).filter(well).count() {
            0 => self.pick(|| (0..set.len()).filter(open), load),
            _ => self.pick(|| (0..set.len()).filter(well), load),
        }
    }

    fn pick<I: Iterator<Item = usize>>(
        &self,
        candidates: impl Fn() -> I,
        load: impl Fn(usize) -> f32,
    ) -> Option<usize> {
        let count = candidates().count();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        // An endpoint may have recovered or fallen between the two looks: the first stands in.
        let nth = |number| candidates().nth(number).or_else(|| candidates().next());
        match (count, self.balance) {
            (0, _) => None,
            (1, _) => nth(0),
            (_, Balance::RoundRobin) => nth(turn % count),
            (_, Balance::LeastLatency) => {
                let (first, second) = two_of(count, turn);
                let (first, second) = (nth(first)?, nth(second)?);
                Some(if load(second) < load(first) { second } else { first })
            }
        }
    }
}

fn load(endpoint: &Endpoint, now: Instant) -> f32 {
    let waiting = u16::try_from(endpoint.pool.in_flight() + 1).unwrap_or(u16::MAX);
    endpoint.latency.estimate(now) * f32::from(waiting)
}

/// Two different numbers below `count`, which is at least 2: the power of two choices. They look
/// random, and follow from the turn alone (the finaliser of SplitMix64).
fn two_of(count: usize, turn: usize) -> (usize, usize) {
    let mut mixed = (turn as u64).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^= mixed >> 31;
    let [.., e, f, g, h] = mixed.to_be_bytes();
    let [a, b, c, d, ..] = mixed.to_be_bytes();
    let first = u32::from_be_bytes([a, b, c, d]) as usize % count;
    let step = u32::from_be_bytes([e, f, g, h]) as usize % (count - 1);
    (first, (first + 1 + step) % count)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn balancer(balance: Balance) -> Balancer {
        Balancer::new(balance)
    }

    fn counts(balancer: &Balancer, endpoints: &[usize], load: impl Fn(usize) -> f32) -> HashMap<usize, u32> {
        let mut counts = HashMap::new();
        for _ in 0..3000 {
            let picked = balancer.pick(|| endpoints.iter().copied(), &load).unwrap();
            *counts.entry(picked).or_default() += 1;
        }
        counts
    }

    #[test]
    fn in_turn_means_each_as_often() {
        let counts = counts(&balancer(Balance::RoundRobin), &[0, 1, 4], |_| 1.0);
        assert_eq!(counts, HashMap::from([(0, 1000), (1, 1000), (4, 1000)]));
    }

    #[test]
    fn the_worst_of_several_is_never_the_better_of_two() {
        let counts = counts(&balancer(Balance::LeastLatency), &[0, 1, 2], |index| [9.0, 1.0, 3.0][index]);
        assert_eq!(counts.get(&0), None);
        assert!(counts[&1] > counts[&2] && counts[&2] > 800, "{counts:?}");
    }

    #[test]
    fn equals_share() {
        let counts = counts(&balancer(Balance::LeastLatency), &[0, 1, 2, 3], |_| 1.0);
        assert!(counts.len() == 4 && counts.values().all(|count| (600..900).contains(count)), "{counts:?}");
    }

    #[test]
    fn two_are_always_two() {
        for count in 2..9 {
            for turn in 0..500 {
                let (first, second) = two_of(count, turn);
                assert!(first != second && first < count && second < count);
            }
        }
    }

    #[test]
    fn of_none_there_is_none() {
        assert_eq!(balancer(Balance::LeastLatency).pick(std::iter::empty::<usize>, |_| 1.0), None);
    }
}
