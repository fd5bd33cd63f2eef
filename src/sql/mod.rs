//! Runs a named query in its tenant's schema: one connection, one transaction, one statement.

mod failure;
mod guard;
mod lease;
mod placeholders;
mod scope;
mod shape;
mod text;
mod value;

use std::str::FromStr as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions, PgRow};
use sqlx::{ConnectOptions as _, Connection as _, Error, Executor as _, Row as _};

pub use guard::{Guard, Vetted, harmless_functions};
pub use scope::Scope;
pub use value::{Given, Value, read_value};

use crate::error::{Code, Refusal};
use crate::policy::{self, Query, ResultShape};
use crate::telemetry::{DatabaseLabel, Metrics};
use lease::{CommitError, Lease};
use text::Beginning;

/// Statements that sqlx keeps prepared on each connection. Each costs the server some ten
/// kilobytes a connection; a statement that fell out costs two round trips to prepare again.
const STATEMENT_CACHE_CAPACITY: usize = 256;

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
    pool: PgPool,
    label: DatabaseLabel,
    /// Whether the server can watch a client's connection while a query runs (PostgreSQL 14 on,
    /// not on every system). Every new connection asks.
    watches_clients: Arc<AtomicBool>,
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
        let options = PgConnectOptions::from_str(settings.url.reveal())
            .map_err(|error| OpenError {
                database: policy::Name::clone(&settings.name),
                // The error's text may quote the URL, and with it the password.
                reason: match error {
                    Error::Configuration(_) => "it is not a valid URL".to_owned(),
                    other => other.to_string(),
                },
            })?
            .application_name("innkeeper")
            .statement_cache_capacity(STATEMENT_CACHE_CAPACITY)
            // They name schemas and show values: what an operator may read is in the refusal.
            .disable_statement_logging();
        let watches_clients = Arc::new(AtomicBool::new(false));
        let noticed = Arc::clone(&watches_clients);
        let pool = PgPoolOptions::new()
            .max_connections(settings.pool.max_connections)
            .acquire_timeout(settings.pool.acquire_timeout)
            .idle_timeout(settings.pool.idle_timeout)
            .max_lifetime(settings.pool.max_lifetime)
            // It costs a round trip a request. A dead connection shows itself at BEGIN, where
            // another one can take over.
            .test_before_acquire(false)
            .after_connect(move |connection, _| {
                let noticed = Arc::clone(&noticed);
                Box::pin(async move {
                    let probe = "SET client_connection_check_interval TO 1000; RESET client_connection_check_interval";
                    match connection.execute(sqlx::raw_sql(probe)).await {
                        Ok(_) => noticed.store(true, Ordering::Relaxed),
                        Err(Error::Database(_)) => noticed.store(false, Ordering::Relaxed),
                        Err(error) => return Err(error),
                    }
                    Ok(())
                })
            })
            .connect_lazy_with(options);
        let label = DatabaseLabel { database: policy::Name::clone(&settings.name) };
        Ok(Self { settings, metrics, pool, label, watches_clients })
    }

    /// What the policy says of it.
    pub fn settings(&self) -> &Arc<policy::Database> {
        &self.settings
    }

    /// Asks the server for a sign of life, over a pooled connection.
    ///
    /// # Errors
    /// `database-unavailable`, with the cause.
    pub async fn ready(&self) -> Result<(), Refusal> {
        let mut failures = self.settings.pool.max_connections;
        loop {
            let mut connection = self.acquire().await?;
            match connection.ping().await {
                Ok(()) => return Ok(()),
                // One that died idle says nothing of the server: it makes room for a new one.
                Err(error) => {
                    drop(connection.detach());
                    failures = failures.checked_sub(1).ok_or_else(|| failure::not_scoped(&error))?;
                }
            }
        }
    }

    /// Runs `query` in `scope` with `values`, one for each of its parameters.
    ///
    /// Three round trips for a change (begin, statement, commit), two for a read, whose rollback
    /// nobody waits for. Dropping the future at any point closes its connection, and the server
    /// ends the query.
    ///
    /// # Errors
    /// The codes of a query: `database-unavailable`, `query-timeout`, `query-parameter`,
    /// `query-failed`, and `isolation-breach`, after which nothing of the result is known.
    pub async fn run(&self, scope: &Scope, query: &Query, values: Vec<Value>) -> Result<Answer, Refusal> {
        if scope.database() != &*self.settings.name || values.len() != query.params.len() {
            return Err(Refusal::new(Code::InternalError, "internal error").because(format!(
                "a scope of database `{}` and {} values came to database `{}` and a query with {} parameters",
                scope.database(),
                values.len(),
                self.settings.name,
                query.params.len()
            )));
        }
        let timeout = query.timeout.unwrap_or(self.settings.statement_timeout);
        let limit = timeout.saturating_add(ANSWER_GRACE).saturating_add(self.settings.pool.acquire_timeout);
        match tokio::time::timeout(limit, self.transact(scope, query, values, timeout)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(failure::silent()),
        }
    }

    async fn transact(
        &self,
        scope: &Scope,
        query: &Query,
        values: Vec<Value>,
        timeout: Duration,
    ) -> Result<Answer, Refusal> {
        let kinds = query.params.iter().map(|param| param.kind);
        let sql = text::statement(scope, &query.statement, kinds, query.result);
        let mut retries = u8::from(query.read_only);
        loop {
            let mut lease = self.begin(scope, query.read_only, timeout).await?;
            let statement = values
                .iter()
                .cloned()
                .fold(sqlx::query(sql.clone()), |statement, value| value.bind(statement));
            let row = if query.statement.returns_rows() {
                lease.connection().fetch_one(statement).await.map(Some)
            } else {
                lease.connection().execute(statement).await.map(|_| None)
            };
            let row = match row {
                Ok(row) => row,
                Err(error) if failure::is_lost(&error) => {
                    drop(lease);
                    if retries > 0 {
                        retries -= 1;
                        continue;
                    }
                    return Err(failure::failed(&error, !values.is_empty()));
                }
                Err(error) => {
                    lease.end_read();
                    return Err(failure::failed(&error, !values.is_empty()));
                }
            };
            let answer = match row.map_or(Ok(Answer::Empty), |row| self.read(&row, query.result)) {
                Ok(answer) => answer,
                // Dropped, and so closed: nothing that this session says can be believed.
                Err(breach) if breach.code() == Code::IsolationBreach => return Err(breach),
                Err(refusal) => {
                    lease.end_read();
                    return Err(refusal);
                }
            };
            if query.read_only {
                lease.end_read();
                return Ok(answer);
            }
            return match lease.commit(text::commit(scope)).await {
                Ok(()) => Ok(answer),
                Err(CommitError::Refused(error)) if failure::is_breach(&error) => {
                    Err(self.alarm(&error.to_string()))
                }
                Err(CommitError::Refused(error)) => Err(failure::failed(&error, !values.is_empty())),
                Err(CommitError::InDoubt(error)) => Err(failure::in_doubt(&error)),
            };
        }
    }

    /// A connection with its transaction begun. Connections that died while they idled are passed
    /// over: after a restart of the server that can be every one of the pool, and no statement
    /// was sent on them.
    async fn begin(&self, scope: &Scope, read_only: bool, timeout: Duration) -> Result<Lease, Refusal> {
        let mut lost = 0;
        loop {
            let connection = self.acquire().await?;
            let mut lease = Lease::new(connection, &self.settings.name, &self.metrics);
            let message = text::begin(
                scope,
                &Beginning {
                    read_only,
                    statement_timeout: timeout,
                    idle_timeout: self.settings.idle_in_transaction_timeout,
                    watches_client: self.watches_clients.load(Ordering::Relaxed),
                },
            );
            match lease.begin(message).await {
                Ok(()) => return Ok(lease),
                Err(error) if failure::is_lost(&error) && lost < self.settings.pool.max_connections => {
                    lost += 1;
                }
                Err(error) => {
                    if !failure::is_lost(&error) {
                        lease.end_read();
                    }
                    return Err(failure::not_scoped(&error));
                }
            }
        }
    }

    async fn acquire(&self) -> Result<sqlx::pool::PoolConnection<sqlx::Postgres>, Refusal> {
        let since = Instant::now();
        let acquired = self.pool.acquire().await;
        self.metrics.pool_wait.get_or_create(&self.label).observe(since.elapsed().as_secs_f64());
        acquired.map_err(|error| {
            let most = self.settings.pool.max_connections;
            failure::no_connection(&error, self.pool.size() >= most && self.pool.num_idle() == 0, most)
        })
    }

    /// Reads the one row that [`text::statement`] makes of a result: the result first, and last
    /// NULL, or where the scope stood.
    fn read(&self, row: &PgRow, shape: ResultShape) -> Result<Answer, Refusal> {
        let unreadable = |error: Error| failure::failed(&error, false);
        if let Some(whereabouts) = row.try_get::<Option<String>, _>(row.len() - 1).map_err(unreadable)? {
            return Err(self.alarm(&whereabouts));
        }
        let counted = || -> Result<(i64, Option<String>), Refusal> {
            Ok((row.try_get(0).map_err(unreadable)?, row.try_get(1).map_err(unreadable)?))
        };
        match shape {
            ResultShape::Rows => shape::rows(row.try_get(0).map_err(unreadable)?).map(Answer::Json),
            ResultShape::One => counted().and_then(|(count, row)| shape::one(count, row)).map(Answer::Json),
            ResultShape::Value => {
                counted().and_then(|(count, row)| shape::value(count, row)).map(Answer::Json)
            }
            ResultShape::None => Ok(Answer::Empty),
        }
    }

    fn alarm(&self, whereabouts: &str) -> Refusal {
        self.metrics.isolation_breaches.get_or_create(&self.label).inc();
        tracing::error!(database = %self.settings.name, whereabouts, "isolation breach: a statement left its scope");
        failure::breach(whereabouts)
    }
}
