//! Names against PostgreSQL itself: what we quote is what it reads.

use innkeeper::policy::{Query, ResultShape};
use innkeeper::sql::{Answer, Database, Scope};
use innkeeper::telemetry::Metrics;
use innkeeper::tenant::Isolation;
use innkeeper::tenant::{SchemaName, Tenant, TenantState};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use sqlx::AssertSqlSafe;

use crate::support::postgres::{TestDatabase, database, run};
use crate::support::tenant_fixture::query;

/// Names that are hard on a quoting rule: quotes, dots, comment marks, backslashes, other scripts.
fn hard_name() -> impl Strategy<Value = String> {
    prop_oneof![
        "[\"'.,;$\\\\/*%a-z _-]{1,20}",
        "\\PC{1,20}",
        prop::sample::select(vec![
            "select".to_owned(),
            "user".to_owned(),
            "UPPER".to_owned(),
            "*/ select 1 /*".to_owned(),
            "a', 'b".to_owned(),
            "\", pg_catalog, \"".to_owned(),
            "x".repeat(63),
        ]),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_schema_name_is_quoted_as_postgresql_reads_it_and_scopes_a_query() {
    let postgres = database().await;
    let settings = postgres.shared_settings(Isolation::Schema, 1);
    let rooms = Database::open(std::sync::Arc::clone(&settings), Metrics::new()).unwrap();
    let handle = tokio::runtime::Handle::current();
    let mut runner = TestRunner::new(Config { cases: 60, failure_persistence: None, ..Config::default() });
    tokio::task::block_in_place(|| {
        runner.run(&hard_name(), |name| {
            let Ok(schema) = name.parse::<SchemaName>() else { return Ok(()) };
            handle.block_on(holds(&postgres, &rooms, &settings, &schema));
            Ok(())
        })
    })
    .unwrap();
}

async fn holds(
    postgres: &TestDatabase,
    rooms: &Database,
    settings: &std::sync::Arc<innkeeper::policy::Database>,
    schema: &SchemaName,
) {
    let quoted = schema.quoted();
    let mut admin = postgres.connect().await;
    let read: Vec<String> = sqlx::query_scalar("SELECT parse_ident($1)")
        .bind(quoted.to_string())
        .fetch_one(&mut admin)
        .await
        .unwrap();
    assert_eq!(read, [schema.as_str()], "parse_ident reads another name");
    if schema.is_public() {
        return;
    }
    run(
        &mut admin,
        &format!(
            "CREATE SCHEMA {quoted}; CREATE TABLE {quoted}.here AS SELECT 7 AS n; \
             GRANT USAGE ON SCHEMA {quoted} TO {login}; GRANT SELECT ON {quoted}.here TO {login}",
            login = postgres.login()
        ),
    )
    .await;
    let stored: i64 = sqlx::query_scalar("SELECT count(*) FROM pg_namespace WHERE nspname = $1")
        .bind(schema.as_str())
        .fetch_one(&mut admin)
        .await
        .unwrap();
    assert_eq!(stored, 1, "PostgreSQL stored another name");

    let tenant = Tenant {
        id: "any".parse().unwrap(),
        schema: schema.as_str().parse().unwrap(),
        role: None,
        database: None,
        state: TenantState::Active,
        isolation: None,
        limits: None,
    };
    let admitted = innkeeper::admitted::admit(std::sync::Arc::new(tenant)).unwrap();
    let scope = Scope::of(&admitted, settings).unwrap();
    for read_only in [true, false] {
        let there = Query { read_only, result: ResultShape::Value, ..query(settings, "select n from here") };
        let answer = rooms.run(&scope, &there, Vec::new()).await;
        assert_eq!(answer.unwrap(), Answer::Json("7".into()), "{schema:?}");
    }
    sqlx::query(AssertSqlSafe(format!("DROP SCHEMA {quoted} CASCADE"))).execute(&mut admin).await.unwrap();
}
