//! Isolation under torture, through the sql target: clients that write their own SQL, the hostile
//! ones among them, all tenants at once, some of them going away, connections killed, the server crashed, the policy swapped.

use std::sync::Arc;
use std::time::Duration;

use innkeeper::cli::demo::cluster::PrivatePostgres;
use innkeeper::telemetry::DatabaseLabel;
use serde_json::{Value, json};

use crate::support::gateway::{Harness, Reply, TestGateway};
use crate::support::postgres::{TestDatabase, alone};
use crate::support::tenant_fixture::TenantFixture;
use crate::support::toll::Toll;
use crate::torture::{Dice, PAUSE, TENANTS_THAT_LOG_IN, crash, under_fire};

const CLIENTS: usize = 120;
const REQUESTS_EACH: usize = 12;
const RELOADS: usize = 20;
const HOSTILE: &str = include_str!("../../src/sql/guard/corpus/hostile.txt");

/// The policy under torture; `turn` makes each one another generation.
fn policy(postgres: &TestDatabase, isolation: &str, turn: usize) -> String {
    format!(
        "
version: 1
databases:
  directory: {{ url: '{url}' }}
  main: {{ url: '{url}', isolation: {isolation}, pool: {{ max_connections: 10, acquire_timeout: 20s }} }}
tenants:
  table:
    {{ database: directory, name: public.tenants, id: id, schema: schema_name, role: role_name,
       cache: 1h, stale_if_error: 1h }}
routes:
  - name: sql-{turn}
    match: {{ path: /sql }}
    tenant: {{ header: X-Tenant-ID }}
    sql:
      database: main
      statements: [ select, insert, update, delete, merge, truncate, explain, ddl ]
      timeout: 200ms
",
        url = postgres.url(&postgres.login())
    )
}

struct Torture {
    fixture: TenantFixture,
    gateway: TestGateway,
    hostile: Vec<&'static str>,
    toll: Toll,
}

/// What a client asks for.
enum Asked {
    Single(String),
    Batch(Value),
    Lines(String),
    /// A statement that tries to reach another tenant.
    Attack(String),
}

impl Torture {
    async fn client(self: Arc<Self>, seed: usize) {
        let mut dice = Dice(seed as u64);
        let tenant = seed % self.fixture.tenants.len();
        let mut left = REQUESTS_EACH;
        while left > 0 {
            left -= 1;
            let asked = self.choose(&mut dice, tenant);
            let patience = if dice.roll(5) == 0 { dice.roll(8_000) } else { 60_000_000 };
            let sending = self.send(tenant, &asked);
            match tokio::time::timeout(Duration::from_micros(patience), sending).await {
                // The server is away. Who is told so comes again a little later.
                Ok(Ok(reply)) if reply.status() == 503 && reply.code() == "database-unavailable" => {
                    self.toll.refused();
                    tokio::time::sleep(PAUSE).await;
                    left += 1;
                }
                Ok(reply) => self.judge(tenant, &asked, reply),
                Err(_) => {
                    self.toll.cancelled();
                }
            }
        }
    }

    fn choose(&self, dice: &mut Dice, tenant: usize) -> Asked {
        let victim = &self.fixture.tenants[(tenant + 1) % self.fixture.tenants.len()];
        let read = "select tenant, id from marks";
        match dice.roll(20) {
            0 => Asked::Single("select tenant, 1 / (id::text::int - 1) as broken from marks".into()),
            1 => Asked::Single("select tenant, m.id from marks m, generate_series(1, 100000000) n".into()),
            2..5 => Asked::Batch(json!([
                { "query": "update marks set note = $1 returning tenant", "params": [format!("by {tenant}")] },
                { "query": read },
            ])),
            5..7 => Asked::Lines("select tenant, n from marks, generate_series(1, 200) n".into()),
            7..12 => {
                let sides = self.hostile.len() as u64;
                let chosen = usize::try_from(dice.roll(sides)).expect("an index");
                let role = victim.role.as_ref().expect("a role").as_str();
                let own = self.fixture.tenants[tenant].schema.as_str();
                Asked::Attack(
                    self.hostile[chosen]
                        .replace("{victim_role}", role)
                        .replace("{victim}", victim.schema.as_str())
                        .replace("{home}", own),
                )
            }
            _ => Asked::Single(read.into()),
        }
    }

    async fn send(&self, tenant: usize, asked: &Asked) -> Result<Reply, String> {
        let id = self.fixture.tenants[tenant].id.to_string();
        let call = self.gateway.post("/sql").tenant(&id);
        match asked {
            Asked::Single(query) | Asked::Attack(query) => call.body(json!({ "query": query }).to_string()),
            Asked::Batch(queries) => call.body(json!({ "queries": queries }).to_string()),
            Asked::Lines(query) => {
                call.header("accept", "application/x-ndjson").body(json!({ "query": query }).to_string())
            }
        }
        .try_send()
        .await
    }

    fn judge(&self, tenant: usize, asked: &Asked, reply: Result<Reply, String>) {
        // A stream that broke off: its connection was killed among the rows.
        let Ok(reply) = reply else {
            assert!(matches!(asked, Asked::Lines(_)), "{reply:?}");
            self.toll.refused();
            return;
        };
        if reply.status() != 200 {
            let code = reply.code();
            let expected = match asked {
                // What is no SQL at all fails, and at the guard.
                Asked::Attack(_) if reply.text().contains("the guard's grammar") => &["query-failed"][..],
                Asked::Attack(_) => &["query-refused"],
                _ => &["query-failed", "query-timeout"],
            };
            assert!(expected.contains(&code.as_str()), "{}", reply.text());
            self.toll.refused();
            return;
        }
        if let Asked::Attack(query) = asked {
            panic!("the guard let pass: {query}");
        }
        let own = self.fixture.tenants[tenant].schema.as_str();
        let text = reply.text();
        // Every row that is read holds its tenant's mark, and nothing else looks like one.
        let marks: Vec<&str> = text.match_indices("\"t_").map(|(at, _)| &text[at + 1..at + 6]).collect();
        assert!(!marks.is_empty(), "an answer without rows proves nothing: {text}");
        let foreign = marks.iter().filter(|mark| **mark != own).count();
        self.toll.answered(foreign);
    }
}

async fn torture(isolation: &str) {
    let mut server = PrivatePostgres::start().await.unwrap();
    let postgres = Arc::new(alone(&server).await);
    let fixture = TenantFixture::create(&postgres, TENANTS_THAT_LOG_IN).await;
    fixture.list_in_table(&postgres).await;
    let gateway = Harness::new().workers(2).policy(&policy(&postgres, isolation, 0)).start().await;
    let hostile = HOSTILE
        .split("=== ")
        .skip(1)
        .map(|entry| entry.split_once('\n').expect("a head line").1.trim_end_matches('\n'));
    let torture = Arc::new(Torture { fixture, gateway, hostile: hostile.collect(), toll: Toll::default() });
    // The directory is asked for each tenant once, while nothing is killed.
    for tenant in &torture.fixture.tenants {
        let call = torture.gateway.post("/sql").tenant(tenant.id.as_str());
        let reply = call.body(json!({ "query": "select 1" }).to_string()).send().await;
        assert_eq!(reply.status(), 200, "{}", reply.text());
    }
    let clients = (0..CLIENTS).map(|seed| Arc::clone(&torture).client(seed)).collect();
    let reloads = async {
        for turn in 1..=RELOADS {
            torture.gateway.write_policy(&policy(&postgres, isolation, turn));
            torture.gateway.sidecar.reloader.reload().await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    let meanwhile = Box::pin(async {
        tokio::join!(reloads, crash(&mut server, &torture.toll, CLIENTS));
    });
    let killed = under_fire(&postgres, clients, meanwhile).await;
    torture.toll.judge(isolation, CLIENTS, killed);
    let breaches = DatabaseLabel { database: "main".into() };
    assert_eq!(torture.gateway.sidecar.metrics.isolation_breaches.get_or_create(&breaches).get(), 0);

    // Nothing is stuck, and nobody is mixed up.
    postgres.settled().await;
    for tenant in 0..torture.fixture.tenants.len() {
        let asked = Asked::Single("select distinct tenant from marks".into());
        torture.judge(tenant, &asked, torture.send(tenant, &asked).await);
    }
    assert_eq!(torture.toll.foreign(), 0, "rows reached another tenant");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_row_reaches_another_tenant_through_the_sql_target_at_role_level() {
    torture("role").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_row_reaches_another_tenant_through_the_sql_target_at_login_level() {
    torture("login").await;
}
