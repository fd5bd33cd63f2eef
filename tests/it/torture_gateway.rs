//! Isolation under torture, through the whole gateway: many tenants over HTTP at once, clients that
//! go away, slow and failing statements, killed backends, and the policy swapped all the while.

use std::sync::Arc;
use std::time::Duration;

use innkeeper::cli::demo::cluster::PrivatePostgres;
use innkeeper::telemetry::DatabaseLabel;

use crate::support::backend::Backend;
use crate::support::gateway::{Harness, TestGateway, until};
use crate::support::postgres::{TestDatabase, alone};
use crate::support::tenant_fixture::TenantFixture;
use crate::support::toll::Toll;
use crate::torture::{Dice, PAUSE, TENANTS_THAT_LOG_IN, crash, under_fire};

const TENANTS: usize = 50;
const CLIENTS: usize = 200;
const REQUESTS_EACH: usize = 12;
const RELOADS: usize = 40;

/// The policy under torture; `turn` makes each one another generation.
fn policy(postgres: &TestDatabase, backend: &Backend, isolation: &str, turn: usize) -> String {
    format!(
        "
version: 1
databases:
  main:
    url: '{}'
    isolation: {isolation}
    pool: {{ max_connections: 12, acquire_timeout: 10s }}
tenants:
  table:
    {{ database: main, name: public.tenants, id: id, schema: schema_name, role: role_name,
       cache: 50ms, stale_if_error: 1h }}
upstreams: {{ app: {{ endpoints: [ 'http://{}' ] }} }}
routes:
  - name: marks-{turn}
    match: {{ path: /marks, methods: [GET] }}
    tenant: {{ header: X-Tenant-ID }}
    query: {{ database: main, sql: 'select id, tenant, note from marks' }}
  - name: note
    match: {{ path: /marks, methods: [POST] }}
    tenant: {{ header: X-Tenant-ID }}
    query: {{ database: main, sql: 'update marks set note = tenant returning tenant, note' }}
  - name: mistake
    match: {{ path: /mistake }}
    tenant: {{ header: X-Tenant-ID }}
    query: {{ database: main, sql: 'select tenant, 1 / (id::text::int - 1) as broken from marks' }}
  - name: slow
    match: {{ path: /slow }}
    tenant: {{ header: X-Tenant-ID }}
    query: {{ database: main, sql: 'select tenant, pg_sleep(600)::text from marks', timeout: 5ms }}
  - name: app
    match: {{ path: /app }}
    tenant: {{ header: X-Tenant-ID }}
    forward: app
",
        postgres.url(&postgres.login()),
        backend.address
    )
}

struct Torture {
    fixture: TenantFixture,
    gateway: TestGateway,
    toll: Toll,
}

impl Torture {
    async fn client(self: Arc<Self>, seed: usize) {
        let mut dice = Dice(seed as u64);
        let tenant = seed % self.fixture.tenants.len();
        let id = self.fixture.tenants[tenant].id.to_string();
        let mut left = REQUESTS_EACH;
        while left > 0 {
            left -= 1;
            let kind = dice.roll(20);
            let call = match kind {
                0 => self.gateway.get("/mistake"),
                1 => self.gateway.get("/slow"),
                2..6 => self.gateway.post("/marks"),
                6..9 => self.gateway.get("/app"),
                _ => self.gateway.get("/marks"),
            };
            let patience = if dice.roll(5) == 0 { dice.roll(6_000) } else { 60_000_000 };
            let sending = call.tenant(&id).send();
            // A client that goes away closes its connection: the gateway drops what it was doing.
            let Ok(reply) = tokio::time::timeout(Duration::from_micros(patience), sending).await else {
                self.toll.cancelled();
                continue;
            };
            match (reply.status(), kind) {
                (200, 6..9) => {
                    let told = &reply.json()["headers"]["x-tenant-id"];
                    let foreign = usize::from(*told != serde_json::json!([id]));
                    self.toll.answered(foreign);
                }
                (200, _) => {
                    let foreign = self.fixture.foreign_rows(tenant, &reply.text());
                    self.toll.answered(foreign);
                }
                // The server is away, and the directory with it. Who is told so comes again a little later.
                _ if ["directory-unavailable", "database-unavailable"].contains(&reply.code().as_str()) => {
                    self.toll.refused();
                    tokio::time::sleep(PAUSE).await;
                    left += 1;
                }
                _ => {
                    let expected = ["query-failed", "query-timeout"].contains(&reply.code().as_str());
                    assert!(expected, "{}", reply.text());
                    self.toll.refused();
                }
            }
        }
    }

    async fn read(&self, tenant: usize) -> Option<String> {
        let id = self.fixture.tenants[tenant % self.fixture.tenants.len()].id.to_string();
        let reply = self.gateway.get("/marks").tenant(&id).send().await;
        (reply.status() == 200).then(|| reply.text())
    }
}

async fn torture(isolation: &str, tenants: usize) {
    let mut server = PrivatePostgres::start().await.unwrap();
    let postgres = Arc::new(alone(&server).await);
    let fixture = TenantFixture::create(&postgres, tenants).await;
    fixture.list_in_table(&postgres).await;
    let backend = Backend::start().await;
    let gateway = Harness::new().workers(2).policy(&policy(&postgres, &backend, isolation, 0)).start().await;
    let torture = Arc::new(Torture { fixture, gateway, toll: Toll::default() });
    let clients = (0..CLIENTS).map(|seed| Arc::clone(&torture).client(seed)).collect();
    let reloads = async {
        for turn in 1..=RELOADS {
            torture.gateway.write_policy(&policy(&postgres, &backend, isolation, turn));
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

    // Nothing is stuck, nobody is mixed up, and what was replaced is gone.
    postgres.settled().await;
    let later = torture.fixture.count_foreign_rows(0..tenants * 2, |tenant| torture.read(tenant)).await;
    assert_eq!(later, 0);
    until(|| torture.gateway.sidecar.reloader.store().live().count == 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_row_reaches_another_tenant_through_the_gateway_at_schema_level() {
    torture("schema", TENANTS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_row_reaches_another_tenant_through_the_gateway_at_role_level() {
    torture("role", TENANTS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_row_reaches_another_tenant_through_the_gateway_at_login_level() {
    torture("login", TENANTS_THAT_LOG_IN).await;
}
