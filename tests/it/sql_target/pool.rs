//! How a database's pool is used, as an operator sees it.

use futures_util::future::join_all;
use serde_json::json;

use super::Scene;
use crate::support::postgres::eventually;

#[tokio::test]
async fn an_operator_sees_what_is_in_use_what_idles_and_who_waits() {
    let scene = Scene::new("login").await;
    let shows = |in_use: u32, idle: u32, waiting: u32| {
        let scene = &scene;
        let lines = [
            format!("innkeeper_pool_connections{{database=\"main\",state=\"in-use\"}} {in_use}\n"),
            format!("innkeeper_pool_connections{{database=\"main\",state=\"idle\"}} {idle}\n"),
            format!("innkeeper_pool_waiting{{database=\"main\"}} {waiting}\n"),
        ];
        async move {
            let text = scene.gateway.admin("/metrics").send().await.text();
            lines.iter().all(|line| text.contains(line))
        }
    };
    assert!(shows(0, 0, 0).await, "{}", scene.gateway.admin("/metrics").send().await.text());
    // A tenant's share is half of the six.
    let body = json!({ "query": "select slow(600)" });
    let flood = join_all((0..5).map(|_| scene.call("acme", &body).send()));
    tokio::select! {
        _ = flood => panic!("they ended"),
        () = eventually("three run and two wait", || shows(3, 0, 2)) => {}
    }
    eventually("those who left take nothing", || shows(0, 0, 0)).await;
    assert_eq!(scene.rows("acme", "select 1", &[]).await, json!([["1"]]));
    eventually("one idles", || shows(0, 1, 0)).await;
}
