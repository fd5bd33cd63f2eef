//! The clock that interrupts guests: one thread an engine, asleep while nothing runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle, Thread};
use std::time::Duration;

use wasmtime::Engine;

/// How often a running guest is made to look at its deadline, and to let other tasks run.
const TICK: Duration = Duration::from_millis(1);

/// How often the clock looks whether a guest runs, while it finds none: most calls are over long before
/// anybody looks, and a thread that wakes every millisecond for them takes a core from the workers a
/// thousand times a second.
const LOOK: Duration = Duration::from_millis(4);

/// Looks in a row that find no guest, after which the thread sleeps until the next one. Long enough
/// that steady traffic never pays for waking it.
const IDLE_LOOKS: u32 = 50;

#[derive(Default)]
struct Shared {
    running: AtomicUsize,
    asleep: AtomicBool,
    stop: AtomicBool,
}

/// The ticker. It ends when dropped.
pub(super) struct Epochs {
    shared: Arc<Shared>,
    ticker: Thread,
    handle: Option<JoinHandle<()>>,
}

/// As long as it lives, the clock ticks.
pub(super) struct Ticking<'a>(&'a Shared);

impl Epochs {
    pub(super) fn start(engine: Engine) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        // A thread and not a task: a guest in an endless loop may hold every worker.
        let handle =
            thread::Builder::new().name("plugin-epochs".into()).spawn(move || tick(&engine, &theirs))?;
        Ok(Self { shared, ticker: handle.thread().clone(), handle: Some(handle) })
    }

    /// Keeps the clock ticking while a guest runs.
    pub(super) fn ticking(&self) -> Ticking<'_> {
        // Sequentially consistent, as in `tick`: either it sees our count before it sleeps, or we
        // see that it sleeps.
        self.shared.running.fetch_add(1, Ordering::SeqCst);
        if self.shared.asleep.load(Ordering::SeqCst) {
            self.ticker.unpark();
        }
        Ticking(&self.shared)
    }
}

impl Drop for Ticking<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Drop for Epochs {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.ticker.unpark();
        if let Some(handle) = self.handle.take() {
            handle.join().expect("the ticker does nothing that panics");
        }
    }
}

fn tick(engine: &Engine, shared: &Shared) {
    let mut idle = 0;
    while !shared.stop.load(Ordering::SeqCst) {
        let runs = shared.running.load(Ordering::SeqCst) != 0;
        idle = if runs { 0 } else { idle + 1 };
        if runs {
            thread::park_timeout(TICK);
        } else if idle < IDLE_LOOKS {
            thread::park_timeout(LOOK);
        } else {
            shared.asleep.store(true, Ordering::SeqCst);
            if shared.running.load(Ordering::SeqCst) == 0 && !shared.stop.load(Ordering::SeqCst) {
                thread::park();
            }
            shared.asleep.store(false, Ordering::SeqCst);
            idle = 0;
        }
        engine.increment_epoch();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    fn wait_until(what: &str, holds: impl Fn() -> bool) {
        let patience = Instant::now() + Duration::from_secs(20);
        while !holds() {
            assert!(Instant::now() < patience, "{what}");
            thread::yield_now();
        }
    }

    #[test]
    fn the_ticker_ends_when_dropped_awake_or_asleep() {
        let epochs = Epochs::start(Engine::default()).unwrap();
        let shared = Arc::downgrade(&epochs.shared);
        drop(epochs);
        assert_eq!(shared.strong_count(), 0, "the thread is gone");

        let epochs = Epochs::start(Engine::default()).unwrap();
        let shared = Arc::clone(&epochs.shared);
        wait_until("it falls asleep", || shared.asleep.load(Ordering::SeqCst));
        drop(epochs);
        assert_eq!(Arc::strong_count(&shared), 1, "the thread is gone");
    }

    #[test]
    fn a_sleeping_ticker_wakes_for_a_guest() {
        let epochs = Epochs::start(Engine::default()).unwrap();
        wait_until("it falls asleep", || epochs.shared.asleep.load(Ordering::SeqCst));
        let _ticking = epochs.ticking();
        wait_until("it wakes", || !epochs.shared.asleep.load(Ordering::SeqCst));
    }
}
