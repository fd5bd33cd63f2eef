//! Which of several connections suits a tenant best: the same one time after time, because there its
//! statements are prepared and their plans are made.
//!
//! Each connection gives each tenant a score, and the highest wins (rendezvous hashing, Thaler and
//! Ravishankar, 1998): where connections come and go, only those tenants move that have to.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use super::turnstile::Holder;

/// What a connection is told apart by from others of its pool, now and before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark(u64);

/// A tenant, as scores are given to it.
#[derive(Clone, Copy)]
pub(super) struct Sought(u64);

/// Hands out marks.
#[derive(Default)]
pub(super) struct Marks(u64);

impl Marks {
    pub(super) fn next(&mut self) -> Mark {
        self.0 += 1;
        Mark(self.0)
    }
}

impl Sought {
    pub(super) fn by(holder: &Holder) -> Self {
        let mut hasher = DefaultHasher::new();
        holder.hash(&mut hasher);
        Self(hasher.finish())
    }
}

impl Mark {
    /// How well the connection suits. It says nothing but more or less.
    pub(super) fn suits(self, sought: Sought) -> u64 {
        // The last steps of MurmurHash3: each bit of both decides over each bit of the score.
        let mut score = sought.0 ^ self.0.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        score = (score ^ (score >> 33)).wrapping_mul(0xFF51_AFD7_ED55_8CCD);
        score = (score ^ (score >> 33)).wrapping_mul(0xC4CE_B9FE_1A85_EC53);
        score ^ (score >> 33)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    /// The tenants and their best connections among these.
    fn homes(marks: &[Mark]) -> Vec<Mark> {
        let best = |tenant: usize| {
            let sought = Sought::by(&Some(format!("t-{tenant}").parse().unwrap()));
            *marks.iter().max_by_key(|mark| mark.suits(sought)).unwrap()
        };
        (0..1000).map(best).collect()
    }

    #[test]
    fn tenants_spread_over_connections_and_only_those_of_a_lost_one_move() {
        let mut marks = Marks::default();
        let mut marks: Vec<_> = (0..8).map(|_| marks.next()).collect();
        let before = homes(&marks);
        let mut tenants = HashMap::new();
        for Mark(number) in &before {
            *tenants.entry(number).or_insert(0) += 1;
        }
        assert!(tenants.len() == 8 && tenants.values().all(|count| (80..180).contains(count)), "{tenants:?}");
        let lost = marks.remove(3);
        let after = homes(&marks);
        assert!(before.iter().zip(&after).all(|(before, after)| before == after || *before == lost));
    }
}
