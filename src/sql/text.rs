//! The one place that builds SQL text. It takes only proof types ([`Scope`], [`Statement`]) and
//! numbers; every value of a request is bound.

use std::fmt::{self, Write as _};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use sqlx::{AssertSqlSafe, SqlSafeStr as _, SqlStr};

use super::batch::Characteristics;
use super::placeholders::{cast_placeholders, main_part};
use super::scope::Scope;
use super::value::Value;
use crate::policy::{self, ParamType, ResultShape, Statement};
use crate::tenant::{RoleName, SchemaName};

/// What the error of a broken scope starts with. It comes from a cast that cannot succeed, which
/// is how plain SQL raises an error with a text of one's own.
pub(super) const BREACH: &str = "innkeeper: the statement left its scope for ";

/// What ends a read. Settings, the role, cursors, temporary tables and LISTEN go with the
/// transaction; session-level advisory locks alone outlive it. They are given back by a statement
/// without columns or rows, so that nothing has to be read.
pub(super) static ENDS_READ: [SqlStr; 2] = [
    SqlStr::from_static("ROLLBACK"),
    SqlStr::from_static("SELECT WHERE pg_catalog.pg_advisory_unlock_all() IS NULL"),
];

/// The same as one message.
pub(super) const END_OF_READ: &str = "ROLLBACK; SELECT WHERE pg_catalog.pg_advisory_unlock_all() IS NULL";

/// Everything that a committed statement can leave on a session, undone without touching the
/// statements that are prepared.
const RESET: &str = "RESET SESSION AUTHORIZATION; RESET ALL; SELECT WHERE \
                     pg_catalog.pg_advisory_unlock_all() IS NULL; CLOSE ALL; UNLISTEN *; DISCARD TEMP; \
                     DISCARD SEQUENCES";

/// What else a client's statement can leave on a session, where we have prepared nothing.
const RESET_CLIENT: &str = "DEALLOCATE ALL";

/// How the statement gives its result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Form {
    /// As one row: JSON of this shape, and beside it NULL, or where the scope stood once every row
    /// was there.
    Whole(ResultShape),
    /// Row by row: each the JSON of one row. The scope is asserted behind the last one, by
    /// [`commit`] or [`end_of_stream`].
    Streamed,
}

impl Form {
    /// Columns of its rows.
    pub(super) fn columns(self) -> usize {
        match self {
            Self::Whole(ResultShape::One | ResultShape::Value) => 3,
            Self::Whole(ResultShape::Rows | ResultShape::None) => 2,
            Self::Streamed => 1,
        }
    }
}

/// What opens the transaction of a named query.
pub(super) fn begin(read_only: bool) -> SqlStr {
    SqlStr::from_static(if read_only { "BEGIN READ ONLY" } else { "BEGIN" })
}

/// What narrows that transaction to its scope, in a text that all tenants share: [`narrowed`] is bound
/// to it. All of it is local: the transaction's end takes it back. `timeout` is the statement's, where
/// it has one of its own.
pub(super) fn narrow(scope: &Scope, timeout: Option<Duration>) -> SqlStr {
    let names = Names::Bound { behind: 0 };
    let mut text = String::with_capacity(256);
    text.push_str("SELECT pg_catalog.set_config('search_path', ");
    push_path(&mut text, scope, names);
    text.push_str(", true)");
    if let Some(role) = scope.becomes() {
        push(&mut text, format_args!(", pg_catalog.set_config('role', {}, true)", names.role(role)));
    }
    if let Some(timeout) = timeout {
        let timeout = milliseconds(timeout);
        push(&mut text, format_args!(", pg_catalog.set_config('statement_timeout', '{timeout}', true)"));
    }
    audited(text)
}

/// What is bound to [`narrow`], in the order of [`Names`].
pub(super) fn narrowed(scope: &Scope) -> Vec<Value> {
    let role = scope.becomes().map(|role| Value::name(role.as_str()));
    std::iter::once(Value::name(scope.home().as_str())).chain(role).collect()
}

/// What every session has from its start, so that no transaction has to set it: `RESET ALL` comes
/// back to these, and they are stronger than what a role or a database was given by ALTER.
pub(super) fn session_settings(database: &policy::Database) -> [(&'static str, i32); 2] {
    [
        ("statement_timeout", milliseconds(database.statement_timeout)),
        ("idle_in_transaction_session_timeout", milliseconds(database.idle_in_transaction_timeout)),
    ]
}

/// What makes a server look, while it runs a query, whether the client is still there. A request
/// that was cancelled closes its connection; within this time its query ends too.
pub(super) const WATCHES_CLIENT: (&str, &str) = ("client_connection_check_interval", "20");

/// The statement as it is prepared, its result made JSON.
///
/// A connection keeps it prepared by its text, in which the types of the parameters stand for that
/// reason. All tenants share it: its result has the same types for every tenant, and what the scope must
/// be is bound behind the statement's own values, as [`expected`] has it.
pub(super) fn statement(
    scope: &Scope,
    statement: &Statement,
    params: impl Iterator<Item = ParamType> + Clone,
    form: Form,
) -> SqlStr {
    let mut text = String::with_capacity(statement.text().len() + 768);
    let names = Names::Bound { behind: params.clone().count() };
    text.push_str("/*");
    for param in params.clone() {
        push(&mut text, format_args!(" {}", type_name(param)));
    }
    text.push_str(" */ ");
    let body = cast_placeholders(statement.text(), params.map(cast_type));
    if !statement.returns_rows() {
        text.push_str(&body);
        return audited(text);
    }
    // The statement stands on lines of its own, so that a comment at its end ends there.
    let source = if statement.modifies() {
        let main = main_part(&body).unwrap_or(0);
        let (expressions, main) = body.split_at(main);
        let joint = if expressions.is_empty() { "WITH " } else { ", " };
        push(&mut text, format_args!("{expressions}{joint}\"innkeeper changed\" AS (\n{main}\n) "));
        "\"innkeeper changed\"".to_owned()
    } else {
        format!("(\n{body}\n)")
    };
    match form {
        Form::Streamed => push(
            &mut text,
            format_args!(
                "SELECT pg_catalog.row_to_json(\"innkeeper row\")::pg_catalog.text FROM {source} \"innkeeper row\""
            ),
        ),
        Form::Whole(ResultShape::Rows) => {
            text.push_str("SELECT coalesce(pg_catalog.json_agg(\"innkeeper row\"), '[]')::pg_catalog.text, ");
            push_breach(&mut text, scope, names);
            push(&mut text, format_args!(" FROM {source} \"innkeeper row\""));
        }
        // Two rows are enough to know that there is more than one.
        Form::Whole(ResultShape::One | ResultShape::Value) => {
            text.push_str("SELECT pg_catalog.count(*), pg_catalog.min(\"innkeeper json\"), ");
            push_breach(&mut text, scope, names);
            push(
                &mut text,
                format_args!(
                    " FROM (SELECT pg_catalog.row_to_json(\"innkeeper row\")::pg_catalog.text AS \
                     \"innkeeper json\" FROM {source} \"innkeeper row\" LIMIT 2) \"innkeeper rows\""
                ),
            );
        }
        // The whole row is asked for: PostgreSQL drops a column that nobody reads, calls and all.
        Form::Whole(ResultShape::None) => {
            text.push_str("SELECT pg_catalog.count(\"innkeeper row\"), ");
            push_breach(&mut text, scope, names);
            push(&mut text, format_args!(" FROM {source} \"innkeeper row\""));
        }
    }
    audited(text)
}

/// The message that ends a write: what was deferred runs now, the scope is asserted after it, and
/// only then comes the commit, with the session's reset behind it. An error ends the message where
/// it stands, so that nothing is committed out of scope.
pub(super) fn commit(scope: &Scope) -> SqlStr {
    let mut text = String::with_capacity(768);
    text.push_str("SET CONSTRAINTS ALL IMMEDIATE; ");
    push_assertion(&mut text, scope);
    push(&mut text, format_args!("; COMMIT; {RESET}"));
    audited(text)
}

/// The message that ends the reading of a stream: the scope is asserted once every row was read.
pub(super) fn end_of_stream(scope: &Scope) -> SqlStr {
    let mut text = String::with_capacity(512);
    push_assertion(&mut text, scope);
    push(&mut text, format_args!("; {END_OF_READ}"));
    audited(text)
}

/// Which completion of [`commit`]'s message is the commit's own: nothing before it is final, and
/// nothing after it can undo it.
pub(super) const COMMIT_POSITION: usize = 2;

/// What opens a transaction for statements that clients write.
pub(super) fn begin_with(characteristics: Characteristics) -> SqlStr {
    let mut text = String::from("BEGIN");
    if let Some(level) = characteristics.isolation {
        push(&mut text, format_args!(" ISOLATION LEVEL {}", level.as_sql()));
    }
    text.push_str(if characteristics.read_only { " READ ONLY" } else { " READ WRITE" });
    text.push_str(if characteristics.deferrable { " DEFERRABLE" } else { "" });
    audited(text)
}

/// What narrows that transaction to its scope, as one statement that the extended protocol takes.
///
/// The guard reads statements as PostgreSQL does with `standard_conforming_strings` on.
pub(super) fn narrow_client(scope: &Scope, statement_timeout: Duration, idle_timeout: Duration) -> SqlStr {
    let mut text = String::with_capacity(512);
    text.push_str("SELECT pg_catalog.set_config('search_path', ");
    push_path(&mut text, scope, Names::Written);
    text.push_str(", true), pg_catalog.set_config('standard_conforming_strings', 'on', true)");
    for (setting, time) in
        [("statement_timeout", statement_timeout), ("idle_in_transaction_session_timeout", idle_timeout)]
    {
        push(&mut text, format_args!(", pg_catalog.set_config('{setting}', '{}', true)", milliseconds(time)));
    }
    if let Some(role) = scope.becomes() {
        push(&mut text, format_args!(", pg_catalog.set_config('role', {}, true)", Literal(role.as_str())));
    }
    audited(text)
}

/// What a statement of a client's is followed by: NULL, or where the scope stands.
pub(super) fn assertion(scope: &Scope) -> SqlStr {
    let mut text = String::from("SELECT ");
    push_breach(&mut text, scope, Names::Written);
    audited(text)
}

/// [`commit`]'s message, and the whole reset behind it.
pub(super) fn commit_client(scope: &Scope) -> SqlStr {
    let mut text = commit(scope).as_str().to_owned();
    push(&mut text, format_args!("; {RESET_CLIENT}"));
    audited(text)
}

/// What ends a transaction of client-written statements that is not to be committed.
pub(super) fn roll_back_client() -> SqlStr {
    audited(format!("ROLLBACK; {RESET}; {RESET_CLIENT}"))
}

/// A statement that fails where the scope does not hold.
fn push_assertion(text: &mut String, scope: &Scope) {
    text.push_str("SELECT CASE WHEN ");
    push_holds(text, scope, Names::Written);
    push(text, format_args!(" THEN 0 ELSE pg_catalog.concat('{BREACH}', "));
    push_whereabouts(text);
    text.push_str(")::pg_catalog.int4 END");
}

/// NULL, or where the scope stands instead.
fn push_breach(text: &mut String, scope: &Scope, names: Names) {
    text.push_str("CASE WHEN ");
    push_holds(text, scope, names);
    text.push_str(" THEN NULL ELSE ");
    push_whereabouts(text);
    text.push_str(" END");
}

/// True while path and role are what they were set to. `quote_ident` writes a name exactly as SET
/// stores it, whichever words this server's version reserves.
fn push_holds(text: &mut String, scope: &Scope, names: Names) {
    text.push_str("pg_catalog.current_setting('search_path') OPERATOR(pg_catalog.=) ");
    push_path(text, scope, names);
    text.push_str(" AND current_user OPERATOR(pg_catalog.=) ");
    match scope.role() {
        Some(role) => push(text, format_args!("{}::pg_catalog.name", names.role(role))),
        None => text.push_str("session_user"),
    }
    if let Some(role) = scope.login() {
        let role = names.role(role);
        push(text, format_args!(" AND session_user OPERATOR(pg_catalog.=) {role}::pg_catalog.name"));
    }
}

/// The path as PostgreSQL stores it. Every function is named in full: what asserts a path must not
/// be found by that path.
///
/// Temporary tables come last, and are named, because PostgreSQL looks there first where they are not:
/// one that someone left behind must never stand before a tenant's own.
fn push_path(text: &mut String, scope: &Scope, names: Names) {
    text.push_str("pg_catalog.concat_ws(', ', ");
    for schema in scope.path() {
        let schema = if schema == scope.home() { names.home(schema) } else { Said::Written(schema.as_str()) };
        push(text, format_args!("pg_catalog.quote_ident({schema}), "));
    }
    text.push_str("'pg_temp')");
}

fn push_whereabouts(text: &mut String) {
    text.push_str(
        "pg_catalog.concat(pg_catalog.current_setting('search_path'), ' as ', current_user::pg_catalog.text)",
    );
}

/// How an assertion says which tenant's scope it expects.
#[derive(Debug, Clone, Copy)]
enum Names {
    /// By its names, in a text that is this tenant's.
    Written,
    /// By parameters behind so many others, in a text that tenants share.
    Bound { behind: usize },
}

impl Names {
    fn home(self, schema: &SchemaName) -> Said<'_> {
        match self {
            Self::Written => Said::Written(schema.as_str()),
            Self::Bound { behind } => Said::Bound(behind + 1),
        }
    }

    fn role(self, role: &RoleName) -> Said<'_> {
        match self {
            Self::Written => Said::Written(role.as_str()),
            Self::Bound { behind } => Said::Bound(behind + 2),
        }
    }
}

/// A name as a value of SQL.
enum Said<'a> {
    Written(&'a str),
    Bound(usize),
}

impl fmt::Display for Said<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Written(name) => Literal(name).fmt(f),
            Self::Bound(number) => write!(f, "${number}::pg_catalog.text"),
        }
    }
}

/// What is bound behind the values of [`statement`]: the names that its assertion expects, in the
/// order of [`Names`]. A statement that returns nothing, or row by row, is asserted by what follows.
pub(super) fn expected(scope: &Scope, statement: &Statement, form: Form) -> Vec<Value> {
    if !statement.returns_rows() || form == Form::Streamed {
        return Vec::new();
    }
    let role = scope.role().map(|role| Value::name(role.as_str()));
    std::iter::once(Value::name(scope.home().as_str())).chain(role).collect()
}

/// What tells tenants apart where two that are taken for one only cost time.
pub(super) fn tenant(home: &SchemaName) -> u64 {
    let mut hasher = DefaultHasher::new();
    home.hash(&mut hasher);
    hasher.finish()
}

/// A string constant that is read the same whatever `standard_conforming_strings` says.
struct Literal<'a>(&'a str);

impl fmt::Display for Literal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("E'")?;
        for character in self.0.chars() {
            match character {
                '\'' => f.write_str("''")?,
                '\\' => f.write_str("\\\\")?,
                other => f.write_char(other)?,
            }
        }
        f.write_str("'")
    }
}

/// The type that a parameter is bound as text and cast to, where it has no cheap binary form.
fn cast_type(kind: ParamType) -> Option<&'static str> {
    match kind {
        ParamType::Text | ParamType::Int | ParamType::Float | ParamType::Bool => None,
        ParamType::Numeric => Some("numeric"),
        ParamType::Uuid => Some("uuid"),
        ParamType::Date => Some("date"),
        ParamType::Timestamp => Some("timestamptz"),
        ParamType::Json => Some("jsonb"),
    }
}

fn type_name(kind: ParamType) -> &'static str {
    match kind {
        ParamType::Text => "text",
        ParamType::Int => "int8",
        ParamType::Float => "float8",
        ParamType::Bool => "bool",
        cast => cast_type(cast).unwrap_or("text"),
    }
}

/// PostgreSQL counts in milliseconds, and takes 0 for no limit at all.
fn milliseconds(time: Duration) -> i32 {
    i32::try_from(time.as_millis()).unwrap_or(i32::MAX).max(1)
}

fn push(text: &mut String, part: fmt::Arguments<'_>) {
    text.write_fmt(part).expect("writing to a String cannot fail");
}

/// Everything in `text` came from this file, from a proof type's quoting, or from the statement
/// that the operator wrote.
fn audited(text: String) -> SqlStr {
    AssertSqlSafe(Arc::<str>::from(text)).into_sql_str()
}
