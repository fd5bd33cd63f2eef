//! The guard against its corpora, and against PostgreSQL itself.

mod differences;
mod functions;

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use innkeeper::policy::{SqlEndpoint, StatementKind};
use innkeeper::sql::{Guard, Scope, Vetted};
use innkeeper::tenant::Isolation;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, Row as _, SqlSafeStr as _};

use crate::support::postgres::{TestDatabase, database, run};
use crate::support::tenant_fixture::TenantFixture;

const HOSTILE: &str = include_str!("../../src/sql/guard/corpus/hostile.txt");
const ORDINARY: &str = include_str!("../../src/sql/guard/corpus/ordinary.txt");

/// What every row of the victim holds, and nothing else does.
const MARK: &str = "globex's own";

/// A function of an extension, and fields of the composite types that the ordinary corpus speaks of.
const LISTED: [&str; 12] =
    ["similarity", "b", "c", "city", "code", "f1", "id", "name", "reg", "street", "type", "zip"];

/// Entries of the ordinary corpus that older supported versions cannot read.
const NEW_GRAMMAR: [&str; 1] = ["json-constructors"];

/// How long a hostile statement may run on the server.
const PATIENCE: &str = "1s";

const EVERY_KIND: [StatementKind; 8] = [
    StatementKind::Select,
    StatementKind::Insert,
    StatementKind::Update,
    StatementKind::Delete,
    StatementKind::Merge,
    StatementKind::Truncate,
    StatementKind::Explain,
    StatementKind::Ddl,
];

/// A database with an attacker and a victim, who each log in with a role of their own.
struct Scene {
    postgres: TestDatabase,
    fixture: TenantFixture,
    scope: Scope,
    endpoint: SqlEndpoint,
}

impl Scene {
    async fn new() -> Self {
        let postgres = database().await;
        let fixture = TenantFixture::create(&postgres, 2).await;
        for (index, name) in [(0, "acme's own"), (1, MARK)] {
            let (schema, role) = (schema(&fixture, index), role(&fixture, index));
            postgres
                .admin(&format!(
                    "ALTER ROLE {role} LOGIN; CREATE TABLE {schema}.users (id serial PRIMARY KEY, name text); \
                     INSERT INTO {schema}.users (name) SELECT $m${name}$m$ FROM generate_series(1, 5); \
                     CREATE FUNCTION {schema}.leak() RETURNS SETOF text LANGUAGE sql AS \
                     'SELECT name FROM {schema}.users'; \
                     ALTER TABLE {schema}.users OWNER TO {role}; GRANT CREATE ON SCHEMA {schema} TO {role}"
                ))
                .await;
        }
        let settings = postgres.shared_settings(Isolation::Login, 1);
        let scope = Scope::of(&fixture.admitted(0), &settings).unwrap();
        let endpoint = SqlEndpoint {
            database: settings,
            statements: EVERY_KIND.to_vec(),
            functions: LISTED.map(str::to_owned).to_vec(),
            operators: Vec::new(),
            read_only: false,
            timeout: None,
            max_request: 1 << 20,
            max_response: 1 << 20,
            max_batch: 1,
            origins: Vec::new(),
        };
        Self { postgres, fixture, scope, endpoint }
    }

    fn vet(&self, sql: &str) -> Result<Vetted, innkeeper::error::Refusal> {
        Guard::new(&self.endpoint).vet(sql, &self.scope)
    }

    /// The entries of a corpus: name, what the refusal says, and the statement.
    fn entries<'a>(&self, corpus: &'a str) -> Vec<(&'a str, &'a str, String)> {
        let entries = corpus.split("=== ").skip(1).map(|entry| {
            let (head, sql) = entry.split_once('\n').expect("a head line");
            let (name, refusal) = head.split_once(" | ").unwrap_or((head, ""));
            let sql = sql
                .trim_end_matches('\n')
                .replace("{victim_role}", role(&self.fixture, 1))
                .replace("{victim}", schema(&self.fixture, 1))
                .replace("{home}", schema(&self.fixture, 0));
            (name, refusal, sql)
        });
        entries.collect()
    }

    /// The texts that the attacker gets for `sql` without any guard: every value of every row, and
    /// what errors and notices say is left out.
    async fn loot(&self, login: &str, sql: &str) -> Vec<String> {
        let mut connection = PgConnection::connect(&self.postgres.url(login)).await.unwrap();
        run(
            &mut connection,
            &format!(
                "BEGIN; SET LOCAL search_path TO {}, pg_temp; SET LOCAL statement_timeout TO '{PATIENCE}'",
                schema(&self.fixture, 0)
            ),
        )
        .await;
        let mut loot = Vec::new();
        let mut rows = connection.fetch(sqlx::raw_sql(AssertSqlSafe(sql.to_owned())));
        while let Ok(Some(Ok(row))) = tokio::time::timeout(Duration::from_secs(20), rows.next()).await {
            for column in 0..row.len() {
                let value = row.try_get_raw(column).expect("a column");
                loot.extend(value.as_str().ok().map(str::to_owned));
            }
        }
        loot
    }
}

fn schema(fixture: &TenantFixture, tenant: usize) -> &str {
    fixture.tenants[tenant].schema.as_str()
}

fn role(fixture: &TenantFixture, tenant: usize) -> &str {
    fixture.tenants[tenant].role.as_ref().expect("a role").as_str()
}

#[tokio::test]
async fn every_hostile_statement_is_refused_with_a_detail_that_helps() {
    let scene = Scene::new().await;
    let entries = scene.entries(HOSTILE);
    assert!(entries.len() >= 700, "{}", entries.len());
    let mut wrong = Vec::new();
    for (name, says, sql) in entries {
        match scene.vet(&sql) {
            Ok(_) => wrong.push(format!("{name} passed: {sql}")),
            Err(refusal) => {
                let is_unreadable = says == "grammar does not understand";
                let code = if is_unreadable { "query-failed" } else { "query-refused" };
                assert_eq!(refusal.code().as_str(), code, "{name}: {}", refusal.detail());
                if says.is_empty() || !refusal.detail().contains(says) {
                    wrong.push(format!("{name}: {}", refusal.detail()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn every_ordinary_statement_passes_as_it_is() {
    let scene = Scene::new().await;
    let entries = scene.entries(ORDINARY);
    assert!(entries.len() >= 250, "{}", entries.len());
    let mut wrong = Vec::new();
    for (name, _, sql) in entries {
        match scene.vet(&sql) {
            Ok(vetted) if name == "own-schema" => assert_eq!(vetted.text(), "SELECT WHERE false"),
            Ok(vetted) => assert_eq!(vetted.text(), sql, "{name}"),
            Err(refusal) => wrong.push(format!("{name}: {}", refusal.detail())),
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn with_the_guard_off_a_login_of_its_own_holds_every_row() {
    let scene = Scene::new().await;
    let attacker = role(&scene.fixture, 0);
    let victims = format!("SELECT name FROM {}.users", schema(&scene.fixture, 1));
    let seen = scene.loot(innkeeper::cli::demo::cluster::SUPERUSER, &victims).await;
    assert_eq!(seen, [MARK; 5], "the check sees a row that gets out");
    assert_eq!(scene.loot(attacker, "SELECT name FROM users").await, ["acme's own"; 5]);
    for (name, _, sql) in scene.entries(HOSTILE) {
        let loot = scene.loot(attacker, &sql).await;
        assert!(!loot.iter().any(|text| text.contains(MARK)), "{name}: {sql}\n{loot:?}");
    }
    assert_eq!(scene.loot(innkeeper::cli::demo::cluster::SUPERUSER, &victims).await, [MARK; 5]);
}

#[tokio::test]
async fn what_passes_is_a_single_statement_to_postgresql() {
    let scene = Scene::new().await;
    for (name, _, sql) in scene.entries(ORDINARY) {
        let mut connection = scene.postgres.connect().await;
        match connection.prepare(AssertSqlSafe(sql.clone()).into_sql_str()).await {
            Ok(_) => {}
            // Most of the corpus speaks of tables that are not here: the grammar is what counts.
            Err(sqlx::Error::Database(error)) => {
                let code = error.code().unwrap_or_default().into_owned();
                assert!(code != "42601" || NEW_GRAMMAR.contains(&name), "{name}: {error}\n{sql}");
            }
            Err(error) => panic!("{name}: {error}"),
        }
    }
}

/// A guard that allows reading alone.
fn reading(scene: &Scene) -> Guard {
    let statements = vec![StatementKind::Select];
    Guard::new(&SqlEndpoint {
        statements,
        database: Arc::clone(&scene.endpoint.database),
        ..scene.endpoint.clone()
    })
}
