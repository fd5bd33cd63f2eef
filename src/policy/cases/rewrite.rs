//! Other expectations in a file of cases; all else in it stays as it was written, comments too.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use super::write::flow;
use super::{Case, CaseAnswer, Cases, document};
use crate::policy::decode::Decode as _;
use crate::policy::diagnostic::Report;
use crate::policy::source::{Place, Sources};
use crate::policy::yaml;

/// The expectation of this case was not rewritten.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the expectation of `{0}` cannot be replaced alone, because of an anchor or an alias: write it out, or change \
     it by hand"
)]
pub struct NotRewritten(pub String);

impl Cases {
    /// `text`, which these cases were read from, with other expectations for the cases that `expected`
    /// names. A comment between or behind the lines of an expectation that is replaced is lost, nothing else.
    ///
    /// # Errors
    /// The case whose expectation cannot be replaced without changing more than that.
    pub fn rewrite(&self, text: &str, expected: &BTreeMap<&str, CaseAnswer>) -> Result<String, NotRewritten> {
        let mut rewritten = text.to_owned();
        // From the last on: what stands before an edit keeps its place.
        for (case, place) in expectations(text).into_iter().rev() {
            let Some(answer) = expected.get(case.as_str()) else { continue };
            let written = Written::at(place, text).ok_or(NotRewritten(case))?;
            rewritten.replace_range(written.range.clone(), &written.instead(answer, text));
        }
        match self.first_that_differs(&rewritten, expected) {
            Some(case) => Err(NotRewritten(case.to_owned())),
            None => Ok(rewritten),
        }
    }

    /// Reads what was written. YAML can be written in more ways than are looked for here, and no case may have
    /// become another one.
    fn first_that_differs<'a>(
        &'a self,
        text: &str,
        expected: &BTreeMap<&'a str, CaseAnswer>,
    ) -> Option<&'a str> {
        // It cannot be read any more where something refers to what is gone.
        let Ok(read) = Self::read(Path::new(""), text) else { return expected.keys().next().copied() };
        let differs = |(index, before): (usize, &Case)| {
            let Some(after) = read.cases.get(index) else { return true };
            let wanted = expected.get(before.name.as_str()).unwrap_or(&before.expected);
            (&before.name, &before.request, &before.directory)
                != (&after.name, &after.request, &after.directory)
                || !wanted.differences(&after.expected).is_empty()
                || !after.expected.differences(wanted).is_empty()
        };
        let cases = self.cases.iter().enumerate();
        cases.filter(|(index, case)| differs((*index, case))).map(|(_, case)| case.name.as_str()).next()
    }
}

/// Where the key `expect` of each case stands, in the order of the file.
fn expectations(text: &str) -> Vec<(String, Place)> {
    let (mut report, mut sources) = (Report::default(), Sources::default());
    let file = sources.add(Path::new(""), text.into());
    let document =
        yaml::parse(text, file, &mut report).and_then(|node| document::Cases::decode(&node, &mut report));
    let cases = document.as_ref().and_then(|document| document.cases.get());
    let place = |case: &document::Case| Some((case.name.get()?.value.clone(), case.expect.get()?.place));
    cases.into_iter().flat_map(|cases| &cases.0).filter_map(place).collect()
}

/// An expectation in the text.
struct Written {
    range: Range<usize>,
    layout: Layout,
}

enum Layout {
    /// `{ tenant: acme }`.
    Flow,
    /// A line for each key, so far in.
    Block(usize),
}

impl Written {
    /// The value of the key at `place`; `None` where it is not written out there.
    fn at(place: Place, text: &str) -> Option<Self> {
        let line_start = match (place.line as usize).checked_sub(2) {
            None => 0,
            Some(breaks) => text.match_indices('\n').nth(breaks)?.0 + 1,
        };
        let indent = (place.column as usize).checked_sub(1)?;
        let key = text[line_start..].char_indices().nth(indent)?.0 + line_start;
        let bare = ["expect", "\"expect\"", "'expect'"].iter().find_map(|key_text| {
            text[key..].strip_prefix(key_text)?.trim_start_matches(' ').strip_prefix(':')
        })?;
        let colon = text.len() - bare.len();
        let start = skip_blanks(text, colon);
        let column = start - text[..start].rfind('\n').map_or(0, |line_break| line_break + 1);
        let on_next_lines = text[colon..start].contains('\n') && column > indent;
        match text[start..].chars().next()? {
            '{' => Some(Self { range: start..flow_end(text, start)?, layout: Layout::Flow }),
            '*' | '&' | '!' => None,
            _ if on_next_lines => {
                Some(Self { range: start..block_end(text, start, indent), layout: Layout::Block(column) })
            }
            _ => None,
        }
    }

    fn instead(&self, answer: &CaseAnswer, text: &str) -> String {
        let Layout::Block(indent) = self.layout else { return flow(&answer.to_json()) };
        let before = text[..self.range.start].trim_end_matches(' ');
        let line_break = if before.ends_with("\r\n") { "\r\n" } else { "\n" };
        let lines = answer.to_json();
        let lines = lines.as_object().into_iter().flatten();
        let lines = lines.map(|(key, value)| format!("{key}: {}", flow(value)));
        lines.collect::<Vec<_>>().join(&format!("{line_break}{:indent$}", ""))
    }
}

/// Where something stands that is no blank and no comment.
fn skip_blanks(text: &str, from: usize) -> usize {
    let mut rest = &text[from..];
    loop {
        rest = rest.trim_start();
        match rest.strip_prefix('#') {
            Some(comment) => rest = comment.find('\n').map_or("", |end| &comment[end..]),
            None => return text.len() - rest.len(),
        }
    }
}

/// Past the brace that closes the one at `start`.
fn flow_end(text: &str, start: usize) -> Option<usize> {
    let mut depth = 0_usize;
    let mut last = ':';
    let mut characters = text[start..].char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '{' | '[' => depth += 1,
            '}' | ']' => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(start + at + 1);
                }
            }
            // Within a plain text, as in `it's`, a quotation mark is a character like others.
            '"' if "{[,:".contains(last) => {
                while let Some((_, character)) = characters.next().filter(|(_, character)| *character != '"')
                {
                    if character == '\\' {
                        characters.next();
                    }
                }
            }
            '\'' if "{[,:'".contains(last) => {
                characters.find(|(_, character)| *character == '\'');
            }
            '#' if text[..start + at].ends_with(char::is_whitespace) => {
                characters.find(|(_, character)| *character == '\n');
                continue;
            }
            _ => {}
        }
        if !character.is_whitespace() {
            last = character;
        }
    }
    None
}

/// The end of the last line that belongs to the block at `start`, which is further in than its key.
fn block_end(text: &str, start: usize, indent: usize) -> usize {
    let (mut end, mut line_start) = (start, start);
    for line in text[start..].split_inclusive('\n') {
        let content = line.trim();
        let further_in = line_start == start || line.len() - line.trim_start_matches(' ').len() > indent;
        if !content.is_empty() && !content.starts_with('#') {
            if !further_in {
                break;
            }
            end = line_start + line.trim_end().len();
        }
        line_start += line.len();
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(text: &str, expected: &[(&'static str, &str)]) -> Result<String, NotRewritten> {
        let cases =
            Cases::read(Path::new("cases.yaml"), text).unwrap_or_else(|error| panic!("{text}\n{error}"));
        let answer = |tenant: &str| match tenant {
            "next" => CaseAnswer::Next,
            "deny" => CaseAnswer::Deny {
                status: http::StatusCode::GONE,
                code: Some("gone".into()),
                message: Some("}, \"no\": 'x".into()),
            },
            tenant => CaseAnswer::Place(tenant.parse::<crate::tenant::TenantId>().unwrap().into()),
        };
        let expected = expected.iter().map(|(case, tenant)| (*case, answer(tenant)));
        cases.rewrite(text, &expected.collect())
    }

    #[test]
    fn only_the_expectation_changes() {
        let text = "\
# Kept.
cases:
  - name: a   # kept
    expect: { tenant: acme, reason: \"a } b\", # lost
      headers: { x: 'it''s }', y: it's, z: [ a, b ] } }  # kept
    request: { path: /a }
  - { name: b, expect: {next: true}, request: { path: '/b' } } # kept
  - expect :
      # kept

      deny:
        # lost
        status: 403   # lost
        message: a }

    # kept
    name: c
  - name: d
    \"expect\": # kept
      { tenant: acme
      }
";
        let wanted = "\
# Kept.
cases:
  - name: a   # kept
    expect: { next: true }  # kept
    request: { path: /a }
  - { name: b, expect: { tenant: globex }, request: { path: '/b' } } # kept
  - expect :
      # kept

      deny: { status: 410, code: gone, message: \"}, \\\"no\\\": 'x\" }

    # kept
    name: c
  - name: d
    \"expect\": # kept
      { tenant: initech }
";
        let expected = [("a", "next"), ("b", "globex"), ("c", "deny"), ("d", "initech")];
        assert_eq!(rewritten(text, &expected).unwrap(), wanted);
        assert_eq!(rewritten(text, &[]).unwrap(), text);
        let in_windows = |text: &str| text.replace('\n', "\r\n");
        assert_eq!(rewritten(&in_windows(text), &expected).unwrap(), in_windows(wanted));
    }

    #[test]
    fn a_block_stays_a_block() {
        let text = "cases:\n- name: a\n  expect:\n    tenant: acme\n- {name: b, expect: {next: true}}";
        let wanted = text.replace("tenant: acme", "next: true");
        assert_eq!(rewritten(text, &[("a", "next")]).unwrap(), wanted);
    }

    #[test]
    fn what_cases_share_is_not_changed_for_one_of_them() {
        for text in [
            "cases: [ { name: a, expect: &same { next: true } }, { name: b, expect: *same } ]",
            "cases: [ { name: a, expect: { tenant: &same acme } }, { name: b, expect: { tenant: *same } } ]",
            "cases:\n  - name: a\n    expect: &same\n      next: true\n  - { name: b, expect: *same }",
        ] {
            assert_eq!(rewritten(text, &[("a", "globex")]), Err(NotRewritten("a".into())), "{text}");
        }
        let alias = "cases: [ { name: a, expect: &same { next: true } }, { name: b, expect: *same } ]";
        assert_eq!(rewritten(alias, &[("b", "globex")]), Err(NotRewritten("b".into())));
    }
}
