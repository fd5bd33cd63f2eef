//! What the guard takes for granted of PostgreSQL's catalogue, asked of a real one.

use innkeeper::sql::harmless_functions;

use super::{Scene, reading};
use crate::support::postgres::database;

/// Functions that came with a later version than the oldest supported one, and with which.
const NEWER: [(&str, i32); 28] = [
    ("any_value", 16),
    ("array_reverse", 18),
    ("array_sample", 16),
    ("array_shuffle", 16),
    ("array_sort", 18),
    ("casefold", 18),
    ("crc32", 18),
    ("crc32c", 18),
    ("date_add", 16),
    ("date_subtract", 16),
    ("erf", 16),
    ("erfc", 16),
    ("gamma", 18),
    ("json_agg_strict", 16),
    ("json_object_agg_strict", 16),
    ("json_object_agg_unique", 16),
    ("jsonb_agg_strict", 16),
    ("jsonb_object_agg_strict", 16),
    ("jsonb_object_agg_unique", 16),
    ("lgamma", 18),
    ("random_normal", 16),
    ("to_bin", 17),
    ("to_oct", 17),
    ("unicode_assigned", 17),
    ("uuid_extract_timestamp", 17),
    ("uuid_extract_version", 17),
    ("uuidv4", 18),
    ("uuidv7", 18),
];

/// What differs from call to call, or leaves something behind, and is known to do no harm. The two
/// methods of TABLESAMPLE cannot be called.
const VOLATILE: [&str; 10] = [
    "bernoulli",
    "clock_timestamp",
    "gen_random_uuid",
    "nextval",
    "random",
    "random_normal",
    "setval",
    "system",
    "timeofday",
    "uuidv7",
];

/// Ends of the names of functions that turn values into text or bytes and back, and that ask
/// settings, like the time zone, how. `regconfig` is allowed as a type, too.
#[rustfmt::skip]
const ONLY_COMPUTE: [&str; 11] = [
    "_in", "_out", "_send", "charsend", "namesend", "regconfigin", "regconfigout", "regconfigsend", "textsend",
    "xml", "xml_is_well_formed",
];

#[tokio::test]
async fn every_function_on_the_list_is_postgresqls_own() {
    let postgres = database().await;
    let version: i32 = postgres.read("SELECT current_setting('server_version_num')::int / 10000").await;
    let known: Vec<String> = postgres
        .read("SELECT array_agg(DISTINCT proname::text) FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace")
        .await;
    for name in harmless_functions() {
        let is_newer = NEWER.iter().any(|(newer, since)| newer == name && *since > version);
        assert!(is_newer || known.iter().any(|known| known == name), "{name} is not in version {version}");
    }
}

#[tokio::test]
async fn no_function_on_the_list_looks_names_up_or_changes_anything() {
    let postgres = database().await;
    let list = harmless_functions().iter().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(", ");
    let all_but = |names: &[&str]| {
        let names = names.iter().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(", ");
        format!("proname NOT IN ({names})")
    };
    for (what, condition) in [
        ("is volatile", format!("provolatile = 'v' AND {}", all_but(&VOLATILE))),
        ("runs with another's rights", "prosecdef".to_owned()),
        (
            "takes a name as text",
            format!(
                "EXISTS (SELECT 1 FROM unnest(proargtypes) t JOIN pg_type y ON y.oid = t WHERE y.typname LIKE 'reg%' \
                 AND y.typname <> 'regconfig') AND {}",
                all_but(&["nextval", "setval"])
            ),
        ),
        (
            "answers with what looks names up",
            "EXISTS (SELECT 1 FROM pg_type y WHERE y.oid = prorettype AND y.typname LIKE 'reg%')".to_owned(),
        ),
    ] {
        let found: Vec<String> = postgres
            .read(&format!(
                "SELECT coalesce(array_agg(DISTINCT proname::text), '{{}}') FROM pg_proc \
                 WHERE pronamespace = 'pg_catalog'::regnamespace AND proname IN ({list}) AND {condition}"
            ))
            .await;
        assert_eq!(found, [""; 0], "{what}");
    }
}

#[tokio::test]
async fn no_function_that_does_more_than_compute_is_called_as_a_field() {
    let scene = Scene::new().await;
    let guard = reading(&scene);
    let names: Vec<String> = scene
        .postgres
        .read(
            "SELECT array_agg(DISTINCT proname::text) FROM pg_proc JOIN pg_type t ON t.oid = proargtypes[0] \
             WHERE pronamespace = 'pg_catalog'::regnamespace AND pronargs - pronargdefaults < 2 \
             AND (provolatile <> 'i' OR t.typname ~ '^(_?reg|_?acl)') AND t.typname <> 'internal'",
        )
        .await;
    assert!(names.len() > 200, "{}", names.len());
    let only_computes = |name: &str| {
        ONLY_COMPUTE.iter().any(|end| name.ends_with(end))
            || (harmless_functions().contains(&name) && name != "nextval")
    };
    for name in names.iter().filter(|name| !only_computes(name)) {
        for sql in [format!("SELECT (a).{name} FROM t"), format!("SELECT a.{name} FROM t")] {
            assert!(guard.vet(&sql, &scene.scope).is_err(), "{sql}");
        }
    }
}

/// Such a value has the name that its function gives it, and not the one of the item in FROM: that one
/// would call a function with it.
#[tokio::test]
async fn a_single_value_with_a_name_of_its_own_is_known_by_it() {
    let scene = Scene::new().await;
    let guard = reading(&scene);
    let list = harmless_functions().iter().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(", ");
    let named: Vec<String> = scene
        .postgres
        .read(&format!(
            "SELECT array_agg(DISTINCT proname || '/' || proargnames[array_upper(proargnames, 1)]) FROM pg_proc \
             WHERE pronamespace = 'pg_catalog'::regnamespace AND proname IN ({list}) \
             AND (SELECT count(*) FROM unnest(proargmodes) m WHERE m IN ('o', 'b', 't')) = 1"
        ))
        .await;
    assert!(named.len() >= 4, "{named:?}");
    for (function, column) in named.iter().filter_map(|one| one.split_once('/')) {
        let own = format!("SELECT x.{column} FROM {function}('') x");
        assert!(guard.vet(&own, &scene.scope).is_ok(), "{own}");
        let other = format!("SELECT x.x FROM {function}('') x");
        assert!(guard.vet(&other, &scene.scope).is_err(), "{other}");
    }
}

#[tokio::test]
async fn whatever_postgresql_finds_without_a_schema_is_called_pg() {
    let postgres = database().await;
    let others: Vec<String> = postgres
        .read(
            "SELECT coalesce(array_agg(relname::text), '{}') FROM pg_class \
             WHERE relnamespace = 'pg_catalog'::regnamespace AND relname NOT LIKE 'pg\\_%'",
        )
        .await;
    assert_eq!(others, [""; 0]);
}
