//! Calls of a function that runs text, spelled so that no function's name stands before a bracket: at
//! level `role` such text could become another tenant.

use serde_json::json;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, Row as _};

use super::Scene;
use crate::support::postgres::run;

/// An owner's function, in both tenants' schemas, and another name of it.
const PLANT: &str = "
    CREATE FUNCTION acme.dyn(q text) RETURNS text LANGUAGE plpgsql AS
      $$DECLARE r text; BEGIN EXECUTE q INTO r; RETURN r; END$$;
    CREATE OPERATOR acme.### (RIGHTARG = text, FUNCTION = acme.dyn);
    CREATE OPERATOR acme.### (LEFTARG = int, RIGHTARG = text, FUNCTION = acme.dyn_of_two);";

const OF_TWO: &str = "
    CREATE FUNCTION acme.dyn_of_two(n int, q text) RETURNS text LANGUAGE plpgsql AS
      $$DECLARE r text; BEGIN EXECUTE q INTO r; RETURN r; END$$;";

/// Ways to have a text run. `{1}` to `{3}` are texts that become the other tenant, read it, and go back.
const ATTACKS: [&str; 8] = [
    "select ({1}::text).dyn, ({2}::text).dyn, ({3}::text).dyn",
    "select (array[{1}])[1].dyn, (array[{2}])[1].dyn, (array[{3}])[1].dyn",
    "select (concat({1})).dyn, (select ({2}::text).dyn), (x.q).dyn from (select {3}::text as q) x",
    "select x.dyn, y.dyn, z.dyn from concat({1}) x, concat({2}) y, concat({3}) z",
    "select unnest.dyn from unnest(array[{1}, {2}, {3}])",
    "select dyn.dyn from jsonb_array_elements_text(jsonb_build_array({1}, {2}, {3})) dyn",
    "select ### {1}, ### {2}, ### {3}",
    "select 1 operator(acme.###) {1}, 1 ### {2}, 1 operator(acme.###) {3}",
];

fn spelled(attack: &str, database: &str) -> String {
    let texts = [
        format!("'select set_config(''role'', ''{database}_globex'', true)'"),
        "'select string_agg(note, '','') from globex.notes'".to_owned(),
        format!("'select set_config(''role'', ''{database}_acme'', true)'"),
    ];
    (1..).zip(texts).fold(attack.to_owned(), |sql, (n, text)| sql.replace(&format!("{{{n}}}"), &text))
}

#[tokio::test]
async fn no_spelling_calls_a_function_that_is_not_listed() {
    let scene = Scene::new("role").await;
    scene.postgres.admin(&format!("{OF_TWO}{PLANT}")).await;
    let name = &scene.postgres.name;
    for attack in ATTACKS {
        let sql = spelled(attack, name);
        let loot = unguarded(&scene, &sql).await;
        assert!(
            loot.iter().any(|text| text.contains("globex 1")),
            "the attack is a real one: {sql} {loot:?}"
        );
        let reply = scene.send("acme", &sql, &[]).await;
        assert_eq!(
            (reply.status(), reply.code().as_str()),
            (403, "query-refused"),
            "{sql}: {}",
            reply.text()
        );
    }
    for spelling in [
        "insert into notes (note) values (({2}::text).dyn)",
        "update notes set note = (note).dyn",
        "select note from notes order by (note).dyn",
        "with x as (select ({2}::text).dyn) select * from x",
        "delete from notes using concat({2}) x where x.dyn = note",
        "select 1 order by 1 using ###",
    ] {
        let reply = scene.send("acme", &spelled(spelling, name), &[]).await;
        assert_eq!(reply.code(), "query-refused", "{spelling}: {}", reply.text());
    }
    assert_eq!(scene.breaches(), 0);
}

/// What the attacker reads where nobody looks at the statement: at level `role` the scope alone does
/// not hold it.
async fn unguarded(scene: &Scene, sql: &str) -> Vec<String> {
    let login = scene.postgres.login();
    let mut connection = PgConnection::connect(&scene.postgres.url(&login)).await.unwrap();
    let role = format!("{}_acme", scene.postgres.name);
    run(&mut connection, &format!("BEGIN; SET LOCAL search_path TO acme; SET LOCAL ROLE {role}")).await;
    let rows = connection.fetch_all(sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))).await.unwrap();
    let texts = rows.iter().flat_map(|row| (0..row.len()).map(|column| row.get::<Option<String>, _>(column)));
    texts.flatten().collect()
}

#[tokio::test]
async fn columns_of_functions_and_what_is_listed_are_reached_as_before() {
    let scene = Scene::new("role").await;
    let read = |sql: &'static str| scene.rows("acme", sql, &[]);
    assert_eq!(read("select x.value from jsonb_array_elements('[7]') x").await, json!([["7"]]));
    assert_eq!(read("select e.key, e.value from jsonb_each_text('{\"a\": 7}') e").await, json!([["a", "7"]]));
    assert_eq!(
        read("select n.n, t.i from generate_series(1, 1) n, unnest(array[2]) t(i)").await,
        json!([["1", "2"]])
    );
    assert_eq!(
        read("select w.v, w.n from unnest(array[5]) with ordinality as w(v, n)").await,
        json!([["5", "1"]])
    );
    assert_eq!(read("select r.a from json_to_record('{\"a\": 7}') as r(a int)").await, json!([["7"]]));
    assert_eq!(read("select (jsonb_each_text('{\"a\": 7}')).value").await, json!([["7"]]));
    assert_eq!(read("select ('work_mem'::text).show is not null").await, json!([["t"]]));
    assert_eq!(
        read("select pg_typeof(1)::text, xmlelement(name a, 1)::text").await,
        json!([["integer", "<a>1</a>"]])
    );
}

#[tokio::test]
async fn what_migrators_write_besides_tables_works() {
    let scene = Scene::new("login").await;
    for sql in [
        "create materialized view totals as select count(*) as notes from notes",
        "refresh materialized view totals",
        "comment on materialized view acme.totals is 'how many'",
        "comment on column totals.notes is 'how many'",
        "drop materialized view if exists totals cascade",
        "create table labels (id int constraint positive check (id > 0))",
        "comment on table labels is 'what is written on things'",
        "comment on column \"acme\".\"labels\".\"id\" is null",
        "comment on constraint positive on labels is 'never 0'",
        "comment on type mood is 'a mood'",
    ] {
        let reply = scene.send("acme", sql, &[]).await;
        let theirs = sql == "comment on type mood is 'a mood'";
        assert_eq!(reply.status(), if theirs { 400 } else { 200 }, "{sql}: {}", reply.text());
    }
    let foreign = scene.send("acme", "comment on column globex.notes.note is 'x'", &[]).await;
    assert_eq!(foreign.code(), "query-refused", "{}", foreign.text());
}
