//! Reads a statement by PostgreSQL's tokens, to give placeholders their type where the value goes
//! as text, and to find where a WITH ends.

use std::borrow::Cow;

/// Rewrites the placeholders of a statement whose type is named in `casts`; `$1` has the first.
///
/// Only what PostgreSQL reads as a placeholder counts: not `$1` in a string, in a quoted name, in
/// a comment, in a dollar-quoted body, or at the end of a name such as `a$1` (manual, chapter 4.1).
pub(super) fn cast_placeholders(
    statement: &str,
    casts: impl Iterator<Item = Option<&'static str>> + Clone,
) -> Cow<'_, str> {
    if casts.clone().all(|cast| cast.is_none()) {
        return Cow::Borrowed(statement);
    }
    let casts: Vec<Option<&'static str>> = casts.collect();
    let mut rewritten = String::with_capacity(statement.len() + 64);
    let mut rest = statement;
    while let Some(character) = rest.chars().next() {
        let length = token_length(rest, character);
        let (token, behind) = rest.split_at(length);
        match placeholder(token).and_then(|number| casts.get(number.checked_sub(1)?).copied().flatten()) {
            Some(cast) => {
                rewritten.push('(');
                rewritten.push_str(token);
                rewritten.push_str("::pg_catalog.text::pg_catalog.");
                rewritten.push_str(cast);
                rewritten.push(')');
            }
            None => rewritten.push_str(token),
        }
        rest = behind;
    }
    Cow::Owned(rewritten)
}

/// Where the main part of a `WITH …` begins, or `None` where the statement has no WITH.
///
/// PostgreSQL takes a changing WITH at the outermost level only, so that it cannot be wrapped as a
/// whole: its main part becomes one more of its expressions.
pub(super) fn main_part(statement: &str) -> Option<usize> {
    const VERBS: [&str; 7] = ["SELECT", "VALUES", "TABLE", "INSERT", "UPDATE", "DELETE", "MERGE"];
    let (mut at, mut depth, mut within) = (0, 0_usize, false);
    while let Some(character) = statement[at..].chars().next() {
        let length = token_length(&statement[at..], character);
        let token = &statement[at..at + length];
        match token {
            "(" => depth += 1,
            ")" => depth = depth.saturating_sub(1),
            _ if depth > 0 || !character.is_alphabetic() => {}
            _ if !within && !token.eq_ignore_ascii_case("WITH") => return None,
            _ if within && VERBS.iter().any(|verb| token.eq_ignore_ascii_case(verb)) => return Some(at),
            _ => within = true,
        }
        at += length;
    }
    None
}

fn placeholder(token: &str) -> Option<usize> {
    token.strip_prefix('$').filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()))?.parse().ok()
}

/// The length of the token at the start of `text`, in bytes; at least that of its first character.
fn token_length(text: &str, first: char) -> usize {
    match first {
        '\'' => quoted(text, 1, '\'', false),
        '"' => quoted(text, 1, '"', false),
        'e' | 'E' if text[1..].starts_with('\'') => quoted(text, 2, '\'', true),
        '-' if text.starts_with("--") => text.find(['\n', '\r']).unwrap_or(text.len()),
        '/' if text.starts_with("/*") => comment(text),
        '$' => dollar(text),
        _ if starts_name(first) => text.find(|c| !continues_name(c)).unwrap_or(text.len()),
        // A number takes the letters behind it along, so that they start no name of their own.
        '0'..='9' => text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len()),
        other => other.len_utf8(),
    }
}

fn starts_name(character: char) -> bool {
    character.is_ascii_alphabetic() || character == '_' || !character.is_ascii()
}

fn continues_name(character: char) -> bool {
    starts_name(character) || character.is_ascii_digit() || character == '$'
}

fn quoted(text: &str, start: usize, quote: char, escapes: bool) -> usize {
    let mut characters = text[start..].char_indices().peekable();
    while let Some((at, character)) = characters.next() {
        if escapes && character == '\\' {
            characters.next();
        } else if character == quote {
            match characters.peek() {
                Some((_, next)) if *next == quote => {
                    characters.next();
                }
                _ => return start + at + quote.len_utf8(),
            }
        }
    }
    text.len()
}

/// Comments nest in PostgreSQL.
fn comment(text: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        if rest.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

/// A placeholder, a dollar-quoted string, or a dollar sign alone.
fn dollar(text: &str) -> usize {
    let behind = &text[1..];
    if behind.starts_with(|c: char| c.is_ascii_digit()) {
        return 1 + behind.find(|c: char| !c.is_ascii_digit()).unwrap_or(behind.len());
    }
    let tag = match behind.chars().next() {
        Some('$') => "",
        Some(first) if starts_name(first) => {
            let end = behind.find(|c| !starts_name(c) && !c.is_ascii_digit()).unwrap_or(behind.len());
            &behind[..end]
        }
        _ => return 1,
    };
    if !behind[tag.len()..].starts_with('$') {
        return 1;
    }
    let delimiter = &text[..tag.len() + 2];
    let body = &text[delimiter.len()..];
    body.find(delimiter).map_or(text.len(), |at| delimiter.len() + at + delimiter.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cast(statement: &str) -> String {
        cast_placeholders(statement, [Some("numeric"), None].into_iter()).into_owned()
    }

    #[test]
    fn placeholders_are_cast_and_others_left() {
        assert_eq!(
            cast("select $1+$2,$1"),
            "select ($1::pg_catalog.text::pg_catalog.numeric)+$2,($1::pg_catalog.text::pg_catalog.numeric)"
        );
    }

    #[test]
    fn what_is_no_placeholder_stays() {
        for statement in [
            "select '$1', 'it''s $1', E'\\'$1', \"a$1\", \"x\"\"$1\"",
            "select a$1, ä$1 from t",
            "select $$ $1 $$, $a$ $1 $b$ $1 $a$",
            "select 2 -- $1",
            "select /* $1 /* $1 */ $1 */ 3",
        ] {
            assert_eq!(cast(statement), statement);
        }
    }

    #[test]
    fn a_placeholder_behind_each_of_them_is_found() {
        for before in ["'a' ", "E'\\\\' ", "\"b\" ", "$$c$$ ", "-- d\n", "/* /* */ */ ", "1 ", "e = "] {
            let statement = format!("select {before}$1");
            assert!(cast(&statement).ends_with("numeric)"), "{statement}");
        }
    }

    #[test]
    fn the_main_part_of_a_with_is_behind_its_expressions() {
        for (head, main) in [
            ("with a as (delete from t returning *) ", "select * from a"),
            (
                "/* select */ WITH recursive a(x) AS MATERIALIZED (select 1), \"select\" as (table b) ",
                "TABLE a",
            ),
            ("with a as (select ')' || $$)$$) ", "insert into t select * from a returning x"),
        ] {
            assert_eq!(main_part(&format!("{head}{main}")), Some(head.len()), "{head}{main}");
        }
        assert_eq!(main_part("select 1"), None);
        assert_eq!(main_part("update t set a = (with b as (select 1) select * from b)"), None);
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_kept_apart_from_its_casts(statement in "[ -~äß\\n]{0,80}") {
            let kept = cast(&statement)
                .replace("($1::pg_catalog.text::pg_catalog.numeric)", "$1");
            proptest::prop_assert_eq!(kept, statement.replace("($1::pg_catalog.text::pg_catalog.numeric)", "$1"));
        }
    }
}
