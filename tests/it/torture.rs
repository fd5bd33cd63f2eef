//! Isolation under torture: many tenants at once, cancelled, timed out, failed and killed. Not one
//! row may reach another tenant, and the checker that says so is shown to see one that does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use innkeeper::cli::demo::cluster::{PrivatePostgres, SUPERUSER};
use innkeeper::error::{Code, Refusal};
use innkeeper::policy::{self, Query};
use innkeeper::sql::{Answer, Database, Scope};
use innkeeper::telemetry::{DatabaseLabel, Metrics};
use innkeeper::tenant::Isolation;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _};
use tokio::sync::{Barrier, Mutex};
use tokio::task::JoinSet;

use crate::support::postgres::{OURS, TestDatabase, alone, database, run};
use crate::support::tenant_fixture::{ROWS, TenantFixture, query};
use crate::support::toll::Toll;

const TENANTS: usize = 60;
/// At level `login` most requests of another tenant open a connection, which the server takes its time for.
pub const TENANTS_THAT_LOG_IN: usize = 14;
const CLIENTS: usize = 240;
const REQUESTS_EACH: usize = 12;
const CONNECTIONS: u32 = 12;
/// How long a client waits whose request met a server that was away.
pub const PAUSE: Duration = Duration::from_millis(20);
const MARKS: &str = "select id, tenant, note from marks";

/// A small generator with a seed, so that a failure can be run again.
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

/// What the server says where a connection ended by itself just before it was to be killed.
const KILLED_TOO_LATE: &str = "is not a PostgreSQL backend process";

struct Torture {
    fixture: TenantFixture,
    settings: Arc<policy::Database>,
    metrics: Arc<Metrics>,
    database: Database,
    toll: Toll,
}

impl Torture {
    async fn run(&self, tenant: usize, query: &Query) -> Result<Answer, Refusal> {
        let scope = Scope::of(&self.fixture.admitted(tenant), &self.settings)?;
        self.database.run(&scope, query, Vec::new()).await
    }

    async fn read(&self, tenant: usize) -> Option<String> {
        match self.run(tenant, &query(&self.settings, MARKS)).await {
            Ok(Answer::Json(json)) => Some(json),
            Ok(Answer::Empty) => panic!("an answer without rows"),
            Err(_) => None,
        }
    }

    /// One client: reads, changes, mistakes, slow queries, and the wish to be elsewhere.
    async fn client(self: Arc<Self>, seed: usize) {
        let mut dice = Dice(seed as u64);
        let tenant = seed % self.fixture.tenants.len();
        let mark = query(&self.settings, "update marks set note = tenant returning tenant, note");
        let mark = Query { read_only: false, ..mark };
        let mistake = query(&self.settings, "select tenant, 1 / (id::text::int - 1) as broken from marks");
        let slow = Query {
            timeout: Some(Duration::from_millis(3)),
            ..query(&self.settings, "select tenant, pg_sleep(600)::text as slept from marks")
        };
        let read = query(&self.settings, MARKS);
        let mut left = REQUESTS_EACH;
        while left > 0 {
            left -= 1;
            let query = match dice.roll(20) {
                0 => &mistake,
                1 => &slow,
                2..6 => &mark,
                _ => &read,
            };
            let patience = if dice.roll(5) == 0 { dice.roll(4_000) } else { 60_000_000 };
            match tokio::time::timeout(Duration::from_micros(patience), self.run(tenant, query)).await {
                Ok(Ok(Answer::Json(json))) => {
                    self.toll.answered(self.fixture.foreign_rows(tenant, &json));
                }
                Ok(Ok(Answer::Empty)) => panic!("an answer without rows"),
                // The server is away. Who is told so comes again a little later.
                Ok(Err(refusal)) if refusal.code() == Code::DatabaseUnavailable => {
                    self.toll.refused();
                    tokio::time::sleep(PAUSE).await;
                    left += 1;
                }
                Ok(Err(refusal)) => {
                    let expected = [Code::QueryFailed, Code::QueryTimeout].contains(&refusal.code());
                    assert!(expected, "{refusal}");
                    self.toll.refused();
                }
                Err(_) => {
                    self.toll.cancelled();
                }
            }
        }
    }
}

/// What a server tells clients when it is killed itself.
const SERVER_KILLED: &str = "terminating connection";

/// Kills a random one of the gateway's backends, over and over, until told to stop.
async fn kill_backends(postgres: Arc<TestDatabase>, enough: Arc<AtomicBool>) -> usize {
    let mut admin = None;
    let kill = format!(
        "SELECT pg_terminate_backend(pid)::int FROM pg_stat_activity WHERE {OURS} ORDER BY random() LIMIT 1"
    );
    let mut killed = 0;
    while !enough.load(Ordering::Relaxed) {
        // The server itself goes down and comes back.
        if admin.is_none() {
            admin = PgConnection::connect(&postgres.url(SUPERUSER)).await.ok();
        }
        if let Some(mut connection) = admin.take()
            && let Ok(rows) = connection.fetch_all(AssertSqlSafe(kill.clone())).await
        {
            killed += rows.len();
            admin = Some(connection);
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    killed
}

/// Crashes the server in the middle of it all, and starts it again.
pub async fn crash(server: &mut PrivatePostgres, toll: &Toll, clients: usize) {
    let under_way = async {
        while toll.answers() <= clients {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(300), under_way).await.expect("clients are answered");
    server.crash().await.unwrap();
    server.start_again().await.unwrap();
}

/// Lets clients run to their end while backends are killed and `meanwhile` happens; how many were
/// killed.
pub async fn under_fire(
    postgres: &Arc<TestDatabase>,
    mut clients: JoinSet<()>,
    meanwhile: impl Future<Output = ()>,
) -> usize {
    let enough = Arc::new(AtomicBool::new(false));
    let killer = tokio::spawn(kill_backends(Arc::clone(postgres), Arc::clone(&enough)));
    meanwhile.await;
    while let Some(client) = clients.join_next().await {
        client.unwrap();
    }
    enough.store(true, Ordering::Relaxed);
    killer.await.unwrap()
}

async fn torture(isolation: Isolation, tenants: usize) {
    let mut server = PrivatePostgres::start().await.unwrap();
    let postgres = Arc::new(alone(&server).await);
    let fixture = TenantFixture::create(&postgres, tenants).await;
    let settings = postgres.shared_settings(isolation, CONNECTIONS);
    let metrics = Metrics::new();
    let torture = Arc::new(Torture {
        database: Database::open(Arc::clone(&settings), Arc::clone(&metrics)).unwrap(),
        fixture,
        settings,
        metrics,
        toll: Toll::default(),
    });
    let clients = (0..CLIENTS).map(|seed| Arc::clone(&torture).client(seed)).collect();
    let killed = under_fire(&postgres, clients, crash(&mut server, &torture.toll, CLIENTS)).await;
    torture.toll.judge(isolation, CLIENTS, killed);
    let breaches = DatabaseLabel { database: "main".into() };
    assert_eq!(torture.metrics.isolation_breaches.get_or_create(&breaches).get(), 0);

    // Nothing is stuck afterwards, and every connection that is left serves whoever comes next.
    postgres.settled().await;
    let later = torture.fixture.count_foreign_rows(0..tenants * 2, |tenant| torture.read(tenant)).await;
    assert_eq!(later, 0);
    let noted: Vec<String> =
        (0..tenants).map(|n| format!("SELECT tenant, note, 't_{n:03}' AS own FROM t_{n:03}.marks")).collect();
    let wrong: i64 = postgres
        .read(&format!(
            "SELECT count(*) FROM ({}) m WHERE tenant <> own OR note <> own",
            noted.join(" UNION ALL ")
        ))
        .await;
    assert_eq!(wrong, 0, "a change reached another tenant's table");
    // A transaction begun twice, or ended where there was none, is a warning in the server's log.
    let log = std::fs::read_to_string(server.directory().join("server.log")).unwrap();
    let warning = |line: &&str| {
        line.contains("WARNING:") && !line.contains(KILLED_TOO_LATE) && !line.contains(SERVER_KILLED)
    };
    assert_eq!(log.lines().find(warning), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_row_reaches_another_tenant_at_schema_level() {
    torture(Isolation::Schema, TENANTS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_row_reaches_another_tenant_at_role_level() {
    torture(Isolation::Role, TENANTS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_row_reaches_another_tenant_at_login_level() {
    torture(Isolation::Login, TENANTS_THAT_LOG_IN).await;
}

/// What the product is there to replace: a session's search path set by one statement, read by the
/// next, and in between whatever another request does on the same connection.
struct RacyHandler {
    connection: Mutex<PgConnection>,
    between: Barrier,
}

impl RacyHandler {
    async fn read(&self, schema: &str) -> Option<String> {
        run(&mut *self.connection.lock().await, &format!("SET search_path TO {schema}")).await;
        self.between.wait().await;
        let marks = format!("SELECT json_agg(t)::text FROM ({MARKS}) t");
        let mut connection = self.connection.lock().await;
        Some(
            sqlx::query_scalar(AssertSqlSafe(marks))
                .persistent(false)
                .fetch_one(&mut *connection)
                .await
                .unwrap(),
        )
    }
}

#[tokio::test]
async fn the_checker_sees_the_rows_that_a_racy_handler_mixes_up() {
    let postgres = database().await;
    let fixture = TenantFixture::create(&postgres, 8).await;
    let connection = PgConnection::connect(&postgres.url(SUPERUSER)).await.unwrap();
    let racy = RacyHandler { connection: Mutex::new(connection), between: Barrier::new(8) };
    let foreign =
        fixture.count_foreign_rows(0..8, |tenant| racy.read(fixture.tenants[tenant].schema.as_str())).await;
    // All set the path before any reads: whoever was last is who everyone sees.
    assert_eq!(foreign, 7 * ROWS);
}
