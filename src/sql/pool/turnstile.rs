//! Whose turn it is: how many connections a tenant holds, how many of its requests wait, who is next.

use std::collections::{HashMap, VecDeque};

use crate::tenant::TenantId;

/// Whom a request counts for. Routes without a tenant count as one.
pub(super) type Holder = Option<TenantId>;

/// Hands out permits, as many as there are connections, in turn between tenants: whoever has a
/// hundred requests waiting is served as often as whoever has one.
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
    next_ticket: u64,
}

/// What one tenant may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Permits held at once.
    pub(super) held: u32,
    /// Requests that wait for one.
    pub(super) waiting: usize,
}

/// A tenant's line is full.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

/// What one waiter is known by, so that it can leave the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ticket(u64);

struct Line<W> {
    held: u32,
    waiting: VecDeque<(Ticket, W)>,
    in_round: bool,
}

impl<W> Turnstile<W> {
    pub(super) fn new(permits: u32, limits: Limits) -> Self {
        Self { free: permits, limits, lines: HashMap::new(), round: VecDeque::new(), next_ticket: 0 }
    }

    /// Takes a permit if one is free and the holder may have one more.
    pub(super) fn pass(&mut self, holder: &Holder) -> bool {
        if self.free == 0 {
            return false;
        }
        debug_assert!(self.round.is_empty(), "nobody waits for a permit while one is free");
        let line = self.lines.entry(holder.clone()).or_insert_with(Line::new);
        if line.held == self.limits.held {
            return false;
        }
        line.held += 1;
        self.free -= 1;
        true
    }

    /// Puts a waiter at the end of its holder's line.
    ///
    /// # Errors
    /// The line is full.
    pub(super) fn wait(&mut self, holder: &Holder, waiter: W) -> Result<Ticket, Full> {
        let line = self.lines.entry(holder.clone()).or_insert_with(Line::new);
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

    /// Gives a permit back. The waiter whose turn it is has one from now on.
    #[must_use]
    pub(super) fn leave(&mut self, holder: &Holder) -> Option<W> {
        let line = self.lines.get_mut(holder).expect("whoever leaves has passed");
        line.held -= 1;
        self.free += 1;
        self.line_up(holder);
        self.forget_idle(holder);
        self.next()
    }

    /// Permits that nobody holds.
    pub(super) fn free(&self) -> u32 {
        self.free
    }

    fn next(&mut self) -> Option<W> {
        while let Some(holder) = self.round.pop_front() {
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
        if !line.in_round && !line.waiting.is_empty() && line.held < self.limits.held {
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
    fn new() -> Self {
        Self { held: 0, waiting: VecDeque::new(), in_round: false }
    }
}
