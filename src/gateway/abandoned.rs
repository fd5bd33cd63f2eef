//! What a client that went away takes with it: the query that ran for it.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::Response;
use http_body::{Body as HttpBody, Frame, SizeHint};

use crate::body::{Body, BodyError};
use crate::error::{Code, Refusal};
use crate::handler::Connection;

/// Runs a query for as long as its client is there. Dropped, a query is cancelled on the server.
pub(super) async fn with_client(
    connection: &Connection,
    query: impl Future<Output = Result<Response<Body>, Refusal>>,
) -> Result<Response<Body>, Refusal> {
    let response = tokio::select! {
        biased;
        answer = query => answer?,
        () = connection.abandoned() => {
            return Err(Refusal::new(Code::RequestInvalid, "the client closed its connection before the answer"));
        }
    };
    if response.body().size_hint().exact().is_some() {
        return Ok(response);
    }
    let gone = Box::pin(connection.abandoned());
    Ok(response.map(|rows| Body::stream(Rows { rows, gone })))
}

/// Rows that are still being read while the client takes them.
struct Rows<F> {
    rows: Body,
    gone: Pin<Box<F>>,
}

impl<F: Future<Output = ()>> HttpBody for Rows<F> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = Pin::new(&mut self.rows).poll_frame(cx);
        if polled.is_pending() {
            ready!(self.gone.as_mut().poll(cx));
            self.rows = Body::empty();
            let gone = BodyError::ClientGone("it closed its connection".into());
            return Poll::Ready(Some(Err(gone)));
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.rows.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.rows.size_hint()
    }
}
