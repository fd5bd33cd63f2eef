//! Functions that reach beyond a tenant, whoever calls them.

/// What no policy can allow: it runs SQL that it is given as text, changes settings, reaches files,
/// other servers or other sessions, or leaves on the session, or tells of it, what no end of a
/// transaction takes back.
const FORBIDDEN: [&str; 22] = [
    "current_setting",
    "currval",
    "lastval",
    "loread",
    "lowrite",
    "pg_advisory_lock",
    "pg_advisory_lock_shared",
    "pg_export_snapshot",
    "pg_hba_file_rules",
    "pg_notify",
    "pg_promote",
    "pg_reload_conf",
    "pg_rotate_logfile",
    "pg_show_all_settings",
    "pg_switch_wal",
    "pg_try_advisory_lock",
    "pg_try_advisory_lock_shared",
    "set_config",
    "setseed",
    "ts_rewrite",
    "ts_stat",
    "xpath_table",
];

/// The same, for families of functions.
const FORBIDDEN_PREFIXES: [&str; 18] = [
    "connectby",
    "crosstab",
    "cursor_to_xml",
    "database_to_xml",
    "dblink",
    "lo_",
    "pg_cancel_",
    "pg_create_",
    "pg_file_",
    "pg_logical_",
    "pg_ls_",
    "pg_read_",
    "pg_replication_",
    "pg_stat_get_",
    "pg_terminate_",
    "query_to_xml",
    "schema_to_xml",
    "table_to_xml",
];

/// Whether no policy can allow clients to call the function `name`, as PostgreSQL folds it.
pub fn is_forbidden_function(name: &str) -> bool {
    FORBIDDEN.contains(&name) || FORBIDDEN_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}
