//! The guard against single statements; the corpora and PostgreSQL itself are in `tests/it/guard.rs`.

use StatementKind as K;

use super::*;

const ALL: [StatementKind; 8] =
    [K::Select, K::Insert, K::Update, K::Delete, K::Merge, K::Truncate, K::Explain, K::Ddl];

fn guard(statements: &[StatementKind]) -> Guard {
    Guard {
        statements: statements.to_vec(),
        functions: ["similarity", "city", "b"].map(str::to_owned).into(),
        operators: HashSet::from(["<##>".to_owned()]),
        read_only: false,
        passed: Memory::default(),
    }
}

fn read(guard: &Guard, sql: &str) -> Result<StatementKind, Objection> {
    guard.read(sql, &Schemas::new(vec!["acme", "lookups"]))
}

#[test]
fn what_a_statement_does_must_be_allowed_wherever_it_does_it() {
    for (sql, kind, needed) in [
        ("SELECT 1", K::Select, &[K::Select][..]),
        ("TABLE t", K::Select, &[K::Select]),
        ("VALUES (1)", K::Select, &[K::Select]),
        ("(SELECT 1)", K::Select, &[K::Select]),
        ("SELECT 1 UNION SELECT 2", K::Select, &[K::Select]),
        ("INSERT INTO t VALUES (1)", K::Insert, &[K::Insert]),
        ("INSERT INTO t SELECT 1", K::Insert, &[K::Insert, K::Select]),
        ("INSERT INTO t VALUES (1) ON CONFLICT (a) DO UPDATE SET a = 1", K::Insert, &[K::Insert, K::Update]),
        ("UPDATE t SET a = 1", K::Update, &[K::Update]),
        ("DELETE FROM t", K::Delete, &[K::Delete]),
        ("WITH x AS (DELETE FROM t RETURNING *) SELECT * FROM x", K::Select, &[K::Select, K::Delete]),
        ("WITH x AS (SELECT 1) UPDATE t SET a = 1", K::Update, &[K::Update, K::Select]),
        ("TRUNCATE t", K::Truncate, &[K::Truncate]),
        ("EXPLAIN SELECT 1", K::Explain, &[K::Explain, K::Select]),
        ("EXPLAIN ANALYZE DELETE FROM t", K::Explain, &[K::Explain, K::Delete]),
        ("EXPLAIN (ANALYZE) INSERT INTO t VALUES (1)", K::Explain, &[K::Explain, K::Insert]),
        ("CREATE TABLE t (a int)", K::Ddl, &[K::Ddl]),
        ("CREATE SCHEMA acme", K::Ddl, &[K::Ddl]),
        ("CREATE TABLE t AS SELECT 1", K::Ddl, &[K::Ddl, K::Select]),
        ("SELECT 1 INTO t", K::Ddl, &[K::Ddl, K::Select]),
        ("MERGE INTO t USING u ON true WHEN MATCHED THEN DELETE", K::Merge, &[K::Merge, K::Delete]),
        (
            "MERGE INTO t USING u ON true WHEN NOT MATCHED THEN INSERT VALUES (1)",
            K::Merge,
            &[K::Merge, K::Insert],
        ),
    ] {
        assert_eq!(read(&guard(needed), sql), Ok(kind), "{sql}");
        for missing in needed {
            let others: Vec<_> = ALL.into_iter().filter(|kind| kind != missing).collect();
            let refused = read(&guard(&others), sql);
            assert!(
                matches!(refused, Err(Objection::Statement { .. })),
                "{sql} without {missing:?}: {refused:?}"
            );
        }
    }
}

#[test]
fn the_refusal_says_what_was_found_and_what_is_allowed() {
    let refusal = Refusal::from(read(&guard(&[K::Insert, K::Select]), "drop function f()").unwrap_err());
    assert_eq!(refusal.code(), crate::error::Code::QueryRefused);
    assert_eq!(refusal.detail(), "DROP FUNCTION is not allowed here: this route allows SELECT, INSERT");
}

#[test]
fn shared_schemas_can_be_read_and_not_redefined() {
    let guard = guard(&ALL);
    assert!(read(&guard, "SELECT * FROM lookups.countries").is_ok());
    assert!(read(&guard, "SELECT lookups.similarity('a', 'b')").is_ok());
    assert!(read(&guard, "CREATE TABLE t (c text REFERENCES lookups.countries)").is_ok());
    for sql in ["CREATE TABLE lookups.t (a int)", "DROP VIEW lookups.v", "CREATE SCHEMA lookups"] {
        assert!(read(&guard, sql).is_err(), "{sql}");
    }
    assert!(matches!(read(&guard, "SELECT lookups.lower('a')"), Err(Objection::Function(_))));
}

#[test]
fn names_are_folded_as_postgresql_folds_them() {
    let guard = guard(&ALL);
    for sql in
        ["SELECT * FROM ACME.t", "SELECT * FROM \"acme\".t", "SELECT LOWER('A'), PG_CATALOG.Upper('a')"]
    {
        assert!(read(&guard, sql).is_ok(), "{sql}");
    }
    for sql in ["SELECT * FROM \"ACME\".t", "SELECT * FROM \"acme \".t", "SELECT \"LOWER\"('A')"] {
        assert!(read(&guard, sql).is_err(), "{sql}");
    }
}

#[test]
fn a_function_of_the_policy_may_be_called_unless_it_reaches_beyond_a_tenant() {
    let mut guard = guard(&ALL);
    assert!(read(&guard, "SELECT similarity('a', 'b')").is_ok());
    guard.functions.insert("set_config".to_owned());
    assert!(matches!(
        read(&guard, "SELECT set_config('a', 'b', true)"),
        Err(Objection::ForbiddenFunction(_))
    ));
}

#[test]
fn a_field_is_no_way_to_call_a_function_that_reaches_out() {
    let guard = guard(&ALL);
    for sql in [
        "SELECT (t.address).city",
        "SELECT t.region, (a).b",
        "SELECT (a).b.city",
        "SELECT t.*, (t).*, (a).b.*",
    ] {
        assert!(read(&guard, sql).is_ok(), "{sql}");
    }
    for sql in
        ["SELECT (1).pg_sleep", "SELECT t.pg_typeof", "SELECT ('x').to_regrole.b", "SELECT (a)._regclass"]
    {
        assert!(matches!(read(&guard, sql), Err(Objection::Field(_))), "{sql}");
    }
    let read_file = read(&guard, "SELECT ('x').pg_read_file.b");
    assert!(matches!(read_file, Err(Objection::ForbiddenFunction(_))));
    for sql in ["SELECT (a).own", "SELECT (a).own.b", "SELECT (a).b.own", "SELECT a[1].own", "SELECT $1.own"]
    {
        assert!(matches!(read(&guard, sql), Err(Objection::CompositeField(_))), "{sql}");
    }
    for sql in ["SELECT x.own FROM lower('') x", "SELECT x.x FROM similarity('', '') x"] {
        assert!(matches!(read(&guard, sql), Err(Objection::Answer { .. })), "{sql}");
    }
}

#[test]
fn an_operator_is_known_or_listed() {
    let guard = guard(&ALL);
    for sql in ["SELECT a <-> b", "SELECT a <##> b", "SELECT <##> b", "SELECT a <##>/* */ -1"] {
        assert!(read(&guard, sql).is_ok(), "{sql}");
    }
    for sql in ["SELECT a <###> b", "SELECT <##>- b", "SELECT a OPERATOR(acme.###) b"] {
        assert!(matches!(read(&guard, sql), Err(Objection::Operator(_))), "{sql}");
    }
}

#[test]
fn what_is_not_understood_is_pointed_at() {
    for (sql, near, at) in
        [("selec 1", "selec", 1), ("SELECT 'é', a b c", "c", 17), ("SELECT a FROM", "FROM", 14)]
    {
        let refused = read(&guard(&ALL), sql);
        assert!(
            matches!(&refused, Err(Objection::Syntax { near: found, position, .. }) if found == near && *position == at),
            "{sql}: {refused:?}"
        );
    }
}

#[test]
fn rows_are_not_locked_where_statements_only_read() {
    let mut guard = guard(&ALL);
    assert!(read(&guard, "SELECT * FROM t FOR UPDATE").is_ok());
    guard.read_only = true;
    assert_eq!(read(&guard, "SELECT * FROM t FOR UPDATE"), Err(Objection::Lock));
}

#[test]
fn no_nesting_overflows_the_stack_of_a_worker_thread() {
    const STACK_OF_A_WORKER: usize = 2 << 20;
    let shapes: [fn(usize) -> String; 16] = [
        |n| format!("SELECT {}1{}", "(".repeat(n), ")".repeat(n)),
        |n| format!("SELECT {}true", "NOT ".repeat(n)),
        |n| format!("SELECT {}1", "- ".repeat(n)),
        |n| format!("SELECT 1{}", " + 1".repeat(n)),
        |n| format!("SELECT 1{}", " || 1".repeat(n)),
        |n| format!("SELECT 1{}", " = 1".repeat(n)),
        |n| format!("SELECT 1{}", "::int".repeat(n)),
        |n| format!("SELECT a{}", " BETWEEN 1 AND 2".repeat(n)),
        |n| format!("SELECT (a){}", ".b".repeat(n)),
        |n| format!("SELECT {}1{}", "CASE WHEN true THEN ".repeat(n), " END".repeat(n)),
        |n| format!("SELECT {}1{}", "ARRAY[".repeat(n), "]".repeat(n)),
        |n| format!("SELECT {}1{}", "abs(".repeat(n), ")".repeat(n)),
        |n| format!("SELECT 1{}", " UNION ALL SELECT 1".repeat(n)),
        |n| format!("SELECT * FROM a{}{}", " JOIN a".repeat(n), " ON true".repeat(n)),
        |n| format!("{}SELECT 1{}", "WITH a AS (".repeat(n), ") SELECT 1".repeat(n)),
        |n| format!("SELECT * FROM {}(SELECT 1) x{}", "(SELECT * FROM ".repeat(n), ") x".repeat(n)),
    ];
    let work = move || {
        let guard = guard(&ALL);
        for shape in shapes {
            for n in [10, 60, 90, 190, 260, 390, 780, 10_000] {
                let verdict = read(&guard, &shape(n));
                let expected = matches!(verdict, Ok(_) | Err(Objection::TooDeep | Objection::Parts(_)));
                assert!(expected, "{n}: {} {verdict:?}", shape(3));
                assert!(n > 10 || verdict.is_ok(), "{} {verdict:?}", shape(n));
            }
        }
    };
    let worker = std::thread::Builder::new().stack_size(STACK_OF_A_WORKER).spawn(work).expect("a thread");
    worker.join().expect("no assertion failed");
}

#[test]
fn a_long_list_is_not_a_deep_one() {
    let rows = "INSERT INTO t VALUES (1, 'a')".to_owned() + &", (2, 'b')".repeat(2_000);
    assert_eq!(read(&guard(&ALL), &rows), Ok(K::Insert));
    let long = format!("SELECT '{}'", "x".repeat(scan::MAX_BYTES));
    assert_eq!(read(&guard(&ALL), &long), Err(Objection::TooLong));
}

#[test]
fn only_what_holds_for_every_tenant_is_remembered() {
    for (sql, depends) in [
        ("SELECT * FROM users WHERE id = $1", false),
        ("SELECT u.id, pg_catalog.lower(u.name)::pg_catalog.text FROM users u", false),
        ("SELECT nextval('users_id_seq')", false),
        ("CREATE TABLE t (a int)", false),
        ("SELECT * FROM acme.users", true),
        ("SELECT acme.users.id FROM users", true),
        ("SELECT NULL::acme.mood", true),
        ("SELECT acme.similarity('a', 'b')", true),
        ("SELECT nextval('acme.users_id_seq')", true),
        ("SELECT 1 OPERATOR(acme.+) 1", true),
        ("DROP TABLE acme.users", true),
        ("DROP VIEW acme.v", true),
        ("CREATE SCHEMA acme", true),
    ] {
        let schemas = Schemas::new(vec!["acme"]);
        assert!(guard(&ALL).read(sql, &schemas).is_ok(), "{sql}");
        assert_eq!(schemas.were_consulted(), depends, "{sql}");
    }
}
