//! Requests that end early: at any await, by time, by a full pool.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use innkeeper::policy::{PoolSettings, Query};
use innkeeper::tenant::Isolation;

use super::{MARKS, Scene, write};
use crate::support::postgres::{database, eventually};
use crate::support::tenant_fixture::TenantFixture;

/// Drives `future` through `polls` wake-ups and then drops it; whether it was done before.
async fn cancel_after<T>(future: impl Future<Output = T>, polls: usize) -> bool {
    let mut future = pin!(future);
    let mut left = polls;
    poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(false);
        }
        left -= 1;
        match future.as_mut().poll(context) {
            Poll::Ready(_) => Poll::Ready(true),
            Poll::Pending if left == 0 => Poll::Ready(false),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

#[tokio::test]
async fn a_request_may_be_cancelled_at_any_await_and_leaves_a_clean_pool() {
    for isolation in [Isolation::Role, Isolation::Login] {
        cancelled_at_any_await(isolation).await;
    }
}

async fn cancelled_at_any_await(isolation: Isolation) {
    let scene = Scene::new(isolation, 1).await;
    let read = scene.query(MARKS);
    let change = write(scene.query("update marks set note = 'half' returning tenant"));
    // A server that is quick, or a machine that is slow, may have every answer there in one poll.
    while scene.discarded() == 0 {
        for query in [&read, &change] {
            let mut polls = 1;
            // Every await of the walk is left once: the last run is the one that gets to its end.
            while !cancel_after(scene.run(1, query, &[]), polls).await {
                let json = scene.json(2, &read, &[]).await;
                assert_eq!(scene.fixture.foreign_rows(2, &json), 0, "cancelled after {polls} polls");
                polls += 1;
            }
            scene.postgres.settled().await;
        }
    }
}

#[tokio::test]
async fn a_begin_that_was_sent_and_not_answered_does_not_return_to_the_pool() {
    let scene = Scene::new(Isolation::Schema, 1).await;
    // The connection idles in the pool, so that the first poll sends BEGIN and waits for its answer;
    // unless the answer is there at once, and there is nothing in doubt yet.
    let before = loop {
        scene.json(0, &scene.query(MARKS), &[]).await;
        scene.postgres.settled().await;
        let before = scene.postgres.backends().await;
        cancel_after(scene.run(1, &scene.query(MARKS), &[]), 1).await;
        if scene.discarded() > 0 {
            break before;
        }
    };
    assert_eq!(scene.discarded(), 1);
    let json = scene.json(2, &scene.query(MARKS), &[]).await;
    assert_eq!(scene.fixture.foreign_rows(2, &json), 0);
    eventually("the doubtful connection is gone", || async {
        scene.postgres.backends().await.iter().all(|backend| !before.contains(backend))
    })
    .await;
}

#[tokio::test]
async fn the_query_of_a_client_that_left_ends_on_the_server() {
    let scene = Scene::new(Isolation::Schema, 1).await;
    let sleepers = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE usename = '{}' AND state = 'active'",
        scene.postgres.login()
    );
    let slow = scene.query("select pg_sleep(600)::text as slept");
    {
        let mut running = pin!(scene.run(0, &slow, &[]));
        tokio::select! {
            outcome = &mut running => panic!("it ended: {outcome:?}"),
            () = eventually("it runs", || async { scene.postgres.read::<i64>(&sleepers).await == 1 }) => {}
        }
    }
    // The only slot of the pool is free at once.
    assert_eq!(scene.value(1, "select count(*) from marks").await, "20");
    eventually("it ends", || async { scene.postgres.read::<i64>(&sleepers).await == 0 }).await;
}

#[tokio::test]
async fn a_statement_that_runs_too_long_is_ended_and_its_connection_kept() {
    let scene = Scene::new(Isolation::Schema, 1).await;
    let slow = Query {
        timeout: Some(Duration::from_millis(20)),
        ..scene.query("select pg_sleep(600)::text as slept")
    };
    let refusal = scene.run(0, &slow, &[]).await.unwrap_err();
    assert_eq!((refusal.code().as_str(), refusal.status().as_u16()), ("query-timeout", 504), "{refusal}");
    assert_eq!(scene.value(1, "select count(*) from marks").await, "20");
    assert_eq!(scene.discarded(), 0);
}

#[tokio::test]
async fn a_full_pool_says_so_and_when_to_come_back() {
    let postgres = database().await;
    let fixture = TenantFixture::create(&postgres, 2).await;
    let mut settings = postgres.settings(Isolation::Schema, 1);
    settings.pool = PoolSettings { acquire_timeout: Duration::from_millis(50), ..settings.pool };
    let scene = Scene::on(postgres, fixture, Arc::new(settings));
    // On a busy machine the pool's one connection may take longer than a request waits.
    while scene.run(0, &scene.query(MARKS), &[]).await.is_err() {}
    scene.postgres.settled().await;
    let slow = scene.query("select pg_sleep(600)::text as slept");
    let mut running = pin!(scene.run(0, &slow, &[]));
    // One poll is enough to take the connection.
    assert!(!cancel_after(running.as_mut(), 1).await);
    let refusal = scene.run(1, &scene.query(MARKS), &[]).await.unwrap_err();
    assert_eq!(refusal.code().as_str(), "database-unavailable");
    assert!(refusal.retry_after_hint().is_some());
    assert!(refusal.cause().unwrap().contains("busy"), "{refusal}");
}
