//! Streams a result: a line of JSON for each row, and a last line that tells how it ended.

use bytes::Bytes;
use futures_util::stream::unfold;
use http_body::Frame;
use http_body_util::StreamBody;
use serde_json::json;

use super::answer::{Writer, push_tag};
use super::request::Mode;
use crate::body::{Body, BodyError};
use crate::error::Refusal;
use crate::gateway::problem;
use crate::sql::Rows;

/// Lines are sent together up to this size, where they are here already. A slow statement's rows
/// go out one by one.
const PIECE: usize = 16 << 10;

/// The rows as they come. Nothing is read from the server that the client has not made room for:
/// memory stays the same however many rows there are. The last line is `{"command":…,"rowCount":…}`,
/// written after the commit; or `{"error":…}`, after which the body breaks off.
pub(super) fn body(rows: Rows, mode: Mode, request_id: String) -> Body {
    let writer = Writer::new(rows.columns(), mode);
    let lines = unfold(Some(Lines::Flowing(Box::new(Flowing { rows, writer, request_id }))), |lines| async {
        match lines? {
            Lines::Flowing(mut flowing) => {
                let (piece, next) = flowing.piece().await;
                let next = match next {
                    Next::More => Some(Lines::Flowing(flowing)),
                    Next::Done => None,
                    Next::Broken(error) => Some(Lines::Broken(error)),
                };
                Some((Ok(Frame::data(Bytes::from(piece))), next))
            }
            Lines::Broken(error) => {
                // The line that says why is on its way first: a body that fails at once takes what
                // was not yet written with it.
                tokio::task::yield_now().await;
                Some((Err(error), None))
            }
        }
    });
    Body::stream(StreamBody::new(lines))
}

enum Lines {
    Flowing(Box<Flowing>),
    Broken(BodyError),
}

enum Next {
    More,
    Done,
    Broken(BodyError),
}

struct Flowing {
    rows: Rows,
    writer: Writer,
    request_id: String,
}

impl Flowing {
    /// The lines that are there, at least one.
    async fn piece(&mut self) -> (Vec<u8>, Next) {
        let mut piece = Vec::new();
        loop {
            match self.rows.next().await {
                Ok(Some(row)) => {
                    self.writer.push(&mut piece, &row);
                    piece.push(b'\n');
                }
                Ok(None) => {
                    piece.push(b'{');
                    if let Some(tag) = self.rows.tag() {
                        push_tag(&mut piece, tag);
                    }
                    piece.extend_from_slice(b"}\n");
                    return (piece, Next::Done);
                }
                Err(refusal) => {
                    let error = self.broken(&mut piece, &refusal);
                    return (piece, Next::Broken(error));
                }
            }
            if piece.len() >= PIECE || !self.rows.is_next_here() {
                return (piece, Next::More);
            }
        }
    }

    fn broken(&self, piece: &mut Vec<u8>, refusal: &Refusal) -> BodyError {
        let (request_id, cause) = (&self.request_id, refusal.cause().unwrap_or_default());
        tracing::warn!(request_id, code = refusal.code().as_str(), cause, "a stream of rows broke off");
        let document = problem::document(refusal, refusal.status(), request_id);
        piece.extend_from_slice(json!({ "error": document }).to_string().as_bytes());
        piece.push(b'\n');
        BodyError::QueryBroken(refusal.code().as_str())
    }
}
