//! The breaker: a plugin that keeps failing is not asked for a while, then tried with one request.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::failure::{FailureClass, PluginFailure};
use crate::policy;

/// How one plugin version's breaker stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    /// The plugin is asked.
    Closed {
        /// Failures in a row so far.
        failures: u32,
    },
    /// The plugin is not asked.
    Open {
        /// Until it is tried; nothing where the next request tries it.
        remaining: Duration,
    },
    /// One request is trying the plugin, the others are not let through.
    HalfOpen,
}

impl BreakerState {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed { .. } => "closed",
            Self::Open { .. } => "open",
            Self::HalfOpen => "half-open",
        }
    }
}

/// Counts failures in a row. While it is closed, a success reads two words that nobody writes.
pub(super) struct Breaker {
    settings: policy::Breaker,
    made: Instant,
    failures: AtomicU32,
    /// A [`Gate`], packed: every change of it is one exchange.
    gate: AtomicU64,
}

/// Leave to ask the plugin once. Dropped without an outcome, as with a cancelled request, it leaves
/// the breaker as it was.
pub(super) struct Pass<'a> {
    breaker: &'a Breaker,
    /// What this call found, if it is the one that tries the plugin.
    trial: Option<Opening>,
}

/// Whether calls pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gate {
    Closed,
    Open(Opening),
    HalfOpen(Opening),
}

/// When a plugin is tried again, and how often that failed since the breaker opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Opening {
    /// Microseconds since the breaker was made: 54 bits are 570 years.
    until: u64,
    trials: u8,
}

/// Trials after which the backoff is not doubled any more: it is beyond any limit by then.
const MAX_TRIALS: u8 = 31;

impl Breaker {
    pub(super) fn new(settings: policy::Breaker, now: Instant) -> Self {
        Self { settings, made: now, failures: AtomicU32::new(0), gate: AtomicU64::new(Gate::Closed.pack()) }
    }

    /// Lets a call through, or fails it at once.
    pub(super) fn enter(&self, now: Instant) -> Result<Pass<'_>, PluginFailure> {
        let opening = match self.gate() {
            Gate::Closed => return Ok(Pass { breaker: self, trial: None }),
            Gate::Open(opening) if self.micros(now) >= opening.until => Some(opening),
            Gate::Open(_) | Gate::HalfOpen(_) => None,
        };
        // The exchange picks one of the calls that come when the time is over.
        match opening.filter(|opening| self.exchange(Gate::Open(*opening), Gate::HalfOpen(*opening))) {
            Some(opening) => Ok(Pass { breaker: self, trial: Some(opening) }),
            None => {
                let message = "it failed too often in a row and is not asked for a while";
                Err(PluginFailure::new(FailureClass::BreakerOpen, message))
            }
        }
    }

    pub(super) fn state(&self, now: Instant) -> BreakerState {
        match self.gate() {
            Gate::Closed => BreakerState::Closed { failures: self.failures.load(Ordering::Relaxed) },
            Gate::HalfOpen(_) => BreakerState::HalfOpen,
            Gate::Open(opening) => {
                let remaining = opening.until.saturating_sub(self.micros(now));
                BreakerState::Open { remaining: Duration::from_micros(remaining) }
            }
        }
    }

    fn opening(&self, trials: u8, now: Instant) -> Opening {
        let backoff = self.settings.backoff.saturating_mul(1 << trials);
        let until = self.micros(now + backoff.min(self.settings.max_backoff));
        Opening { until, trials }
    }

    fn gate(&self) -> Gate {
        Gate::unpack(self.gate.load(Ordering::Acquire))
    }

    fn exchange(&self, from: Gate, to: Gate) -> bool {
        self.gate.compare_exchange(from.pack(), to.pack(), Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    fn micros(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.made).as_micros()).unwrap_or(u64::MAX >> 10)
    }
}

impl Pass<'_> {
    /// Tells what came of the call.
    pub(super) fn settle(mut self, failure: Option<FailureClass>, now: Instant) {
        match failure {
            // Neither for the plugin nor against it: as if it had not been asked.
            Some(class) if !class.is_plugins_fault() => {}
            Some(_) => self.failed(now),
            None => self.succeeded(),
        }
    }

    fn succeeded(&mut self) {
        let breaker = self.breaker;
        // Looked at first: a store would take the cache line from every other worker.
        if breaker.failures.load(Ordering::Relaxed) != 0 {
            breaker.failures.store(0, Ordering::Relaxed);
        }
        if let Some(opening) = self.trial.take() {
            breaker.exchange(Gate::HalfOpen(opening), Gate::Closed);
        }
    }

    fn failed(&mut self, now: Instant) {
        let breaker = self.breaker;
        let failures = breaker.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        if let Some(opening) = self.trial.take() {
            let next = breaker.opening((opening.trials + 1).min(MAX_TRIALS), now);
            breaker.exchange(Gate::HalfOpen(opening), Gate::Open(next));
        } else if breaker.settings.failures.is_some_and(|most| failures >= most.get()) {
            // Fails where it is open already: a call that began before that changes nothing.
            breaker.exchange(Gate::Closed, Gate::Open(breaker.opening(0, now)));
        }
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if let Some(opening) = self.trial {
            self.breaker.exchange(Gate::HalfOpen(opening), Gate::Open(opening));
        }
    }
}

impl Gate {
    fn pack(self) -> u64 {
        let (opening, kind) = match self {
            Self::Closed => return 0,
            Self::Open(opening) => (opening, 1),
            Self::HalfOpen(opening) => (opening, 2),
        };
        (opening.until << 10) | (u64::from(opening.trials) << 2) | kind
    }

    fn unpack(packed: u64) -> Self {
        let trials = u8::try_from((packed >> 2) & 0xff).expect("eight bits");
        let opening = Opening { until: packed >> 10, trials };
        match packed & 3 {
            0 => Self::Closed,
            1 => Self::Open(opening),
            _ => Self::HalfOpen(opening),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroU32;
    use std::thread;

    const FAULT: Option<FailureClass> = Some(FailureClass::Trap);
    const SECOND: Duration = Duration::from_secs(1);

    fn breaker(failures: u32) -> (Breaker, Instant) {
        let settings =
            policy::Breaker { failures: NonZeroU32::new(failures), backoff: SECOND, max_backoff: 5 * SECOND };
        let now = Instant::now();
        (Breaker::new(settings, now), now)
    }

    fn call(breaker: &Breaker, outcome: Option<FailureClass>, now: Instant) -> bool {
        breaker.enter(now).map(|pass| pass.settle(outcome, now)).is_ok()
    }

    fn opened() -> (Breaker, Instant) {
        let (breaker, now) = breaker(2);
        assert!(call(&breaker, FAULT, now) && call(&breaker, FAULT, now));
        assert_eq!(breaker.state(now), BreakerState::Open { remaining: SECOND });
        (breaker, now)
    }

    #[test]
    fn it_opens_after_failures_in_a_row() {
        let (breaker, now) = breaker(3);
        for outcome in [FAULT, FAULT, None, FAULT, FAULT] {
            assert!(call(&breaker, outcome, now));
        }
        assert_eq!(breaker.state(now), BreakerState::Closed { failures: 2 });
        assert!(call(&breaker, FAULT, now));
        let failure = breaker.enter(now).err().expect("it is open");
        assert_eq!(failure.class, FailureClass::BreakerOpen);
    }

    #[test]
    fn what_is_not_the_plugins_fault_neither_opens_nor_forgives() {
        let (breaker, now) = breaker(2);
        for class in [FailureClass::DirectoryUnavailable, FailureClass::Capacity] {
            assert!((0..5).all(|_| call(&breaker, Some(class), now)));
        }
        assert!(call(&breaker, FAULT, now) && call(&breaker, Some(FailureClass::Capacity), now));
        assert_eq!(breaker.state(now), BreakerState::Closed { failures: 1 });
    }

    #[test]
    fn without_a_number_it_never_opens() {
        let (breaker, now) = breaker(0);
        assert!((0..1000).all(|_| call(&breaker, FAULT, now)));
    }

    #[test]
    fn one_call_tries_and_a_success_closes() {
        let (breaker, now) = opened();
        assert!(breaker.enter(now + SECOND / 2).is_err());
        let later = now + SECOND;
        let trial = breaker.enter(later).expect("its time is over");
        assert_eq!(breaker.state(later), BreakerState::HalfOpen);
        assert!(breaker.enter(later).is_err(), "one at a time");
        trial.settle(None, later);
        assert_eq!(breaker.state(later), BreakerState::Closed { failures: 0 });
        assert!(call(&breaker, FAULT, later), "it counts from the start");
    }

    #[test]
    fn each_failed_trial_doubles_the_wait_up_to_its_limit() {
        let (breaker, mut now) = opened();
        for wait in [2, 4, 5, 5] {
            let BreakerState::Open { remaining } = breaker.state(now) else { panic!("it is open") };
            now += remaining;
            assert!(call(&breaker, FAULT, now));
            assert_eq!(breaker.state(now), BreakerState::Open { remaining: wait * SECOND });
        }
        now += 5 * SECOND;
        assert!(call(&breaker, None, now) && call(&breaker, FAULT, now) && call(&breaker, FAULT, now));
        assert_eq!(breaker.state(now), BreakerState::Open { remaining: SECOND }, "it was forgiven");
    }

    #[test]
    fn a_trial_that_is_cancelled_or_tells_nothing_leaves_the_next_call_to_try() {
        let (breaker, now) = opened();
        let later = now + SECOND;
        drop(breaker.enter(later).expect("its time is over"));
        assert_eq!(breaker.state(later), BreakerState::Open { remaining: Duration::ZERO });
        assert!(call(&breaker, Some(FailureClass::DirectoryUnavailable), later));
        assert!(call(&breaker, None, later));
        assert_eq!(breaker.state(later), BreakerState::Closed { failures: 0 });
    }

    #[test]
    fn a_call_that_began_before_it_opened_changes_nothing() {
        let (breaker, now) = breaker(1);
        let (early, late) = (breaker.enter(now), breaker.enter(now));
        assert!(call(&breaker, FAULT, now));
        early.expect("it was closed").settle(FAULT, now + SECOND);
        late.expect("it was closed").settle(None, now);
        assert_eq!(breaker.state(now), BreakerState::Open { remaining: SECOND });
    }

    #[test]
    fn of_many_calls_at_once_one_tries() {
        let (breaker, now) = opened();
        let enter = || breaker.enter(now + SECOND).ok();
        let passes: Vec<_> = thread::scope(|scope| {
            let callers: Vec<_> = (0..8).map(|_| scope.spawn(enter)).collect();
            callers.into_iter().filter_map(|caller| caller.join().unwrap()).collect()
        });
        assert_eq!(passes.len(), 1);
    }
}
