//! Tenants as rows of a PostgreSQL table: read one at a time, believed for a while.

use std::str::FromStr as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use moka::Expiry;
use moka::future::Cache;
use sqlx::error::DatabaseError;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Error, SqlSafeStr as _, SqlStr};

use super::row;
use crate::decision::DirectoryUnavailable;
use crate::policy::TableDirectory;
use crate::telemetry::Metrics;
use crate::tenant::{Tenant, TenantId};

/// Connections for look-ups, apart from those of queries: a burst of slow queries must not keep
/// tenants from being found, and look-ups must not eat the queries' connections.
pub(super) const CONNECTIONS: u32 = 2;

/// How long one look-up may take once it has a connection. It reads a row by its key.
const READ_TIMEOUT: Duration = Duration::from_secs(3);

/// How long a row that cannot be served is remembered as such.
const BAD_ROW_MEMORY: Duration = Duration::from_secs(1);

/// How often a server that was found away is asked whether it is back. In between nobody waits
/// for it.
const PROBE_INTERVAL: Duration = Duration::from_millis(250);

/// The longest time that an entry is kept; the cache takes no more than a thousand years.
const LONGEST_MEMORY: Duration = Duration::from_secs(365 * 24 * 3600);

/// A table with a row a tenant.
///
/// Rows are read one at a time. That two of them name the same schema cannot be seen here; a
/// UNIQUE constraint on the column is what rules it out.
pub(super) struct Table {
    source: TableDirectory,
    metrics: Arc<Metrics>,
    pool: Result<PgPool, Arc<str>>,
    known: Cache<TenantId, Known>,
    /// `None` where nothing stale may serve.
    stale: Option<Cache<TenantId, Arc<Tenant>>>,
    look_up: Mutex<Option<SqlStr>>,
    outage: Mutex<Option<Arc<str>>>,
}

/// What a read said of one id.
#[derive(Clone)]
enum Known {
    Found(Arc<Tenant>),
    Nobody,
    /// There is a row, or a table, that cannot be served; the cause is for the operator.
    Bad(Arc<str>),
}

/// Each answer is believed for a time of its own.
struct Belief {
    found: Duration,
    nobody: Duration,
}

impl Expiry<TenantId, Known> for Belief {
    fn expire_after_create(&self, _: &TenantId, known: &Known, _: Instant) -> Option<Duration> {
        Some(match known {
            Known::Found(_) => self.found,
            Known::Nobody => self.nobody,
            Known::Bad(_) => BAD_ROW_MEMORY.min(self.found),
        })
    }

    fn expire_after_update(
        &self,
        id: &TenantId,
        known: &Known,
        at: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        self.expire_after_create(id, known, at)
    }
}

impl Table {
    pub(super) fn open(source: TableDirectory, metrics: Arc<Metrics>) -> Arc<Self> {
        let belief = Belief { found: source.cache, nobody: source.negative_cache };
        let known = Cache::builder().max_capacity(source.max_entries).expire_after(belief).build();
        let stale = (!source.stale_if_error.is_zero()).then(|| {
            let serves = source.cache.saturating_add(source.stale_if_error);
            Cache::builder().max_capacity(source.max_entries).time_to_live(serves.min(LONGEST_MEMORY)).build()
        });
        let pool = pool(&source);
        Arc::new(Self {
            source,
            metrics,
            pool,
            known,
            stale,
            look_up: Mutex::new(None),
            outage: Mutex::new(None),
        })
    }

    pub(super) async fn find(
        self: &Arc<Self>,
        id: &TenantId,
    ) -> Result<Option<Arc<Tenant>>, DirectoryUnavailable> {
        if let Some(known) = self.known.get(id).await {
            return self.answer(id, known, "fresh");
        }
        if let Some(cause) = self.outage() {
            return self.without_database(id, cause).await;
        }
        // A task of its own, so that the read goes on when the request that started it is gone:
        // others wait for it, and its answer is kept.
        let (table, wanted) = (Arc::clone(self), id.clone());
        let reading =
            tokio::spawn(async move { table.known.try_get_with_by_ref(&wanted, table.read(&wanted)).await });
        match reading.await {
            Ok(Ok(known)) => self.answer(id, known, "read"),
            Ok(Err(cause)) => self.without_database(id, Arc::clone(&cause)).await,
            Err(ended) => Err(self.unavailable(format!("the look-up of `{id}` ended early: {ended}").into())),
        }
    }

    /// Has the next look-up read the row. What may serve while the table is away stays.
    pub(super) async fn forget(&self, id: &TenantId) {
        self.known.invalidate(id).await;
    }

    fn answer(
        &self,
        id: &TenantId,
        known: Known,
        how: &'static str,
    ) -> Result<Option<Arc<Tenant>>, DirectoryUnavailable> {
        match known {
            Known::Found(tenant) => {
                self.metrics.directory_looked_up(how);
                Ok(Some(tenant))
            }
            Known::Nobody => {
                self.metrics.directory_looked_up("unknown");
                Ok(None)
            }
            Known::Bad(cause) => Err(self.unavailable(format!("tenant `{id}`: {cause}").into())),
        }
    }

    /// The answer while the table cannot be read: what was true a while ago, or none at all.
    async fn without_database(
        &self,
        id: &TenantId,
        cause: Arc<str>,
    ) -> Result<Option<Arc<Tenant>>, DirectoryUnavailable> {
        let remembered = match &self.stale {
            Some(stale) => stale.get(id).await,
            None => None,
        };
        match remembered {
            Some(tenant) => {
                self.metrics.directory_looked_up("stale");
                Ok(Some(tenant))
            }
            None => Err(self.unavailable(cause)),
        }
    }

    fn unavailable(&self, cause: Arc<str>) -> DirectoryUnavailable {
        self.metrics.directory_looked_up("unavailable");
        DirectoryUnavailable(cause)
    }

    /// Reads one id. `Err` where the database is away, which says nothing of the tenant; a bad
    /// row is an answer, and does not let an older copy of the row serve in its place.
    async fn read(self: &Arc<Self>, id: &TenantId) -> Result<Known, Arc<str>> {
        let pool = self.pool.as_ref().map_err(Arc::clone)?;
        let read = match self.attempt(pool, id).await {
            // A connection may break while the database is well: another one tells.
            Err(error) if is_away(&error) && !matches!(error, Error::PoolTimedOut) => {
                self.attempt(pool, id).await
            }
            read => read,
        };
        let known = match read {
            Ok(known) => known,
            Err(error) if is_away(&error) => {
                let cause: Arc<str> = format!("the tenants' table cannot be read: {error}").into();
                self.note_outage(&cause);
                return Err(cause);
            }
            Err(error) => {
                // The table may have been changed under the statement: it is made anew next time.
                *self.look_up.lock().unwrap_or_else(PoisonError::into_inner) = None;
                Known::Bad(format!("the tenants' table {} cannot be read: {error}", self.source.table).into())
            }
        };
        if let Some(stale) = &self.stale {
            match &known {
                Known::Found(tenant) => stale.insert(id.clone(), Arc::clone(tenant)).await,
                Known::Nobody | Known::Bad(_) => stale.invalidate(id).await,
            }
        }
        Ok(known)
    }

    async fn attempt(&self, pool: &PgPool, id: &TenantId) -> Result<Known, Error> {
        let mut connection = pool.acquire().await?;
        match tokio::time::timeout(READ_TIMEOUT, self.select(&mut connection, id)).await {
            Ok(Err(error)) if is_away(&error) => {
                drop(connection.detach());
                Err(error)
            }
            Ok(outcome) => outcome,
            Err(_) => {
                drop(connection.detach());
                Err(Error::PoolTimedOut)
            }
        }
    }

    async fn select(&self, connection: &mut sqlx::PgConnection, id: &TenantId) -> Result<Known, Error> {
        let prepared = self.look_up.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let look_up = match prepared {
            Some(look_up) => look_up,
            None => {
                let look_up = self.compose(connection).await?;
                *self.look_up.lock().unwrap_or_else(PoisonError::into_inner) = Some(look_up.clone());
                look_up
            }
        };
        match sqlx::query(look_up).bind(id.as_str()).fetch_all(connection).await {
            Ok(rows) => Ok(match row::only(&self.source, &rows) {
                Ok(Some(tenant)) => Known::Found(tenant),
                Ok(None) => Known::Nobody,
                Err(cause) => Known::Bad(cause.into()),
            }),
            // An id that is no value of the column's type is nobody's.
            Err(error) if sqlstate(&error).is_some_and(|state| state.starts_with("22")) => Ok(Known::Nobody),
            Err(error) => Err(error),
        }
    }

    /// Writes the look-up's text. The parameter is cast to the column's own type, so that the
    /// column's index serves whatever that type is.
    async fn compose(&self, connection: &mut sqlx::PgConnection) -> Result<SqlStr, Error> {
        let column_type: Option<String> = sqlx::query_scalar(
            "SELECT pg_catalog.format_type(atttypid, NULL) FROM pg_catalog.pg_attribute \
             WHERE attrelid = $1::pg_catalog.text::pg_catalog.regclass AND attname = $2 AND NOT attisdropped",
        )
        .bind(self.source.table.to_string())
        .bind(&self.source.id)
        .fetch_optional(&mut *connection)
        .await?;
        let Some(column_type) = column_type else {
            return Err(Error::ColumnNotFound(self.source.id.clone()));
        };
        // Two rows are enough to know that an id is not unique. Names are quoted here, and the
        // type's name by PostgreSQL; the id is bound.
        let text = format!(
            "SELECT {} FROM {} WHERE {} = $1::pg_catalog.text::{column_type} LIMIT 2",
            row::selection(&self.source),
            self.source.table,
            quote(&self.source.id),
        );
        Ok(AssertSqlSafe(text).into_sql_str())
    }

    fn outage(&self) -> Option<Arc<str>> {
        self.outage.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Remembers that the database is away, and has one task look for its return. The task holds
    /// the table only while it looks, and so ends with it.
    fn note_outage(self: &Arc<Self>, cause: &Arc<str>) {
        let earlier = self.outage.lock().unwrap_or_else(PoisonError::into_inner).replace(Arc::clone(cause));
        if earlier.is_some() {
            return;
        }
        tracing::warn!(%cause, "the tenant directory is away");
        let table = Arc::downgrade(self);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(PROBE_INTERVAL).await;
                let Some(table) = table.upgrade() else { return };
                if table.is_back().await {
                    *table.outage.lock().unwrap_or_else(PoisonError::into_inner) = None;
                    tracing::info!("the tenant directory is back");
                    return;
                }
            }
        });
    }

    async fn is_back(&self) -> bool {
        let Ok(pool) = &self.pool else { return false };
        let Ok(mut connection) = pool.acquire().await else { return false };
        let answered = tokio::time::timeout(READ_TIMEOUT, connection.ping()).await;
        if !matches!(answered, Ok(Ok(()))) {
            drop(connection.detach());
            return false;
        }
        true
    }
}

fn pool(source: &TableDirectory) -> Result<PgPool, Arc<str>> {
    let options = PgConnectOptions::from_str(source.database.url.reveal())
        .map_err(|_| {
            format!("database `{}`: its url is not one that PostgreSQL takes", source.database.name)
        })?
        .application_name("innkeeper directory")
        .disable_statement_logging();
    Ok(PgPoolOptions::new()
        .max_connections(CONNECTIONS)
        .acquire_timeout(source.database.pool.acquire_timeout)
        .idle_timeout(source.database.pool.idle_timeout)
        .max_lifetime(source.database.pool.max_lifetime)
        .connect_lazy_with(options))
}

/// Whether the server, and not the table or the row, is what is wrong.
fn is_away(error: &Error) -> bool {
    match error {
        Error::Database(_) => sqlstate(error).is_some_and(|state| {
            ["08", "53", "57", "58", "28", "3D", "25", "26", "0A", "XX"]
                .iter()
                .any(|class| state.starts_with(class))
        }),
        Error::ColumnNotFound(_) | Error::ColumnDecode { .. } | Error::Decode(_) => false,
        _ => true,
    }
}

fn sqlstate(error: &Error) -> Option<String> {
    error.as_database_error().and_then(DatabaseError::code).map(std::borrow::Cow::into_owned)
}

pub(super) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
