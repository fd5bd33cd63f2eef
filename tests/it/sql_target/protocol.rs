//! Requests and answers as Neon's driver writes and reads them.

use serde_json::json;

use super::Scene;

#[tokio::test]
async fn a_single_statement_is_answered_as_neon_answers_it() {
    let scene = Scene::new("login").await;
    let reply = scene.send("acme", "select $1::int a", &["1"]).await;
    assert_eq!((reply.status(), reply.header("content-type")), (200, Some("application/json")));
    assert_eq!(reply.header("cache-control"), Some("private, no-store"));
    assert_eq!(
        reply.json(),
        json!({
            "fields": [{ "name": "a", "dataTypeID": 23, "tableID": 0, "columnID": 0, "dataTypeSize": 4,
                         "dataTypeModifier": -1, "format": "text" }],
            "rows": [["1"]], "command": "SELECT", "rowCount": 1, "rowAsArray": true,
        })
    );
    // A column of a table says where it is from, and a result without rows has its columns.
    let empty = scene.send("acme", "select note from notes where false", &[]).await.json();
    assert_eq!((&empty["rows"], &empty["rowCount"]), (&json!([]), &json!(0)));
    assert_eq!((&empty["fields"][0]["name"], &empty["fields"][0]["columnID"]), (&json!("note"), &json!(3)));
    assert!(empty["fields"][0]["tableID"].as_u64().unwrap() > 0);
}

#[tokio::test]
async fn changes_are_counted_and_kept() {
    let scene = Scene::new("login").await;
    for (query, command, count) in [
        ("insert into notes (note) values ('new'), ('newer')", "INSERT", json!(2)),
        ("update notes set due = now() where note like 'new%'", "UPDATE", json!(2)),
        ("delete from notes where note = 'newer'", "DELETE", json!(1)),
        ("create table drafts (id int)", "CREATE", json!(null)),
        ("truncate drafts", "TRUNCATE", json!(null)),
        ("drop table drafts", "DROP", json!(null)),
        ("explain select 1", "EXPLAIN", json!(null)),
    ] {
        let reply = scene.send("acme", query, &[]).await;
        assert_eq!(reply.status(), 200, "{query}: {}", reply.text());
        let answer = reply.json();
        assert_eq!((&answer["command"], &answer["rowCount"]), (&json!(command), &count), "{query}");
        if command != "EXPLAIN" {
            assert_eq!((&answer["fields"], &answer["rows"]), (&json!([]), &json!([])), "{query}");
        }
    }
    assert_eq!(scene.rows("acme", "select count(*) from notes", &[]).await, json!([["4"]]));
    let returned =
        scene.rows("acme", "insert into notes (note) values ($1) returning id, tenant", &["r"]).await;
    assert_eq!(returned[0][1], "acme");
}

#[tokio::test]
async fn headers_choose_between_text_and_json_arrays_and_objects() {
    let scene = Scene::new("login").await;
    let query = "select 7 as n, true as yes, 9007199254740993::int8 as big, 1.10::numeric as exact, \
                 'NaN'::float8 as nan, 0.5::float4 as half, '{\"a\":1}'::jsonb as doc, array[1,null] as list, \
                 array['a b'] as words, null as nothing, 'x' as n2, 'y' as n2";
    let body = json!({ "query": query });
    let text = json!([
        "7",
        "t",
        "9007199254740993",
        "1.10",
        "NaN",
        "0.5",
        "{\"a\": 1}",
        "{1,NULL}",
        "{\"a b\"}",
        null,
        "x",
        "y"
    ]);
    let typed = json!([7, true, "9007199254740993", "1.10", "NaN", 0.5, { "a": 1 }, [1, null], ["a b"], null,
                       "x", "y"]);
    // Neither header is what a driver with headers of its own sends; it expects arrays of text.
    let reply = scene.call("acme", &body).send().await.json();
    assert_eq!((&reply["rows"][0], &reply["rowAsArray"]), (&text, &json!(true)));
    let arrays = scene.call("acme", &body).header("neon-array-mode", "true").send().await.json();
    assert_eq!((&arrays["rows"][0], &arrays["rowAsArray"]), (&typed, &json!(true)));
    let objects = scene.call("acme", &body).header("neon-raw-text-output", "TRUE").send().await.json();
    assert_eq!(objects["rowAsArray"], json!(false));
    assert_eq!(
        objects["rows"][0],
        json!({ "n": 7, "yes": true, "big": "9007199254740993", "exact": "1.10", "nan": "NaN", "half": 0.5,
                "doc": { "a": 1 }, "list": [1, null], "words": ["a b"], "nothing": null, "n2": "y" })
    );
    // A statement may choose for itself.
    let both =
        json!({ "queries": [{ "query": "select 1 a", "arrayMode": false }, { "query": "select 1 a" }] });
    let reply = scene.call("acme", &both).send().await.json();
    assert_eq!(reply["results"][0]["rows"], json!([{ "a": "1" }]));
    assert_eq!(reply["results"][1]["rows"], json!([["1"]]));
}

#[tokio::test]
async fn parameters_may_be_any_json_and_take_the_type_that_the_statement_gives_them() {
    let scene = Scene::new("login").await;
    let body = json!({
        "query": "select $1::text, $2::int8 + 1, $3::numeric, $4::bool, $5::jsonb, $6::text[], $7::int[], \
                  $8::uuid, $9::timestamptz, $10::bytea, $11::mood, $12::int4range",
        "params": ["it's", 9_007_199_254_740_993_i64, "1.10", true, { "a": [1] }, ["a", null, "b\"c"], [[1, 2]],
                   "123E4567-e89b-12d3-a456-426614174000", "2024-01-31T12:00:00Z", "\\xdead", "happy", "[1,3)"],
    });
    let reply = scene.call("acme", &body).send().await;
    assert_eq!(reply.status(), 200, "{}", reply.text());
    assert_eq!(
        reply.json()["rows"][0],
        json!([
            "it's",
            "9007199254740994",
            "1.10",
            "t",
            "{\"a\": [1]}",
            "{a,NULL,\"b\\\"c\"}",
            "{{1,2}}",
            "123e4567-e89b-12d3-a456-426614174000",
            "2024-01-31 12:00:00+00",
            "\\xdead",
            "happy",
            "[1,3)"
        ])
    );
}

#[tokio::test]
async fn a_batch_is_one_transaction() {
    let scene = Scene::new("login").await;
    let add = |note: &str| json!({ "query": "insert into notes (note) values ($1)", "params": [note] });
    let count = json!({ "query": "select count(*) from notes" });
    let whole = json!({ "queries": [add("a"), add("b"), count] });
    let reply = scene.call("acme", &whole).send().await.json();
    assert_eq!(reply["results"][0]["command"], "INSERT");
    assert_eq!(reply["results"][2]["rows"], json!([["5"]]));
    assert_eq!(reply.as_object().unwrap().len(), 1);

    let failing = json!({ "queries": [add("c"), add("a"), count] });
    let reply = scene.call("acme", &failing).send().await;
    assert_eq!((reply.status(), &reply.json()["code"]), (400, &json!("23505")), "{}", reply.text());
    assert_eq!(scene.rows("acme", "select count(*) from notes", &[]).await, json!([["5"]]));

    let shown = json!({ "queries": [{ "query": "select show('transaction_isolation'), show('transaction_read_only'), \
                                                show('transaction_deferrable')" }] });
    for (level, expected) in [
        ("ReadUncommitted", "read uncommitted"),
        ("ReadCommitted", "read committed"),
        ("RepeatableRead", "repeatable read"),
        ("Serializable", "serializable"),
    ] {
        let call = scene.call("acme", &shown).header("neon-batch-isolation-level", level);
        assert_eq!(call.send().await.json()["results"][0]["rows"], json!([[expected, "off", "off"]]));
    }
    let call = scene.call("acme", &shown).header("neon-batch-read-only", "true");
    let call =
        call.header("neon-batch-isolation-level", "Serializable").header("neon-batch-deferrable", "true");
    assert_eq!(call.send().await.json()["results"][0]["rows"], json!([["serializable", "on", "on"]]));
    let wrong = scene.call("acme", &shown).header("neon-batch-isolation-level", "serializable").send().await;
    assert_eq!((wrong.status(), wrong.code().as_str()), (400, "request-invalid"));

    let change = json!({ "queries": [add("d")] });
    let refused = scene.call("acme", &change).header("neon-batch-read-only", "true").send().await;
    assert_eq!((refused.status(), &refused.json()["code"]), (400, &json!("25006")), "{}", refused.text());
}

#[tokio::test]
async fn deferred_constraints_speak_before_anything_is_saved() {
    let scene = Scene::new("login").await;
    let setup =
        "create table pairs (id int primary key, other int references pairs deferrable initially deferred)";
    assert_eq!(scene.send("acme", setup, &[]).await.status(), 200);
    let add = |id: i32, other: i32| json!({ "query": format!("insert into pairs values ({id}, {other})") });
    let sound = json!({ "queries": [add(1, 2), add(2, 1)] });
    assert_eq!(scene.call("acme", &sound).send().await.status(), 200);
    let broken = scene.send("acme", "insert into pairs values (3, 4)", &[]).await;
    assert_eq!((broken.status(), &broken.json()["code"]), (400, &json!("23503")), "{}", broken.text());
    assert_eq!(scene.rows("acme", "select count(*) from pairs", &[]).await, json!([["2"]]));
}

#[tokio::test]
async fn bodies_that_are_none_of_the_two_are_refused() {
    let scene = Scene::new("login").await;
    for body in [
        "",
        "select 1",
        "{}",
        r#"{"queries":[]}"#,
        r#"{"query":"select 1","queries":[]}"#,
        r#"{"query":7}"#,
        r#"{"query":"select 1","params":{}}"#,
        r#"{"query":"select $1","params":[[[[[[[[1]]]]]]]]}"#,
    ] {
        let reply = scene.gateway.post("/sql").tenant("acme").body(body).send().await;
        assert_eq!((reply.status(), reply.code().as_str()), (400, "request-invalid"), "{body}");
    }
    let many = json!({ "queries": vec![json!({ "query": "select 1" }); 5] });
    let reply = scene.call("acme", &many).send().await;
    assert_eq!(reply.status(), 400);
    assert!(reply.text().contains("at most 4 statements"), "{}", reply.text());
}
