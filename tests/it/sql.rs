//! Named queries in their tenants' scope, against a real PostgreSQL.

mod breach;
mod cancel;
mod edges;
mod fairness;
mod login;
mod migration;
mod names;
mod outage;
mod plans;
mod results;
mod stream;

use std::sync::Arc;

use innkeeper::error::Refusal;
use innkeeper::policy::{self, Query, ResultShape};
use innkeeper::sql::{Answer, Database, Given, Scope, Value, read_value};
use innkeeper::telemetry::{DatabaseLabel, Metrics};
use innkeeper::tenant::Isolation;

use crate::support::postgres::{TestDatabase, database};
use crate::support::tenant_fixture::{TenantFixture, query, query_with};

/// A database with tenants, and the room under test on it.
struct Scene {
    postgres: TestDatabase,
    fixture: TenantFixture,
    settings: Arc<policy::Database>,
    metrics: Arc<Metrics>,
    database: Arc<Database>,
}

impl Scene {
    async fn new(isolation: Isolation, max_connections: u32) -> Self {
        let postgres = database().await;
        let fixture = TenantFixture::create(&postgres, 4).await;
        let settings = postgres.shared_settings(isolation, max_connections);
        Self::on(postgres, fixture, settings)
    }

    fn on(postgres: TestDatabase, fixture: TenantFixture, settings: Arc<policy::Database>) -> Self {
        let metrics = Metrics::new();
        let database = Arc::new(Database::open(Arc::clone(&settings), Arc::clone(&metrics)).unwrap());
        Self { postgres, fixture, settings, metrics, database }
    }

    fn scope(&self, tenant: usize) -> Scope {
        Scope::of(&self.fixture.admitted(tenant), &self.settings).unwrap()
    }

    fn query(&self, sql: &str) -> Query {
        query(&self.settings, sql)
    }

    fn query_with(&self, sql: &str, params: &[&str]) -> Query {
        query_with(&self.settings, sql, params)
    }

    /// Runs `query` as the tenant, with texts for its parameters.
    async fn run(&self, tenant: usize, query: &Query, given: &[&str]) -> Result<Answer, Refusal> {
        let values: Vec<Value> = query
            .params
            .iter()
            .zip(given)
            .enumerate()
            .map(|(at, (param, text))| read_value(param, at + 1, Given::Text((*text).to_owned())).unwrap())
            .collect();
        self.database.run(&self.scope(tenant), query, values).await
    }

    async fn json(&self, tenant: usize, query: &Query, given: &[&str]) -> String {
        match self.run(tenant, query, given).await.unwrap() {
            Answer::Json(json) => json,
            Answer::Empty => panic!("the answer is empty"),
        }
    }

    async fn value(&self, tenant: usize, sql: &str) -> String {
        self.json(tenant, &Query { result: ResultShape::Value, ..self.query(sql) }, &[]).await
    }

    fn breaches(&self) -> u64 {
        self.metrics.isolation_breaches.get_or_create(&DatabaseLabel { database: "main".into() }).get()
    }

    fn discarded(&self) -> u64 {
        self.metrics.connections_discarded.get_or_create(&DatabaseLabel { database: "main".into() }).get()
    }
}

fn write(query: Query) -> Query {
    Query { read_only: false, ..query }
}

const MARKS: &str = "select id, tenant from marks order by id";

#[tokio::test]
async fn each_tenant_reads_its_own_rows_on_one_connection() {
    for isolation in [Isolation::Schema, Isolation::Role] {
        let scene = Scene::new(isolation, 1).await;
        let marks = scene.query(MARKS);
        // The ids' type differs between tenants: a plan that is shared among them would fail.
        for round in 0..12 {
            let json = scene.json(round, &marks, &[]).await;
            assert_eq!(scene.fixture.foreign_rows(round, &json), 0);
        }
        assert_eq!(scene.postgres.backends().await.len(), 1);
        assert_eq!(scene.discarded(), 0);
    }
}

#[tokio::test]
async fn parameters_are_bound_by_their_type_for_each_tenant() {
    let scene = Scene::new(Isolation::Schema, 1).await;
    let by_text = scene.query_with("select tenant from marks where id::text = $1", &["text"]);
    let by_number = scene.query_with("select tenant from marks where id::text = $1::text", &["int"]);
    for round in 0..8 {
        let own = format!("[{{\"tenant\":\"t_{:03}\"}}]", round % 4);
        assert_eq!(scene.json(round, &by_text, &["7"]).await, own);
        assert_eq!(scene.json(round, &by_number, &["7"]).await, own);
    }
    let nothing = "[]";
    assert_eq!(scene.json(0, &by_text, &["7' or '1'='1"]).await, nothing);
}

#[tokio::test]
async fn a_change_is_committed_and_the_session_reset_with_it() {
    let scene = Scene::new(Isolation::Role, 1).await;
    let note = scene.query_with("update marks set note = $1", &["text"]);
    assert_eq!(scene.run(1, &write(note), &["seen"]).await.unwrap(), Answer::Empty);
    let returning = write(scene.query("update marks set note = note || '!' returning tenant, note"));
    let json = scene.json(1, &returning, &[]).await;
    assert_eq!(scene.fixture.foreign_rows(1, &json), 0);
    assert!(json.contains("seen!"));
    let noted = "select count(*) from marks where note = 'seen!'";
    assert_eq!(scene.value(1, noted).await, "20");
    assert_eq!(scene.value(0, noted).await, "0");
    assert_eq!(scene.discarded(), 0);
}

#[tokio::test]
async fn a_read_changes_nothing() {
    let scene = Scene::new(Isolation::Schema, 1).await;
    let sneaky = Query { read_only: true, ..scene.query("update marks set note = 'x'") };
    let refusal = scene.run(0, &sneaky, &[]).await.unwrap_err();
    assert_eq!(refusal.status().as_u16(), 405, "{refusal}");
    assert_eq!(scene.value(0, "select count(note) from marks").await, "0");
    assert_eq!(scene.discarded(), 0);
}

#[tokio::test]
async fn an_error_rolls_back_and_keeps_the_connection() {
    let scene = Scene::new(Isolation::Schema, 1).await;
    let doubled = write(scene.query("insert into marks (id, tenant) select id, 'x' from marks limit 1"));
    let refusal = scene.run(0, &doubled, &[]).await.unwrap_err();
    assert_eq!((refusal.status().as_u16(), refusal.extension()), (409, Some(("sqlstate", "23505"))));
    assert!(refusal.cause().unwrap().contains("marks_pkey"), "{refusal}");
    assert!(!refusal.detail().contains("marks"), "{refusal}");
    assert_eq!(scene.fixture.foreign_rows(1, &scene.json(1, &scene.query(MARKS), &[]).await), 0);
    assert_eq!(scene.discarded(), 0);
}

#[tokio::test]
async fn roles_hold_where_a_function_reaches_for_another_schema() {
    let scene = Scene::new(Isolation::Role, 1).await;
    let reach = scene.query("select tenant from t_002.marks");
    let refusal = scene.run(1, &reach, &[]).await.unwrap_err();
    assert_eq!(refusal.status().as_u16(), 403, "{refusal}");
    scene
        .postgres
        .admin(
            "CREATE FUNCTION t_001.reach() RETURNS TABLE (tenant text) LANGUAGE plpgsql AS \
             $$ BEGIN RETURN QUERY EXECUTE 'SELECT tenant FROM t_002.marks'; END $$",
        )
        .await;
    let refusal = scene.run(1, &scene.query("select tenant from reach()"), &[]).await.unwrap_err();
    assert_eq!(refusal.status().as_u16(), 403, "{refusal}");
    // The weaker level does not hold it, and does not claim to.
    let open = Scene::new(Isolation::Schema, 1).await;
    let json = open.json(1, &open.query("select tenant from t_002.marks"), &[]).await;
    assert_eq!(open.fixture.foreign_rows(1, &json), 20);
}

#[tokio::test]
async fn a_tenant_without_the_role_that_isolation_asks_for_is_not_run() {
    let scene = Scene::new(Isolation::Role, 1).await;
    let mut tenant = (*scene.fixture.tenants[0]).clone();
    tenant.role = None;
    let admitted = innkeeper::admitted::admit(Arc::new(tenant.clone())).unwrap();
    let refusal = Scope::of(&admitted, &scene.settings).unwrap_err();
    assert_eq!(refusal.blame(), innkeeper::error::Blame::Policy);
    // A tenant may ask for more than its database does, and never for less.
    let weaker = scene.postgres.shared_settings(Isolation::Schema, 1);
    tenant.isolation = Some(Isolation::Role);
    let admitted = innkeeper::admitted::admit(Arc::new(tenant.clone())).unwrap();
    assert!(Scope::of(&admitted, &weaker).is_err());
    tenant.isolation = Some(Isolation::Schema);
    let admitted = innkeeper::admitted::admit(Arc::new(tenant)).unwrap();
    assert!(Scope::of(&admitted, &scene.settings).is_err());
}

#[tokio::test]
async fn a_role_that_the_login_may_not_become_is_the_policys_fault() {
    let scene = Scene::new(Isolation::Role, 1).await;
    let mut tenant = (*scene.fixture.tenants[0]).clone();
    tenant.role = Some("innkeeper".parse().unwrap());
    let scope = Scope::of(&innkeeper::admitted::admit(Arc::new(tenant)).unwrap(), &scene.settings).unwrap();
    let refusal = scene.database.run(&scope, &scene.query(MARKS), Vec::new()).await.unwrap_err();
    assert_eq!(refusal.blame(), innkeeper::error::Blame::Policy, "{refusal}");
    assert_eq!(scene.fixture.foreign_rows(1, &scene.json(1, &scene.query(MARKS), &[]).await), 0);
}

#[tokio::test]
async fn shared_schemas_come_after_the_tenants_own_and_temporary_tables_last() {
    let postgres = database().await;
    let fixture = TenantFixture::create(&postgres, 2).await;
    postgres
        .admin(&format!(
            "CREATE SCHEMA lookups; CREATE TABLE lookups.marks (tenant text); CREATE TABLE lookups.colours AS \
             SELECT 'red' AS name; GRANT USAGE ON SCHEMA lookups TO {login}; \
             GRANT SELECT ON ALL TABLES IN SCHEMA lookups TO {login}",
            login = postgres.login()
        ))
        .await;
    let mut settings = postgres.settings(Isolation::Schema, 1);
    settings.shared_schemas = vec!["lookups".parse().unwrap()];
    let scene = Scene::on(postgres, fixture, Arc::new(settings));
    assert_eq!(scene.value(0, "select name from colours").await, "\"red\"");
    assert_eq!(scene.value(0, "select count(*) from marks").await, "20");
    let path = scene.value(0, "select current_setting('search_path')").await;
    assert_eq!(path, "\"t_000, lookups, pg_temp\"");
}
