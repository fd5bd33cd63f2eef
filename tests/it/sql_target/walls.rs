//! Two tenants at once, statements that leave their scope, and what ends early.

use futures_util::future::join_all;
use serde_json::json;

use super::Scene;
use crate::support::postgres::eventually;

#[tokio::test]
async fn two_tenants_at_once_see_their_own_rows_at_every_level() {
    for level in ["role", "login"] {
        let scene = Scene::new(level).await;
        let asking = (0..40).map(|turn| {
            let (own, other) = if turn % 2 == 0 { ("acme", "globex") } else { ("globex", "acme") };
            let scene = &scene;
            async move {
                let changed = "insert into notes (note) values ($1) returning tenant";
                assert_eq!(scene.rows(own, changed, &[&format!("{own} new {turn}")]).await, json!([[own]]));
                let rows = scene.rows(own, "select distinct tenant from notes", &[]).await;
                assert_eq!(rows, json!([[own]]), "{level}");
                let hostile = scene.send(own, &format!("select * from {other}.notes"), &[]).await;
                assert_eq!(hostile.code(), "query-refused", "{level}");
            }
        });
        join_all(asking).await;
        assert_eq!(scene.rows("acme", "select count(*) from notes", &[]).await, json!([["23"]]), "{level}");
        assert_eq!(scene.breaches(), 0);
    }
}

#[tokio::test]
async fn a_statement_that_leaves_its_scope_returns_nothing_and_saves_nothing() {
    for level in ["role", "login"] {
        let scene = Scene::new(level).await;
        for (round, query) in [
            "select leave('search_path', 'globex')",
            "select leave('search_path', 'acme, pg_temp, globex')",
            "insert into notes (note) select leave('search_path', 'globex')",
        ]
        .into_iter()
        .enumerate()
        {
            let reply = scene.send("acme", query, &[]).await;
            assert_eq!(
                (reply.status(), reply.code().as_str()),
                (500, "isolation-breach"),
                "{}",
                reply.text()
            );
            assert_eq!(scene.breaches(), round as u64 + 1);
        }
        // In a batch, what follows does not run.
        let batch = json!({ "queries": [
            { "query": "select leave('search_path', 'globex')" },
            { "query": "insert into notes (note) values ('astray')" },
        ] });
        assert_eq!(scene.call("acme", &batch).send().await.code(), "isolation-breach");
        let read = scene.gateway.post("/sql").tenant("acme").header("accept", "application/x-ndjson");
        let query = json!({ "query": "select note, leave('search_path', 'globex') from notes" });
        let streamed = read.body(query.to_string()).try_send().await;
        assert!(streamed.is_err() || !streamed.unwrap().text().contains("command"), "it did not count");
        for tenant in ["acme", "globex"] {
            let rows = scene.rows(tenant, "select count(*), min(tenant) from notes", &[]).await;
            assert_eq!(rows, json!([["3", tenant]]), "{level}");
        }
    }
}

#[tokio::test]
async fn nothing_of_a_session_reaches_the_next_tenant() {
    for level in ["role", "login"] {
        let scene = Scene::new(level).await;
        let before = scene.rows("globex", "select show('work_mem'), show('role')", &[]).await;
        for _ in 0..4 {
            let _ = scene.send("acme", "select leave('work_mem', '66MB')", &[]).await;
            let _ =
                scene.send("acme", "insert into notes (note) values (leave('work_mem', '66MB'))", &[]).await;
            assert_eq!(scene.rows("globex", "select show('work_mem'), show('role')", &[]).await, before);
        }
    }
}

#[tokio::test]
async fn the_statement_of_a_client_that_left_ends_on_the_server() {
    let scene = Scene::new("login").await;
    for query in ["select slow(600)", "insert into notes (note) select slow(600)"] {
        let body = json!({ "query": query });
        {
            let sending = scene.call("acme", &body).send();
            tokio::select! {
                reply = sending => panic!("it ended: {}", reply.text()),
                () = eventually("it runs", || async { scene.active().await == 1 }) => {}
            }
        }
        // 100 ms are what a cancel request takes at most; the test waits as long as it must.
        eventually("it ends", || async { scene.active().await == 0 }).await;
    }
    assert_eq!(scene.rows("acme", "select count(*) from notes", &[]).await, json!([["3"]]));
}

#[tokio::test]
async fn connections_that_died_idle_are_passed_over() {
    let scene = Scene::new("role").await;
    let read = |tenant: &'static str| scene.rows(tenant, "select min(tenant) from notes", &[]);
    join_all((0..6).map(|_| read("acme"))).await;
    for _ in 0..3 {
        scene.postgres.settled().await;
        scene.postgres.kill_backends().await;
        assert_eq!(read("acme").await, json!([["acme"]]));
        assert_eq!(read("globex").await, json!([["globex"]]));
    }
    // Killed while it runs: the client is told, and nothing is saved.
    let body = json!({ "query": "insert into notes (note) select slow(600)" });
    let (reply, ()) = tokio::join!(scene.call("acme", &body).send(), async {
        eventually("it runs", || async { scene.active().await == 1 }).await;
        scene.postgres.kill_backends().await;
    });
    assert_eq!((reply.status(), reply.code().as_str()), (503, "database-unavailable"), "{}", reply.text());
    assert_eq!(scene.rows("acme", "select count(*) from notes", &[]).await, json!([["3"]]));
}

#[tokio::test]
async fn what_a_tenant_without_its_schema_makes_is_refused_and_not_lost() {
    for level in ["role", "login"] {
        let scene = Scene::new(level).await;
        scene.postgres.admin("DROP SCHEMA acme CASCADE").await;
        for query in ["create table lost (id int)", "create schema if not exists acme", "select 1"] {
            let refused = scene.send("acme", query, &[]).await;
            assert_eq!(refused.code(), "internal-error", "{level}: {query}");
        }
        assert_eq!(scene.rows("globex", "select count(*) from notes", &[]).await, json!([["3"]]), "{level}");
        assert_eq!(scene.breaches(), 0);
    }
}
