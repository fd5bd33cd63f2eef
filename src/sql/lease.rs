//! A connection for one request. In doubt it is closed, never returned to the pool.

use std::time::Duration;

use tokio::time::timeout;

use super::pool::Leased;
use super::texts::Texts;
use super::value::Value;
use super::wire::{Exchange, NamedConnection, Row, StartError, WireError};
use super::{failure, text};

/// A pooled connection inside a transaction that is narrowed to a scope.
///
/// Dropped in any way but [`Lease::end`] or [`Lease::finish`], it closes its connection: whoever
/// cancels a request at any await leaves nothing behind.
pub(super) struct Lease {
    connection: Leased<NamedConnection>,
}

/// What a commit came to.
pub(super) enum CommitError {
    /// Nothing was committed.
    Refused(WireError),
    /// Nothing was committed: the scope did not hold.
    Outside(WireError),
    /// The connection broke before an answer came: nobody knows.
    InDoubt(WireError),
    /// No answer came in time: nobody knows.
    Silent,
}

impl Lease {
    /// Takes a connection in hand. From here on it is closed unless its transaction is seen to end.
    pub(super) fn new(connection: Leased<NamedConnection>) -> Self {
        Self { connection }
    }

    /// Opens the transaction, narrows it to its scope, and starts the statement.
    pub(super) async fn start(&mut self, texts: &Texts, values: &[Value]) -> Result<(), StartError> {
        let exchange = Exchange {
            opening: &texts.opening,
            statement: &texts.statement,
            values,
            tenant: texts.tenant,
            columns: texts.columns,
            ending: texts.ending,
        };
        self.connection.start(&exchange).await
    }

    /// The statement's next row; `None` once there are no more. Cancelling it loses nothing.
    pub(super) async fn next(&mut self) -> Result<Option<Row>, WireError> {
        self.connection.next().await
    }

    /// Whether the next row is here already.
    pub(super) fn is_next_here(&self) -> bool {
        self.connection.has_message()
    }

    /// Whether the connection had idled before, and so may have been dead when it was taken.
    pub(super) fn had_idled(&self) -> bool {
        self.connection.idled()
    }

    /// Gives the connection back where its transaction is over, and else rolls it back without making
    /// the request wait for that. Only a rollback that the server confirmed gives the connection back.
    pub(super) fn end(mut self) {
        if self.connection.is_idle() {
            self.connection.settle();
            return;
        }
        tokio::spawn(async move {
            match self.connection.run(text::END_OF_FAILED).await {
                Ok(()) => self.connection.settle(),
                Err((_, error)) => {
                    tracing::debug!(%error, "a connection did not roll back and is closed");
                }
            }
        });
    }

    /// Ends a statement that failed: by a rollback, unless the connection is of no more use.
    pub(super) fn end_failed(self, error: &WireError) {
        if !failure::is_lost(error) {
            self.end();
        }
    }

    /// Asserts the scope and ends the transaction: a change by its commit, a read by its rollback. It is
    /// waited for by itself: once this message is sent, giving up does not undo a change.
    pub(super) async fn finish(mut self, texts: &Texts, patience: Duration) -> Result<(), CommitError> {
        let ended = timeout(patience, self.connection.run(texts.end.as_str())).await;
        match ended.map_err(|_| CommitError::Silent)? {
            Ok(()) => {
                self.connection.settle();
                Ok(())
            }
            // The change is saved; only the reset failed. Dropping the lease closes the connection.
            Err((completed, error)) if completed > text::COMMIT_POSITION => {
                tracing::warn!(%error, database = %self.connection.database(), "a connection did not reset and is closed");
                Ok(())
            }
            Err((completed, error @ WireError::Database(_))) if !error.is_lost() => {
                let of_assertion = completed == texts.asserts_at;
                Err(if of_assertion { CommitError::Outside(error) } else { CommitError::Refused(error) })
            }
            Err((_, error)) => Err(CommitError::InDoubt(error)),
        }
    }
}
