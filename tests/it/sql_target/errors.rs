//! Errors as the driver reads them, refusals that it can read too, and limits.

use serde_json::json;

use super::Scene;
use crate::support::gateway::{Call, Reply};

#[tokio::test]
async fn an_error_of_postgresql_has_all_its_fields() {
    let scene = Scene::new("login").await;
    let reply = scene.send("acme", "insert into notes (note) values ($1)", &["acme 1"]).await;
    assert_eq!(reply.status(), 400);
    let error = reply.json();
    for (name, expected) in [
        ("message", "duplicate key value violates unique constraint \"notes_note_key\""),
        ("code", "23505"),
        ("severity", "ERROR"),
        ("detail", "Key (note)=(acme 1) already exists."),
        ("schema", "acme"),
        ("table", "notes"),
        ("constraint", "notes_note_key"),
        ("type", "urn:innkeeper:error:query-failed"),
    ] {
        assert_eq!(error[name], expected, "{name}: {}", reply.text());
    }
    for missing in ["hint", "position", "internalPosition", "internalQuery", "where", "column", "dataType"] {
        assert_eq!(error.get(missing), Some(&json!(null)), "{missing}");
    }
    for present in ["file", "line", "routine", "request_id"] {
        assert!(error[present].is_string(), "{present}");
    }
    let unknown = scene.send("acme", "select nothing from notes", &[]).await.json();
    assert_eq!((&unknown["code"], &unknown["position"]), (&json!("42703"), &json!("8")));
    let value = scene.send("acme", "select $1::int", &["seven"]).await;
    assert_eq!((value.status(), &value.json()["code"]), (400, &json!("22P02")));
    let missing = scene.send("acme", "select $1::int, $2::int", &["1"]).await;
    assert_eq!((missing.status(), &missing.json()["code"]), (400, &json!("08P01")), "{}", missing.text());
}

#[tokio::test]
async fn a_refusal_is_a_problem_and_what_the_driver_reads_at_once() {
    let scene = Scene::new("login").await;
    let hostile = json!({ "query": "select * from globex.notes" });
    let plain = scene.call("acme", &hostile).send().await;
    assert_eq!((plain.status(), plain.code().as_str()), (403, "query-refused"));
    let refused = driver(scene.call("acme", &hostile)).await;
    assert_eq!((refused.status(), refused.code().as_str()), (400, "query-refused"));
    let told = refused.json();
    assert_eq!((&told["message"], &told["code"]), (&told["detail"], &json!("query-refused")));
    for (tenant, code) in [("nobody", "tenant-unknown"), ("gone", "tenant-suspended")] {
        let reply = driver(scene.call(tenant, &json!({ "query": "select 1" }))).await;
        assert_eq!((reply.status(), reply.code().as_str()), (400, code), "{}", reply.text());
        assert!(reply.json()["message"].is_string());
    }
    // Without a header for it, the tenant is the user of the connection string.
    let body = json!({ "query": "select tenant from notes limit 1" }).to_string();
    let named = driver(scene.gateway.post("/sql").body(body)).await;
    assert_eq!(named.json()["rows"], json!([["acme"]]), "{}", named.text());
    let lines = scene.gateway.records(|line| line["status"] == 200).await;
    assert!(!serde_json::to_string(&lines).unwrap().contains("hidden-password"));
}

#[tokio::test]
async fn limits_have_statuses_of_their_own() {
    let scene = Scene::new("login").await;
    let long = json!({ "query": "select $1::text", "params": ["x".repeat(70 << 10)] });
    let reply = scene.call("acme", &long).send().await;
    assert_eq!((reply.status(), reply.code().as_str()), (413, "request-too-large"));
    let many = "select repeat('x', 1000) from generate_series(1, 1000000)";
    let reply = scene.send("acme", many, &[]).await;
    assert_eq!((reply.status(), reply.code().as_str()), (507, "query-failed"));
    assert!(reply.text().contains("application/x-ndjson"), "{}", reply.text());
    // Nothing of it stays behind: the statement was ended, and the change undone.
    let change = "insert into notes (note) select repeat('x', 1000) || n from generate_series(1, 1000) n returning note";
    assert_eq!(scene.send("acme", change, &[]).await.status(), 507);
    assert_eq!(scene.rows("acme", "select count(*) from notes", &[]).await, json!([["3"]]));
}

#[tokio::test]
async fn an_endpoint_may_be_for_reading_only_and_for_a_short_time() {
    let scene = Scene::new("login").await;
    let send = |query: &str| {
        scene.gateway.post("/reports").tenant("acme").body(json!({ "query": query }).to_string()).send()
    };
    assert_eq!(send("select count(*) from notes").await.json()["rows"], json!([["3"]]));
    assert_eq!(send("delete from notes").await.code(), "query-refused");
    let slow = send("select slow(600)").await;
    assert_eq!((slow.status(), &slow.json()["code"]), (400, &json!("57014")), "{}", slow.text());
    assert_eq!(slow.code(), "query-timeout");
}

#[tokio::test]
async fn what_is_no_sql_is_a_syntax_error_and_never_runs() {
    let scene = Scene::new("role").await;
    for (sql, position) in
        [("selec 1", "1"), ("select 'é', syntx error here", "25"), ("select 1 fro notes where", "14")]
    {
        let reply = scene.send("acme", sql, &[]).await;
        let told = reply.json();
        assert_eq!((reply.status(), reply.code().as_str()), (400, "query-failed"), "{sql}: {told}");
        assert_eq!(
            (&told["code"], &told["severity"], &told["position"]),
            (&json!("42601"), &json!("ERROR"), &json!(position)),
            "{sql}: {told}"
        );
        assert!(told["message"].as_str().unwrap().contains("the guard's grammar"), "{told}");
    }
}

#[tokio::test]
async fn what_is_not_set_up_is_the_operators_fault() {
    let scene = Scene::new("role").await;
    // A tenant that lives in a database of level `schema` cannot be held there.
    let reply = scene.send("elsewhere", "select 1", &[]).await;
    assert_eq!((reply.status(), reply.code().as_str()), (500, "internal-error"), "{}", reply.text());
    // Its schema is not there: names are looked for nowhere else.
    let reply = scene.send("ghost", "select * from notes", &[]).await;
    assert_eq!((reply.status(), &reply.json()["code"]), (400, &json!("42P01")), "{}", reply.text());
    let get = scene.gateway.call(http::Method::GET, "/sql").tenant("acme").send().await;
    assert_eq!(get.status(), 404);
}

async fn driver(call: Call<'_>) -> Reply {
    call.header("neon-connection-string", "postgres://acme:hidden-password@db.example.com/main").send().await
}
