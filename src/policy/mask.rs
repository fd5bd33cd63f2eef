//! Excerpts of source lines, with passwords masked and terminal control characters made harmless.

use super::diagnostic::Excerpt;
use super::source::{Place, Sources};

/// What a secret looks like in a snippet; of one length, so that it tells nothing.
const MASK: &str = "***";
/// Longest snippet in characters: a line of a usual terminal.
const MAX_SNIPPET: usize = 140;

impl Excerpt {
    /// The line at `place`, with `secrets` and whatever looks like a password masked.
    pub(crate) fn of(place: Place, sources: &Sources, secrets: &[Place]) -> Self {
        let (snippet, mark) = match sources.line(place) {
            Some(line) => {
                let (text, mark) = masked(line, place, secrets);
                (Some(text), mark)
            }
            None => (None, (0, 0)),
        };
        Self {
            file: sources.get(place.file).shown.to_string(),
            line: place.line,
            column: place.column,
            length: place.length,
            snippet,
            mark,
        }
    }
}

/// The line as it may be shown, and where its marked part starts and how long it is.
fn masked(line: &str, place: Place, secrets: &[Place]) -> (String, (usize, usize)) {
    let characters: Vec<char> = line.chars().collect();
    let mut hidden = vec![false; characters.len()];
    let on_this_line = |secret: &&Place| secret.file == place.file && secret.line == place.line;
    for secret in secrets.iter().filter(on_this_line) {
        let (start, end) = stretch(*secret, characters.len());
        let written: String = characters[start..end].iter().collect();
        // `${NAME}` hides its value by itself, and its name is what the reader must see.
        if !written.contains("${") {
            hidden[start..end].fill(true);
        }
    }
    hide_passwords(&characters, &mut hidden);

    let (start, end) = stretch(place, characters.len());
    let mut text = String::new();
    let mut mark = None;
    let mut length = 0;
    let mut shown = 0;
    for (index, character) in characters.iter().enumerate() {
        if index == start {
            mark = Some(shown);
        }
        let piece = match (hidden[index], index > 0 && hidden[index - 1]) {
            (true, true) => String::new(),
            (true, false) => MASK.to_owned(),
            (false, _) if character.is_control() => " ".to_owned(),
            (false, _) => character.to_string(),
        };
        let width = piece.chars().count();
        shown += width;
        length += if (start..end).contains(&index) { width } else { 0 };
        text.push_str(&piece);
    }
    crop(&text, mark.unwrap_or(shown), length.max(1))
}

/// A text as a message may show it: with whatever looks like a password masked.
pub(super) fn without_passwords(text: &str) -> String {
    let characters: Vec<char> = text.chars().collect();
    let mut hidden = vec![false; characters.len()];
    hide_passwords(&characters, &mut hidden);
    let mut shown = String::with_capacity(text.len());
    for (index, character) in characters.iter().enumerate() {
        match (hidden[index], index > 0 && hidden[index - 1]) {
            (true, true) => {}
            (true, false) => shown.push_str(MASK),
            (false, _) => shown.push(*character),
        }
    }
    shown
}

fn stretch(place: Place, line: usize) -> (usize, usize) {
    let start = (place.column as usize).saturating_sub(1).min(line);
    (start, start.saturating_add(place.length as usize).min(line))
}

/// Hides `password` in `//user:password@host` and in `password=…`.
fn hide_passwords(characters: &[char], hidden: &mut [bool]) {
    let ends_token = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '`');
    let token_end = |from: usize| {
        characters[from..]
            .iter()
            .position(|c| ends_token(*c))
            .map_or(characters.len(), |length| from + length)
    };
    for start in 0..characters.len() {
        let rest = &characters[start..];
        if rest.starts_with(&['/', '/']) {
            let end = token_end(start);
            let at = characters[start..end].iter().rposition(|c| *c == '@').map(|at| start + at);
            let colon = characters[start..end].iter().position(|c| *c == ':').map(|colon| start + colon);
            if let (Some(colon), Some(at)) = (colon, at)
                && colon < at
                && !is_variable(&characters[colon + 1..at])
            {
                hidden[colon + 1..at].fill(true);
            }
        }
        let word: String = rest.iter().take(9).collect::<String>().to_ascii_lowercase();
        if word == "password=" {
            let from = start + 9;
            let end = token_end(from);
            let end =
                characters[from..end].iter().position(|c| *c == '&').map_or(end, |length| from + length);
            hidden[from..end].fill(true);
        }
    }
}

/// Whether a password is written as `${NAME}`, which tells nothing and must be seen to be mended.
fn is_variable(password: &[char]) -> bool {
    let text: String = password.iter().collect();
    text.strip_prefix("${")
        .and_then(|rest| rest.strip_suffix('}'))
        .is_some_and(|name| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'))
}

/// Keeps the part of a long line around its mark.
fn crop(text: &str, mark: usize, length: usize) -> (String, (usize, usize)) {
    let total = text.chars().count();
    if total <= MAX_SNIPPET {
        return (text.to_owned(), (mark, length.min((total + 1).saturating_sub(mark).max(1))));
    }
    let first = mark.saturating_sub(MAX_SNIPPET / 3).min(total - MAX_SNIPPET);
    let window: String = text.chars().skip(first).take(MAX_SNIPPET).collect();
    let (before, after) =
        (if first > 0 { "…" } else { "" }, if first + MAX_SNIPPET < total { "…" } else { "" });
    let mark = mark - first + before.chars().count();
    (format!("{before}{window}{after}"), (mark, length.min(MAX_SNIPPET.saturating_sub(mark).max(1))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(line: &str) -> String {
        masked(line, Place { file: 0, line: 1, column: 1, length: 1 }, &[]).0
    }

    #[test]
    fn passwords_in_urls_are_masked() {
        assert_eq!(show("url: postgres://app:s3cr3t@db/app"), "url: postgres://app:***@db/app");
        assert_eq!(show("url: postgres://app:a/b@c@db/app"), "url: postgres://app:***@db/app");
        assert_eq!(show("x: ${URL:-postgres://a:b@c}"), "x: ${URL:-postgres://a:***@c}");
        assert_eq!(show("url: postgres://app:${PW}@db/app"), "url: postgres://app:${PW}@db/app");
        assert_eq!(show("url: postgres://db/app?password=x&a=1"), "url: postgres://db/app?password=***&a=1");
        assert_eq!(show("endpoints: [http://127.0.0.1:9000]"), "endpoints: [http://127.0.0.1:9000]");
    }

    #[test]
    fn the_mark_follows_the_masked_text() {
        let place = Place { file: 0, line: 1, column: 6, length: 27 };
        let (text, mark) = masked("url: postgres://app:secret@db/app x", place, &[]);
        assert_eq!(text, "url: postgres://app:***@db/app x");
        assert_eq!(mark, (5, 24));
    }

    #[test]
    fn a_terminal_is_safe_from_a_policy() {
        assert_eq!(show("name: \u{1b}[2Jx"), "name:  [2Jx");
    }

    #[test]
    fn long_lines_are_cut_around_the_mark() {
        let line = format!("{}here{}", "a".repeat(500), "b".repeat(500));
        let (text, mark) = masked(&line, Place { file: 0, line: 1, column: 501, length: 4 }, &[]);
        let marked: String = text.chars().skip(mark.0).take(mark.1).collect();
        assert_eq!(marked, "here");
        assert!(text.chars().count() <= MAX_SNIPPET + 2);
    }
}
