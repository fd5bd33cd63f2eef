//! What an operator ends: a request that has no answer yet.

use std::future::Future;
use std::pin::Pin;
use std::task::Poll;

use crate::error::{Code, Refusal};
use crate::underway::Progress;

/// Answers a request, unless an operator ends it first. Dropped then, the walk leaves nothing behind:
/// its query is cancelled on the server, and its place with an upstream is free.
pub(super) async fn unless_ended<T>(
    progress: &Progress,
    mut walk: Pin<&mut impl Future<Output = Result<T, Refusal>>>,
) -> Result<T, Refusal> {
    std::future::poll_fn(|cx| match walk.as_mut().poll(cx) {
        Poll::Pending => progress
            .poll_ended(cx)
            .map(|()| Err(Refusal::new(Code::RequestEnded, "an operator ended this request"))),
        answered @ Poll::Ready(_) => answered,
    })
    .await
}
