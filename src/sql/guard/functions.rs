//! Which functions a statement may call: PostgreSQL's harmless ones, those of the policy, and never
//! those that reach beyond a tenant.

use super::names::looks_names_up;

/// PostgreSQL's own functions that compute from what they are given: mathematics, text, time,
/// JSON, arrays, ranges, text search, aggregates, windows. Sorted. What they cost is bounded by
/// `statement_timeout`, not here.
///
/// Not among them is whatever reads the server's settings, files, catalogue or other sessions,
/// sleeps, locks, runs SQL that it is given as text, or leaves something behind. `currval` and
/// `lastval` tell what an earlier request did on the same connection; `INSERT … RETURNING` does not.
/// `version` and `current_database` are among them, because drivers ask for both as they connect.
#[rustfmt::skip]
pub(super) const HARMLESS: &[&str] = &[
    "abbrev", "abs", "acos", "acosd", "acosh", "age", "any_value", "area", "array_agg", "array_append",
    "array_cat", "array_dims", "array_fill", "array_length", "array_lower", "array_ndims",
    "array_position", "array_positions", "array_prepend", "array_remove", "array_replace", "array_reverse",
    "array_sample", "array_shuffle", "array_sort", "array_to_json", "array_to_string", "array_to_tsvector",
    "array_upper", "ascii", "asin", "asind", "asinh", "atan", "atan2", "atan2d", "atand", "atanh", "avg",
    "bernoulli", "bit_and", "bit_count", "bit_length", "bit_or", "bit_xor", "bool", "bool_and", "bool_or",
    "bound_box", "box", "bpchar", "broadcast", "btrim",
    "cardinality", "casefold", "cbrt", "ceil", "ceiling", "center", "char", "char_length",
    "character_length", "chr", "circle", "clock_timestamp", "concat", "concat_ws", "convert",
    "convert_from", "convert_to", "corr", "cos", "cosd", "cosh", "cot", "cotd", "count", "covar_pop",
    "covar_samp", "crc32", "crc32c", "cume_dist", "current_database",
    "date", "date_add", "date_bin", "date_part", "date_subtract", "date_trunc", "datemultirange",
    "daterange", "decode", "degrees", "dense_rank", "diagonal", "diameter", "div",
    "encode", "enum_first", "enum_last", "enum_range", "erf", "erfc", "every", "exp",
    "factorial", "family", "first_value", "float4", "float8", "floor", "format",
    "gamma", "gcd", "gen_random_uuid", "generate_series", "generate_subscripts", "get_bit", "get_byte",
    "hashtext", "height", "host", "hostmask",
    "inet_merge", "inet_same_family", "initcap", "int2", "int4", "int4multirange", "int4range", "int8",
    "int8multirange", "int8range", "interval", "isclosed", "isempty", "isfinite", "isopen",
    "json_agg", "json_agg_strict", "json_array_elements", "json_array_elements_text", "json_array_length",
    "json_build_array", "json_build_object", "json_each", "json_each_text", "json_extract_path",
    "json_extract_path_text", "json_object", "json_object_agg", "json_object_agg_strict",
    "json_object_agg_unique", "json_object_keys", "json_populate_record", "json_populate_recordset",
    "json_strip_nulls", "json_to_record", "json_to_recordset", "json_to_tsvector", "json_typeof",
    "jsonb_agg", "jsonb_agg_strict", "jsonb_array_elements", "jsonb_array_elements_text",
    "jsonb_array_length", "jsonb_build_array", "jsonb_build_object", "jsonb_concat", "jsonb_contains",
    "jsonb_delete", "jsonb_each", "jsonb_each_text", "jsonb_exists", "jsonb_exists_all",
    "jsonb_exists_any", "jsonb_extract_path", "jsonb_extract_path_text", "jsonb_insert", "jsonb_object",
    "jsonb_object_agg", "jsonb_object_agg_strict", "jsonb_object_agg_unique", "jsonb_object_keys",
    "jsonb_path_exists", "jsonb_path_exists_tz", "jsonb_path_match", "jsonb_path_match_tz",
    "jsonb_path_query", "jsonb_path_query_array", "jsonb_path_query_array_tz", "jsonb_path_query_first",
    "jsonb_path_query_first_tz", "jsonb_path_query_tz", "jsonb_populate_record",
    "jsonb_populate_recordset", "jsonb_pretty", "jsonb_set", "jsonb_set_lax", "jsonb_strip_nulls",
    "jsonb_to_record", "jsonb_to_recordset", "jsonb_to_tsvector", "jsonb_typeof", "justify_days",
    "justify_hours", "justify_interval",
    "lag", "last_value", "lcm", "lead", "left", "length", "lgamma", "line", "ln", "log", "log10", "lower",
    "lower_inc", "lower_inf", "lpad", "lseg", "ltrim",
    "macaddr8_set7bit", "make_date", "make_interval", "make_time", "make_timestamp", "make_timestamptz",
    "masklen", "max", "md5", "min", "min_scale", "mod", "mode", "money", "multirange",
    "name", "netmask", "network", "nextval", "normalize", "now", "npoints", "nth_value", "ntile",
    "num_nonnulls", "num_nulls", "numeric", "nummultirange", "numnode", "numrange",
    "octet_length", "overlaps", "overlay",
    "parse_ident", "path", "pclose", "percent_rank", "percentile_cont", "percentile_disc",
    "pg_column_size", "pg_size_bytes", "pg_size_pretty", "phraseto_tsquery", "pi",
    "plainto_tsquery", "point", "polygon", "popen", "position", "pow", "power",
    "querytree", "quote_ident", "quote_literal", "quote_nullable",
    "radians", "radius", "random", "random_normal", "range_agg", "range_intersect_agg", "range_merge",
    "rank", "regexp_count", "regexp_instr", "regexp_like", "regexp_match", "regexp_matches",
    "regexp_replace", "regexp_split_to_array", "regexp_split_to_table", "regexp_substr", "regr_avgx",
    "regr_avgy", "regr_count", "regr_intercept", "regr_r2", "regr_slope", "regr_sxx", "regr_sxy",
    "regr_syy", "repeat", "replace", "reverse", "right", "round", "row_number", "row_to_json", "rpad",
    "rtrim",
    "scale", "set_bit", "set_byte", "set_masklen", "setval", "setweight", "sha224", "sha256", "sha384",
    "sha512", "sign", "sin", "sind", "sinh", "slope", "split_part", "sqrt", "starts_with",
    "statement_timestamp", "stddev", "stddev_pop", "stddev_samp", "string_agg", "string_to_array",
    "string_to_table", "strip", "strpos", "substr", "substring", "sum", "system",
    "tan", "tand", "tanh", "text", "time", "timeofday", "timestamp", "timestamptz", "timetz", "timezone",
    "to_ascii", "to_bin", "to_char", "to_date", "to_hex", "to_json", "to_jsonb", "to_number", "to_oct",
    "to_timestamp", "to_tsquery", "to_tsvector", "transaction_timestamp", "translate", "trim_array",
    "trim_scale", "trunc", "ts_delete", "ts_filter", "ts_headline", "ts_rank", "ts_rank_cd",
    "tsmultirange", "tsquery_phrase", "tsrange", "tstzmultirange", "tstzrange", "tsvector_to_array",
    "unicode_assigned", "unistr", "unnest", "upper", "upper_inc", "upper_inf", "uuid_extract_timestamp",
    "uuid_extract_version", "uuidv4", "uuidv7",
    "var_pop", "var_samp", "varchar", "variance", "version",
    "websearch_to_tsquery", "width", "width_bucket",
    "xmlagg",
];

/// What is written like a function and is none: the grammar's own.
const FORMS: [&str; 12] = [
    "coalesce",
    "current_schema",
    "current_time",
    "current_timestamp",
    "greatest",
    "grouping",
    "least",
    "localtime",
    "localtimestamp",
    "merge_action",
    "nullif",
    "xmlconcat",
];

/// Functions of one argument that look names up, lock, or change or tell of what is not the tenant's,
/// besides those called `pg_…`. Sorted.
const REACH_AS_FIELDS: [&str; 20] = [
    "aclexplode",
    "amvalidate",
    "brin_summarize_new_values",
    "current_schemas",
    "currval",
    "fmgr_c_validator",
    "fmgr_internal_validator",
    "fmgr_sql_validator",
    "gin_clean_pending_list",
    "hash_aclitem",
    "mxid_age",
    "nextval",
    "obj_description",
    "oidvectortypes",
    "plpgsql_validator",
    "row_security_active",
    "setseed",
    "to_regtypemod",
    "ts_debug",
    "ts_token_type",
];

/// What the names of functions that tell of the server start with, and those of its tables' rows.
const PREFIXES_OF_THE_SERVER: [&str; 3] = ["binary_upgrade_", "pg_", "txid_"];

/// Harmless functions whose answer is of a type that looks names up, and would have any text beside it
/// looked up.
const ONLY_AS_TEXT: [&str; 1] = ["pg_typeof"];

/// What harmless functions call the columns of their answer, where they name them.
const COLUMNS: [(&str, &[&str]); 8] = [
    ("json_array_elements", &["value"]),
    ("json_array_elements_text", &["value"]),
    ("json_each", &["key", "value"]),
    ("json_each_text", &["key", "value"]),
    ("jsonb_array_elements", &["value"]),
    ("jsonb_array_elements_text", &["value"]),
    ("jsonb_each", &["key", "value"]),
    ("jsonb_each_text", &["key", "value"]),
];

/// Functions whose first argument names a sequence, as text.
const TAKE_A_SEQUENCE: [&str; 2] = ["nextval", "setval"];

/// Whether `name` is one of PostgreSQL's harmless functions.
pub(super) fn is_harmless(name: &str) -> bool {
    HARMLESS.binary_search(&name).is_ok()
}

/// Whether `name`, without a schema, is written like a function and is none.
pub(super) fn is_form(name: &str) -> bool {
    FORMS.contains(&name)
}

/// Whether `name` may be called where its answer becomes text at once.
pub(super) fn is_harmless_as_text(name: &str) -> bool {
    ONLY_AS_TEXT.contains(&name)
}

/// The columns of what `name` answers, where it is harmless and names them.
pub(super) fn columns(name: &str) -> Option<&'static [&'static str]> {
    COLUMNS.iter().find(|(function, _)| *function == name).map(|(_, columns)| *columns)
}

/// Whether the first argument of `name` is the name of a sequence.
pub(super) fn takes_a_sequence(name: &str) -> bool {
    TAKE_A_SEQUENCE.contains(&name)
}

/// Whether `x.name` must not be written. Where `x` has no column of that name, PostgreSQL calls a
/// function with it, or casts it to a type. Only what is surely no column is refused: the names are
/// those of PostgreSQL's own functions of one argument that do more than compute.
pub(super) fn reaches_as_a_field(name: &str) -> bool {
    // How the functions are called that read and write such a type.
    let conversions = ["in", "out", "send"].into_iter().filter_map(|suffix| name.strip_suffix(suffix));
    let mut types = conversions.chain(name.strip_prefix("to_")).chain([name]);
    REACH_AS_FIELDS.binary_search(&name).is_ok()
        || PREFIXES_OF_THE_SERVER.iter().any(|prefix| name.trim_start_matches('_').starts_with(prefix))
        || types.any(looks_names_up)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::is_forbidden_function;

    #[test]
    fn the_list_is_sorted_and_holds_nothing_forbidden() {
        assert!(HARMLESS.is_sorted_by(|a, b| a < b));
        assert_eq!(HARMLESS.iter().find(|name| is_forbidden_function(name)), None);
        assert!(REACH_AS_FIELDS.is_sorted_by(|a, b| a < b));
    }
}
