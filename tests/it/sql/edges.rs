//! What lies at the edges of a tenant's schema: one that is not there, names that we use ourselves, and
//! code that runs while a change is being saved.

use std::sync::Arc;
use std::time::Duration;

use innkeeper::error::{Blame, Code};
use innkeeper::policy::{self, Query, ResultShape};
use innkeeper::tenant::Isolation;

use super::{Scene, write};
use crate::support::postgres::database;
use crate::support::tenant_fixture::TenantFixture;

/// A scene with a schema that all tenants share, where they may write.
async fn with_shared(isolation: Isolation) -> Scene {
    let postgres = database().await;
    let fixture = TenantFixture::create(&postgres, 2).await;
    postgres
        .admin(
            "CREATE SCHEMA lookups; CREATE TABLE lookups.marks (id int, tenant text); \
             GRANT USAGE ON SCHEMA lookups TO PUBLIC; GRANT ALL ON lookups.marks TO PUBLIC",
        )
        .await;
    let settings = (*postgres.shared_settings(isolation, 1)).clone();
    let settings = policy::Database { shared_schemas: vec!["lookups".parse().unwrap()], ..settings };
    Scene::on(postgres, fixture, Arc::new(settings))
}

#[tokio::test]
async fn where_a_tenants_schema_is_passed_over_nothing_is_looked_up_or_changed_elsewhere() {
    for isolation in [Isolation::Schema, Isolation::Role] {
        for loss in ["DROP SCHEMA t_001 CASCADE", "REVOKE ALL ON SCHEMA t_001 FROM ROLES, PUBLIC"] {
            let scene = with_shared(isolation).await;
            let name = &scene.postgres.name;
            let roles = format!("\"{name}_t_001\", {}", scene.postgres.login());
            scene.postgres.admin(&loss.replace("ROLES", &roles)).await;
            for query in [
                scene.query("select tenant from marks"),
                write(scene.query("insert into marks values (1, 'lost')")),
                write(scene.query("insert into marks values (1, 'lost') returning id")),
            ] {
                let refusal = scene.run(1, &query, &[]).await.unwrap_err();
                assert_eq!(
                    (refusal.code(), refusal.blame()),
                    (Code::InternalError, Blame::Policy),
                    "{refusal}"
                );
                assert!(refusal.cause().unwrap().contains("`t_001`"), "{refusal}");
            }
            assert_eq!(scene.breaches(), 0);
            assert_eq!(scene.value(0, "select count(*) from lookups.marks").await, "0");
            assert_eq!(scene.value(0, "select count(*) from marks").await, "20");
        }
    }
}

#[tokio::test]
async fn a_column_may_have_the_name_that_we_give_a_row() {
    let scene = Scene::new(Isolation::Schema, 1).await;
    scene
        .postgres
        .admin(
            "CREATE TABLE t_001.odd (id int, \"innkeeper row\" json); GRANT ALL ON t_001.odd TO PUBLIC; \
             INSERT INTO t_001.odd VALUES (1, '{\"id\":2}')",
        )
        .await;
    let row = r#"{"id":1,"innkeeper row":{"id":2}}"#;
    let all = scene.query("select * from odd");
    assert_eq!(scene.json(1, &all, &[]).await, format!("[{row}]"));
    let one = Query { result: ResultShape::One, ..all.clone() };
    assert_eq!(scene.json(1, &one, &[]).await, row);
    let changed = write(scene.query("update odd set id = id returning *"));
    assert_eq!(scene.json(1, &changed, &[]).await, format!("[{row}]"));
}

#[tokio::test]
async fn a_failed_change_tells_nobody_what_a_sequence_gave() {
    let scene = Scene::new(Isolation::Schema, 1).await;
    scene.postgres.admin("CREATE SEQUENCE t_001.numbers; GRANT ALL ON t_001.numbers TO PUBLIC").await;
    let failing = write(scene.query("select nextval('numbers') / 0 as n"));
    scene.run(1, &failing, &[]).await.unwrap_err();
    let refusal = scene.run(0, &scene.query("select lastval() as n"), &[]).await.unwrap_err();
    assert_eq!(refusal.extension(), Some(("sqlstate", "55000")), "{refusal}");
    assert_eq!(scene.discarded(), 0);
}

/// A constraint trigger of the tenant's on each of these tables, the first of which is `marks`.
async fn with_triggers(scene: &Scene, timing: &str, bodies: &[(&str, &str)]) {
    for (table, body) in bodies {
        scene
            .postgres
            .admin(&format!(
                "CREATE TABLE IF NOT EXISTS t_001.{table} (id int); GRANT ALL ON t_001.{table} TO PUBLIC; \
                 CREATE FUNCTION t_001.on_{table}() RETURNS trigger LANGUAGE plpgsql AS \
                 $f$ BEGIN {body}; RETURN NULL; END $f$; \
                 CREATE CONSTRAINT TRIGGER late AFTER INSERT ON t_001.{table} DEFERRABLE INITIALLY {timing} \
                 FOR EACH ROW EXECUTE FUNCTION t_001.on_{table}()"
            ))
            .await;
    }
}

fn insertion(scene: &Scene) -> Query {
    write(scene.query("insert into marks (id, tenant) values (100, 'x')"))
}

#[tokio::test]
async fn a_trigger_cannot_raise_the_alarm_by_what_it_says() {
    let scene = Scene::new(Isolation::Schema, 1).await;
    let forged = "RAISE EXCEPTION 'innkeeper: the statement left its scope for the moon'";
    with_triggers(&scene, "DEFERRED", &[("marks", forged)]).await;
    let refusal = scene.run(1, &insertion(&scene), &[]).await.unwrap_err();
    assert_eq!((refusal.code(), scene.breaches()), (Code::QueryFailed, 0), "{refusal}");
}

#[tokio::test]
async fn a_change_whose_trigger_speaks_of_statements_is_run_once() {
    let scene = Scene::new(Isolation::Schema, 1).await;
    scene.postgres.admin("CREATE SEQUENCE t_001.runs; GRANT ALL ON t_001.runs TO PUBLIC").await;
    let body = "PERFORM nextval('t_001.runs'); RAISE EXCEPTION 'gone' USING ERRCODE = '26000'";
    with_triggers(&scene, "IMMEDIATE", &[("marks", body)]).await;
    scene.run(1, &insertion(&scene), &[]).await.unwrap_err();
    assert_eq!(scene.value(1, "select last_value from runs").await, "1");
    assert_eq!(scene.discarded(), 0);
}

#[tokio::test]
async fn a_commit_that_is_not_answered_in_time_is_in_doubt() {
    let scene = Scene::new(Isolation::Schema, 1).await;
    let again = "SET CONSTRAINTS ALL DEFERRED; INSERT INTO t_001.later VALUES (1)";
    with_triggers(&scene, "DEFERRED", &[("marks", again), ("later", "PERFORM pg_sleep(600)")]).await;
    let query = Query { timeout: Some(Duration::from_millis(500)), ..insertion(&scene) };
    let refusal = scene.run(1, &query, &[]).await.unwrap_err();
    assert_eq!(refusal.code(), Code::DatabaseUnavailable, "{refusal}");
    assert!(refusal.detail().contains("may or may not"), "{refusal}");
}

#[tokio::test]
async fn a_database_that_quotes_every_name_is_served() {
    let scene = Scene::new(Isolation::Role, 1).await;
    let name = &scene.postgres.name;
    scene.postgres.admin(&format!("ALTER DATABASE \"{name}\" SET quote_all_identifiers = on")).await;
    assert_eq!(scene.value(1, "select current_setting('quote_all_identifiers')").await, "\"on\"");
    scene.run(1, &insertion(&scene), &[]).await.unwrap();
    assert_eq!(scene.value(1, "select count(*) from marks").await, "21");
}
