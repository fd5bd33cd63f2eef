//! The slow lane: a call that outstays its time on a worker goes on here, on threads of low
//! priority, so that a plugin that loops costs other requests next to nothing.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::AbortOnDropHandle;
use tracing::instrument::WithSubscriber as _;

/// How much a thread yields to others that have work; alone on its core it gets all that it wants.
#[derive(Debug, Clone, Copy)]
pub(super) enum Yielding {
    /// Beside a worker that is busy it gets a thirtieth of the core: for calls that outstay their
    /// time, of which there can be any number.
    Much,
    /// A quarter of it.
    Little,
    /// Its fair share: for one thread that loads plugins. An operator waits for it, and it ends; at a
    /// thirtieth, a swap on a saturated machine took six seconds in place of one.
    Not,
}

impl Yielding {
    #[cfg(target_os = "linux")]
    fn niceness(self) -> Option<i32> {
        match self {
            Self::Much => Some(15),
            Self::Little => Some(5),
            Self::Not => None,
        }
    }
}

/// A call of a plugin under way.
pub(super) type Call<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A lane's threads. They end when it is dropped.
pub(super) struct SlowLane {
    // Taken only on drop.
    runtime: Option<Runtime>,
}

/// Processor time after which a call is slow. Wall time would blame a plugin for other processes on
/// a busy machine.
const SLOW: Duration = Duration::from_micros(500);

/// Calls of one plugin that the lane takes at once. More of them would only divide the same processor
/// time, and whatever is moved there, or ended there, takes locks for which a worker may then wait until
/// a thread of low priority runs again. A call that waits for its turn costs nothing.
const TURNS: usize = 8;

/// Calls in a row that were still computing at their deadline, after which a plugin is taken for one that
/// does nothing but loop.
const FRUITLESS: u32 = 16;

/// How many times as long as it was taken such a plugin's turn is then withheld: all turns together take
/// an eighth of one processor. Low priority does not do it where the system first shares processors
/// between services, or sessions, and only then between the threads of one.
const REST: u32 = 64;

/// The longest that a turn is withheld, and so the longest until a plugin that is well again is noticed.
const LONGEST_REST: Duration = Duration::from_secs(10);

/// How one plugin has behaved: whether its calls may start on a worker.
pub(super) struct Pace {
    /// Calls that turned out slow, counted again at each tick.
    interruptions: AtomicU64,
    /// Of them, those that have been made up for by a call that was quick.
    forgiven: AtomicU64,
    /// Calls in a row that the lane took to no end.
    fruitless: AtomicU32,
    /// A permit for each call that may be on the lane.
    turns: Arc<Semaphore>,
}

impl Default for Pace {
    fn default() -> Self {
        let turns = Arc::new(Semaphore::new(TURNS));
        Self {
            interruptions: AtomicU64::new(0),
            forgiven: AtomicU64::new(0),
            fruitless: AtomicU32::new(0),
            turns,
        }
    }
}

impl Pace {
    /// Tells that the clock found a call of the plugin running, and whether it is slow: has used the
    /// processor for long since it was found first.
    pub(super) fn interrupted(&self, first: &mut Option<Duration>) -> bool {
        let now = processor_time();
        // The call may have moved to another thread, whose clock says something else.
        let found = first.filter(|found| *found <= now);
        let Some(found) = found else {
            *first = Some(now);
            return false;
        };
        let slow = now - found >= SLOW;
        if slow {
            self.interruptions.fetch_add(1, Ordering::Relaxed);
        }
        slow
    }

    /// Tells that a call was stopped at its deadline: it was not quick, however little of the processor
    /// it got.
    pub(super) fn overran(&self) {
        self.interruptions.fetch_add(1, Ordering::Relaxed);
    }

    fn interruptions(&self) -> u64 {
        self.interruptions.load(Ordering::Relaxed)
    }

    fn is_slow(&self) -> bool {
        self.interruptions() != self.forgiven.load(Ordering::Relaxed)
    }

    fn forgive(&self, interruptions: u64) {
        self.forgiven.store(interruptions, Ordering::Relaxed);
    }

    /// Tells that a call came to an end in time.
    fn came_to_an_end(&self) {
        // Mostly there is nothing to write, and a line of the cache that all workers share stays clean.
        if self.fruitless.load(Ordering::Relaxed) != 0 {
            self.fruitless.store(0, Ordering::Relaxed);
        }
    }

    /// Tells that a call computed on the lane for so long to no end, and says how long its turn is withheld.
    fn came_to_nothing(&self, took: Duration) -> Duration {
        let before = self.fruitless.fetch_add(1, Ordering::Relaxed);
        if before < FRUITLESS { Duration::ZERO } else { (took * REST).min(LONGEST_REST) }
    }
}

/// A call's turn on the lane. It is over when the lane has thrown the call away, which can be long after
/// its request ended.
struct Turn {
    pace: Arc<Pace>,
    // Taken only on drop.
    permit: Option<OwnedSemaphorePermit>,
    began: Instant,
    deadline: Instant,
    home: Handle,
    ended: bool,
    /// Whether the guest computes, as far as was seen: one that waits in a host call takes no processor from
    /// anybody.
    computes: bool,
}

impl Turn {
    /// Waits until it is a call's turn.
    async fn of(pace: &Arc<Pace>, deadline: Instant) -> Self {
        let permit = Arc::clone(&pace.turns).acquire_owned().await.expect("the semaphore is never closed");
        let (pace, home) = (Arc::clone(pace), Handle::current());
        Self {
            pace,
            permit: Some(permit),
            began: Instant::now(),
            deadline,
            home,
            ended: false,
            computes: false,
        }
    }

    /// Drives a call to its end.
    async fn drive<T>(mut self, mut call: Call<T>) -> T {
        let answer = poll_fn(|context| {
            let (began, asks) = (Instant::now(), Asks::of(context.waker()));
            let polled = call.as_mut().poll(&mut Context::from_waker(&Waker::from(Arc::clone(&asks))));
            self.computes = match polled {
                // It was stopped at its deadline, if it computed up to there.
                Poll::Ready(_) => self.computes || began < self.deadline,
                Poll::Pending => asks.asked.load(Ordering::Relaxed),
            };
            polled
        });
        let answer = answer.await;
        self.ended = true;
        answer
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let now = Instant::now();
        if now < self.deadline {
            // A request that was given up before says nothing of the plugin.
            if self.ended {
                self.pace.came_to_an_end();
            }
            return;
        }
        if !self.computes {
            return;
        }
        let rest = self.pace.came_to_nothing(now - self.began);
        if !rest.is_zero() {
            let permit = self.permit.take();
            self.home.spawn(async move {
                tokio::time::sleep(rest).await;
                drop(permit);
            });
        }
    }
}

/// Tells whether a call asks to be polled again while it is polled, as a guest does that gives way and has more to
/// do. A call that waits is woken later, by what it waits for.
struct Asks {
    asked: AtomicBool,
    waker: Waker,
}

impl Asks {
    fn of(waker: &Waker) -> Arc<Self> {
        Arc::new(Self { asked: AtomicBool::new(false), waker: waker.clone() })
    }
}

impl Wake for Asks {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.asked.store(true, Ordering::Relaxed);
        self.waker.wake_by_ref();
    }
}

impl SlowLane {
    /// The lane of calls that outstay their time.
    pub(super) fn start() -> io::Result<Self> {
        let threads = thread::available_parallelism().map_or(1, usize::from);
        Self::with_threads("plugin-lane", threads, Yielding::Much)
    }

    /// A lane of one thread on which plugins are configured, which may loop just as well.
    pub(super) fn for_loading() -> io::Result<Self> {
        Self::with_threads("plugin-loader", 1, Yielding::Not)
    }

    fn with_threads(name: &str, threads: usize, yielding: Yielding) -> io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(threads)
            .thread_name(name)
            .on_thread_start(move || lower_priority(yielding))
            .build()?;
        Ok(Self { runtime: Some(runtime) })
    }

    /// Drives `call` to its end: where it starts, as long as its plugin is quick, and on the lane, when
    /// it is its turn, from its first interruption on. A plugin whose last call was slow starts on the
    /// lane. Whoever waits for the call does so until its `deadline`.
    ///
    /// # Errors
    /// The text of a panic in a host function.
    pub(super) async fn drive<T: Send + 'static>(
        &self,
        pace: &Arc<Pace>,
        deadline: Instant,
        mut call: Call<T>,
    ) -> Result<T, String> {
        if !pace.is_slow() {
            let here = poll_fn(|context| match call.as_mut().poll(context) {
                Poll::Ready(answer) => Poll::Ready(Some(answer)),
                Poll::Pending if pace.is_slow() => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            });
            if let Some(answer) = here.await {
                pace.came_to_an_end();
                return Ok(answer);
            }
        }
        let turn = Turn::of(pace, deadline).await;
        let before = pace.interruptions();
        let answer = self.spawn(Box::pin(turn.drive(call))).await?;
        if pace.interruptions() == before {
            pace.forgive(before);
        }
        Ok(answer)
    }

    /// Runs work on the lane. Dropping the future ends it.
    ///
    /// # Errors
    /// The text of a panic.
    pub(super) async fn spawn<T: Send + 'static>(&self, call: Call<T>) -> Result<T, String> {
        let runtime = self.runtime.as_ref().expect("it is taken only on drop");
        let carried = Carried { call, home: Handle::current() };
        // Lines go to the caller's log, wherever that is.
        AbortOnDropHandle::new(runtime.spawn(carried.with_current_subscriber()))
            .await
            .map_err(|error| error.to_string())
    }
}

impl Drop for SlowLane {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Waiting for its threads would block the worker that drops the host.
            runtime.shutdown_background();
        }
    }
}

/// A call on the lane, with the runtime that it came from: a socket or a timer that it opens, for
/// example in a directory look-up, must be served there and not at low priority.
struct Carried<T> {
    call: Call<T>,
    home: Handle,
}

impl<T> Future for Carried<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let home = self.home.clone();
        let _home = home.enter();
        self.call.as_mut().poll(context)
    }
}

/// Time that the current thread has spent on a processor; where the system cannot say, wall time.
fn processor_time() -> Duration {
    #[cfg(target_os = "linux")]
    {
        let spent = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        Duration::try_from(spent).unwrap_or_default()
    }
    #[cfg(not(target_os = "linux"))]
    {
        static START: std::sync::LazyLock<std::time::Instant> =
            std::sync::LazyLock::new(std::time::Instant::now);
        START.elapsed()
    }
}

/// Makes the current thread yield to others wherever they have work.
#[cfg_attr(not(target_os = "linux"), expect(unused_variables, reason = "only Linux has it per thread"))]
pub(super) fn lower_priority(yielding: Yielding) {
    // On Linux a process without an id is the current thread. Where the system refuses, the work
    // is done all the same.
    #[cfg(target_os = "linux")]
    if let Some(niceness) = yielding.niceness() {
        let _ = rustix::process::setpriority_process(None, niceness);
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::sync::atomic::AtomicUsize;

    use tokio::task::JoinSet;

    use super::*;

    async fn wait_until(what: &str, holds: impl Fn() -> bool) {
        let patience = Instant::now() + Duration::from_secs(20);
        while !holds() {
            assert!(Instant::now() < patience, "{what}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    #[tokio::test]
    async fn slow_calls_of_one_plugin_take_turns_and_give_them_back() {
        let (lane, pace) = (Arc::new(SlowLane::start().unwrap()), Arc::new(Pace::default()));
        pace.overran();
        let started = Arc::new(AtomicUsize::new(0));
        let mut requests = JoinSet::new();
        for _ in 0..TURNS * 3 {
            let (lane, pace, started) = (Arc::clone(&lane), Arc::clone(&pace), Arc::clone(&started));
            requests.spawn(async move {
                let endless: Call<()> = Box::pin(async move {
                    started.fetch_add(1, Ordering::SeqCst);
                    pending::<()>().await;
                });
                lane.drive(&pace, later(), endless).await
            });
        }
        wait_until("the lane takes some", || started.load(Ordering::SeqCst) >= TURNS).await;
        assert_eq!(started.load(Ordering::SeqCst), TURNS, "the others wait");
        requests.shutdown().await;
        wait_until("all turns come back", || pace.turns.available_permits() == TURNS).await;
        let quick: Call<u8> = Box::pin(async { 7 });
        assert_eq!(lane.drive(&pace, later(), quick).await, Ok(7));
    }

    fn later() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    #[test]
    fn turns_rest_only_where_nothing_comes_to_an_end() {
        let (pace, took) = (Pace::default(), Duration::from_millis(50));
        for _ in 0..FRUITLESS {
            assert_eq!(pace.came_to_nothing(took), Duration::ZERO);
        }
        assert_eq!(pace.came_to_nothing(took), took * REST);
        assert_eq!(pace.came_to_nothing(Duration::from_secs(5)), LONGEST_REST);
        pace.came_to_an_end();
        assert_eq!(pace.came_to_nothing(took), Duration::ZERO);
    }

    #[tokio::test]
    async fn a_plugin_that_only_loops_gets_its_turns_back_after_a_rest() {
        let (lane, pace) = (SlowLane::start().unwrap(), Arc::new(Pace::default()));
        pace.overran();
        for _ in 0..FRUITLESS + 3 {
            let deadline = Instant::now() + Duration::from_millis(2);
            let driven = lane.drive(&pace, deadline, looping());
            assert!(tokio::time::timeout_at(deadline.into(), driven).await.is_err());
        }
        wait_until("the lane throws them away", || {
            pace.fruitless.load(Ordering::SeqCst) > 0 && pace.turns.available_permits() == TURNS
        })
        .await;
        let quick: Call<u8> = Box::pin(async { 7 });
        assert_eq!(lane.drive(&pace, later(), quick).await, Ok(7));
        assert_eq!(pace.fruitless.load(Ordering::SeqCst), 0);
    }

    /// A guest that loops: it gives way at each tick, and goes on.
    fn looping() -> Call<()> {
        Box::pin(poll_fn(|context| {
            context.waker().wake_by_ref();
            Poll::Pending
        }))
    }

    #[tokio::test]
    async fn only_a_call_that_computes_up_to_its_deadline_is_fruitless() {
        let (lane, pace) = (SlowLane::start().unwrap(), Arc::new(Pace::default()));
        pace.overran();
        let fruitless = || pace.fruitless.load(Ordering::SeqCst);
        let run_out = async |call: Call<()>| {
            let deadline = Instant::now() + Duration::from_millis(20);
            let driven = tokio::time::timeout_at(deadline.into(), lane.drive(&pace, deadline, call)).await;
            assert!(driven.is_err());
            wait_until("the lane throws it away", || pace.turns.available_permits() == TURNS).await;
        };
        // On a machine that has no time for the lane, a call may never be polled.
        let patience = Instant::now() + Duration::from_secs(20);
        while fruitless() == 0 {
            assert!(Instant::now() < patience, "a guest that loops is found to");
            run_out(looping()).await;
        }
        let before = fruitless();
        for _ in 0..FRUITLESS {
            run_out(Box::pin(pending())).await;
        }
        let waits_in_the_end: Call<()> = Box::pin(async {
            let mut steps = 3;
            poll_fn(move |context| {
                steps -= 1;
                context.waker().wake_by_ref();
                if steps == 0 { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
            pending::<()>().await;
        });
        run_out(waits_in_the_end).await;
        assert_eq!(fruitless(), before, "whoever waits takes the processor from nobody");
        // A guest is stopped by the clock, too, before it gives way for the first time.
        while fruitless() == before {
            assert!(Instant::now() < patience, "a guest that is stopped is found to have computed");
            let end = Instant::now() + Duration::from_millis(40);
            run_out(Box::pin(async move { while Instant::now() < end {} })).await;
        }
    }
}
