//! Whose turn it is: how many connections a tenant holds, how many of its requests wait, who is next.

use std::collections::{HashMap, VecDeque};

use crate::tenant::TenantId;

/// Whom a request counts for. Routes without a tenant count as one.
pub(super) type Holder = Option<TenantId>;

/// Hands out permits, as many as there are connections, in turn between tenants: whoever has a
/// hundred requests waiting is served as often as whoever has one. In each round everyone has one
/// turn, in an order that suits the connections that come free.
///
/// It knows waiters only as values of `W`, which it gives back when their turn has come. Its memory
/// grows with the tenants that hold or want a permit now, and with nothing else.
pub(super) struct Turnstile<W> {
    free: u32,
    limits: Limits,
    lines: HashMap<Holder, Line<W>>,
    /// Holders with a waiter who lacks nothing but a free permit, each once. It is empty while a
    /// permit is free. A line whose waiters have left may stand here still, and is passed over.
    round: VecDeque<Holder>,
    /// Of them, those at the front that had no turn yet in this round. Whoever comes in meanwhile has
    /// one in the next.
    due: usize,
    next_ticket: u64,
}

/// What one tenant may take, unless it is said otherwise for that one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Permits held at once.
    pub(super) held: u32,
    /// Requests that wait for one.
    pub(super) waiting: usize,
}

/// How far down the round the one who suits best is looked for.
const REACH: usize = 8;

/// A tenant's line is full.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

/// What one waiter is known by, so that it can leave the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ticket(u64);

struct Line<W> {
    /// Permits that the holder may have at once.
    most: u32,
    held: u32,
    waiting: VecDeque<(Ticket, W)>,
    in_round: bool,
}

impl<W> Turnstile<W> {
    pub(super) fn new(permits: u32, limits: Limits) -> Self {
        Self { free: permits, limits, lines: HashMap::new(), round: VecDeque::new(), due: 0, next_ticket: 0 }
    }

    /// Takes a permit if one is free and the holder may have one more: it may have `most` from now
    /// on, or as many as everyone. Whoever does not pass has to [`wait`](Self::wait).
    pub(super) fn pass(&mut self, holder: &Holder, most: Option<u32>) -> bool {
        let most = most.unwrap_or(self.limits.held);
        let line = self.lines.entry(holder.clone()).or_insert_with(|| Line::new(most));
        line.most = most;
        if self.free == 0 || line.held >= line.most {
            return false;
        }
        debug_assert!(self.round.is_empty(), "nobody waits for a permit while one is free");
        line.held += 1;
        self.free -= 1;
        true
    }

    /// Puts a waiter at the end of its holder's line.
    ///
    /// # Errors
    /// The line is full.
    pub(super) fn wait(&mut self, holder: &Holder, waiter: W) -> Result<Ticket, Full> {
        let most = self.limits.held;
        let line = self.lines.entry(holder.clone()).or_insert_with(|| Line::new(most));
        if line.waiting.len() >= self.limits.waiting {
            self.forget_idle(holder);
            return Err(Full);
        }
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        line.waiting.push_back((ticket, waiter));
        self.line_up(holder);
        Ok(ticket)
    }

    /// Takes a waiter out of its line. `false` says that it has its permit already, and must give
    /// it back.
    pub(super) fn give_up(&mut self, holder: &Holder, ticket: Ticket) -> bool {
        let Some(line) = self.lines.get_mut(holder) else { return false };
        // Tickets of a line ascend.
        let Ok(at) = line.waiting.binary_search_by_key(&ticket, |(ticket, _)| *ticket) else { return false };
        line.waiting.remove(at);
        self.forget_idle(holder);
        true
    }

    /// Gives a permit back. The waiter whose turn it is has one from now on: of those that are next, the
    /// one whose holder `suits` best.
    #[must_use]
    pub(super) fn leave(&mut self, holder: &Holder, suits: impl Fn(&Holder) -> u64) -> Option<W> {
        let line = self.lines.get_mut(holder).expect("whoever leaves has passed");
        line.held -= 1;
        self.free += 1;
        self.line_up(holder);
        self.forget_idle(holder);
        self.next(suits)
    }

    /// Permits that nobody holds.
    pub(super) fn free(&self) -> u32 {
        self.free
    }

    /// Waiters of all holders together. It looks at each line.
    pub(super) fn waiting(&self) -> usize {
        self.lines.values().map(|line| line.waiting.len()).sum()
    }

    fn next(&mut self, suits: impl Fn(&Holder) -> u64) -> Option<W> {
        while !self.round.is_empty() {
            if self.due == 0 {
                self.due = self.round.len();
            }
            let next = self.round.iter().take(self.due.min(REACH)).map(&suits).enumerate();
            let (best, _) = next.rev().max_by_key(|(_, score)| *score).expect("someone is due");
            let holder = self.round.remove(best).expect("it was found there");
            self.due -= 1;
            let line = self.lines.get_mut(&holder).expect("a line in the round is known");
            line.in_round = false;
            let Some((_, waiter)) = line.waiting.pop_front() else {
                self.forget_idle(&holder);
                continue;
            };
            line.held += 1;
            self.free -= 1;
            self.line_up(&holder);
            return Some(waiter);
        }
        None
    }

    /// Puts a holder at the end of the round, if it has a waiter and may hold one permit more.
    fn line_up(&mut self, holder: &Holder) {
        let Some(line) = self.lines.get_mut(holder) else { return };
        if !line.in_round && !line.waiting.is_empty() && line.held < line.most {
            line.in_round = true;
            self.round.push_back(holder.clone());
        }
    }

    fn forget_idle(&mut self, holder: &Holder) {
        let idle = |line: &Line<W>| line.held == 0 && line.waiting.is_empty() && !line.in_round;
        if self.lines.get(holder).is_some_and(idle) {
            self.lines.remove(holder);
        }
    }
}

impl<W> Line<W> {
    fn new(most: u32) -> Self {
        Self { most, held: 0, waiting: VecDeque::new(), in_round: false }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;

    fn holder(name: &str) -> Holder {
        Some(name.parse().unwrap())
    }

    fn turnstile(permits: u32, held: u32, waiting: usize) -> Turnstile<u32> {
        Turnstile::new(permits, Limits { held, waiting })
    }

    #[test]
    fn a_hundred_waiting_requests_of_one_tenant_stand_behind_the_first_of_another() {
        let (flood, other) = (holder("flood"), holder("other"));
        let mut turnstile = turnstile(1, 1, 100);
        assert!(turnstile.pass(&flood, None));
        for request in 0..100 {
            turnstile.wait(&flood, request).unwrap();
        }
        assert_eq!(turnstile.wait(&flood, 100), Err(Full));
        turnstile.wait(&other, 1000).unwrap();
        turnstile.wait(&other, 1001).unwrap();
        let leave = [&flood, &other, &flood, &other, &flood];
        assert_eq!(leave.map(|holder| turnstile.leave(holder, alike).unwrap()), [1000, 0, 1001, 1, 2]);
    }

    fn alike(_: &Holder) -> u64 {
        0
    }

    #[test]
    fn everyone_has_one_turn_in_a_round_whoever_suits_best() {
        let (best, worst) = (holder("best"), holder("worst"));
        let suits = |holder: &Holder| u64::from(*holder == best);
        let mut turnstile = turnstile(1, 1, 10);
        assert!(turnstile.pass(&worst, None));
        for request in 0..3 {
            turnstile.wait(&worst, request).unwrap();
            turnstile.wait(&best, 10 + request).unwrap();
        }
        let mut inside = worst.clone();
        let served: Vec<u32> = (0..6)
            .map(|_| {
                let next = turnstile.leave(&inside, suits).unwrap();
                inside = if next < 10 { worst.clone() } else { best.clone() };
                next
            })
            .collect();
        assert_eq!(served, [10, 0, 11, 1, 12, 2]);
    }

    #[test]
    fn what_a_tenant_may_not_take_is_left_for_others() {
        let (greedy, other) = (holder("greedy"), holder("other"));
        let mut turnstile = turnstile(3, 2, 10);
        assert!(turnstile.pass(&greedy, None) && turnstile.pass(&greedy, None));
        assert!(!turnstile.pass(&greedy, None));
        turnstile.wait(&greedy, 1).unwrap();
        assert_eq!(turnstile.free(), 1);
        assert!(turnstile.pass(&other, None));
        assert_eq!(turnstile.leave(&other, alike), None);
        assert_eq!(turnstile.leave(&greedy, alike), Some(1));
    }

    #[test]
    fn a_tenant_may_have_a_share_of_its_own() {
        let (large, small, usual) = (holder("large"), holder("small"), holder("usual"));
        let mut turnstile = turnstile(9, 2, 10);
        let mut taken = |holder: &Holder, most| (0..9).filter(|_| turnstile.pass(holder, most)).count();
        assert_eq!((taken(&large, Some(4)), taken(&small, Some(1)), taken(&usual, None)), (4, 1, 2));
        // Less from now on: nobody is sent away, and nobody enters.
        assert_eq!(taken(&large, Some(1)), 0);
        turnstile.wait(&large, 1).unwrap();
        for _ in 0..3 {
            assert_eq!(turnstile.leave(&large, alike), None);
        }
        assert_eq!(turnstile.leave(&large, alike), Some(1));
    }

    #[derive(Debug, Clone)]
    enum Step {
        Arrive(usize),
        GiveUp(Index),
        Leave(Index),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0..4_usize).prop_map(Step::Arrive),
            1 => any::<Index>().prop_map(Step::GiveUp),
            2 => any::<Index>().prop_map(Step::Leave),
        ]
    }

    proptest! {
        /// Whatever comes, waits, gives up and leaves in whichever order: no permit is lost or made,
        /// no limit is passed, nobody waits for what is free, and nothing is remembered at the end.
        #[test]
        fn permits_are_neither_lost_nor_made(
            steps in prop::collection::vec(step(), 0..200), permits in 1..5_u32, held in 1..4_u32, waiting in 0..4_usize,
            taste in any::<u64>(),
        ) {
            let tenants = ["a", "b", "c"].map(holder).into_iter().chain([None]).collect::<Vec<_>>();
            let mut turnstile: Turnstile<(usize, u64)> = Turnstile::new(permits, Limits { held, waiting });
            let suits = |holder: &Holder| taste.rotate_left(u32::from(holder.is_some()));
            let (mut inside, mut outside) = (Vec::new(), Vec::<(usize, u64, Ticket)>::new());
            let mut number = 0;
            let enter = |next: Option<(usize, u64)>, inside: &mut Vec<usize>, outside: &mut Vec<(usize, u64, Ticket)>| {
                if let Some((tenant, number)) = next {
                    outside.retain(|(_, other, _)| *other != number);
                    inside.push(tenant);
                }
            };
            for step in steps {
                match step {
                    Step::Arrive(tenant) if turnstile.pass(&tenants[tenant], None) => inside.push(tenant),
                    Step::Arrive(tenant) => {
                        number += 1;
                        let queued = outside.iter().filter(|(other, ..)| *other == tenant).count();
                        match turnstile.wait(&tenants[tenant], (tenant, number)) {
                            Ok(ticket) => outside.push((tenant, number, ticket)),
                            Err(Full) => prop_assert_eq!(queued, waiting),
                        }
                    }
                    Step::GiveUp(which) if !outside.is_empty() => {
                        let (tenant, _, ticket) = outside.remove(which.index(outside.len()));
                        prop_assert!(turnstile.give_up(&tenants[tenant], ticket));
                    }
                    Step::Leave(which) if !inside.is_empty() => {
                        let tenant = inside.remove(which.index(inside.len()));
                        let next = turnstile.leave(&tenants[tenant], suits);
                        enter(next, &mut inside, &mut outside);
                    }
                    Step::GiveUp(_) | Step::Leave(_) => {}
                }
                prop_assert_eq!(u32::try_from(inside.len()).unwrap() + turnstile.free(), permits);
                for tenant in 0..tenants.len() {
                    let of_tenant = inside.iter().filter(|other| **other == tenant).count();
                    prop_assert!(of_tenant <= held as usize);
                    let waits = outside.iter().any(|(other, ..)| *other == tenant);
                    prop_assert!(!waits || turnstile.free() == 0 || of_tenant == held as usize);
                }
            }
            while let Some(tenant) = inside.pop() {
                let next = turnstile.leave(&tenants[tenant], suits);
                enter(next, &mut inside, &mut outside);
            }
            prop_assert!(outside.is_empty() && turnstile.lines.is_empty() && turnstile.round.is_empty());
            prop_assert_eq!(turnstile.free(), permits);
        }
    }
}
