//! YAML text into a tree in which every key and value knows where it is written.

use std::fmt;
use std::sync::Arc;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_yaml::{DuplicateKeyPolicy, Location, NonFiniteFloatPolicy, Options, Spanned};

use super::diagnostic::Report;
use super::source::Place;

/// Longest policy file, in bytes. Ten thousand tenants written out take about one megabyte.
const MAX_FILE_BYTES: usize = 8 << 20;
/// Deepest nesting. A policy needs eight levels; a plugin's configuration may want some more.
const MAX_DEPTH: usize = 48;
/// Most scalars, lists and maps in one file: enough for twenty thousand tenants with every key.
const MAX_NODES: usize = 300_000;
/// Most events that aliases may repeat: what stops "a billion laughs".
const MAX_REPLAYED: usize = 100_000;

/// A value and where it is written.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    /// What it is.
    pub value: Value,
    /// Where it is written.
    pub place: Place,
}

/// What stands at a node.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    /// Nothing: an empty value, `~` or `null`.
    Null,
    /// A single value.
    Scalar(Scalar),
    /// `[a, b]`.
    List(Vec<Node>),
    /// `{a: b}`, each key once.
    Map(Vec<(Key, Node)>),
    /// Something that was reported already, and that nobody should stumble over again.
    Broken,
}

/// A key of a map.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    /// Its text.
    pub text: String,
    /// Where it is written.
    pub place: Place,
}

/// A single value.
#[derive(Clone)]
pub(crate) struct Scalar {
    /// Its text: for numbers and booleans the spelling in the source.
    pub text: String,
    /// How YAML reads it.
    pub kind: ScalarKind,
    /// The text with its `${NAME}` where a variable of the environment went into `text`: the only
    /// form that a message may show.
    pub written: Option<Arc<str>>,
}

/// How YAML reads a scalar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ScalarKind {
    /// Text.
    Text,
    /// A number.
    Number,
    /// `true` or `false`.
    Bool,
    /// Text in which variables were replaced: whatever it looks like.
    Interpolated,
}

impl Scalar {
    /// The text as a message may show it.
    pub(crate) fn shown(&self) -> &str {
        self.written.as_deref().unwrap_or(&self.text)
    }
}

impl fmt::Debug for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.shown(), f)
    }
}

/// Reads `text`, the content of file number `file`. Syntax errors go to `report`; a map's repeated
/// key is reported and its first value kept.
pub(crate) fn parse(text: &str, file: u32, report: &mut Report) -> Option<Node> {
    if text.len() > MAX_FILE_BYTES {
        let place = Place::start_of(file);
        report
            .error(
                place,
                format!("the file is {} bytes long, more than the {MAX_FILE_BYTES} allowed", text.len()),
            )
            .help("keep many tenants in a table (`tenants: {table: …}`)");
        return None;
    }
    match serde_yaml::from_str_with_options::<Spanned<Raw>>(text, options()) {
        Ok(raw) => Some(Placer { text, file, report }.place(raw)),
        Err(error) => {
            report_syntax_error(&error, text, file, report);
            None
        }
    }
}

fn options() -> Options {
    serde_yaml::options! {
        budget: serde_yaml::budget! {
            max_depth: MAX_DEPTH,
            flow_nesting_limit: MAX_DEPTH,
            max_nodes: MAX_NODES,
            max_events: 2 * MAX_NODES,
            max_documents: 1,
        },
        alias_limits: serde_yaml::alias_limits! { max_total_replayed_events: MAX_REPLAYED },
        // Repeated keys are passed on, so that all of them are reported and not the first alone.
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        strict_booleans: true,
        non_finite_float_policy: NonFiniteFloatPolicy::AsString,
        reject_unsupported_tags: true,
        emit_comments: false,
        with_snippet: false,
    }
}

fn report_syntax_error(error: &serde_yaml::Error, text: &str, file: u32, report: &mut Report) {
    let location = error.location();
    let place =
        location.map_or(Place::start_of(file), |location| Place { length: 1, ..place_of(location, file) });
    let mut message = error.render_with_formatter(&serde_yaml::DefaultMessageFormatter);
    // The position is shown in its own place.
    for end in [" at line ", ", line "] {
        if let Some(cut) = message.rfind(end) {
            message.truncate(cut);
        }
    }
    let finding = report.error(place, format!("not valid YAML: {}", message.trim_end_matches(':')));
    let line = text.lines().nth((place.line as usize).saturating_sub(1)).unwrap_or_default();
    if let Some(help) = syntax_help(line) {
        finding.help(help);
    }
}

/// What the usual slips look like on the line where the parser gave up.
fn syntax_help(line: &str) -> Option<&'static str> {
    if line.contains('\t') {
        return Some("indent with spaces: YAML does not allow tabs");
    }
    let braces = line.matches('{').count() + line.matches('[').count();
    if braces > 1 && (line.contains("${") || line.contains("/{") || line.contains(" {tenant}")) {
        return Some(
            "inside `{ }` and `[ ]`, put quotes around a value with braces: \"${NAME}\", \"/items/{id}\"",
        );
    }
    let starts = ["%", "@", "*", "&", "`", "{tenant}"];
    let value = line.split_once(": ").map_or(line.trim(), |(_, value)| value.trim());
    if starts.iter().any(|start| value.starts_with(start)) {
        return Some("put quotes around a value that starts with a character that YAML uses itself");
    }
    None
}

fn place_of(location: Location, file: u32) -> Place {
    let small = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    Place {
        file,
        line: small(location.line()).max(1),
        column: small(location.column()).max(1),
        length: small(location.span().len()).max(1),
    }
}

/// A tree as the deserializer hands it over.
enum Raw {
    Null,
    Text(String),
    Number(String),
    Bool,
    List(Vec<Spanned<Raw>>),
    Map(Vec<(Spanned<String>, Spanned<Raw>)>),
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_none<E: de::Error>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<Raw, E> {
        Ok(Raw::Bool)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Raw, E> {
        Ok(Raw::Number(number.to_string()))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Raw, E> {
        Ok(Raw::Number(number.to_string()))
    }

    fn visit_i128<E: de::Error>(self, number: i128) -> Result<Raw, E> {
        Ok(Raw::Number(number.to_string()))
    }

    fn visit_u128<E: de::Error>(self, number: u128) -> Result<Raw, E> {
        Ok(Raw::Number(number.to_string()))
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Raw, E> {
        Ok(Raw::Number(number.to_string()))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Raw, E> {
        Ok(Raw::Text(text.to_owned()))
    }

    fn visit_string<E: de::Error>(self, text: String) -> Result<Raw, E> {
        Ok(Raw::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Raw, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Raw::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Raw, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(Raw::Map(map))
    }
}

/// Turns the raw tree into nodes with places.
struct Placer<'a> {
    text: &'a str,
    file: u32,
    report: &'a mut Report,
}

impl Placer<'_> {
    fn place(&mut self, raw: Spanned<Raw>) -> Node {
        // Where an alias repeats a value, the value's own place says more than the alias's.
        let place = place_of(raw.defined, self.file);
        let scalar = |text: String, kind| Value::Scalar(Scalar { text, kind, written: None });
        let value = match raw.value {
            Raw::Null => Value::Null,
            Raw::Text(text) => scalar(text, ScalarKind::Text),
            Raw::Number(number) => {
                let spelling = self.spelling(raw.defined).unwrap_or(number);
                scalar(spelling, ScalarKind::Number)
            }
            Raw::Bool => {
                let spelling = self.spelling(raw.defined).unwrap_or_default();
                scalar(spelling.to_ascii_lowercase(), ScalarKind::Bool)
            }
            Raw::List(items) => Value::List(items.into_iter().map(|item| self.place(item)).collect()),
            Raw::Map(entries) => Value::Map(self.place_entries(entries)),
        };
        Node { value, place }
    }

    fn place_entries(&mut self, entries: Vec<(Spanned<String>, Spanned<Raw>)>) -> Vec<(Key, Node)> {
        let mut first_places = std::collections::HashMap::new();
        let mut placed = Vec::with_capacity(entries.len());
        for (key, value) in entries {
            let key_place = place_of(key.defined, self.file);
            let mut node = self.place(value);
            if matches!(node.value, Value::List(_) | Value::Map(_)) {
                // What is missing in a list or map is missing under its key.
                node.place = key_place;
            }
            if let Some(first) = first_places.get(&key.value) {
                self.report
                    .error(key_place, format!("the key `{}` is given twice", key.value))
                    .also(*first, "first given here")
                    .help("remove one of them");
                continue;
            }
            first_places.insert(key.value.clone(), key_place);
            placed.push((Key { text: key.value, place: key_place }, node));
        }
        placed
    }

    /// A plain scalar's text as written: `007` and `1_000` are more than their values.
    fn spelling(&self, location: Location) -> Option<String> {
        let span = location.span();
        let start = usize::try_from(span.byte_offset()?).ok()?;
        let length = usize::try_from(span.byte_len()?).ok()?;
        self.text.get(start..start.checked_add(length)?).map(|text| text.trim().to_owned())
    }
}

/// Whether a text holds nothing but blanks and comments.
pub(crate) fn is_blank(text: &str) -> bool {
    text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'))
}
