//! Statements made of what scanners disagree on: whatever passes the guard, PostgreSQL must read as
//! a single statement that reaches no other schema.

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Executor as _, Row as _};

use super::{Scene, reading, schema};

/// Statements that are tried. A few hundred of them pass.
const CASES: usize = 6_000;

/// Pieces that open, close or hide something, to one scanner or the other. `LOOT` reads the victim,
/// and `ESCAPE` would change the role.
const PIECES: &[&str] = &[
    "'", "''", "'''", "\\", "\\'", "\\\\", "\"", "\"\"", "$$", "$a$", "$b$", "$1", "$a", "E'", "e'", "E''",
    "U&'", "B'1", "B'1'", "X'f'", "N'", "/*", "*/", "/**/", "/*/", "--", "--'\n", "\n", "\r", "\t", "\u{b}",
    "\u{c}", "\u{a0}", "\u{feff}", " ", " ", " ", ";", ",", ",", "||", "||", "||", "-", "+-", "*", "1", "1.",
    ".5", "1e", "name", "name", "'x'", "'x'", "LOOT", "LOOT", "ESCAPE", "ESCAPE",
];

/// Well-formed neighbours, so that enough of what is made is read to its end.
const ITEMS: &[&str] = &[
    "'a''b'",
    "'\\'",
    "E'\\''",
    "E'a\\\\'",
    "$$it's$$",
    "$a$ $$ ' $a$",
    "'/*'",
    "'--'",
    "name",
    "\"name\"",
    "1.5e3",
    ".5",
    "- -1",
    "$b$;$b$",
    "B'01'",
    "'$a$'",
    "name::text",
    "(SELECT 'LOOT')",
    "'ESCAPE'",
];

/// In a plan, the quotes inside would be doubled if this were within a string.
const ESCAPE: &str = "set_config('role', 'x', false)";

const TRIVIA: [&str; 9] =
    [" ", "\n", "\t", "\r\n", "/* ' */", "/* /* \" */ $$ */", "-- '\n", "-- $a$ /*\r", "/**/"];

fn soup() -> impl Strategy<Value = String> {
    let pieces = prop::collection::vec(prop::sample::select(PIECES), 0..7);
    let well_formed =
        prop::collection::vec((prop::sample::select(TRIVIA.to_vec()), prop::sample::select(ITEMS)), 1..5);
    let insert = prop_oneof![3 => Just(None), 2 => pieces.prop_map(Some)];
    (well_formed, insert, any::<prop::sample::Index>(), prop::sample::select(TRIVIA.to_vec())).prop_map(
        |(items, insert, at, trivia)| {
            let mut list: Vec<String> =
                items.iter().map(|(trivia, item)| format!("{trivia}{item}{trivia}")).collect();
            if let Some(pieces) = insert {
                let at = at.index(list.len());
                list[at] += &pieces.concat();
            }
            format!("SELECT {}{trivia}FROM users{trivia}", list.join(","))
        },
    )
}

#[tokio::test]
async fn what_passes_reads_to_postgresql_as_it_read_to_the_guard() {
    let scene = Scene::new().await;
    let guard = reading(&scene);
    let mut connection = scene.postgres.connect().await;
    connection
        .execute(AssertSqlSafe(format!("SET search_path TO {}", schema(&scene.fixture, 0))))
        .await
        .unwrap();
    let loot = format!("(SELECT max(name) FROM {}.users)", schema(&scene.fixture, 1));
    let mut runner = TestRunner::default();
    let (mut passed, mut planned) = (0, 0);
    for _ in 0..CASES {
        let text = soup().new_tree(&mut runner).unwrap().current();
        let sql = text.replace("LOOT", &loot).replace("ESCAPE", ESCAPE);
        if guard.vet(&sql, &scene.scope).is_ok() {
            passed += 1;
            planned += usize::from(is_held(&mut connection, &sql, schema(&scene.fixture, 1)).await);
        }
    }
    assert!(planned > CASES / 20, "{passed} passed, {planned} were planned: this proves too little");
}

/// Has PostgreSQL plan `sql`, as a role that may do everything, and looks into the plan. Whether
/// there is a plan: what PostgreSQL refuses does no harm.
async fn is_held(connection: &mut PgConnection, sql: &str, victim: &str) -> bool {
    let plan = sqlx::query(AssertSqlSafe(format!("EXPLAIN (VERBOSE, FORMAT JSON) {sql}")))
        .fetch_one(connection)
        .await;
    let plan: serde_json::Value = match plan {
        Ok(row) => row.get(0),
        Err(sqlx::Error::Database(error)) => {
            assert!(!error.message().contains("multiple commands"), "more than one statement: {sql:?}");
            return false;
        }
        Err(error) => panic!("{sql:?}: {error}"),
    };
    let plan = plan.to_string();
    assert!(!plan.contains(&format!("\"Schema\":\"{victim}\"")), "it reads the victim: {sql:?}\n{plan}");
    assert!(!plan.contains("set_config('role'"), "it calls what it must not: {sql:?}\n{plan}");
    assert!(!plan.contains("ModifyTable"), "it changes something: {sql:?}\n{plan}");
    true
}
