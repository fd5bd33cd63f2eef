//! How fast a client takes what it is sent: one that reads a little now and then holds no answer, nor
//! what feeds it, for ever. Only time in which it kept us waiting counts.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::rt::Executor;
use tokio::time::Instant;

use super::ServerSettings;
use super::patience::Patience;

/// What a client must take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Least {
    /// How long it may take nothing. Its pace is judged each time when it has kept us waiting for as
    /// long in all.
    pub(super) idle: Duration,
    /// Bytes per second of waiting; zero for any pace.
    pub(super) rate: u64,
}

impl Least {
    pub(super) fn of(settings: &ServerSettings) -> Self {
        Self { idle: settings.timeouts.body_idle, rate: settings.limits.min_body_rate }
    }
}

/// What a client took, and how long it kept us waiting, since it was judged last.
#[derive(Debug, Default)]
pub(super) struct Taking {
    waited: Duration,
    taken: u64,
}

impl Taking {
    /// Notes what the client took, after how long a wait. False: it is too slow.
    pub(super) fn goes_on(&mut self, waited: Duration, taken: u64, least: Least) -> bool {
        self.waited += waited;
        self.taken = self.taken.saturating_add(taken);
        if self.waited < least.idle {
            return true;
        }
        // Begun anew: what was taken fast at first excuses nothing later.
        let Self { waited, taken } = std::mem::take(self);
        u128::from(taken) * 1000 >= u128::from(least.rate) * waited.as_millis()
    }
}

/// One HTTP/2 stream's answer. HTTP/2 has windows of its own: a client can keep a stream waiting while
/// its connection does well, and nothing of that is seen on the wire.
pub(super) struct Delivery {
    least: Least,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// A piece that waits for room in the stream's window: since when, and how long it is.
    handed: Option<(Instant, u64)>,
    taking: Taking,
}

impl Delivery {
    /// Another piece is asked for, so that the one before has found room. False: it took too long.
    pub(super) fn is_taken(&self) -> bool {
        let mut state = self.lock();
        match state.handed.take() {
            Some((since, bytes)) => state.taking.goes_on(since.elapsed(), bytes, self.least),
            None => true,
        }
    }

    /// A piece was handed over.
    pub(super) fn hand(&self, bytes: u64) {
        self.lock().handed = Some((Instant::now(), bytes));
    }

    /// Ready when a piece has found no room in time.
    fn poll_overdue(&self, patience: &mut Patience, cx: &mut Context<'_>) -> Poll<()> {
        let since = self.lock().handed.map(|(since, _)| since);
        since.map_or(Poll::Pending, |since| patience.poll_at(cx, since + self.least.idle))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs the streams of one HTTP/2 connection, and resets those whose answer is not taken.
#[derive(Clone)]
pub(super) struct Streams {
    least: Least,
    begun: Arc<Mutex<Option<Arc<Delivery>>>>,
}

impl Streams {
    pub(super) fn new(least: Least) -> Self {
        Self { least, begun: Arc::default() }
    }

    /// Begins the answer of the stream that is executed next: the HTTP library does both in turn for
    /// each request.
    pub(super) fn begin(&self) -> Arc<Delivery> {
        let delivery = Arc::new(Delivery { least: self.least, state: Mutex::default() });
        *self.begun.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&delivery));
        delivery
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Streams {
    fn execute(&self, stream: F) {
        let Some(delivery) = self.begun.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            tokio::spawn(stream);
            return;
        };
        tokio::spawn(async move {
            let mut patience = Patience::new();
            let overdue = std::future::poll_fn(|cx| delivery.poll_overdue(&mut patience, cx));
            // The stream first: what it does settles whether a piece waits.
            tokio::select! {
                biased;
                () = stream => {}
                () = overdue => tracing::debug!("a client takes the answer on its stream too slowly"),
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_waiting_counts_and_each_stretch_of_it_by_itself() {
        let least = Least { idle: Duration::from_secs(30), rate: 128 };
        let (second, mut taking) = (Duration::from_secs(1), Taking::default());
        // A megabyte at once excuses the stretch that it is in, and no other.
        assert!(taking.goes_on(Duration::ZERO, 1 << 20, least));
        assert!((0..30).all(|_| taking.goes_on(second, 1, least)));
        assert!((0..29).all(|_| taking.goes_on(second, 1, least)));
        assert!(!taking.goes_on(second, 1, least));
        assert!((0..300).all(|_| taking.goes_on(second, 128, least)));
        let any = Least { rate: 0, ..least };
        assert!((0..300).all(|_| taking.goes_on(second, 0, any)));
    }
}
