//! A time limit that costs nothing while nobody is kept waiting.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// Measures one wait after another. The timer behind it is set anew only when it fires, not for
/// each wait: a connection has many waits, and few that are long.
pub(super) struct Patience {
    since: Option<Instant>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Patience {
    pub(super) fn new() -> Self {
        Self { since: None, sleep: None }
    }

    /// Ends a wait.
    pub(super) fn calm(&mut self) {
        self.since = None;
    }

    /// Ends a wait and says how long it was; zero where nobody waited.
    pub(super) fn end(&mut self) -> Duration {
        self.since.take().map(|since| since.elapsed()).unwrap_or_default()
    }

    /// Begins a wait, or goes on with the one begun; ready when it has lasted for `limit`.
    pub(super) fn poll_over(&mut self, cx: &mut Context<'_>, limit: Duration) -> Poll<()> {
        let deadline = *self.since.get_or_insert_with(Instant::now) + limit;
        ready!(self.poll_at(cx, deadline));
        self.since = None;
        Poll::Ready(())
    }

    /// Ready at `deadline`. Until then the task is woken now and then, `deadline` at the latest.
    pub(super) fn poll_at(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if sleep.deadline() > deadline {
            sleep.as_mut().reset(deadline);
        }
        loop {
            ready!(sleep.as_mut().poll(cx));
            if sleep.deadline() >= deadline {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(20);

    /// Begins a wait and leaves it to its timer.
    async fn begin(patience: &mut Patience, limit: Duration) {
        std::future::poll_fn(|cx| {
            assert!(patience.poll_over(cx, limit).is_pending());
            Poll::Ready(())
        })
        .await;
    }

    async fn over(patience: &mut Patience, limit: Duration) {
        std::future::poll_fn(|cx| patience.poll_over(cx, limit)).await;
    }

    #[tokio::test]
    async fn each_wait_is_measured_from_its_own_beginning() {
        let mut patience = Patience::new();
        let begun = Instant::now();
        over(&mut patience, SHORT).await;
        assert!(begun.elapsed() >= SHORT);

        // A wait that was ended leaves an early timer behind, which must not end the next one.
        begin(&mut patience, SHORT).await;
        patience.calm();
        let begun = Instant::now();
        over(&mut patience, SHORT * 3).await;
        assert!(begun.elapsed() >= SHORT * 3);

        // A late timer must not hold up a shorter wait.
        begin(&mut patience, Duration::from_hours(1)).await;
        patience.calm();
        over(&mut patience, SHORT).await;
    }
}
