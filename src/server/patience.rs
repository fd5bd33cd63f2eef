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

    /// Begins a wait, or goes on with the one begun; ready when it has lasted for `limit`.
    pub(super) fn poll_over(&mut self, cx: &mut Context<'_>, limit: Duration) -> Poll<()> {
        let deadline = *self.since.get_or_insert_with(Instant::now) + limit;
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if sleep.deadline() > deadline {
            sleep.as_mut().reset(deadline);
        }
        loop {
            ready!(sleep.as_mut().poll(cx));
            if sleep.deadline() >= deadline {
                self.since = None;
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn over(patience: &mut Patience, limit: u64) {
        std::future::poll_fn(|cx| patience.poll_over(cx, Duration::from_secs(limit))).await;
    }

    #[tokio::test(start_paused = true)]
    async fn each_wait_is_measured_from_its_own_beginning() {
        let mut patience = Patience::new();
        let begun = Instant::now();
        over(&mut patience, 10).await;
        assert_eq!(begun.elapsed().as_secs(), 10);

        // A wait that was ended leaves an early timer behind, which must not end the next one.
        assert!(tokio::time::timeout(Duration::from_secs(4), over(&mut patience, 5)).await.is_err());
        patience.calm();
        let begun = Instant::now();
        over(&mut patience, 5).await;
        assert_eq!(begun.elapsed().as_secs(), 5);

        // A wait that is gone on with is not measured anew, even for a shorter limit.
        assert!(tokio::time::timeout(Duration::from_secs(4), over(&mut patience, 50)).await.is_err());
        let begun = Instant::now();
        over(&mut patience, 6).await;
        assert_eq!(begun.elapsed().as_secs(), 2);
    }
}
