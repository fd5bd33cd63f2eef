//! What a named query's statement is, read with PostgreSQL's token rules and no grammar.

use std::sync::Arc;

use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::tokenizer::{Token, Tokenizer};

use crate::policy::Statement;

/// A statement and what was learnt about it on the way.
#[derive(Debug)]
pub(super) struct Read {
    pub statement: Statement,
    /// Whether it locks rows (`FOR UPDATE`), which a read-only transaction may not.
    pub locks: bool,
    /// Numbers of its placeholders, in order of appearance.
    pub placeholders: Vec<usize>,
}

/// What is wrong with a statement, and what to do about it.
#[derive(Debug, PartialEq)]
pub(super) struct Mistake {
    pub message: String,
    pub help: String,
}

impl Mistake {
    fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { message: message.into(), help: help.into() }
    }
}

/// What a named query may start with.
const ALLOWED: &str = "a named query is one SELECT, VALUES, TABLE, WITH, INSERT, UPDATE, DELETE or MERGE";

/// Reads a statement.
pub(super) fn read(sql: &str) -> Result<Read, Mistake> {
    let tokens = significant(sql)?;
    let first = tokens.iter().find(|token| **token != Token::LParen);
    let Some(first) = first else {
        return Err(Mistake::new("the statement is empty", ALLOWED));
    };
    let Some(keyword) = word(first) else {
        return Err(Mistake::new(format!("a statement cannot start with `{first}`"), ALLOWED));
    };
    let changes = changes(&tokens);
    let modifies = !changes.is_empty();
    let returns_rows = match keyword.as_str() {
        "SELECT" | "VALUES" | "TABLE" => true,
        "WITH" => match main_verb(&tokens) {
            Some("SELECT" | "VALUES" | "TABLE") => true,
            _ => has_returning(&tokens),
        },
        "INSERT" | "UPDATE" | "DELETE" | "MERGE" => has_returning(&tokens),
        "BEGIN" | "START" | "COMMIT" | "END" | "ROLLBACK" | "ABORT" | "SAVEPOINT" | "RELEASE" => {
            return Err(Mistake::new(
                format!(
                    "`{keyword}` is not allowed: the transaction is Innkeeper's, and holds the tenant's scope"
                ),
                ALLOWED,
            ));
        }
        "SET" | "RESET" | "DISCARD" => {
            return Err(Mistake::new(
                format!("`{keyword}` is not allowed: settings hold the tenant's scope"),
                "a query's time limit is its key `timeout`",
            ));
        }
        _ => {
            return Err(Mistake::new(format!("`{keyword}` is not a statement of a named query"), ALLOWED));
        }
    };
    if let Some(at) = tokens.iter().position(|token| is(token, "INTO"))
        && !modifies
        && at > 0
    {
        return Err(Mistake::new("`SELECT … INTO` creates a table", ALLOWED));
    }
    Ok(Read {
        statement: Statement { text: trimmed(sql), returns_rows, modifies },
        locks: locks(&tokens),
        placeholders: placeholders(&tokens)?,
    })
}

/// The tokens that mean something, without a semicolon at the end.
fn significant(sql: &str) -> Result<Vec<Token>, Mistake> {
    let mut tokens = Tokenizer::new(&PostgreSqlDialect {}, sql).tokenize().map_err(|error| {
        Mistake::new(
            format!("the statement cannot be read: {}", error.message),
            "check its quotes and comments",
        )
    })?;
    tokens.retain(|token| !matches!(token, Token::Whitespace(_) | Token::EOF));
    while tokens.last() == Some(&Token::SemiColon) {
        tokens.pop();
    }
    if tokens.contains(&Token::SemiColon) {
        return Err(Mistake::new(
            "a named query is one statement, but this is more than one",
            "put the changes of one request into one statement with `WITH`, or into a function",
        ));
    }
    if tokens.iter().any(|token| matches!(token, Token::Word(word) if word.value.contains('\0')))
        || sql.contains('\0')
    {
        return Err(Mistake::new("the statement contains a NUL character", "remove it"));
    }
    Ok(tokens)
}

/// The text without semicolons and blanks at its end. A comment there is left alone, with what is
/// before it.
fn trimmed(sql: &str) -> Arc<str> {
    sql.trim().trim_end_matches(|c: char| c == ';' || c.is_whitespace()).into()
}

/// An unquoted word in capitals.
fn word(token: &Token) -> Option<String> {
    match token {
        Token::Word(word) if word.quote_style.is_none() => Some(word.value.to_ascii_uppercase()),
        _ => None,
    }
}

fn is(token: &Token, keyword: &str) -> bool {
    matches!(token, Token::Word(word) if word.quote_style.is_none() && word.value.eq_ignore_ascii_case(keyword))
}

fn is_change(token: &Token) -> bool {
    ["INSERT", "UPDATE", "DELETE", "MERGE"].iter().any(|verb| is(token, verb))
}

/// Where a change begins: at the start, at the start of a common table expression, or after the
/// last of them. `FOR UPDATE` and `ON CONFLICT DO UPDATE` begin none.
fn changes(tokens: &[Token]) -> Vec<usize> {
    (0..tokens.len())
        .filter(|&index| is_change(&tokens[index]))
        .filter(|&index| match index.checked_sub(1).map(|before| &tokens[before]) {
            None => true,
            Some(Token::LParen) => index.checked_sub(2).map(|before| &tokens[before]).is_none_or(|before| {
                is(before, "AS") || is(before, "MATERIALIZED") || *before == Token::LParen
            }),
            Some(Token::RParen) => true,
            Some(_) => false,
        })
        .collect()
}

/// The verb of a statement's main part: the first at the outermost level.
fn main_verb(tokens: &[Token]) -> Option<&'static str> {
    const VERBS: [&str; 7] = ["SELECT", "VALUES", "TABLE", "INSERT", "UPDATE", "DELETE", "MERGE"];
    let mut depth = 0_usize;
    for (index, token) in tokens.iter().enumerate() {
        match token {
            Token::LParen => depth += 1,
            Token::RParen => depth = depth.saturating_sub(1),
            _ if depth == 0 && index > 0 => {
                if let Some(verb) = VERBS.iter().find(|verb| is(token, verb)) {
                    return Some(verb);
                }
            }
            _ => {}
        }
    }
    // `WITH … (SELECT …)`: the main part stands in parentheses.
    None
}

/// Whether the main part ends with `RETURNING`.
fn has_returning(tokens: &[Token]) -> bool {
    let mut depth = 0_usize;
    tokens.iter().any(|token| {
        match token {
            Token::LParen => depth += 1,
            Token::RParen => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth == 0 && is(token, "RETURNING")
    })
}

/// Whether rows are locked: `FOR [NO KEY] UPDATE`, `FOR [KEY] SHARE`.
fn locks(tokens: &[Token]) -> bool {
    tokens.windows(2).any(|pair| {
        is(&pair[0], "FOR") && ["UPDATE", "SHARE", "NO", "KEY"].iter().any(|strength| is(&pair[1], strength))
    })
}

fn placeholders(tokens: &[Token]) -> Result<Vec<usize>, Mistake> {
    let mut numbers = Vec::new();
    for token in tokens {
        let Token::Placeholder(text) = token else { continue };
        match text.strip_prefix('$').and_then(|number| number.parse::<usize>().ok()) {
            Some(number) if number > 0 => numbers.push(number),
            _ => {
                return Err(Mistake::new(
                    format!("`{text}` is not a placeholder of PostgreSQL"),
                    "write `$1` for the first of `params`, `$2` for the second",
                ));
            }
        }
    }
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(sql: &str) -> (bool, bool, bool) {
        let read = read(sql).unwrap_or_else(|mistake| panic!("{sql}: {mistake:?}"));
        (read.statement.returns_rows, read.statement.modifies, read.locks)
    }

    #[test]
    fn reads_and_changes_are_told_apart() {
        assert_eq!(facts("select 1"), (true, false, false));
        assert_eq!(facts("/* insert */ (select 1) -- delete"), (true, false, false));
        assert_eq!(facts("select 'update t', \"delete\" from t"), (true, false, false));
        assert_eq!(facts("table users"), (true, false, false));
        assert_eq!(facts("insert into t values (1)"), (false, true, false));
        assert_eq!(facts("insert into t values (1) on conflict do update set a = 1"), (false, true, false));
        assert_eq!(facts("update t set a = 1 returning *"), (true, true, false));
        assert_eq!(facts("select * from t for update"), (true, false, true));
        assert_eq!(facts("select * from t for no key update"), (true, false, true));
    }

    #[test]
    fn common_table_expressions_are_followed() {
        assert_eq!(facts("with a as (select 1) select * from a"), (true, false, false));
        assert_eq!(facts("with a as (delete from t returning *) select * from a"), (true, true, false));
        assert_eq!(
            facts("with a as materialized (delete from t returning *) select * from a"),
            (true, true, false)
        );
        assert_eq!(facts("with a as (select 1) insert into t select * from a"), (false, true, false));
        assert_eq!(
            facts("with a as (delete from t returning id) insert into u select id from a"),
            (false, true, false)
        );
        assert_eq!(
            facts("with a(x) as (select 1) update t set y = x from a returning y"),
            (true, true, false)
        );
    }

    #[test]
    fn placeholders_are_counted_as_postgresql_does() {
        let numbers = |sql: &str| read(sql).unwrap().placeholders;
        assert_eq!(numbers("select $1, $2, $1"), [1, 2, 1]);
        assert_eq!(numbers("select '$1', \"$2\", $$ $3 $$, $a$ $4 $a$, e'\\'$5' -- $6"), [0_usize; 0]);
        assert_eq!(numbers("select a ->> 'b', c ? 'd' from t /* $1 /* $2 */ */"), [0_usize; 0]);
    }

    #[test]
    fn other_statements_are_refused() {
        for sql in [
            "",
            "  ;",
            "commit",
            "set role x",
            "reset all",
            "create table t ()",
            "drop table t",
            "select 1; select 2",
            "select 1 into t",
            "copy t to stdout",
            "do $$ begin end $$",
            "call p()",
            "truncate t",
            "prepare p as select 1",
            "listen x",
            "lock t",
            "vacuum",
            "explain select 1",
            "'",
            "$1",
            "grant all on t to u",
            "select $0",
        ] {
            assert!(read(sql).is_err(), "{sql}");
        }
    }

    #[test]
    fn a_semicolon_at_the_end_is_dropped() {
        assert_eq!(read("select 1 ; ").unwrap().statement.text(), "select 1");
    }
}
