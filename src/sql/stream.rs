//! A query's rows as they come: in memory is what one write to the client takes, and no more.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::Stream;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::lease::{CommitError, Lease};
use super::text::Form;
use super::texts::Texts;
use super::wire::WireError;
use super::{Database, Scope, Value, failure, may_run_again, shape};
use crate::error::Refusal;
use crate::policy::Query;

/// Rows go out in pieces of about this size, bytes, or earlier where the server lets us wait.
const PIECE: usize = 16 << 10;

/// The rows of a result: pieces of lines, each line a JSON object. Where the last item is a
/// refusal, the result did not come to its end, and nothing was changed.
///
/// Dropped before its end, it closes its connection, and the server ends the query.
pub struct Rows {
    first: Option<Bytes>,
    rest: mpsc::Receiver<Result<Bytes, Refusal>>,
    _reader: AbortOnDropHandle<()>,
}

/// What came of reading a result.
enum Broken {
    /// It failed, and the first row was not there yet.
    Early(WireError),
    /// It cannot be gone on with.
    Refused(Refusal),
    /// Nobody wants the rows any more.
    Unwanted,
}

impl Database {
    /// Runs `query` in `scope` with `values`, and gives its rows as they come. The server reads
    /// ahead as far as the sockets between us hold, and waits for whoever reads slowly; the whole
    /// of it must be over within the statement's timeout.
    ///
    /// The last line is kept back until the scope was asserted, and a change committed: a result
    /// that came to its end is one that counts.
    ///
    /// # Errors
    /// As [`Database::run`], for whatever happens before the first piece is there.
    pub async fn stream(
        self: &Arc<Self>,
        scope: Scope,
        query: &Query,
        values: Vec<Value>,
    ) -> Result<Rows, Refusal> {
        self.expect_fit(&scope, query, &values)?;
        let texts = self.texts.of(&scope, query, Form::Streamed);
        let (sender, mut rest) = mpsc::channel(1);
        let patience = self.patience(query);
        let reading = Reading { database: Arc::clone(self), scope, query: query.clone(), values, texts };
        let reader = AbortOnDropHandle::new(tokio::spawn(async move {
            let read = tokio::time::timeout(patience, reading.read(&sender)).await;
            let last = match read.unwrap_or_else(|_| Err(failure::silent())) {
                Ok(Some((lease, last))) => reading.finish(lease).await.map(|()| last),
                Ok(None) => return,
                Err(refusal) => Err(refusal),
            };
            if last.as_ref().is_ok_and(BytesMut::is_empty) {
                return;
            }
            // Fails where nobody listens any more, which is as well.
            let _ = sender.send(last.map(BytesMut::freeze)).await;
        }));
        let first = rest.recv().await.transpose()?;
        Ok(Rows { first, rest, _reader: reader })
    }
}

impl Stream for Rows {
    type Item = Result<Bytes, Refusal>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match self.first.take() {
            Some(first) => Poll::Ready(Some(Ok(first))),
            None => self.rest.poll_recv(context),
        }
    }
}

struct Reading {
    database: Arc<Database>,
    scope: Scope,
    query: Query,
    values: Vec<Value>,
    texts: Arc<Texts>,
}

type Pieces = mpsc::Sender<Result<Bytes, Refusal>>;

impl Reading {
    /// Passes on all rows but the last piece, which it gives with the transaction that is to be ended;
    /// `None` where nobody wants them any more.
    async fn read(&self, pieces: &Pieces) -> Result<Option<(Lease, BytesMut)>, Refusal> {
        let mut retried = false;
        loop {
            let begun = self.database.begin(&self.scope, &self.texts, &self.values).await?;
            let (mut lease, started) = begun;
            let passed_on = match started {
                Ok(()) => self.pass_on(&mut lease, pieces).await,
                Err(error) => Err(Broken::Early(error)),
            };
            match passed_on {
                Ok(last) => return Ok(Some((lease, last))),
                Err(Broken::Early(error)) if !retried && may_run_again(&error, &self.query) => retried = true,
                Err(Broken::Early(error)) => {
                    lease.end_failed(&error);
                    return Err(failure::failed(&error, !self.values.is_empty()));
                }
                // Dropped, and so closed: the server may have much more to send.
                Err(Broken::Refused(refusal)) => return Err(refusal),
                Err(Broken::Unwanted) => return Ok(None),
            }
        }
    }

    /// Passes the rows on, but for what stands in the last piece.
    async fn pass_on(&self, lease: &mut Lease, pieces: &Pieces) -> Result<BytesMut, Broken> {
        let mut piece = BytesMut::with_capacity(PIECE);
        // Where the last line of the piece begins.
        let mut last = 0;
        let mut seen = false;
        loop {
            // What is there goes out before we wait; its last line may be the last of all.
            if last > 0 && !lease.is_next_here() {
                send(pieces, piece.split_to(last)).await?;
            }
            let row = match lease.next().await {
                Ok(Some(row)) => row,
                Ok(None) => return Ok(piece),
                Err(error) if !seen => return Err(Broken::Early(error)),
                Err(error) => return Err(Broken::Refused(failure::failed(&error, !self.values.is_empty()))),
            };
            let line = row.values().next().flatten().unwrap_or_default();
            if !seen {
                shape::first(line).map_err(Broken::Refused)?;
                seen = true;
            }
            if piece.len() >= PIECE {
                send(pieces, std::mem::replace(&mut piece, BytesMut::with_capacity(PIECE))).await?;
            }
            last = piece.len();
            put_line(&mut piece, line);
        }
    }

    async fn finish(&self, lease: Lease) -> Result<(), Refusal> {
        let finished = lease.finish(&self.texts, self.database.answer_patience(&self.query)).await;
        finished.map_err(|error| match error {
            // A read has nothing that could be in doubt.
            CommitError::InDoubt(error) if self.query.read_only => failure::failed(&error, false),
            CommitError::Silent if self.query.read_only => failure::silent(),
            error => self.database.not_committed(&self.scope, error, &self.values),
        })
    }
}

async fn send(pieces: &Pieces, piece: BytesMut) -> Result<(), Broken> {
    pieces.send(Ok(piece.freeze())).await.map_err(|_| Broken::Unwanted)
}

/// PostgreSQL keeps the white space of a `json` value, line ends included. Between the tokens, which
/// is the only place where JSON may have one, a space says the same.
fn put_line(piece: &mut BytesMut, line: &str) {
    let start = piece.len();
    piece.put_slice(line.as_bytes());
    for byte in &mut piece[start..] {
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
    piece.put_u8(b'\n');
}
