//! A named query through the SQL room, against the same three round trips written by hand with
//! sqlx: on one PostgreSQL, in one process, in rounds that alternate.
//!
//! `cargo bench --bench query`. Ratios are what counts; absolute times are the machine's.

#![expect(clippy::unwrap_used, reason = "a benchmark fails by panicking")]
#![expect(clippy::print_stdout, reason = "its figures are its output")]

use std::future::Future;
use std::io;
use std::path::Path;
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use innkeeper::admitted::{Admitted, admit};
use innkeeper::cli::demo::cluster::{PrivatePostgres, SUPERUSER};
use innkeeper::policy::{self, Policy, PoolSettings, Query, Secret, Surroundings, Target};
use innkeeper::sql::{Answer, Database, Given, Scope, read_value};
use innkeeper::telemetry::Metrics;
use innkeeper::tenant::{Isolation, Tenant, TenantState};
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _, PgConnection};

const TENANTS: usize = 1_000;
const CONNECTIONS: u32 = 8;
const ROUNDS: usize = 9;
const ROUND: Duration = Duration::from_millis(700);
const STATEMENT: &str = "select id, name from buildings where id <= $1 order by id";

struct Scene {
    admitted: Vec<Admitted>,
    settings: Arc<policy::Database>,
    query: Query,
    ours: Database,
    by_hand: PgPool,
}

impl Scene {
    async fn open(server: &PrivatePostgres, isolation: Isolation, read_only: bool) -> Self {
        let url = server.url("postgres", "gateway");
        let settings = Arc::new(policy::Database {
            isolation,
            pool: PoolSettings { max_connections: CONNECTIONS, ..PoolSettings::default() },
            ..policy::Database::new("main", Secret::new(url.clone()))
        });
        let admitted = (0..TENANTS)
            .map(|n| {
                let name = format!("t_{n:04}");
                let tenant = Tenant {
                    id: name.parse().unwrap(),
                    schema: name.parse().unwrap(),
                    role: Some(name.parse().unwrap()),
                    database: None,
                    state: TenantState::Active,
                    isolation: None,
                    limits: None,
                };
                admit(Arc::new(tenant)).unwrap()
            })
            .collect();
        let by_hand = PgPoolOptions::new()
            .max_connections(CONNECTIONS)
            .test_before_acquire(false)
            .connect_lazy_with(PgConnectOptions::from_str(&url).unwrap().disable_statement_logging());
        let query = Query { database: Arc::clone(&settings), declared_schema: None, ..parsed(read_only) };
        let ours = Database::open(Arc::clone(&settings), Metrics::new()).unwrap();
        Self { admitted, settings, query, ours, by_hand }
    }

    async fn through_the_room(&self, tenant: usize, limit: &str) -> usize {
        let scope = Scope::of(&self.admitted[tenant], &self.settings).unwrap();
        let value = read_value(&self.query.params[0], 1, Given::Text(limit.to_owned())).unwrap();
        match self.ours.run(&scope, &self.query, vec![value]).await.unwrap() {
            Answer::Json(json) => json.len(),
            Answer::Empty => 0,
        }
    }

    /// What a careful programmer writes: begin and narrow in one message, the statement, commit.
    async fn by_hand(&self, tenant: usize, limit: &str) -> usize {
        let access = if self.query.read_only { "READ ONLY" } else { "READ WRITE" };
        let role = match self.settings.isolation {
            Isolation::Role => format!("SET LOCAL ROLE t_{tenant:04}; "),
            Isolation::Schema | Isolation::Login => String::new(),
        };
        let begin = format!(
            "BEGIN {access}; SET LOCAL search_path TO t_{tenant:04}, pg_temp; {role}\
             SET LOCAL statement_timeout TO 30000; SET LOCAL idle_in_transaction_session_timeout TO 10000"
        );
        let statement =
            format!("/* t_{tenant:04} */ SELECT coalesce(json_agg(t), '[]')::text FROM ({STATEMENT}) t");
        let mut transaction = self.by_hand.begin_with(AssertSqlSafe(begin)).await.unwrap();
        let json: String = sqlx::query_scalar(AssertSqlSafe(statement))
            .bind(limit.parse::<i64>().unwrap())
            .fetch_one(&mut *transaction)
            .await
            .unwrap();
        transaction.commit().await.unwrap();
        json.len()
    }
}

/// The query, as the policy's parser makes it of a document.
fn parsed(read_only: bool) -> Query {
    let document = serde_json::json!({
        "version": 1,
        "databases": { "main": { "url": "postgres://localhost/main" } },
        "routes": [{
            "name": "buildings", "match": { "path": "/" }, "tenant": "none",
            "query": {
                "database": "main", "schema": "public", "sql": STATEMENT, "read_only": read_only,
                "params": [{ "query": "limit", "type": "int", "min": 1, "max": 500 }],
            },
        }],
    });
    let (policy, _) = Policy::parse(Path::new("policy.yaml"), &OneFile(document.to_string()))
        .unwrap_or_else(|mistakes| panic!("{mistakes:?}"));
    let Target::Query(query) = &policy.routes[0].target else { panic!("a query route") };
    Query::clone(query)
}

struct OneFile(String);

impl Surroundings for OneFile {
    fn read(&self, _: &Path) -> io::Result<String> {
        Ok(self.0.clone())
    }

    fn variable(&self, _: &str) -> Option<String> {
        None
    }
}

/// Requests a second of `clients` that each ask one after the other, and processor time of this
/// process for each request.
async fn measure<F: Future<Output = usize>>(
    clients: usize,
    tenants: usize,
    ask: impl Fn(usize) -> F,
) -> (f64, f64) {
    let (started, used) = (Instant::now(), processor_time());
    let asked = join_all((0..clients).map(|client| {
        let ask = &ask;
        async move {
            let mut asked = 0_usize;
            while started.elapsed() < ROUND {
                assert!(ask((client * 37 + asked) % tenants).await > 2);
                asked += 1;
            }
            asked
        }
    }))
    .await;
    let requests: f64 = asked.iter().map(|n| f64::from(u32::try_from(*n).unwrap())).sum();
    let microseconds = (processor_time() - used).as_secs_f64() * 1e6 / requests;
    (requests / started.elapsed().as_secs_f64(), microseconds)
}

/// Time that the processor spent on this process, in the clock ticks of Linux.
fn processor_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let behind_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks: u64 =
        behind_name.split_whitespace().skip(11).take(2).filter_map(|n| n.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

async fn compare(what: &str, scene: &Scene, clients: usize, tenants: usize, limit: &str) {
    for tenant in 0..tenants.min(50) {
        assert_eq!(scene.through_the_room(tenant, limit).await, scene.by_hand(tenant, limit).await);
    }
    let (mut ours, mut hand) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ours.push(measure(clients, tenants, |tenant| scene.through_the_room(tenant, limit)).await);
        hand.push(measure(clients, tenants, |tenant| scene.by_hand(tenant, limit)).await);
    }
    let time = median(ours.iter().zip(&hand).map(|(ours, hand)| hand.0 / ours.0).collect());
    let processor = median(ours.iter().zip(&hand).map(|(ours, hand)| ours.1 / hand.1).collect());
    let rate = |rounds: &[(f64, f64)]| median(rounds.iter().map(|round| round.0).collect());
    println!(
        "{what:34} {clients} clients {tenants:5} tenants: {:7.0}/s, by hand {:7.0}/s, time x{time:.2}, processor x{processor:.2}",
        rate(&ours),
        rate(&hand)
    );
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let server = PrivatePostgres::start().await.unwrap();
    let mut admin = PgConnection::connect(&server.url("postgres", SUPERUSER)).await.unwrap();
    admin.execute("CREATE ROLE gateway LOGIN NOINHERIT").await.unwrap();
    for n in 0..TENANTS {
        let setup = format!(
            "CREATE SCHEMA t_{n:04}; CREATE ROLE t_{n:04} NOLOGIN; GRANT t_{n:04} TO gateway; \
             CREATE TABLE t_{n:04}.buildings (id bigint PRIMARY KEY, name text NOT NULL); \
             INSERT INTO t_{n:04}.buildings SELECT i, 'building ' || i FROM generate_series(1, 50) i; \
             GRANT USAGE ON SCHEMA t_{n:04} TO gateway, t_{n:04}; GRANT SELECT ON t_{n:04}.buildings TO gateway, t_{n:04}"
        );
        admin.execute(sqlx::raw_sql(AssertSqlSafe(setup))).await.unwrap();
    }
    admin.execute("VACUUM ANALYZE").await.unwrap();
    for (level, isolation) in [("schema", Isolation::Schema), ("role", Isolation::Role)] {
        for (kind, read_only) in [("read", true), ("committed", false)] {
            let scene = Scene::open(&server, isolation, read_only).await;
            for (clients, tenants) in [(1, 1), (8, 1), (8, 20)] {
                compare(&format!("{level} level, {kind}, 1 row"), &scene, clients, tenants, "1").await;
            }
        }
    }
    let scene = Scene::open(&server, Isolation::Schema, true).await;
    compare("schema level, read, 50 rows", &scene, 8, 20, "50").await;
    compare("schema level, read, 1 row", &scene, 8, TENANTS, "1").await;
}
