//! The lines of a streamed result: one for each row, and a last one that tells what was done.

use bytes::Bytes;
use futures_util::stream::{self, Stream, StreamExt as _};

use super::answer::{Writer, push_tag};
use super::request::Mode;
use crate::error::Refusal;
use crate::sql::StatementRows;

/// Lines are sent together up to this size, bytes, where they are here already. A slow statement's
/// rows go out one by one.
const PIECE: usize = 16 << 10;

/// The lines as they come. Nothing is read from the server that the client has not made room for:
/// memory stays the same however many rows there are. The last line,
/// `{"command":…,"rowCount":…}`, is written after the commit.
///
/// What fails before the first piece is an ordinary refusal.
pub(super) async fn lines(
    rows: StatementRows,
    mode: Mode,
) -> Result<impl Stream<Item = Result<Bytes, Refusal>>, Refusal> {
    let writer = Writer::new(rows.columns(), mode);
    let mut lines = Lines { rows, writer, end: None };
    let first = lines.piece().await.transpose()?;
    let rest = stream::unfold(lines, |mut lines| async { Some((lines.piece().await?, lines)) });
    Ok(stream::iter(first.map(Ok)).chain(rest))
}

struct Lines {
    rows: StatementRows,
    writer: Writer,
    /// How it ended, once it has.
    end: Option<End>,
}

enum End {
    Complete,
    /// The refusal is still to be told.
    Broken(Refusal),
}

impl Lines {
    /// The lines that are there, at least one.
    async fn piece(&mut self) -> Option<Result<Bytes, Refusal>> {
        match self.end.replace(End::Complete) {
            Some(End::Complete) => return None,
            Some(End::Broken(refusal)) => return Some(Err(refusal)),
            None => self.end = None,
        }
        let mut piece = Vec::new();
        while self.end.is_none() {
            match self.rows.next().await {
                Ok(Some(row)) => {
                    self.writer.push(&mut piece, &row);
                    piece.push(b'\n');
                    if piece.len() >= PIECE || !self.rows.is_next_here() {
                        break;
                    }
                }
                Ok(None) => {
                    piece.push(b'{');
                    if let Some(tag) = self.rows.tag() {
                        push_tag(&mut piece, tag);
                    }
                    piece.extend_from_slice(b"}\n");
                    self.end = Some(End::Complete);
                }
                Err(refusal) if piece.is_empty() => {
                    self.end = Some(End::Complete);
                    return Some(Err(refusal));
                }
                Err(refusal) => self.end = Some(End::Broken(refusal)),
            }
        }
        Some(Ok(Bytes::from(piece)))
    }
}
