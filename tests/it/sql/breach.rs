//! Statements that leave their scope, and what they leave behind.

use innkeeper::policy::Query;
use innkeeper::tenant::Isolation;

use super::{MARKS, Scene, write};
use crate::support::postgres::eventually;

/// Functions that a tenant's schema may hold, or an operator may have let in.
const ESCAPES: [(&str, &str); 6] = [
    ("local path", "PERFORM set_config('search_path', 't_002', true)"),
    ("session path", "PERFORM set_config('search_path', 't_002', false)"),
    ("path by SET", "SET search_path TO t_002, pg_temp"),
    ("local role", "PERFORM set_config('role', 'OTHER', true)"),
    ("session role", "SET ROLE OTHER"),
    ("no role", "RESET ROLE; SET search_path TO t_002"),
];

async fn with_escape(isolation: Isolation, body: &str) -> Scene {
    let scene = Scene::new(isolation, 1).await;
    let body = body.replace("OTHER", &format!("{}_t_002", scene.postgres.name));
    scene
        .postgres
        .admin(&format!(
            "CREATE FUNCTION t_001.escape() RETURNS int LANGUAGE plpgsql AS $f$ BEGIN {body}; RETURN 1; END $f$; \
             CREATE FUNCTION t_001.escape_row() RETURNS trigger LANGUAGE plpgsql AS \
             $f$ BEGIN {body}; RETURN NULL; END $f$"
        ))
        .await;
    scene
}

async fn expect_breach(scene: &Scene, query: &Query, what: &str) {
    let before = (scene.postgres.backends().await, scene.breaches());
    let refusal = scene.run(1, query, &[]).await.expect_err(what);
    assert_eq!(refusal.code().as_str(), "isolation-breach", "{what}: {refusal}");
    assert_eq!(scene.breaches(), before.1 + 1, "{what}");
    let json = scene.json(0, &scene.query(MARKS), &[]).await;
    assert_eq!(scene.fixture.foreign_rows(0, &json), 0, "{what}");
    // The server takes a moment to see that a connection was closed.
    eventually("the connection was closed", || async {
        scene.postgres.backends().await.iter().all(|backend| !before.0.contains(backend))
    })
    .await;
}

#[tokio::test]
async fn a_function_that_moves_the_scope_is_caught_in_reads_and_writes() {
    for isolation in [Isolation::Schema, Isolation::Role] {
        for (what, body) in ESCAPES {
            let scene = with_escape(isolation, body).await;
            for (query, kind) in [
                (scene.query("select escape() as n"), "read"),
                // The last row decides: the assertion must come after all of them.
                (
                    scene.query(
                        "select tenant, case when id::text = '20' then escape() else 0 end as n from marks order by id::text::int",
                    ),
                    "read of the last row",
                ),
                (write(scene.query("select escape() as n")), "write"),
                (write(scene.query("insert into marks (id, tenant) values (100 + escape(), 'x')")), "insert"),
                (
                    write(scene.query("insert into marks (id, tenant) values (200 + escape(), 'x') returning tenant")),
                    "insert with returning",
                ),
            ] {
                expect_breach(&scene, &query, &format!("{what}, {kind}, {isolation:?}")).await;
            }
            assert_eq!(scene.value(1, "select count(*) from marks").await, "20", "{what}");
        }
    }
}

#[tokio::test]
async fn a_trigger_that_moves_the_scope_is_caught_before_the_commit() {
    for deferral in ["", "DEFERRABLE INITIALLY DEFERRED"] {
        let scene = with_escape(Isolation::Schema, "SET search_path TO t_002").await;
        scene
            .postgres
            .admin(&format!(
                "CREATE CONSTRAINT TRIGGER escapes AFTER INSERT ON t_001.marks {deferral} \
                 FOR EACH ROW EXECUTE FUNCTION t_001.escape_row()"
            ))
            .await;
        for sql in [
            "insert into marks (id, tenant) values (100, 't_001')",
            "insert into marks (id, tenant) values (100, 't_001') returning tenant",
        ] {
            expect_breach(&scene, &write(scene.query(sql)), deferral).await;
        }
        assert_eq!(scene.value(1, "select count(*) from marks").await, "20");
    }
}

#[tokio::test]
async fn a_function_that_sets_its_own_path_and_gives_it_back_is_no_breach() {
    let scene = Scene::new(Isolation::Schema, 1).await;
    scene
        .postgres
        .admin("CREATE FUNCTION t_001.tidy() RETURNS int LANGUAGE sql SET search_path FROM CURRENT AS 'SELECT 1'")
        .await;
    assert_eq!(scene.value(1, "select tidy() as n").await, "1");
    assert_eq!(scene.breaches(), 0);
}

#[tokio::test]
async fn nothing_that_a_statement_leaves_on_the_session_reaches_the_next() {
    let scene = Scene::new(Isolation::Schema, 1).await;
    scene
        .postgres
        .admin(
            "CREATE FUNCTION t_001.litter() RETURNS int LANGUAGE plpgsql AS $f$ BEGIN \
             PERFORM pg_advisory_lock(42); \
             PERFORM set_config('app.secret', 'of t_001', false); \
             PERFORM set_config('statement_timeout', '1', false); \
             EXECUTE 'LISTEN gossip'; \
             RETURN 1; END $f$; \
             CREATE FUNCTION t_001.litter_more() RETURNS int LANGUAGE plpgsql AS $f$ BEGIN \
             CREATE TEMP TABLE marks AS SELECT 1 AS id, 'stolen' AS tenant; \
             EXECUTE 'DECLARE kept CURSOR WITH HOLD FOR SELECT 1'; \
             RETURN t_001.litter(); END $f$",
        )
        .await;
    for query in [
        scene.query("select litter() as n"),
        write(scene.query("select litter() as n")),
        write(scene.query("select litter_more() as n")),
    ] {
        scene.json(1, &query, &[]).await;
        scene.postgres.settled().await;
        let found = scene
            .json(
                0,
                &scene.query(
                    "select coalesce(current_setting('app.secret', true), '') as secret, \
                     (select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()) as locks, \
                     (select count(*) from pg_listening_channels()) as channels, \
                     (select count(*) from pg_cursors where name = 'kept') as cursors, \
                     current_setting('statement_timeout') as timeout",
                ),
                &[],
            )
            .await;
        assert_eq!(
            found,
            r#"[{"secret":"","locks":0,"channels":0,"cursors":0,"timeout":"30s"}]"#,
            "{}",
            query.statement.text()
        );
        let json = scene.json(0, &scene.query(MARKS), &[]).await;
        assert_eq!(scene.fixture.foreign_rows(0, &json), 0);
    }
    assert_eq!(scene.postgres.backends().await.len(), 1);
    assert_eq!(scene.discarded(), 0);
}
