//! Tables that change while their tenants' requests run.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use innkeeper::tenant::Isolation;
use tokio::task::JoinSet;

use super::{Scene, write};

const MIGRATIONS: usize = 40;

#[tokio::test]
async fn a_tenant_may_migrate_under_load_and_no_request_notices() {
    for isolation in [Isolation::Schema, Isolation::Login] {
        let scene = Arc::new(Scene::new(isolation, 4).await);
        let enough = Arc::new(AtomicBool::new(false));
        let answers = Arc::new(AtomicUsize::new(0));
        let mut clients: JoinSet<()> = (0..8)
            .map(|client| {
                let (scene, enough, answers) =
                    (Arc::clone(&scene), Arc::clone(&enough), Arc::clone(&answers));
                async move {
                    let read = scene.query("select * from marks");
                    let change =
                        write(scene.query("update marks set note = tenant where id::text = '1' returning *"));
                    while !enough.load(Ordering::Relaxed) {
                        for query in [&read, &change] {
                            let json = scene.json(client % 2, query, &[]).await;
                            assert_eq!(scene.fixture.foreign_rows(client % 2, &json), 0);
                            answers.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
            })
            .collect();
        for migration in 0..MIGRATIONS {
            let statement = match migration % 4 {
                0 => "ALTER TABLE t_000.marks ALTER COLUMN id TYPE text USING id::text",
                1 => "ALTER TABLE t_000.marks ADD COLUMN extra jsonb DEFAULT '{}'",
                2 => "ALTER TABLE t_000.marks DROP COLUMN extra",
                _ => "ALTER TABLE t_000.marks ALTER COLUMN id TYPE numeric USING id::numeric",
            };
            scene.postgres.admin(statement).await;
            let before = answers.load(Ordering::Relaxed);
            while answers.load(Ordering::Relaxed) < before + 4 && clients.try_join_next().is_none() {
                tokio::task::yield_now().await;
            }
        }
        enough.store(true, Ordering::Relaxed);
        while let Some(client) = clients.join_next().await {
            client.unwrap();
        }
        assert_eq!(scene.breaches(), 0);
    }
}
