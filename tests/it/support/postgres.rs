//! One PostgreSQL for the whole test process, and in it a database for each test.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use innkeeper::cli::demo::cluster::{PrivatePostgres, SUPERUSER};
use innkeeper::policy::{self, PoolSettings, Secret};
use innkeeper::tenant::Isolation;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, FromRow, Row as _};
use tokio::sync::OnceCell;

/// A condition that does not come true within this time never will.
const PATIENCE: Duration = Duration::from_secs(20);

/// Which of a server's connections are the gateway's, whomever they logged in as: the superuser,
/// who asks, is the only other one.
pub(crate) const OURS: &str = "datname = current_database() AND usename <> current_user";

/// The server that tests share. Nothing drops it: its supervisor sees this process end.
pub(crate) async fn shared() -> &'static PrivatePostgres {
    static SHARED: OnceCell<PrivatePostgres> = OnceCell::const_new();
    SHARED.get_or_init(|| async { PrivatePostgres::start().await.expect("a private server") }).await
}

/// A database that one test has to itself.
pub(crate) struct TestDatabase {
    pub(crate) name: String,
    server: Server,
}

enum Server {
    Shared(&'static PrivatePostgres),
    Url(String),
}

/// A fresh database on the shared server.
pub(crate) async fn database() -> TestDatabase {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let server = shared().await;
    let name = format!("test_{}", COUNT.fetch_add(1, Ordering::Relaxed));
    let mut admin = PgConnection::connect(&server.url("postgres", SUPERUSER)).await.unwrap();
    run(&mut admin, &format!("CREATE DATABASE {name}")).await;
    let database = TestDatabase { name, server: Server::Shared(server) };
    database.admin(&format!("CREATE ROLE {} LOGIN NOINHERIT", database.login())).await;
    database
}

/// The default database of a server of one's own.
pub(crate) async fn alone(server: &PrivatePostgres) -> TestDatabase {
    let database =
        TestDatabase { name: "postgres".to_owned(), server: Server::Url(server.url("postgres", SUPERUSER)) };
    database.admin(&format!("CREATE ROLE {} LOGIN NOINHERIT", database.login())).await;
    database
}

impl TestDatabase {
    /// The role that the gateway logs in as: no superuser, and owner of nothing.
    pub(crate) fn login(&self) -> String {
        format!("gateway_{}", self.name)
    }

    pub(crate) fn url(&self, user: &str) -> String {
        match &self.server {
            Server::Shared(server) => server.url(&self.name, user),
            Server::Url(url) => url.replace(&format!("//{SUPERUSER}@"), &format!("//{user}@")),
        }
    }

    /// A connection that may do everything.
    pub(crate) async fn connect(&self) -> PgConnection {
        PgConnection::connect(&self.url(SUPERUSER)).await.unwrap()
    }

    /// Runs statements as the superuser.
    pub(crate) async fn admin(&self, statements: &str) {
        run(&mut self.connect().await, statements).await;
    }

    /// Reads one value as the superuser.
    pub(crate) async fn read<T>(&self, query: &str) -> T
    where
        T: Send + Unpin + for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
    {
        let mut connection = self.connect().await;
        let row = connection.fetch_one(AssertSqlSafe(query.to_owned())).await.unwrap();
        <(T,)>::from_row(&row).unwrap_or_else(|_| (row.get(0),)).0
    }

    /// What a policy would say of this database.
    pub(crate) fn settings(&self, isolation: Isolation, max_connections: u32) -> policy::Database {
        policy::Database {
            isolation,
            pool: PoolSettings {
                max_connections,
                acquire_timeout: Duration::from_secs(10),
                ..PoolSettings::default()
            },
            idle_in_transaction_timeout: Duration::from_secs(30),
            ..policy::Database::new("main", Secret::new(self.url(&self.login())))
        }
    }

    pub(crate) fn shared_settings(
        &self,
        isolation: Isolation,
        max_connections: u32,
    ) -> Arc<policy::Database> {
        Arc::new(self.settings(isolation, max_connections))
    }

    /// Process ids of the gateway's connections.
    pub(crate) async fn backends(&self) -> Vec<i32> {
        self.read(&format!(
            "SELECT coalesce(array_agg(pid ORDER BY pid), '{{}}') FROM pg_stat_activity WHERE {OURS}"
        ))
        .await
    }

    /// Ends the gateway's connections from the server's side.
    pub(crate) async fn kill_backends(&self) {
        self.admin(&format!("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE {OURS}"))
            .await;
    }

    /// Waits until none of the gateway's connections is inside a transaction.
    pub(crate) async fn settled(&self) {
        let open = format!("SELECT count(*) FROM pg_stat_activity WHERE {OURS} AND state <> 'idle'");
        eventually("every connection is idle", || async { self.read::<i64>(&open).await == 0 }).await;
    }
}

/// Runs statements that a test wrote.
pub(crate) async fn run(connection: &mut PgConnection, statements: &str) {
    connection
        .execute(sqlx::raw_sql(AssertSqlSafe(statements.to_owned())))
        .await
        .unwrap_or_else(|error| panic!("{statements}: {error}"));
}

/// Waits for something that only asking can tell, as on another process.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !holds().await {
        assert!(tokio::time::Instant::now() < deadline, "never came true: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
