//! A database that is away: at the start, in between, in the middle of a statement.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use innkeeper::cli::demo::cluster::PrivatePostgres;
use innkeeper::policy::PoolSettings;
use innkeeper::tenant::Isolation;

use super::{MARKS, Scene, write};
use crate::support::postgres::{alone, eventually};
use crate::support::tenant_fixture::TenantFixture;

#[tokio::test]
async fn connections_that_died_idle_are_passed_over() {
    let scene = Scene::new(Isolation::Schema, 4).await;
    let pause = scene.query("select tenant, pg_sleep(0.05)::text from marks limit 1");
    for query in [scene.query(MARKS), write(scene.query("update marks set note = 'x' returning tenant"))] {
        tokio::join!(
            scene.json(0, &pause, &[]),
            scene.json(1, &pause, &[]),
            scene.json(2, &pause, &[]),
            scene.json(3, &pause, &[])
        );
        scene.postgres.settled().await;
        assert_eq!(scene.postgres.backends().await.len(), 4);
        scene.postgres.kill_backends().await;
        assert_eq!(scene.fixture.foreign_rows(1, &scene.json(1, &query, &[]).await), 0);
    }
}

#[tokio::test]
async fn a_read_whose_backend_dies_is_run_again_and_a_change_is_not() {
    let scene = Scene::new(Isolation::Schema, 2).await;
    let waiting = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE usename = '{}' AND wait_event_type = 'Lock'",
        scene.postgres.login()
    );
    for changes in [false, true] {
        let mut holder = scene.postgres.connect().await;
        crate::support::postgres::run(&mut holder, "BEGIN; LOCK TABLE t_000.marks").await;
        let query = if changes {
            write(scene.query("update marks set note = 'once' returning tenant"))
        } else {
            scene.query(MARKS)
        };
        let mut running = pin!(scene.run(0, &query, &[]));
        tokio::select! {
            outcome = &mut running => panic!("it ended: {outcome:?}"),
            () = eventually("it waits", || async { scene.postgres.read::<i64>(&waiting).await == 1 }) => {}
        }
        scene.postgres.kill_backends().await;
        crate::support::postgres::run(&mut holder, "ROLLBACK").await;
        match running.await {
            Ok(_) => assert!(!changes, "a change was sent twice"),
            Err(refusal) => {
                assert!(changes, "{refusal}");
                assert_eq!(refusal.status().as_u16(), 503, "{refusal}");
            }
        }
    }
    assert_eq!(scene.value(0, "select count(note) from marks").await, "0");
}

#[tokio::test]
async fn a_database_may_be_down_at_the_start_die_and_come_back() {
    for isolation in [Isolation::Role, Isolation::Login] {
        away_and_back(isolation).await;
    }
}

async fn away_and_back(isolation: Isolation) {
    let mut server = PrivatePostgres::start().await.unwrap();
    let postgres = alone(&server).await;
    let fixture = TenantFixture::create(&postgres, 4).await;
    let mut settings = postgres.settings(isolation, 3);
    settings.pool = PoolSettings { acquire_timeout: Duration::from_millis(300), ..settings.pool };
    server.stop().await.unwrap();

    let scene = Scene::on(postgres, fixture, Arc::new(settings));
    for _ in 0..2 {
        let refusal = scene.run(0, &scene.query(MARKS), &[]).await.unwrap_err();
        assert_eq!((refusal.code().as_str(), refusal.status().as_u16()), ("database-unavailable", 503));
        assert!(refusal.retry_after_hint().is_some());
        assert!(scene.database.ready().await.is_err());

        server.start_again().await.unwrap();
        eventually("the database is served again", || async { scene.database.ready().await.is_ok() }).await;
        for tenant in 0..4 {
            let json = scene.json(tenant, &scene.query(MARKS), &[]).await;
            assert_eq!(scene.fixture.foreign_rows(tenant, &json), 0);
        }
        server.crash().await.unwrap();
    }
}
