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
use super::whereabouts::{self, LAST_OF_PATH};
use crate::policy::{self, ParamType, Query, ResultShape, Statement};
use crate::tenant::SchemaName;

/// What the error of a broken scope starts with. It comes from a cast that cannot succeed, which
/// is how plain SQL raises an error with a text of one's own.
pub(super) const BREACH: &str = "innkeeper: the statement left its scope for ";

/// The same where a scope's own schema is not there, or its role may not use it.
pub(super) const NO_HOME: &str = "innkeeper: the schema is not there for ";

/// What ends a read. Settings, the role, cursors, temporary tables and LISTEN go with the
/// transaction; session-level advisory locks alone outlive it, and are given back behind it by a
/// statement without columns or rows, so that nothing has to be read.
static ENDS_READ: [SqlStr; 2] = [
    SqlStr::from_static("ROLLBACK"),
    SqlStr::from_static("SELECT WHERE pg_catalog.pg_advisory_unlock_all() IS NULL"),
];

/// What ends a statement that failed: a change may have asked sequences before, and the session would
/// go on to tell of what they gave.
pub(super) const END_OF_FAILED: &str =
    "ROLLBACK; SELECT WHERE pg_catalog.pg_advisory_unlock_all() IS NULL; DISCARD SEQUENCES";

/// What ends a read, as one message.
const END_OF_READ: &str = "ROLLBACK; SELECT WHERE pg_catalog.pg_advisory_unlock_all() IS NULL";

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
    /// As one row: JSON of this shape, and behind it where the session stood once every row was there.
    Whole(ResultShape),
    /// Row by row: each the JSON of one row. The scope is asserted behind the last one, by
    /// [`commit`] or [`end_of_stream`].
    Streamed,
}

/// Columns of what [`statement`] makes of a statement that returns rows.
pub(super) fn columns(form: Form, read_only: bool) -> usize {
    let results = match form {
        Form::Streamed => return 1,
        Form::Whole(ResultShape::One | ResultShape::Value) => 2,
        Form::Whole(ResultShape::Rows | ResultShape::None) => 1,
    };
    results + usize::from(read_only) + whereabouts::COUNT
}

/// What ends the transaction of a query in the exchange that opens it: a read's, whose result is one row,
/// which has nothing to commit and of which nobody has to look at more first.
pub(super) fn ending(form: Form, query: &Query) -> &'static [SqlStr] {
    match form {
        Form::Whole(_) if !query.read_only => &[],
        // The statement itself gives the locks back.
        Form::Whole(_) if query.statement.returns_rows() => &ENDS_READ[..1],
        Form::Whole(_) => &ENDS_READ,
        Form::Streamed => &[],
    }
}

/// What opens the transaction of a named query.
pub(super) fn begin(read_only: bool) -> SqlStr {
    SqlStr::from_static(if read_only { "BEGIN READ ONLY" } else { "BEGIN" })
}

/// What opens a transaction by `begin` and narrows it to its scope, a statement each. All of it is
/// local: the transaction's end takes it back. `timeout` is the statement's, where it has one of its own.
///
/// A SET is neither planned nor given a snapshot, as a call of `set_config` is.
pub(super) fn opening(begin: SqlStr, scope: &Scope, timeout: Option<Duration>) -> Vec<SqlStr> {
    let mut path = String::from("SET LOCAL search_path TO ");
    for schema in scope.path() {
        push(&mut path, format_args!("{}, ", schema.quoted()));
    }
    path.push_str(LAST_OF_PATH);
    let role = scope.becomes().map(|role| audited(format!("SET LOCAL role TO {}", role.quoted())));
    let timeout =
        timeout.map(|timeout| audited(format!("SET LOCAL statement_timeout TO {}", milliseconds(timeout))));
    [begin, audited(path)].into_iter().chain(role).chain(timeout).collect()
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

/// The statement as it is prepared, its result made JSON, and behind that [`whereabouts::COLUMNS`]. A read also
/// gives back its session's advisory locks, once all of it has run.
///
/// A connection keeps it prepared by its text, in which the types of the parameters stand for that
/// reason. All tenants share it: its result has the same types for every tenant.
pub(super) fn statement(
    statement: &Statement,
    params: impl Iterator<Item = ParamType> + Clone,
    form: Form,
    read_only: bool,
) -> SqlStr {
    let mut text = String::with_capacity(statement.text().len() + 512);
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
    // `"innkeeper row".*` is the row even where a column of it has that name. The statement stands on lines of its own, so that a comment at its end ends there.
    let source = if statement.modifies() {
        let main = main_part(&body).unwrap_or(0);
        let (expressions, main) = body.split_at(main);
        let joint = if expressions.is_empty() { "WITH " } else { ", " };
        push(&mut text, format_args!("{expressions}{joint}\"innkeeper changed\" AS (\n{main}\n) "));
        "\"innkeeper changed\"".to_owned()
    } else {
        format!("(\n{body}\n)")
    };
    let Form::Whole(shape) = form else {
        push(
            &mut text,
            format_args!(
                "SELECT pg_catalog.row_to_json(\"innkeeper row\".*)::pg_catalog.text FROM {source} \"innkeeper row\""
            ),
        );
        return audited(text);
    };
    text.push_str(match shape {
        ResultShape::Rows => {
            "SELECT coalesce(pg_catalog.json_agg(\"innkeeper row\".*), '[]')::pg_catalog.text, "
        }
        ResultShape::One | ResultShape::Value => {
            "SELECT pg_catalog.count(*), pg_catalog.min(\"innkeeper json\"), "
        }
        // The whole row is asked for: PostgreSQL drops a column that nobody reads, calls and all.
        ResultShape::None => "SELECT pg_catalog.count(\"innkeeper row\".*), ",
    });
    // Aggregates are complete before a column beside them is read, and with them all that is the
    // statement's own.
    if read_only {
        text.push_str("pg_catalog.pg_advisory_unlock_all(), ");
    }
    push(&mut text, format_args!("{COLUMNS} FROM ", COLUMNS = whereabouts::COLUMNS));
    match shape {
        ResultShape::Rows | ResultShape::None => push(&mut text, format_args!("{source} \"innkeeper row\"")),
        // Two rows are enough to know that there is more than one.
        ResultShape::One | ResultShape::Value => push(
            &mut text,
            format_args!(
                "(SELECT pg_catalog.row_to_json(\"innkeeper row\".*)::pg_catalog.text AS \"innkeeper json\" \
                 FROM {source} \"innkeeper row\" LIMIT 2) \"innkeeper rows\""
            ),
        ),
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

/// Which completion of [`commit`]'s message is the assertion's, or of [`end_of_stream`]'s where the query
/// only reads. Elsewhere in them a tenant's code may fail, with any text that it likes.
pub(super) fn assertion_position(read_only: bool) -> usize {
    usize::from(!read_only)
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

/// The guard reads statements as PostgreSQL does with this.
pub(super) static READ_AS_THE_GUARD: SqlStr =
    SqlStr::from_static("SET LOCAL standard_conforming_strings TO on");

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

/// A statement that fails where the scope does not hold, or its own schema is passed over.
fn push_assertion(text: &mut String, scope: &Scope) {
    text.push_str("SELECT CASE WHEN ");
    push_holds(text, scope);
    let home = Literal(scope.home().as_str());
    push(
        text,
        format_args!(
            " THEN CASE WHEN pg_catalog.current_schema() OPERATOR(pg_catalog.=) {home}::pg_catalog.name THEN 0 \
             ELSE pg_catalog.concat('{NO_HOME}', current_user::pg_catalog.text)::pg_catalog.int4 END \
             ELSE pg_catalog.concat('{BREACH}', pg_catalog.current_setting('search_path'), ' as ', \
             current_user::pg_catalog.text)::pg_catalog.int4 END"
        ),
    );
}

/// True while path and role are what they were set to. `quote_ident` writes a name exactly as SET
/// stores it, whichever words this server's version reserves. Every function is named in full: what
/// asserts a path must not be found by that path.
fn push_holds(text: &mut String, scope: &Scope) {
    text.push_str(
        "pg_catalog.current_setting('search_path') OPERATOR(pg_catalog.=) pg_catalog.concat_ws(', ', ",
    );
    for schema in scope.path() {
        push(text, format_args!("pg_catalog.quote_ident({}), ", Literal(schema.as_str())));
    }
    push(
        text,
        format_args!("pg_catalog.quote_ident('{LAST_OF_PATH}')) AND current_user OPERATOR(pg_catalog.=) "),
    );
    match scope.role() {
        Some(role) => push(text, format_args!("{}::pg_catalog.name", Literal(role.as_str()))),
        None => text.push_str("session_user"),
    }
    if let Some(role) = scope.login() {
        let role = Literal(role.as_str());
        push(text, format_args!(" AND session_user OPERATOR(pg_catalog.=) {role}::pg_catalog.name"));
    }
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
