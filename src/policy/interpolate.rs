//! `${NAME}` and `${NAME:-default}` in values, replaced after YAML was read, so that a variable's
//! content can never become structure.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::diagnostic::Report;
use super::source::{Place, Sources};
use super::yaml::{Node, Scalar, ScalarKind, Value};

/// Replaces variables and remembers which were asked for.
pub(crate) struct Interpolator<'a> {
    /// Looks a variable up.
    pub variable: &'a dyn Fn(&str) -> Option<String>,
    /// Every variable asked for and what it was: a change of one is a change of the policy.
    pub asked: BTreeMap<String, Option<String>>,
}

/// A piece of a text.
#[derive(Debug, PartialEq)]
enum Piece<'t> {
    Literal(&'t str),
    Variable { name: &'t str, default: Option<&'t str> },
}

impl Interpolator<'_> {
    /// Replaces variables in every value below `node`; keys are left as they are.
    pub(crate) fn replace(&mut self, node: &mut Node, sources: &Sources, report: &mut Report) {
        match &mut node.value {
            Value::Null | Value::Broken => {}
            Value::List(items) => items.iter_mut().for_each(|item| self.replace(item, sources, report)),
            Value::Map(entries) => {
                entries.iter_mut().for_each(|(_, value)| self.replace(value, sources, report));
            }
            Value::Scalar(scalar) if !scalar.text.contains("${") => {}
            Value::Scalar(scalar) => match self.expand(scalar, node.place, sources, report) {
                Some(expanded) => *scalar = expanded,
                None => node.value = Value::Broken,
            },
        }
    }

    fn expand(
        &mut self,
        scalar: &Scalar,
        place: Place,
        sources: &Sources,
        report: &mut Report,
    ) -> Option<Scalar> {
        let pieces = match split(&scalar.text) {
            Ok(pieces) => pieces,
            Err(mistake) => {
                report.error(place, mistake).help("write `$${` where `${` itself is meant");
                return None;
            }
        };
        let mut text = String::new();
        let mut from_environment = false;
        let mut kind = scalar.kind;
        let mut complete = true;
        for piece in pieces {
            let (name, default) = match piece {
                Piece::Literal(literal) => {
                    text.push_str(literal);
                    continue;
                }
                Piece::Variable { name, default } => (name, default),
            };
            kind = ScalarKind::Interpolated;
            let value = self.look_up(name);
            // As in a shell, `:-` also replaces an empty value.
            let usable = value.filter(|value| default.is_none() || !value.is_empty());
            match (usable, default) {
                (Some(value), _) => {
                    from_environment = true;
                    text.push_str(&value);
                }
                (None, Some(default)) => text.push_str(default),
                (None, None) => {
                    complete = false;
                    report
                        .error(
                            narrow(place, name, sources),
                            format!("the environment variable `{name}` is not set"),
                        )
                        .help(format!("set it, or give a default: `${{{name}:-default}}`"));
                }
            }
        }
        complete.then(|| Scalar {
            text,
            kind,
            written: from_environment.then(|| scalar.text.as_str().into()),
        })
    }

    fn look_up(&mut self, name: &str) -> Option<String> {
        let look_up = self.variable;
        self.asked.entry(name.to_owned()).or_insert_with(|| look_up(name)).clone()
    }
}

/// The place of `${name` inside a value, where it stands on the value's first line.
fn narrow(place: Place, name: &str, sources: &Sources) -> Place {
    let Some(line) = sources.line(place) else { return place };
    let skipped = place.column as usize - 1;
    let rest: String = line.chars().skip(skipped).collect();
    let mut start = format!("${{{name}");
    let Some(found) = rest.find(&start) else { return place };
    let (before, after) = rest.split_at(found);
    let length = after.find('}').map_or(start.len(), |end| end + 1);
    let _ = write!(start, "}}");
    Place {
        column: u32::try_from(skipped + before.chars().count() + 1).unwrap_or(place.column),
        length: u32::try_from(after[..length].chars().count()).unwrap_or(place.length),
        ..place
    }
}

/// Cuts a text into literals and variables.
fn split(text: &str) -> Result<Vec<Piece<'_>>, String> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        if rest[..start].ends_with('$') {
            // `$${` is an escaped `${`.
            pieces.push(Piece::Literal(&rest[..start]));
            pieces.push(Piece::Literal("{"));
            rest = &rest[start + 2..];
            continue;
        }
        pieces.push(Piece::Literal(&rest[..start]));
        let inner = &rest[start + 2..];
        let end = inner.find('}').ok_or("`${` is not closed by `}`")?;
        let (name, default) = match inner[..end].split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (&inner[..end], None),
        };
        if default.is_some_and(|default| default.contains("${")) {
            return Err("a default in `${NAME:-default}` must not contain another `${`".into());
        }
        let starts_well = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        if !starts_well || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            return Err(format!(
                "a variable's name is letters, digits and `_`, as in `${{NAME}}` or `${{NAME:-default}}`, got `{name}`"
            ));
        }
        pieces.push(Piece::Variable { name, default });
        rest = &inner[end + 1..];
    }
    pieces.push(Piece::Literal(rest));
    Ok(pieces)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expand(text: &str) -> Option<Scalar> {
        let variable = |name: &str| (name == "HOST").then(|| "db: {x}".to_owned());
        let mut interpolator = Interpolator { variable: &variable, asked: BTreeMap::new() };
        let scalar = Scalar { text: text.into(), kind: ScalarKind::Text, written: None };
        let mut sources = Sources::default();
        sources.add("policy.yaml".as_ref(), text.into());
        let place = Place { file: 0, line: 1, column: 1, length: 1 };
        interpolator.expand(&scalar, place, &sources, &mut Report::default())
    }

    #[test]
    fn a_value_stays_a_value_whatever_it_contains() {
        let scalar = expand("a ${HOST} b").unwrap();
        assert_eq!(scalar.text, "a db: {x} b");
        assert_eq!(scalar.shown(), "a ${HOST} b");
        assert_eq!(format!("{scalar:?}"), "\"a ${HOST} b\"");
    }

    #[test]
    fn defaults_and_escapes() {
        assert_eq!(expand("${PORT:-8080}").unwrap().text, "8080");
        assert_eq!(expand("${URL:-a://b:c}").unwrap().text, "a://b:c");
        assert_eq!(expand("$${HOST} $$1 $1").unwrap().text, "${HOST} $$1 $1");
        assert_eq!(expand("${EMPTY:-}").unwrap().text, "");
    }

    #[test]
    fn mistakes_are_found() {
        for text in ["${NONE}", "${", "${}", "${A B}", "${1A}", "${A:-${B}}"] {
            assert!(expand(text).is_none(), "{text}");
        }
    }
}
