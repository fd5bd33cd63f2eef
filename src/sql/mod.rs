//! Runs statements in their tenant's schema, an operator's or a client's own: one connection, one
//! transaction.

mod batch;
mod execute;
mod failure;
mod guard;
mod lease;
mod placeholders;
mod pool;
mod scope;
mod shape;
mod stream;
mod text;
mod texts;
mod value;
mod whereabouts;
mod wire;

use std::sync::Arc;
use std::time::Duration;

pub use batch::{Batch, Characteristics, ClientStatement, IsolationLevel};
pub use execute::StatementRows;
pub use guard::{Guard, Vetted, harmless_functions};
pub use pool::PoolStatus;
pub use scope::Scope;
pub use stream::Rows;
pub use value::{Given, Value, read_value};
pub use wire::{Column, ResultSet, Row, Tag};

use crate::error::{Code, Refusal};
use crate::policy::{self, Query, ResultShape};
use crate::telemetry::{DatabaseLabel, Metrics};
use lease::{CommitError, Lease};
use pool::{Pool, Server};
use text::Form;
use texts::{TextCache, Texts};
use whereabouts::Whereabouts;
use wire::{NamedConnection, StartError, WireError};

/// How long after `statement_timeout` an answer is still waited for, before the server is taken
/// for unreachable: its own error must have the time to arrive.
const ANSWER_GRACE: Duration = Duration::from_secs(2);

/// What a client gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// A JSON text, as PostgreSQL wrote it.
    Json(String),
    /// Nothing: 204.
    Empty,
}

/// A database that queries run in: a pool, and the rule that everything run on it has a scope.
pub struct Database {
    settings: Arc<policy::Database>,
    metrics: Arc<Metrics>,
    pool: Pool,
    texts: TextCache,
    label: DatabaseLabel,
}

/// Why a database cannot even be addressed.
#[derive(Debug, thiserror::Error)]
#[error("database `{database}`: its url is not one that PostgreSQL takes: {reason}")]
pub struct OpenError {
    database: policy::Name,
    reason: String,
}

impl Database {
    /// Makes a pool for `settings`. Nothing is connected yet: a database that is down now is no
    /// error, and is served once it is up. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// The URL cannot be read.
    pub fn open(settings: Arc<policy::Database>, metrics: Arc<Metrics>) -> Result<Self, OpenError> {
        let pool = Pool::new(Server::new(Arc::clone(&settings))?, Arc::clone(&metrics));
        let label = DatabaseLabel { database: policy::Name::clone(&settings.name) };
        Ok(Self { settings, metrics, pool, texts: TextCache::new(), label })
    }

    /// What the policy says of it.
    pub fn settings(&self) -> &Arc<policy::Database> {
        &self.settings
    }

    /// How its pool is used now.
    pub fn pool_status(&self) -> PoolStatus {
        self.pool.status()
    }

    /// Asks the server for a sign of life, over a pooled connection.
    ///
    /// # Errors
    /// `database-unavailable`, with the cause.
    pub async fn ready(&self) -> Result<(), Refusal> {
        let mut failures = self.settings.pool.max_connections;
        loop {
            let mut connection = self.pool.take_own::<NamedConnection>().await?;
            match connection.ping().await {
                Ok(()) => {
                    connection.settle();
                    return Ok(());
                }
                // One that died idle says nothing of the server: it makes room for a new one.
                Err(error) => {
                    failures = failures.checked_sub(1).ok_or_else(|| failure::not_scoped(&error))?;
                }
            }
        }
    }

    /// Runs `query` in `scope` with `values`, one for each of its parameters.
    ///
    /// One round trip for a read, two for a change, whose commit is a message of its own: so that a
    /// connection which breaks before it is known to have changed nothing. Dropping the future at any
    /// point closes its connection, and the server ends the query.
    ///
    /// # Errors
    /// The codes of a query: `database-unavailable`, `query-timeout`, `query-parameter`,
    /// `query-failed`, and `isolation-breach`, after which nothing of the result is known.
    pub async fn run(&self, scope: &Scope, query: &Query, values: Vec<Value>) -> Result<Answer, Refusal> {
        self.expect_fit(scope, query, &values)?;
        let texts = self.texts.of(scope, query, Form::Whole(query.result));
        let transacting = self.transact(scope, query, &texts, &values);
        let transacted = tokio::time::timeout(self.patience(query), transacting).await;
        let (answer, uncommitted) = transacted.unwrap_or_else(|_| Err(failure::silent()))?;
        if let Some(lease) = uncommitted {
            let finished = lease.finish(&texts, self.answer_patience(query)).await;
            finished.map_err(|error| self.not_committed(scope, error, &values))?;
        }
        Ok(answer)
    }

    /// Runs the statement. With its answer comes the transaction of a change, which is to be committed.
    async fn transact(
        &self,
        scope: &Scope,
        query: &Query,
        texts: &Texts,
        values: &[Value],
    ) -> Result<(Answer, Option<Lease>), Refusal> {
        let mut retried = false;
        loop {
            let (mut lease, started) = self.begin(scope, texts, values).await?;
            let row = match started {
                Ok(()) => last_row(&mut lease).await,
                Err(error) => Err(error),
            };
            let row = match row {
                Ok(row) => row,
                Err(error) if !retried && may_run_again(&error, query) => {
                    retried = true;
                    continue;
                }
                Err(error) => {
                    lease.end_failed(&error);
                    return Err(failure::failed(&error, !values.is_empty()));
                }
            };
            let answer = match self.read(row.as_ref(), scope, query, texts.columns) {
                Ok(answer) => answer,
                // Dropped, and so closed: nothing that this session says can be believed.
                Err(breach) if breach.code() == Code::IsolationBreach => return Err(breach),
                Err(refusal) => {
                    lease.end();
                    return Err(refusal);
                }
            };
            if query.read_only {
                lease.end();
                return Ok((answer, None));
            }
            return Ok((answer, Some(lease)));
        }
    }

    /// A connection with its transaction begun, and how its statement started. Connections that died
    /// while they idled are passed over: after a restart of the server that can be every one of the
    /// pool. A statement that was sent on one has changed nothing, as its commit was not.
    async fn begin(
        &self,
        scope: &Scope,
        texts: &Texts,
        values: &[Value],
    ) -> Result<(Lease, Result<(), WireError>), Refusal> {
        loop {
            let mut lease = Lease::new(self.pool.take(scope).await?);
            match lease.start(texts, values).await {
                Ok(()) => return Ok((lease, Ok(()))),
                Err(StartError::Failed(error)) => return Ok((lease, Err(error))),
                Err(StartError::NotOpened(error)) if failure::is_lost(&error) && lease.had_idled() => {}
                Err(StartError::NotOpened(error)) => {
                    lease.end_failed(&error);
                    return Err(failure::not_scoped(&error));
                }
            }
        }
    }

    /// How long a request is waited for in all, before the server is taken for unreachable.
    fn patience(&self, query: &Query) -> Duration {
        self.limit(query.timeout.unwrap_or(self.settings.statement_timeout))
    }

    /// How long the answer to a commit is waited for: what was deferred runs in it.
    fn answer_patience(&self, query: &Query) -> Duration {
        query.timeout.unwrap_or(self.settings.statement_timeout).saturating_add(ANSWER_GRACE)
    }

    /// The same for statements that may run for so long.
    fn limit(&self, running: Duration) -> Duration {
        running.saturating_add(ANSWER_GRACE).saturating_add(self.settings.pool.acquire_timeout)
    }

    fn expect_fit(&self, scope: &Scope, query: &Query, values: &[Value]) -> Result<(), Refusal> {
        if scope.database() == &*self.settings.name && values.len() == query.params.len() {
            return Ok(());
        }
        Err(Refusal::new(Code::InternalError, "internal error").because(format!(
            "a scope of database `{}` and {} values came to database `{}` and a query with {} parameters",
            scope.database(),
            values.len(),
            self.settings.name,
            query.params.len()
        )))
    }

    /// Reads the one row of so many columns that [`text::statement`] makes of a result: the result
    /// first, and last where the session stood.
    fn read(
        &self,
        row: Option<&Row>,
        scope: &Scope,
        query: &Query,
        columns: usize,
    ) -> Result<Answer, Refusal> {
        let Some(row) = row else {
            return if query.statement.returns_rows() {
                Err(failure::unreadable())
            } else {
                Ok(Answer::Empty)
            };
        };
        self.expect_inside(scope, Whereabouts::behind(columns - whereabouts::COUNT, row))?;
        let mut values = row.values().map(|value| value.map(str::to_owned));
        let mut value = || values.next().flatten();
        if query.result == ResultShape::Rows {
            return shape::rows(value().ok_or_else(failure::unreadable)?).map(Answer::Json);
        }
        let count = value().and_then(|count| count.parse().ok()).ok_or_else(failure::unreadable)?;
        match query.result {
            ResultShape::One => shape::one(count, value()).map(Answer::Json),
            ResultShape::Value => shape::value(count, value()).map(Answer::Json),
            ResultShape::Rows | ResultShape::None => Ok(Answer::Empty),
        }
    }

    fn not_committed(&self, scope: &Scope, error: CommitError, values: &[Value]) -> Refusal {
        match error {
            CommitError::Outside(error) => self.outside(scope, &error),
            CommitError::Refused(error) => failure::failed(&error, !values.is_empty()),
            CommitError::InDoubt(error) => failure::in_doubt(&error),
            CommitError::Silent => failure::in_doubt(&"the server did not answer in time"),
        }
    }

    /// The refusal where the assertion before a commit failed.
    fn outside(&self, scope: &Scope, error: &WireError) -> Refusal {
        match error {
            WireError::Database(error) if error.message().contains(text::BREACH) => {
                self.alarm(error.message())
            }
            WireError::Database(error) if error.message().contains(text::NO_HOME) => failure::no_home(scope),
            error => failure::failed(error, false),
        }
    }

    /// Raises the alarm where a session does not stand in its scope.
    fn expect_inside(&self, scope: &Scope, whereabouts: Option<Whereabouts<'_>>) -> Result<(), Refusal> {
        match whereabouts {
            Some(whereabouts) if !whereabouts.is_inside(scope) => Err(self.alarm(&whereabouts.to_string())),
            Some(whereabouts) if !whereabouts.is_at_home(scope) => Err(failure::no_home(scope)),
            Some(_) => Ok(()),
            None => Err(self.alarm("nowhere that it would say")),
        }
    }

    fn alarm(&self, whereabouts: &str) -> Refusal {
        self.metrics.isolation_breaches.get_or_create(&self.label).inc();
        tracing::error!(database = %self.settings.name, whereabouts, "isolation breach: a statement left its scope");
        failure::breach(whereabouts)
    }
}

/// The last row of a statement that has one, or none, once its exchange is over.
async fn last_row(lease: &mut Lease) -> Result<Option<Row>, WireError> {
    let mut last = None;
    while let Some(row) = lease.next().await? {
        last = Some(row);
    }
    Ok(last)
}

/// Whether a statement that failed may be sent once more, on another connection: a read always, unless
/// its answer was too large, and a change where it was not begun.
fn may_run_again(error: &WireError, query: &Query) -> bool {
    let broke = failure::is_lost(error) && !matches!(error, WireError::MessageTooLarge);
    failure::is_stale(error) || (query.read_only && broke)
}
