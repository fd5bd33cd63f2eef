//! Hedging: an endpoint that keeps a safe request waiting is not the only one that is asked.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use super::endpoint::Endpoint;
use super::exchange::Tried;

/// Waits for `first`, and for a second try too if there is no answer after a while and `second`
/// gives one. The first good answer counts; whoever lost is cancelled.
pub(super) async fn race<F: Future<Output = (Arc<Endpoint>, Tried)>>(
    first: F,
    after: Duration,
    second: impl FnOnce() -> Option<F>,
) -> (Arc<Endpoint>, Tried) {
    let mut first = Box::pin(first);
    if let Ok(answered) = tokio::time::timeout(after, first.as_mut()).await {
        return answered;
    }
    let Some(second) = second() else { return first.await };
    let mut second = Box::pin(second);
    tokio::select! {
        (endpoint, tried) = first.as_mut() => match tried.outcome {
            Ok(_) => (endpoint, tried),
            Err(_) => second.await,
        },
        (endpoint, tried) = second.as_mut() => match tried.outcome {
            Ok(_) => (endpoint, tried),
            Err(_) => first.await,
        },
    }
}
