//! What an operator ends: a request that has no answer yet.

use std::future::Future;
use std::pin::pin;
use std::task::Poll;

use crate::error::{Code, Refusal};
use crate::underway::Progress;

/// Answers a request, unless an operator ends it first. What was done for it is dropped by then: its
/// query is cancelled on the server, and its place with an upstream is free.
pub(super) async fn unless_ended<T>(
    progress: &Progress,
    walk: impl Future<Output = Result<T, Refusal>>,
) -> Result<T, Refusal> {
    let mut walk = pin!(walk);
    std::future::poll_fn(|cx| match walk.as_mut().poll(cx) {
        Poll::Pending => progress
            .poll_ended(cx)
            .map(|()| Err(Refusal::new(Code::RequestEnded, "an operator ended this request"))),
        answered @ Poll::Ready(_) => answered,
    })
    .await
}
