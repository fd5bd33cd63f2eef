//! One tenant's account: what it has taken, who of it is inside, and who waits.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::bucket::{Bucket, Level};
use crate::tenant::Limits;

/// What a tenant has taken, under whatever limits hold now.
#[derive(Debug)]
pub(super) struct Account {
    /// Serves in order of arrival, wakes one at a time, and forgets who has gone.
    places: Arc<Semaphore>,
    waiting: AtomicU32,
    // Held for a few instructions, never across an await.
    ledger: Mutex<Ledger>,
}

#[derive(Debug)]
struct Ledger {
    limits: Arc<Limits>,
    requests: Bucket,
    bytes: Bucket,
    /// Places that the limits give.
    places: usize,
    /// Places that a lowered limit took away and that are still occupied.
    surplus: usize,
}

/// A place inside, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    account: Arc<Account>,
    permit: Option<OwnedSemaphorePermit>,
}

/// Which limit a request met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Over {
    /// Too often; how long until the next may come.
    Requests(Duration),
    /// Too much; how long until what went before is paid for.
    Bytes(Duration),
    /// All places are taken, and so are all those in the queue.
    QueueFull,
    /// It waited as long as it may.
    WaitedTooLong,
}

impl Account {
    pub(super) fn open(limits: &Arc<Limits>) -> Arc<Self> {
        let places = places_of(limits);
        let (requests, bytes) = (Bucket::default(), Bucket::default());
        let ledger = Ledger { limits: Arc::clone(limits), requests, bytes, places, surplus: 0 };
        Arc::new(Self {
            places: Arc::new(Semaphore::new(places)),
            waiting: AtomicU32::new(0),
            ledger: Mutex::new(ledger),
        })
    }

    /// Counts a request. `None` where requests are not counted.
    pub(super) fn count(&self, limits: &Arc<Limits>, now: Duration) -> Result<Option<Level>, Over> {
        let mut ledger = self.ledger();
        ledger.adopt(limits, &self.places);
        if let Some(quota) = &limits.bytes {
            // What is paid for within the time that a request may wait is waited for.
            let debt = ledger.bytes.debt(quota, now);
            if debt > limits.wait {
                return Err(Over::Bytes(debt));
            }
        }
        let Some(quota) = &limits.requests else { return Ok(None) };
        ledger.requests.take(quota, now).map(Some).map_err(Over::Requests)
    }

    /// Counts bytes, and says how long whoever moves them has to wait.
    pub(super) fn owe(&self, limits: &Limits, bytes: u64, now: Duration) -> Duration {
        let Some(quota) = &limits.bytes else { return Duration::ZERO };
        self.ledger().bytes.owe(quota, bytes, now)
    }

    /// Takes a place, if one is free.
    pub(super) fn take_place(self: &Arc<Self>) -> Option<Place> {
        let permit = Arc::clone(&self.places).try_acquire_owned().ok()?;
        Some(Place { account: Arc::clone(self), permit: Some(permit) })
    }

    /// Waits for a place in the order of arrival. A future that is dropped leaves the queue.
    pub(super) async fn wait_for_place(
        self: &Arc<Self>,
        limits: &Limits,
        queued: &Gauge,
    ) -> Result<Place, Over> {
        let _waiter = Waiter::join(self, limits.queue, queued)?;
        let place = tokio::time::timeout(limits.wait, Arc::clone(&self.places).acquire_owned()).await;
        let permit = place.map_err(|_| Over::WaitedTooLong)?.expect("the places are never closed");
        Ok(Place { account: Arc::clone(self), permit: Some(permit) })
    }

    /// Whether forgetting the account would change nothing: nobody of the tenant is inside or
    /// waits, and everything it took has been earned again.
    pub(super) fn is_idle(self: &Arc<Self>, now: Duration) -> bool {
        let ledger = self.ledger();
        // Whoever is inside, waits, or is about to enter holds the account.
        Arc::strong_count(self) == 1 && ledger.requests.is_full(now) && ledger.bytes.is_full(now)
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ledger {
    /// Makes `limits` those that hold from now on.
    fn adopt(&mut self, limits: &Arc<Limits>, semaphore: &Semaphore) {
        if Arc::ptr_eq(&self.limits, limits) {
            return;
        }
        self.limits = Arc::clone(limits);
        let wanted = places_of(limits);
        if wanted > self.places {
            let more = wanted - self.places;
            let kept = more.min(self.surplus);
            self.surplus -= kept;
            semaphore.add_permits(more - kept);
        } else {
            let fewer = self.places - wanted;
            self.surplus += fewer - semaphore.forget_permits(fewer);
        }
        self.places = wanted;
    }
}

/// A tenant without a limit of its own to concurrency is counted all the same, so that a limit
/// which comes later knows who is inside.
fn places_of(limits: &Limits) -> usize {
    limits.concurrency.map_or(Semaphore::MAX_PERMITS, |most| most as usize).min(Semaphore::MAX_PERMITS)
}

impl Drop for Place {
    fn drop(&mut self) {
        let permit = self.permit.take().expect("a place is given back once");
        let mut ledger = self.account.ledger();
        if ledger.surplus > 0 {
            ledger.surplus -= 1;
            permit.forget();
        }
    }
}

/// One who waits, counted for as long.
struct Waiter<'a> {
    waiting: &'a AtomicU32,
    queued: &'a Gauge,
}

impl<'a> Waiter<'a> {
    fn join(account: &'a Account, most: u32, queued: &'a Gauge) -> Result<Self, Over> {
        let join = |waiting: u32| (waiting < most).then(|| waiting + 1);
        account
            .waiting
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, join)
            .map_err(|_| Over::QueueFull)?;
        queued.inc();
        Ok(Self { waiting: &account.waiting, queued })
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        self.queued.dec();
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::{Pin, pin};
    use std::task::{Context, Waker};

    use proptest::prelude::*;

    use super::*;

    fn limits(concurrency: u32, queue: u32) -> Arc<Limits> {
        let wait = Duration::from_secs(3600);
        Arc::new(Limits {
            requests: None,
            bytes: None,
            concurrency: Some(concurrency),
            queue,
            wait,
            connections: None,
        })
    }

    fn poll<F: Future + ?Sized>(future: Pin<&mut F>) -> Option<F::Output> {
        match future.poll(&mut Context::from_waker(Waker::noop())) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        }
    }

    #[tokio::test]
    async fn who_came_first_enters_first_and_who_left_is_forgotten() {
        let limits = limits(1, 3);
        let account = Account::open(&limits);
        let queued = Gauge::default();
        let inside = account.take_place().unwrap();
        let mut first = Box::pin(account.wait_for_place(&limits, &queued));
        let mut second = pin!(account.wait_for_place(&limits, &queued));
        let mut third = pin!(account.wait_for_place(&limits, &queued));
        assert!(poll(first.as_mut()).is_none());
        assert!(poll(second.as_mut()).is_none());
        assert!(poll(third.as_mut()).is_none());
        let mut fourth = pin!(account.wait_for_place(&limits, &queued));
        assert!(matches!(poll(fourth.as_mut()), Some(Err(Over::QueueFull))));
        assert_eq!(queued.get(), 3);
        drop(first);
        assert_eq!(queued.get(), 2);
        drop(inside);
        assert!(poll(third.as_mut()).is_none());
        let second = poll(second.as_mut()).unwrap().unwrap();
        assert!(account.take_place().is_none());
        assert!(poll(third.as_mut()).is_none());
        drop(second);
        assert!(poll(third.as_mut()).unwrap().is_ok());
        assert_eq!(queued.get(), 0);
    }

    #[test]
    fn a_lowered_limit_counts_those_who_are_inside() {
        let (wide, narrow) = (limits(3, 0), limits(1, 0));
        let account = Account::open(&wide);
        let mut inside: Vec<_> = (0..3).map(|_| account.take_place().unwrap()).collect();
        account.count(&narrow, Duration::ZERO).unwrap();
        inside.pop();
        assert!(account.take_place().is_none());
        inside.pop();
        assert!(account.take_place().is_none());
        inside.pop();
        let only = account.take_place().unwrap();
        assert!(account.take_place().is_none());
        account.count(&limits(2, 0), Duration::ZERO).unwrap();
        let second = account.take_place().unwrap();
        assert!(account.take_place().is_none());
        drop((only, second));
    }

    #[test]
    fn an_account_in_use_is_not_idle() {
        let limits = limits(2, 0);
        let account = Account::open(&limits);
        assert!(account.is_idle(Duration::ZERO));
        let place = account.take_place().unwrap();
        assert!(!account.is_idle(Duration::ZERO));
        drop(place);
        assert!(account.is_idle(Duration::ZERO));
    }

    type Waiting<'a> = Pin<Box<dyn Future<Output = Result<Place, Over>> + 'a>>;

    #[derive(Debug, Clone)]
    enum Step {
        Enter,
        Leave(usize),
        Queue,
        GiveUp(usize),
        Limit(u32),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => Just(Step::Enter),
            3 => any::<usize>().prop_map(Step::Leave),
            3 => Just(Step::Queue),
            2 => any::<usize>().prop_map(Step::GiveUp),
            1 => (1_u32..6).prop_map(Step::Limit),
        ]
    }

    proptest! {
        /// Whatever is cancelled and whenever limits change: nobody enters beyond the limit, and
        /// when all have left, exactly as many can enter as the limit says.
        #[test]
        fn places_are_neither_lost_nor_made(steps in proptest::collection::vec(step(), 1..80)) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            let _inside_runtime = runtime.enter();
            let queued = Gauge::default();
            let mut held = limits(2, 4);
            let account = Account::open(&held);
            let mut inside = Vec::new();
            let mut waiting: Vec<Waiting<'_>> = Vec::new();
            for step in steps {
                match step {
                    Step::Enter => {
                        let before = inside.len();
                        if let Some(place) = account.take_place() {
                            prop_assert!(before < held.concurrency.unwrap() as usize);
                            inside.push(place);
                        }
                    }
                    Step::Leave(which) if !inside.is_empty() => {
                        drop(inside.swap_remove(which % inside.len()));
                    }
                    Step::Queue => {
                        let limits = Arc::clone(&held);
                        let (account, queued) = (&account, &queued);
                        waiting.push(Box::pin(async move { account.wait_for_place(&limits, queued).await }));
                    }
                    Step::GiveUp(which) if !waiting.is_empty() => {
                        drop(waiting.remove(which % waiting.len()));
                    }
                    Step::Limit(most) => {
                        held = limits(most, 4);
                        account.count(&held, Duration::ZERO).unwrap();
                    }
                    Step::Leave(_) | Step::GiveUp(_) => {}
                }
                waiting.retain_mut(|waiter| match poll(waiter.as_mut()) {
                    None => true,
                    Some(entered) => {
                        inside.extend(entered.ok());
                        false
                    }
                });
                prop_assert!(queued.get() <= 4);
            }
            waiting.clear();
            inside.clear();
            prop_assert_eq!(queued.get(), 0);
            let all: Vec<_> = std::iter::from_fn(|| account.take_place()).take(10).collect();
            prop_assert_eq!(all.len(), held.concurrency.unwrap() as usize);
        }
    }
}
