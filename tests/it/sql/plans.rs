//! Tenants that share a prepared statement, though their tables differ, and how many are kept.

use innkeeper::tenant::Isolation;

use super::{MARKS, Scene, write};
use crate::support::postgres::database;
use crate::support::tenant_fixture::TenantFixture;

/// More than there are texts of one statement: some of them share one for sure.
const TENANTS: usize = 40;

#[tokio::test]
async fn tenants_that_share_a_statement_read_and_change_their_own_tables_on_one_connection() {
    for isolation in [Isolation::Schema, Isolation::Role] {
        let postgres = database().await;
        let fixture = TenantFixture::create(&postgres, TENANTS).await;
        let settings = postgres.shared_settings(isolation, 1);
        let scene = Scene::on(postgres, fixture, settings);
        let read = scene.query(MARKS);
        let change = write(scene.query("update marks set note = tenant where id::text = '1' returning *"));
        let silent = write(scene.query("update marks set note = 'seen by ' || tenant where id::text = '2'"));
        for _ in 0..3 {
            for tenant in 0..TENANTS {
                for query in [&read, &change] {
                    let json = scene.json(tenant, query, &[]).await;
                    assert_eq!(scene.fixture.foreign_rows(tenant, &json), 0);
                    assert!(json.contains(&format!("\"t_{tenant:03}\"")), "{json}");
                }
                scene.run(tenant, &silent, &[]).await.unwrap();
            }
        }
        for tenant in 0..TENANTS {
            let notes = scene.value(tenant, "select note from marks where id::text = '2'").await;
            assert_eq!(notes, format!("\"seen by t_{tenant:03}\""));
        }
        assert_eq!(scene.postgres.backends().await.len(), 1);
        assert_eq!((scene.breaches(), scene.discarded()), (0, 0));
    }
}

#[tokio::test]
async fn a_connection_keeps_no_more_statements_prepared_than_it_may() {
    let scene = Scene::new(Isolation::Schema, 1).await;
    let prepared = "select count(*) as n from pg_prepared_statements";
    for number in 0..600 {
        assert_eq!(scene.value(0, &format!("select {number} as n")).await, number.to_string());
    }
    let kept: u32 = scene.value(0, prepared).await.parse().unwrap();
    assert!((500..=512).contains(&kept), "{kept} statements are prepared");
    assert_eq!((scene.postgres.backends().await.len(), scene.discarded()), (1, 0));
}
