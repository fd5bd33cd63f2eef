//! Scripts of web pages: an allow-list of origins, and no more than it.

use http::Method;
use serde_json::json;

use super::Scene;

const ALLOWED: &str = "https://app.example.com";

#[tokio::test]
async fn a_browser_may_ask_without_a_tenant() {
    let scene = Scene::new("login").await;
    let reply = scene
        .gateway
        .call(Method::OPTIONS, "/sql")
        .header("origin", ALLOWED)
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "x-tenant-id")
        .send()
        .await;
    assert_eq!(reply.status(), 200, "{}", reply.text());
    assert_eq!(reply.header("access-control-allow-origin"), Some(ALLOWED));
    assert_eq!(reply.header("access-control-max-age"), Some("86400"));
    let headers = reply.header("access-control-allow-headers").unwrap().to_ascii_lowercase();
    for name in [
        "neon-connection-string",
        "neon-raw-text-output",
        "neon-array-mode",
        "neon-batch-isolation-level",
        "neon-batch-read-only",
        "neon-batch-deferrable",
        "authorization",
        "x-tenant-id",
    ] {
        assert!(headers.contains(name), "{name}");
    }
    let stranger =
        scene.gateway.call(Method::OPTIONS, "/sql").header("origin", "https://evil.example").send().await;
    assert_eq!((stranger.status(), stranger.header("access-control-allow-origin")), (200, None));
}

#[tokio::test]
async fn answers_and_errors_may_be_read_by_the_origins_on_the_list_alone() {
    let scene = Scene::new("login").await;
    for (query, status) in [("select 1", 200), ("select broken", 400), ("select * from globex.notes", 403)] {
        let reply = scene.call("acme", &json!({ "query": query })).header("origin", ALLOWED).send().await;
        assert_eq!((reply.status(), reply.header("access-control-allow-origin")), (status, Some(ALLOWED)));
        assert_eq!(reply.header("vary"), Some("Origin"));
    }
    let body = json!({ "query": "delete from notes" });
    for origin in ["https://evil.example", "null", "https://app.example.com.evil.example"] {
        let reply = scene.call("acme", &body).header("origin", origin).send().await;
        assert_eq!((reply.status(), reply.code().as_str()), (403, "denied"), "{origin}");
        assert_eq!(reply.header("access-control-allow-origin"), None);
    }
    // A page of the endpoint's own host is at home.
    let own = format!("http://{}", scene.gateway.address());
    let reply = scene.call("acme", &json!({ "query": "select 1" })).header("origin", &own).send().await;
    assert_eq!(reply.status(), 200, "{}", reply.text());
    assert_eq!(scene.rows("acme", "select count(*) from notes", &[]).await, json!([["3"]]));
}
