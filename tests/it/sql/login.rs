//! Level `login`: each tenant on connections that logged in as its own role.

use std::sync::Arc;
use std::time::Duration;

use innkeeper::cli::demo::cluster::PrivatePostgres;
use innkeeper::error::{Blame, Code};
use innkeeper::policy::{self, Login, PoolSettings, Query, Secret};
use innkeeper::sql::Database;
use innkeeper::telemetry::Metrics;
use innkeeper::tenant::Isolation;

use super::{MARKS, Scene, write};
use crate::support::postgres::{alone, database, eventually};
use crate::support::tenant_fixture::TenantFixture;

#[tokio::test]
async fn each_tenant_is_logged_in_as_its_own_role_and_the_cap_holds_over_all() {
    let scene = Scene::new(Isolation::Login, 2).await;
    let marks = scene.query(MARKS);
    let change = write(scene.query("update marks set note = session_user returning tenant, note"));
    for round in 0..12 {
        let json = scene.json(round, &marks, &[]).await;
        assert_eq!(scene.fixture.foreign_rows(round, &json), 0);
        let json = scene.json(round, &change, &[]).await;
        assert_eq!(scene.fixture.foreign_rows(round, &json), 0);
        assert!(json.contains(&format!("_t_{:03}", round % 4)), "{json}");
    }
    eventually("no more than two are open", || async { scene.postgres.backends().await.len() <= 2 }).await;
    assert_eq!((scene.discarded(), scene.breaches()), (0, 0));
}

#[tokio::test]
async fn a_tenant_comes_back_to_its_own_connection() {
    let scene = Scene::new(Isolation::Login, 4).await;
    // A change: its connection is back in the pool when its answer is there.
    let own = write(scene.query("select pg_backend_pid() as process"));
    let mut processes = Vec::new();
    for tenant in 0..4 {
        processes.push(scene.json(tenant, &own, &[]).await);
    }
    for tenant in [3, 1, 0, 2, 2, 0] {
        assert_eq!(scene.json(tenant, &own, &[]).await, processes[tenant], "tenant {tenant}");
    }
}

#[tokio::test]
async fn what_a_statement_does_to_its_role_leads_nowhere() {
    let scene = Scene::new(Isolation::Login, 2).await;
    let other = format!("{}_t_002", scene.postgres.name);
    scene
        .postgres
        .admin(&format!(
            "CREATE FUNCTION t_001.reach(how text) RETURNS TABLE (tenant text) LANGUAGE plpgsql AS $f$ BEGIN \
             EXECUTE how; RETURN QUERY EXECUTE 'SELECT tenant FROM t_002.marks'; END $f$; \
             GRANT {other} TO {login}",
            login = scene.postgres.login()
        ))
        .await;
    for how in [
        "select 1".to_owned(),
        "RESET ROLE".to_owned(),
        "RESET SESSION AUTHORIZATION".to_owned(),
        format!("SET ROLE {other}"),
        format!("SET SESSION AUTHORIZATION {other}"),
        format!("SET ROLE {}", scene.postgres.login()),
    ] {
        for query in [
            scene.query_with("select tenant from reach($1)", &["text"]),
            write(scene.query_with("select tenant from reach($1)", &["text"])),
        ] {
            let refusal = scene.run(1, &query, &[&how]).await.expect_err(&how);
            assert_eq!(
                (refusal.code(), refusal.status().as_u16()),
                (Code::QueryFailed, 403),
                "{how}: {refusal}"
            );
        }
    }
}

#[tokio::test]
async fn a_path_that_was_left_is_a_breach_though_it_shows_nothing() {
    let scene = Scene::new(Isolation::Login, 2).await;
    scene
        .postgres
        .admin(
            "CREATE FUNCTION t_001.stray() RETURNS int LANGUAGE plpgsql AS $f$ BEGIN \
             SET search_path TO t_002; RETURN 1; END $f$",
        )
        .await;
    for (breaches, query) in
        [(1, scene.query("select stray() as n")), (2, write(scene.query("select stray() as n")))]
    {
        let refusal = scene.run(1, &query, &[]).await.unwrap_err();
        assert_eq!(refusal.code(), Code::IsolationBreach, "{refusal}");
        assert_eq!(scene.breaches(), breaches);
    }
    assert_eq!(scene.fixture.foreign_rows(1, &scene.json(1, &scene.query(MARKS), &[]).await), 0);
}

#[tokio::test]
async fn a_role_that_cannot_log_in_is_the_policys_fault_and_stops_nobody_else() {
    let scene = Scene::new(Isolation::Login, 2).await;
    scene.postgres.admin(&format!("ALTER ROLE {}_t_003 NOLOGIN", scene.postgres.name)).await;
    let marks = scene.query(MARKS);
    for _ in 0..3 {
        let broken = futures_util::future::join_all((0..4).map(|_| scene.run(3, &marks, &[])));
        let (broken, fine) = tokio::join!(broken, scene.run(1, &marks, &[]));
        for refusal in broken.into_iter().map(Result::unwrap_err) {
            assert_eq!(
                (refusal.code(), refusal.blame()),
                (Code::DatabaseUnavailable, Blame::Policy),
                "{refusal}"
            );
            assert!(refusal.cause().unwrap().contains("_t_003") && !refusal.detail().contains("_t_003"));
        }
        fine.unwrap();
    }
}

#[tokio::test]
async fn each_role_proves_itself_with_its_own_password_and_never_with_the_urls() {
    let server = PrivatePostgres::start().await.unwrap();
    let postgres = alone(&server).await;
    let fixture = TenantFixture::create(&postgres, 2).await;
    // As the documentation says it, computed by PostgreSQL.
    postgres
        .admin(
            "CREATE EXTENSION pgcrypto; CREATE ROLE tenants; \
             DO $$ DECLARE r text; BEGIN FOREACH r IN ARRAY ARRAY['postgres_t_000', 'postgres_t_001'] LOOP \
             EXECUTE format('GRANT tenants TO %I', r); EXECUTE format('ALTER ROLE %I PASSWORD %L', r, \
             rtrim(translate(encode(hmac(r, 'a secret', 'sha256'), 'base64'), '+/', '-_'), '=')); \
             END LOOP; END $$",
        )
        .await;
    let hba: String = postgres.read("SHOW hba_file").await;
    let trusted = std::fs::read_to_string(&hba).unwrap();
    let asked = "local all +tenants scram-sha-256\nhost all +tenants all scram-sha-256\n";
    std::fs::write(&hba, format!("{asked}{trusted}")).unwrap();
    postgres.admin("SELECT pg_reload_conf()").await;

    let mut settings = postgres.settings(Isolation::Login, 2);
    settings.login = Login::Derived(Secret::new("a secret".into()));
    let scene = Scene::on(postgres, fixture, Arc::new(settings.clone()));
    for tenant in [0, 1] {
        let json = scene.json(tenant, &scene.query(MARKS), &[]).await;
        assert_eq!(scene.fixture.foreign_rows(tenant, &json), 0);
    }
    for login in [Login::WithoutPassword, Login::Password(Secret::new("guess".into()))] {
        let settings = policy::Database { login, ..settings.clone() };
        let database = Database::open(Arc::new(settings), Metrics::new()).unwrap();
        let refusal = database.run(&scene.scope(0), &scene.query(MARKS), Vec::new()).await.unwrap_err();
        assert_eq!(
            (refusal.code(), refusal.blame()),
            (Code::DatabaseUnavailable, Blame::Policy),
            "{refusal}"
        );
    }
}

#[tokio::test]
async fn idle_connections_are_closed_after_their_time() {
    let postgres = database().await;
    let fixture = TenantFixture::create(&postgres, 4).await;
    let mut settings = postgres.settings(Isolation::Login, 4);
    settings.pool = PoolSettings { idle_timeout: Duration::from_millis(50), ..settings.pool };
    let scene = Scene::on(postgres, fixture, Arc::new(settings));
    for tenant in 0..4 {
        scene.json(tenant, &scene.query(MARKS), &[]).await;
    }
    eventually("all were closed", || async { scene.postgres.backends().await.is_empty() }).await;
    assert_eq!(scene.discarded(), 0);
    scene.json(0, &scene.query(MARKS), &[]).await;
}

#[tokio::test]
async fn sessions_have_their_limits_from_the_start_and_after_every_reset() {
    let postgres = database().await;
    let fixture = TenantFixture::create(&postgres, 1).await;
    postgres.admin(&format!("ALTER ROLE {}_t_000 SET statement_timeout TO 0", postgres.name)).await;
    let mut settings = postgres.settings(Isolation::Login, 1);
    settings.statement_timeout = Duration::from_secs(7);
    let scene = Scene::on(postgres, fixture, Arc::new(settings));
    let limits = "select current_setting('statement_timeout') || ' ' || \
                  current_setting('idle_in_transaction_session_timeout')";
    assert_eq!(scene.value(0, limits).await, "\"7s 30s\"");
    let unlimited = write(scene.query("select set_config('statement_timeout', '0', false) as n"));
    scene.json(0, &unlimited, &[]).await;
    assert_eq!(scene.value(0, limits).await, "\"7s 30s\"");
    let shorter = Query { timeout: Some(Duration::from_secs(3)), ..scene.query(limits) };
    assert!(scene.json(0, &shorter, &[]).await.contains("3s 30s"));
    assert_eq!((scene.postgres.backends().await.len(), scene.discarded()), (1, 0));
}
