//! What a client gets: shapes, types, digits.

use innkeeper::policy::{Query, ResultShape};
use innkeeper::sql::{Answer, Given, read_value};
use innkeeper::tenant::Isolation;

use super::{MARKS, Scene, write};

#[tokio::test]
async fn a_result_has_the_shape_that_the_policy_gives_it() {
    let scene = Scene::new(Isolation::Schema, 1).await;
    let shaped = |sql: &str, result| Query { result, ..scene.query(sql) };
    let first = "select tenant, note from marks order by id limit 1";
    assert_eq!(
        scene.json(0, &shaped(first, ResultShape::One), &[]).await,
        r#"{"tenant":"t_000","note":null}"#
    );
    assert_eq!(
        scene.json(0, &shaped("select tenant from marks limit 1", ResultShape::Value), &[]).await,
        "\"t_000\""
    );
    assert_eq!(scene.run(0, &shaped(MARKS, ResultShape::None), &[]).await.unwrap(), Answer::Empty);
    assert_eq!(scene.json(0, &scene.query("select id from marks where false"), &[]).await, "[]");

    let nothing = "select tenant from marks where false";
    for result in [ResultShape::One, ResultShape::Value] {
        let missing = scene.run(0, &shaped(nothing, result), &[]).await.unwrap_err();
        assert_eq!(missing.status().as_u16(), 404);
        let several = scene.run(0, &shaped("select tenant from marks", result), &[]).await.unwrap_err();
        assert_eq!(several.status().as_u16(), 500, "{several}");
    }
    let wide = scene.run(0, &shaped(first, ResultShape::Value), &[]).await.unwrap_err();
    assert!(wide.cause().unwrap().contains("one column"), "{wide}");
    assert_eq!(scene.discarded(), 0);
}

#[tokio::test]
async fn a_change_that_finds_more_than_one_row_is_rolled_back() {
    let scene = Scene::new(Isolation::Schema, 1).await;
    let one = Query {
        result: ResultShape::One,
        ..write(scene.query("update marks set note = 'x' returning tenant"))
    };
    assert_eq!(scene.run(0, &one, &[]).await.unwrap_err().status().as_u16(), 500);
    assert_eq!(scene.value(0, "select count(note) from marks").await, "0");
}

#[tokio::test]
async fn a_changing_with_gives_its_rows_and_its_changes() {
    let scene = Scene::new(Isolation::Schema, 1).await;
    for (sql, noted) in [
        (
            "with m as (update marks set note = 'a' where id::text = '1' returning tenant) select * from m",
            "1",
        ),
        (
            "with m as (select id from marks where id::text in ('1', '2')) -- two of them\n\
             update marks set note = 'b' from m where m.id = marks.id returning tenant",
            "2",
        ),
    ] {
        let json = scene.json(3, &scene.query(sql), &[]).await;
        assert_eq!(scene.fixture.foreign_rows(3, &json), 0, "{sql}");
        assert_eq!(scene.value(3, "select count(note) from marks").await, noted, "{sql}");
    }
}

#[tokio::test]
async fn every_type_of_parameter_arrives_as_it_was_sent() {
    let scene = Scene::new(Isolation::Schema, 1).await;
    for (kind, given, expected) in [
        ("text", "it's \"ä\" \\ $1", r#""it's \"ä\" \\ $1""#),
        ("int", "-9223372036854775808", "-9223372036854775808"),
        ("float", "0.1", "0.1"),
        (
            "numeric",
            "123456789012345678901234567890.000000000000000000010",
            "123456789012345678901234567890.000000000000000000010",
        ),
        ("bool", "true", "true"),
        ("uuid", "123E4567-E89B-12D3-A456-426614174000", "\"123e4567-e89b-12d3-a456-426614174000\""),
        ("date", "2024-02-29", "\"2024-02-29\""),
        ("timestamp", "2024-02-29T12:00:00.5+02:00", "true"),
        ("json", r#"{"b":[1,2.50],"a":null}"#, r#"{"a": null, "b": [1, 2.50]}"#),
    ] {
        let sql = match kind {
            "timestamp" => "select $1 = timestamptz '2024-02-29 10:00:00.5Z' as value -- $1",
            _ => "select $1 as value -- $1",
        };
        let query = Query { result: ResultShape::Value, ..scene.query_with(sql, &[kind]) };
        assert_eq!(scene.json(0, &query, &[given]).await, expected, "{kind:?}");
    }
}

#[tokio::test]
async fn null_is_null_for_every_type() {
    let scene = Scene::new(Isolation::Schema, 1).await;
    for kind in ["text", "int", "float", "numeric", "bool", "uuid", "date", "timestamp", "json"] {
        let mut query =
            Query { result: ResultShape::Value, ..scene.query_with("select $1 is null as value", &[kind]) };
        query.params[0].nullable = true;
        let value = read_value(&query.params[0], 1, Given::Absent).unwrap();
        let answer = scene.database.run(&scene.scope(0), &query, vec![value]).await.unwrap();
        assert_eq!(answer, Answer::Json("true".into()), "{kind:?}");
    }
}

#[tokio::test]
async fn no_number_loses_a_digit() {
    let scene = Scene::new(Isolation::Schema, 1).await;
    let numbers = "select 9223372036854775807::bigint as big, 0.1::float8 + 0.2::float8 as sum, \
                   1e30::numeric + 0.000000000000000000001 as exact, 'NaN'::numeric as nan, \
                   'Infinity'::float8 as inf, '\\x00ff'::bytea as bytes, array[1,2] as list, \
                   int4range(1,5) as range, 'b'::\"char\" as letter";
    assert_eq!(
        scene.json(0, &scene.query(numbers), &[]).await,
        r#"[{"big":9223372036854775807,"sum":0.30000000000000004,"exact":1000000000000000000000000000000.000000000000000000001,"nan":"NaN","inf":"Infinity","bytes":"\\x00ff","list":[1,2],"range":"[1,5)","letter":"b"}]"#
    );
}

#[tokio::test]
async fn rows_keep_their_order_and_columns_their_names() {
    let scene = Scene::new(Isolation::Schema, 1).await;
    let ordered = "select n from generate_series(1, 5000) n order by (n * 7919) % 5003";
    let rows: Vec<serde_json::Value> =
        serde_json::from_str(&scene.json(0, &scene.query(ordered), &[]).await).unwrap();
    let expected: Vec<i64> = {
        let mut numbers: Vec<i64> = (1..=5000).collect();
        numbers.sort_by_key(|n| (n * 7919) % 5003);
        numbers
    };
    let got: Vec<i64> = rows.iter().map(|row| row["n"].as_i64().unwrap()).collect();
    assert_eq!(got, expected);

    let doubled = scene.run(0, &scene.query("select 1 as a, 2 as a"), &[]).await.unwrap_err();
    assert!(doubled.cause().unwrap().contains("two columns named \"a\""), "{doubled}");
}

#[tokio::test]
async fn a_value_that_postgresql_refuses_is_the_clients_where_it_gave_one() {
    let scene = Scene::new(Isolation::Schema, 1).await;
    let narrow = scene.query_with("select $1::smallint as n", &["int"]);
    let refusal = scene.run(0, &narrow, &["70000"]).await.unwrap_err();
    assert_eq!(refusal.code().as_str(), "query-parameter", "{refusal}");
    let own = scene.run(0, &scene.query("select 70000::smallint as n"), &[]).await.unwrap_err();
    assert_eq!(own.code().as_str(), "query-failed", "{own}");
}

#[tokio::test]
async fn tables_may_change_while_their_statements_are_prepared() {
    let scene = Scene::new(Isolation::Schema, 1).await;
    let all = scene.query("select * from marks order by tenant limit 1");
    let change = write(scene.query("update marks set note = 'x'"));
    for alteration in [
        "ALTER TABLE t_000.marks ALTER COLUMN id TYPE text",
        "ALTER TABLE t_000.marks ADD COLUMN extra int",
        "ALTER TABLE t_000.marks DROP COLUMN extra",
    ] {
        scene.json(0, &all, &[]).await;
        scene.run(0, &change, &[]).await.unwrap();
        scene.postgres.admin(alteration).await;
    }
    assert!(scene.json(0, &all, &[]).await.contains("t_000"));
    scene.run(0, &change, &[]).await.unwrap();
    assert_eq!(scene.discarded(), 0);
}

#[tokio::test]
async fn an_answer_that_no_memory_should_hold_is_refused_once() {
    let scene = Scene::new(Isolation::Schema, 1).await;
    let refusal = scene.run(0, &scene.query("select repeat('x', 70000000) as x"), &[]).await.unwrap_err();
    assert_eq!((refusal.code().as_str(), refusal.status().as_u16()), ("query-failed", 507), "{refusal}");
    assert_eq!(scene.discarded(), 1);
    assert_eq!(scene.value(0, "select count(*) from marks").await, "20");
}
