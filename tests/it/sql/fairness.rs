//! One tenant's flood, and the others who want a connection too.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use innkeeper::error::Code;
use innkeeper::policy::PoolSettings;
use innkeeper::tenant::Isolation;
use tokio::task::JoinSet;

use super::{MARKS, Scene};
use crate::support::postgres::database;
use crate::support::tenant_fixture::TenantFixture;

const FLOOD: usize = 200;

async fn scene(queue: u32) -> Arc<Scene> {
    let postgres = database().await;
    let fixture = TenantFixture::create(&postgres, 3).await;
    let mut settings = postgres.settings(Isolation::Role, 1);
    settings.pool = PoolSettings {
        tenant_connections: 1,
        tenant_queue: queue,
        // A flood takes as long as the machine needs for it.
        acquire_timeout: std::time::Duration::from_secs(120),
        ..settings.pool
    };
    Arc::new(Scene::on(postgres, fixture, Arc::new(settings)))
}

#[tokio::test]
async fn a_flood_of_one_tenant_does_not_stand_before_the_next_ones_request() {
    let scene = scene(1000).await;
    let (started, served) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut flood: JoinSet<()> = (0..FLOOD)
        .map(|_| {
            let (scene, started, served) = (Arc::clone(&scene), Arc::clone(&started), Arc::clone(&served));
            async move {
                started.fetch_add(1, Ordering::Relaxed);
                let json = scene.json(0, &scene.query(MARKS), &[]).await;
                assert_eq!(scene.fixture.foreign_rows(0, &json), 0);
                served.fetch_add(1, Ordering::Relaxed);
            }
        })
        .collect();
    // One thread runs them all: once the last has started, those before it stand in line.
    while started.load(Ordering::Relaxed) < FLOOD {
        tokio::task::yield_now().await;
    }
    for other in [1, 2, 1, 2] {
        let before = served.load(Ordering::Relaxed);
        let json = scene.json(other, &scene.query(MARKS), &[]).await;
        assert_eq!(scene.fixture.foreign_rows(other, &json), 0);
        // The one that runs, the one whose turn had come, and one whose answer is on its way.
        let ahead = served.load(Ordering::Relaxed) - before;
        assert!(ahead <= 3, "{ahead} requests of the flood were served first");
    }
    assert!(served.load(Ordering::Relaxed) < FLOOD, "the flood was over before the others came");
    while let Some(one) = flood.join_next().await {
        one.unwrap();
    }
    assert_eq!((scene.postgres.backends().await.len(), scene.discarded()), (1, 0));
}

#[tokio::test]
async fn a_tenant_over_its_queue_is_refused_and_nobody_else_is() {
    let scene = scene(3).await;
    let marks = scene.query(MARKS);
    let flood = futures_util::future::join_all((0..10).map(|_| scene.run(0, &marks, &[])));
    let (flood, other) = tokio::join!(flood, scene.run(1, &marks, &[]));
    let refused: Vec<_> = flood.iter().filter_map(|outcome| outcome.as_ref().err()).collect();
    // One has the connection, three wait.
    assert_eq!(refused.len(), 6, "{refused:?}");
    assert!(refused.iter().all(|refusal| refusal.code() == Code::TenantLimited), "{refused:?}");
    other.unwrap();
}
