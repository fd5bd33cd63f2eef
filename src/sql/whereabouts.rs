//! Where a session stands, as it says itself, and whether that is inside of a scope.

use std::fmt;

use sqlx::SqlStr;

use super::Scope;
use super::wire::Row;
use crate::tenant::SchemaName;

/// Every function is named in full: what asserts a path must not be found by that path.
macro_rules! columns {
    () => {
        "pg_catalog.current_setting('search_path'), current_user, session_user, pg_catalog.current_schema()"
    };
}

/// The columns that [`Whereabouts`] are read from, which no tenant's object can stand for.
pub(super) const COLUMNS: &str = columns!();

/// What a client's statement is followed by: these columns alone.
pub(super) static ASSERTION: SqlStr = SqlStr::from_static(concat!("SELECT ", columns!()));

/// How many columns these are.
pub(super) const COUNT: usize = 4;

/// Temporary tables come last in every path, and are named, because PostgreSQL looks there first where
/// they are not: one that someone left behind must never stand before a tenant's own.
pub(super) const LAST_OF_PATH: &str = "pg_temp";

/// Where a session stood.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Whereabouts<'a> {
    path: &'a str,
    user: &'a str,
    login: &'a str,
    home: Option<&'a str>,
}

impl<'a> Whereabouts<'a> {
    /// Reads the columns behind so many others; `None` where a row has not all of them.
    pub(super) fn behind(others: usize, row: &'a Row) -> Option<Self> {
        let mut values = row.values().skip(others);
        let mut next = || values.next();
        Some(Self { path: next()??, user: next()??, login: next()??, home: next()? })
    }

    /// Whether path and role are what they were set to.
    pub(super) fn is_inside(&self, scope: &Scope) -> bool {
        let user = scope.role().map_or(self.login, |role| role.as_str());
        let login = scope.login().map_or(self.login, |role| role.as_str());
        self.user == user && self.login == login && is_path(self.path, scope.path())
    }

    /// Whether the first schema of the path is there, and the role may use it. One that is not is passed
    /// over in silence: what is looked up may then be found in a shared schema, and what is created is,
    /// there or among what is temporary, and lost (PostgreSQL, 5.10.3).
    pub(super) fn is_at_home(&self, scope: &Scope) -> bool {
        self.home == Some(scope.home().as_str())
    }
}

/// For the log and the alarm.
impl fmt::Display for Whereabouts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} as {}", self.path, self.user)
    }
}

/// Whether a path is what SET stores for these schemas: a name bare where it needs no quotes, or quoted,
/// as some plain words are by some versions (`quote_identifier` in PostgreSQL's `ruleutils.c`).
///
/// A bare name is read in lower case, and so only one that is in lower case stands for itself.
fn is_path<'a>(path: &str, schemas: impl Iterator<Item = &'a SchemaName>) -> bool {
    let mut rest = Some(path);
    for schema in schemas {
        rest = rest.and_then(|rest| after(rest, schema)).and_then(|rest| rest.strip_prefix(", "));
    }
    // Quoted where the server or the role has `quote_all_identifiers`.
    rest.is_some_and(|rest| rest == LAST_OF_PATH || rest == "\"pg_temp\"")
}

/// What comes behind a schema's name.
fn after<'a>(path: &'a str, schema: &SchemaName) -> Option<&'a str> {
    let name = schema.as_str();
    let is_plain = !name.starts_with(|first: char| first.is_ascii_digit())
        && name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'));
    if is_plain && let Some(rest) = path.strip_prefix(name) {
        return Some(rest);
    }
    let mut rest = path.strip_prefix('"')?;
    for (index, part) in name.split('"').enumerate() {
        let part_begins = if index == 0 { rest } else { rest.strip_prefix("\"\"")? };
        rest = part_begins.strip_prefix(part)?;
    }
    rest.strip_prefix('"')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(path: &str, schemas: &[&str]) -> bool {
        let schemas: Vec<SchemaName> = schemas.iter().map(|name| name.parse().unwrap()).collect();
        is_path(path, schemas.iter())
    }

    #[test]
    fn a_path_is_known_bare_and_quoted() {
        for (path, schemas) in [
            ("acme, pg_temp", vec!["acme"]),
            ("\"acme\", pg_temp", vec!["acme"]),
            ("\"user\", pg_temp", vec!["user"]),
            ("acme, \"Shared things\", pg_temp", vec!["acme", "Shared things"]),
            (r#""we""ird, "" one", pg_temp"#, vec![r#"we"ird, " one"#]),
            (r#""""", pg_temp"#, vec!["\""]),
            ("_0, pg_temp", vec!["_0"]),
            ("\"acme\", \"pg_temp\"", vec!["acme"]),
        ] {
            assert!(holds(path, &schemas), "{path}");
        }
    }

    #[test]
    fn a_path_that_leads_elsewhere_is_not() {
        for (path, schemas) in [
            ("globex, pg_temp", vec!["acme"]),
            ("acme", vec!["acme"]),
            ("acme,pg_temp", vec!["acme"]),
            ("acme, pg_temp, globex", vec!["acme"]),
            ("acme, globex, pg_temp", vec!["acme"]),
            ("globex, acme, pg_temp", vec!["acme"]),
            ("acme2, pg_temp", vec!["acme"]),
            ("pg_temp", vec!["acme"]),
            ("", vec!["acme"]),
            // PostgreSQL reads these in lower case.
            ("Acme, pg_temp", vec!["Acme"]),
            ("ACME, pg_temp", vec!["acme"]),
            ("0a, pg_temp", vec!["0a"]),
            (r#""acme", "globex", pg_temp"#, vec!["acme"]),
            (r#""a"b", pg_temp"#, vec![r#"a"b"#]),
        ] {
            assert!(!holds(path, &schemas), "{path}");
        }
    }
}
