//! Rows as lines: all of them, in little memory, and an end that tells whether they count.

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

use super::Scene;
use crate::support::postgres::eventually;
use crate::support::raw_client::RawClient;

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

async fn ask(scene: &Scene, query: &str) -> RawClient {
    let body = json!({ "query": query }).to_string();
    let mut client = RawClient::connect(scene.gateway.address()).await;
    let head = format!(
        "POST /sql HTTP/1.1\r\nhost: localhost\r\nx-tenant-id: acme\r\naccept: application/x-ndjson\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    client.stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    client
}

#[tokio::test]
async fn rows_come_line_by_line_and_the_last_line_tells_that_they_are_all() {
    let scene = Scene::new("login").await;
    let response = ask(&scene, "select n, n::text || ' of many' from generate_series(1, 50000) n")
        .await
        .response()
        .await
        .unwrap();
    assert_eq!((response.status, response.header("content-type")), (200, Some("application/x-ndjson")));
    assert!(response.complete);
    let lines = lines(&response.text());
    assert_eq!(lines.len(), 50_001);
    assert_eq!(lines[49_999], json!(["50000", "50000 of many"]));
    assert_eq!(lines[50_000], json!({ "command": "SELECT", "rowCount": 50_000 }));

    let objects = scene
        .call("acme", &json!({ "query": "insert into notes (note) values ('x') returning tenant" }))
        .header("accept", "application/x-ndjson")
        .header("neon-raw-text-output", "false")
        .send()
        .await;
    assert_eq!(objects.text(), "{\"tenant\":\"acme\"}\n{\"command\":\"INSERT\",\"rowCount\":1}\n");
    assert_eq!(scene.rows("acme", "select count(*) from notes", &[]).await, json!([["4"]]));
}

#[tokio::test]
async fn an_error_among_the_rows_breaks_the_answer_off_and_says_why() {
    let scene = Scene::new("login").await;
    let query = "select n, 1 / (20000 - n) from generate_series(1, 50000) n";
    let response = ask(&scene, query).await.response().await.unwrap();
    assert_eq!(response.status, 200);
    assert!(!response.complete, "the end is missing");
    let text = response.text();
    let last: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(last["error"]["code"], "22012", "{last}");
    assert_eq!(last["error"]["type"], "urn:innkeeper:error:query-failed");
    // Before the first row it is an error like any other.
    let early =
        ask(&scene, "select 1 / (n - 1) from generate_series(1, 10) n").await.response().await.unwrap();
    assert_eq!(early.status, 400);
}

#[tokio::test]
async fn whoever_stops_reading_stops_the_statement() {
    let scene = Scene::new("login").await;
    let mut client = ask(&scene, "select repeat('x', 1000), generate_series(1, 100000000)").await;
    assert_eq!(client.head().await.unwrap().status, 200);
    eventually("the server waits for us", || async { scene.active().await == 1 }).await;
    drop(client);
    eventually("the statement has ended", || async { scene.active().await == 0 }).await;
    assert_eq!(scene.rows("acme", "select count(*) from notes", &[]).await, json!([["3"]]));
}
