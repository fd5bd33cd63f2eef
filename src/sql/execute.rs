//! Runs statements that clients wrote: one transaction in a scope, and nothing of a result is
//! known before the scope held.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use super::batch::{Batch, ClientStatement};
use super::pool::Leased;
use super::scope::Scope;
use super::whereabouts::{self, Whereabouts};
use super::wire::{Column, Finished, ResultSet, Row, StartError, Statement, Step, Tag};
use super::wire::{WireConnection, WireError};
use super::{ANSWER_GRACE, Database, failure, text};
use crate::error::{Code, Refusal};

type Lease = Leased<WireConnection>;

/// The rows of a statement that is running, one by one. Dropped before its end, the statement is
/// cancelled and its transaction undone.
pub struct StatementRows {
    database: Arc<Database>,
    scope: Scope,
    running: Option<Running>,
    columns: Vec<Column>,
    tag: Option<Tag>,
    patience: Duration,
}

struct Running {
    lease: Lease,
    commits: bool,
}

/// Why a batch goes no further.
enum Stop {
    /// A statement failed.
    Failed(WireError),
    /// Its connection is not to be used again.
    Refused(Refusal),
}

impl Database {
    /// Runs a batch in `scope`: two round trips for one statement, one for one that only reads,
    /// and one more for each further statement.
    ///
    /// Dropping the future at any point cancels what runs and closes its connection.
    ///
    /// # Errors
    /// `query-failed` with all that PostgreSQL said, `query-timeout`, `database-unavailable`,
    /// `tenant-limited`, and `isolation-breach`, after which nothing of a result is known.
    pub async fn execute(&self, scope: &Scope, batch: &Batch) -> Result<Vec<ResultSet>, Refusal> {
        let statements = u32::try_from(batch.statements.len()).unwrap_or(u32::MAX);
        let limit = self.limit(self.timeout(batch).saturating_mul(statements));
        let run = tokio::time::timeout(limit, self.run_batch(scope, batch)).await;
        let (results, lease) = run.unwrap_or_else(|_| Err(failure::silent()))?;
        let patience = self.timeout(batch).saturating_add(ANSWER_GRACE);
        self.end(lease, scope, !batch.characteristics.read_only, patience).await?;
        Ok(results)
    }

    /// Starts the only statement of a batch in `scope`; its rows come as they are asked for.
    ///
    /// # Errors
    /// As [`Database::execute`].
    pub async fn start(self: &Arc<Self>, scope: Scope, batch: &Batch) -> Result<StatementRows, Refusal> {
        let [statement] = batch.statements.as_slice() else {
            return Err(Refusal::new(Code::InternalError, "internal error")
                .because("only one statement can be streamed"));
        };
        let patience = self.timeout(batch).saturating_add(ANSWER_GRACE);
        let limit = self.limit(self.timeout(batch));
        let begun = tokio::time::timeout(limit, self.begin_batch(&scope, batch, statement, true)).await;
        let (lease, columns) = begun.map_err(|_| failure::silent())??;
        let running = Running { lease, commits: !batch.characteristics.read_only };
        let database = Arc::clone(self);
        Ok(StatementRows { database, scope, running: Some(running), columns, tag: None, patience })
    }

    async fn run_batch(&self, scope: &Scope, batch: &Batch) -> Result<(Vec<ResultSet>, Lease), Refusal> {
        let (first, rest) = batch.statements.split_first().ok_or_else(|| {
            Refusal::new(Code::InternalError, "internal error").because("a batch has at least one statement")
        })?;
        let commits = !batch.characteristics.read_only;
        // The commit's own message asserts the scope once more, after what was deferred has run.
        let asserts = !(commits && rest.is_empty());
        let (mut lease, columns) = self.begin_batch(scope, batch, first, asserts).await?;
        match self.answers(&mut lease, scope, batch, columns, rest).await {
            Ok(results) => Ok((results, lease)),
            Err(Stop::Failed(error)) => Err(self.failed(lease, &error)),
            // Dropped, and so cancelled and closed.
            Err(Stop::Refused(refusal)) => Err(refusal),
        }
    }

    /// The answers of the statement that was begun and of the `rest`, one after the other: if one
    /// ended the transaction, the next must not be on its way.
    async fn answers(
        &self,
        lease: &mut Lease,
        scope: &Scope,
        batch: &Batch,
        columns: Vec<Column>,
        rest: &[ClientStatement],
    ) -> Result<Vec<ResultSet>, Stop> {
        let mut room = batch.max_answer;
        let mut results = Vec::with_capacity(batch.statements.len());
        results.push(self.collect(lease, scope, columns, &mut room, batch.max_answer).await?);
        for (index, statement) in rest.iter().enumerate() {
            let is_last = index + 1 == rest.len();
            let asserts = batch.characteristics.read_only || !is_last;
            let assertion = asserts.then_some(&whereabouts::ASSERTION);
            let started = lease.start(&[], &wire_statement(statement), assertion).await;
            let columns = started.map_err(|error| match error {
                StartError::NotOpened(error) | StartError::Failed(error) => Stop::Failed(error),
            })?;
            results.push(self.collect(lease, scope, columns, &mut room, batch.max_answer).await?);
        }
        Ok(results)
    }

    /// Opens the transaction and starts its first statement. Connections that died while they
    /// idled are passed over: nothing can have been saved on them.
    async fn begin_batch(
        &self,
        scope: &Scope,
        batch: &Batch,
        first: &ClientStatement,
        asserts: bool,
    ) -> Result<(Lease, Vec<Column>), Refusal> {
        self.may_run(scope)?;
        let mut opening = text::opening(text::begin_with(batch.characteristics), scope, batch.timeout);
        opening.push(text::READ_AS_THE_GUARD.clone());
        let assertion = asserts.then_some(&whereabouts::ASSERTION);
        let mut lost = 0;
        loop {
            let mut lease = self.pool.take::<WireConnection>(scope).await?;
            match lease.start(&opening, &wire_statement(first), assertion).await {
                Ok(columns) => return Ok((lease, columns)),
                Err(StartError::NotOpened(error))
                    if error.is_lost() && lost < self.settings.pool.max_connections =>
                {
                    lost += 1;
                }
                Err(StartError::NotOpened(error)) => {
                    if !error.is_lost() {
                        roll_back(lease);
                    }
                    return Err(error.not_scoped());
                }
                Err(StartError::Failed(error)) => return Err(self.failed(lease, &error)),
            }
        }
    }

    /// A scope of this database, with a role to hold what the client wrote.
    fn may_run(&self, scope: &Scope) -> Result<(), Refusal> {
        let cause = if scope.database() != &*self.settings.name {
            format!("a scope of database `{}` came to database `{}`", scope.database(), self.settings.name)
        } else if scope.role().is_none() {
            format!(
                "the database `{}` has `isolation: schema`, which cannot hold statements that clients write",
                self.settings.name
            )
        } else {
            return Ok(());
        };
        Err(failure::not_set_up().because(cause))
    }

    /// Reads all that a statement answers.
    async fn collect(
        &self,
        lease: &mut Lease,
        scope: &Scope,
        columns: Vec<Column>,
        room: &mut usize,
        max_answer: usize,
    ) -> Result<ResultSet, Stop> {
        let mut rows = Vec::new();
        loop {
            match lease.step().await.map_err(Stop::Failed)? {
                Step::Row(row) => {
                    *room = room.checked_sub(row.size()).ok_or(Stop::Refused(too_large(max_answer)))?;
                    rows.push(row);
                }
                Step::Finished(finished) => {
                    self.inside(lease, scope, &finished).map_err(Stop::Refused)?;
                    return Ok(ResultSet { columns, rows, tag: finished.tag });
                }
            }
        }
    }

    /// Whether a statement that is done left its transaction and scope as they were.
    fn inside(&self, lease: &Lease, scope: &Scope, finished: &Finished) -> Result<(), Refusal> {
        if !lease.in_transaction() {
            return Err(self.alarm("outside of any transaction"));
        }
        match &finished.asserted {
            None => Ok(()),
            Some(row) => self.expect_inside(scope, Whereabouts::behind(0, row)),
        }
    }

    /// What becomes of a statement that failed, and of its connection.
    fn failed(&self, lease: Lease, error: &WireError) -> Refusal {
        if error.is_lost() {
            return error.failed();
        }
        // An error inside of the transaction fails the transaction. Where there is none any more,
        // the statement ended it, and what PostgreSQL says may be of another tenant.
        if !lease.in_failed_transaction() {
            return self.alarm("outside of any transaction");
        }
        roll_back(lease);
        error.failed()
    }

    /// Ends a transaction whose statements are all done. It is waited for by itself: once a commit is
    /// sent, giving up does not undo it.
    async fn end(
        &self,
        mut lease: Lease,
        scope: &Scope,
        commits: bool,
        patience: Duration,
    ) -> Result<(), Refusal> {
        if !commits {
            roll_back(lease);
            return Ok(());
        }
        let commit = text::commit_client(scope);
        let (tags, error) = match tokio::time::timeout(patience, lease.run(commit.as_str())).await {
            Ok(Ok(tags)) => (tags, None),
            Ok(Err((tags, error))) => (tags, Some(error)),
            Err(_) => return Err(failure::in_doubt(&"the server did not answer in time")),
        };
        let committed = tags.get(text::COMMIT_POSITION).is_some_and(|tag| tag.command() == "COMMIT");
        match error {
            None if committed => {
                lease.settle();
                Ok(())
            }
            // The change is saved; only the reset failed. Dropping the lease closes the connection.
            Some(error) if committed => {
                tracing::warn!(%error, database = %self.settings.name, "a connection did not reset and is closed");
                Ok(())
            }
            None => Err(self.alarm("in a transaction that could not be committed")),
            Some(error) if error.is_lost() => Err(failure::in_doubt(&error)),
            Some(error) if tags.len() == text::assertion_position(false) => Err(self.outside(scope, &error)),
            Some(error) => {
                roll_back(lease);
                Err(error.failed())
            }
        }
    }

    fn timeout(&self, batch: &Batch) -> Duration {
        batch.timeout.unwrap_or(self.settings.statement_timeout)
    }
}

impl StatementRows {
    /// The columns.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// The next row; `None` once the scope was found as it must be, and the change, if it is one,
    /// is committed.
    ///
    /// # Errors
    /// As [`Database::execute`]. What came before is not to be relied on.
    pub async fn next(&mut self) -> Result<Option<Row>, Refusal> {
        let Some(mut running) = self.running.take() else { return Ok(None) };
        let step = tokio::time::timeout(self.patience, running.lease.step()).await;
        match step.map_err(|_| failure::silent())? {
            Ok(Step::Row(row)) => {
                self.running = Some(running);
                Ok(Some(row))
            }
            Ok(Step::Finished(finished)) => {
                self.database.inside(&running.lease, &self.scope, &finished)?;
                self.database.end(running.lease, &self.scope, running.commits, self.patience).await?;
                self.tag = Some(finished.tag);
                Ok(None)
            }
            Err(error) => Err(self.database.failed(running.lease, &error)),
        }
    }

    /// Whether the next row is here already.
    pub fn is_next_here(&self) -> bool {
        self.running.as_ref().is_some_and(|running| running.lease.has_message())
    }

    /// What was done, once there are no more rows.
    pub fn tag(&self) -> Option<&Tag> {
        self.tag.as_ref()
    }
}

/// Ends a transaction without making the request wait for it. Only a rollback and a reset that the
/// server confirmed give the connection back.
fn roll_back(mut lease: Lease) {
    tokio::spawn(async move {
        match lease.run(text::roll_back_client().as_str()).await {
            Ok(_) => lease.settle(),
            Err((_, error)) => tracing::debug!(%error, "a connection did not roll back and is closed"),
        }
    });
}

fn wire_statement(statement: &ClientStatement) -> Statement<'_> {
    Statement { text: statement.vetted.text(), parameters: &statement.parameters }
}

fn too_large(max_answer: usize) -> Refusal {
    Refusal::new(
        Code::QueryFailed,
        format!(
            "the answer would be larger than {max_answer} bytes: select less of it, or have it streamed with \
             `Accept: application/x-ndjson`"
        ),
    )
    .with_status(StatusCode::INSUFFICIENT_STORAGE)
}
