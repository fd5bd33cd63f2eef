//! A connection for one request. In doubt it is closed, never returned to the pool.

use futures_util::TryStreamExt as _;
use sqlx::{Either, Error, Executor as _, PgConnection};

use super::pool::Leased;
use super::texts::Texts;
use super::{failure, text};

/// A pooled connection inside a transaction that is narrowed to a scope.
///
/// It begins its transaction by itself instead of through `sqlx::Transaction`: there, a `begin`
/// that is cancelled between being sent and being answered leaves the depth at 0, no ROLLBACK is
/// queued, and the connection goes back to the pool inside an open transaction with a tenant's
/// search path. sqlx never learns of ours, and so sends no COMMIT or ROLLBACK of its own either.
///
/// Dropped in any way but [`Lease::end_read`] or [`Lease::finish`], it closes its connection:
/// whoever cancels a request at any await leaves nothing behind.
pub(super) struct Lease {
    connection: Leased<PgConnection>,
}

/// What a commit came to.
pub(super) enum CommitError {
    /// Nothing was committed.
    Refused(Error),
    /// The connection broke before an answer came: nobody knows.
    InDoubt(Error),
}

impl Lease {
    /// Takes a connection in hand. From here on it is closed unless its transaction is seen to end.
    pub(super) fn new(connection: Leased<PgConnection>) -> Self {
        Self { connection }
    }

    /// Opens the transaction and narrows it to its scope.
    pub(super) async fn begin(&mut self, texts: &Texts) -> Result<(), Error> {
        self.connection().execute(sqlx::raw_sql(texts.begin.clone())).await.map(|_| ())
    }

    /// The connection, to run the one statement on.
    pub(super) fn connection(&mut self) -> &mut PgConnection {
        &mut self.connection
    }

    /// Ends a read, or a statement that failed, without making the request wait for it. Only a
    /// rollback that the server confirmed gives the connection back.
    pub(super) fn end_read(mut self) {
        tokio::spawn(async move {
            let ended = self.connection().execute(sqlx::raw_sql(text::END_OF_READ)).await;
            match ended {
                Ok(_) => self.connection.settle(),
                Err(error) => tracing::debug!(%error, "a connection did not roll back and is closed"),
            }
        });
    }

    /// Ends a statement that failed: by a rollback, unless the connection is of no more use.
    pub(super) fn end_failed(self, error: &Error) {
        if !failure::is_lost(error) {
            self.end_read();
        }
    }

    /// Asserts the scope and ends the transaction: a change by its commit, a read by its rollback.
    pub(super) async fn finish(mut self, texts: &Texts) -> Result<(), CommitError> {
        let mut completed = 0;
        let mut answers = self.connection().fetch_many(sqlx::raw_sql(texts.end.clone()));
        let outcome = loop {
            match answers.try_next().await {
                Ok(Some(Either::Left(_))) => completed += 1,
                Ok(Some(Either::Right(_))) => {}
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        drop(answers);
        match outcome {
            Ok(()) => {
                self.connection.settle();
                Ok(())
            }
            // The change is saved; only the reset failed. Dropping the lease closes the connection.
            Err(error) if completed > text::COMMIT_POSITION => {
                tracing::warn!(%error, database = %self.connection.database(), "a connection did not reset and is closed");
                Ok(())
            }
            Err(error @ Error::Database(_)) => Err(CommitError::Refused(error)),
            Err(error) => Err(CommitError::InDoubt(error)),
        }
    }
}
