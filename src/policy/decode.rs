//! From YAML nodes to typed documents: every mistake is reported, and what can be read is.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::diagnostic::Report;
use super::mask::without_passwords;
use super::source::Place;
use super::yaml::{Key, Node, Scalar, ScalarKind, Value};

/// Something that can be read from a node. What is wrong goes to the report.
pub(crate) trait Decode: Sized {
    /// Reads `node`; `None` where that failed and was reported.
    fn decode(node: &Node, report: &mut Report) -> Option<Self>;

    /// Stands in where a map has no such key; most types report that it is missing.
    fn absent(key: &str, owner: &Fields<'_>, report: &mut Report) -> Option<Self> {
        report.error(owner.place, format!("{} needs the key `{key}`", owner.what));
        None
    }
}

/// A type with one spelling: a number, a name, a duration.
pub(crate) trait Leaf: Sized {
    /// What it is, as in "expected …": with an article and an example.
    const EXPECTED: &'static str;
    /// Whether its text must never be shown.
    const SECRET: bool = false;

    /// Reads it.
    fn read(scalar: &Scalar) -> Result<Self, Unreadable>;

    /// Its JSON Schema.
    fn schema() -> Schema {
        json_schema!({ "type": "string" })
    }
}

/// Why a scalar is not a [`Leaf`].
pub(crate) enum Unreadable {
    /// It is of another kind altogether.
    Kind,
    /// It breaks a rule, which the text names.
    Rule(String),
    /// It resembles one of these words.
    Word(&'static [&'static str]),
}

impl<E: fmt::Display> From<E> for Unreadable {
    fn from(error: E) -> Self {
        Self::Rule(error.to_string())
    }
}

/// A value that remembers where it is written, and how it may be shown.
#[derive(Clone)]
pub(crate) struct Located<T> {
    /// The value.
    pub value: T,
    /// Where it is written.
    pub place: Place,
    shown: Arc<str>,
    from_environment: bool,
}

impl<T> Located<T> {
    /// Whether a variable of the environment went into it, so that no message may quote a part.
    pub(crate) fn is_from_environment(&self) -> bool {
        self.from_environment
    }

    /// The text as a message may show it: with `${NAME}` where the environment gave it.
    pub(crate) fn shown(&self) -> &str {
        &self.shown
    }
}

impl<T> fmt::Debug for Located<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.shown(), f)
    }
}

impl<T: Leaf> Decode for Located<T> {
    fn decode(node: &Node, report: &mut Report) -> Option<Self> {
        let Value::Scalar(scalar) = &node.value else {
            if T::SECRET {
                // Whatever it is, the secret is somewhere in it.
                report.conceal(Place { length: u32::MAX, ..node.place });
            }
            expected(T::EXPECTED, node, report);
            return None;
        };
        if T::SECRET {
            report.conceal(node.place);
        }
        let hidden = T::SECRET || scalar.written.is_some();
        let shown = if T::SECRET { "[secret]" } else { scalar.shown() };
        match T::read(scalar) {
            Ok(value) => {
                let from_environment = scalar.written.is_some();
                return Some(Self { value, place: node.place, shown: shown.into(), from_environment });
            }
            Err(Unreadable::Rule(rule)) if !hidden => {
                report.error(node.place, rule);
            }
            Err(Unreadable::Word(words)) if !hidden => {
                expected(T::EXPECTED, node, report).suggest(&scalar.text, words.iter().copied());
            }
            Err(_) if T::SECRET => {
                report.error(node.place, format!("expected {}", T::EXPECTED));
            }
            Err(_) => {
                expected(T::EXPECTED, node, report);
            }
        }
        None
    }
}

/// Reports that something else stands where `what` belongs.
pub(crate) fn expected<'r>(
    what: &str,
    node: &Node,
    report: &'r mut Report,
) -> &'r mut super::diagnostic::Finding {
    let got: Cow<'_, str> = match &node.value {
        Value::Null => "nothing".into(),
        Value::List(_) => "a list".into(),
        Value::Map(_) => "a map".into(),
        Value::Broken => return report.silent(),
        Value::Scalar(scalar) => match (&scalar.written, scalar.kind) {
            (Some(written), _) => format!("something else from `{written}`").into(),
            (None, ScalarKind::Number) => format!("the number `{}`", scalar.text).into(),
            (None, _) if scalar.text.is_empty() => "an empty text".into(),
            (None, _) => format!("`{}`", shorten(&scalar.text)).into(),
        },
    };
    report.error(node.place, format!("expected {what}, got {got}"))
}

/// A text's first line, cut to what a message can carry, with passwords masked.
pub(crate) fn shorten(text: &str) -> String {
    let text = without_passwords(text);
    let line: String = text.chars().take_while(|c| *c != '\n').take(60).collect();
    if line.len() < text.trim_end().len() { format!("{line}…") } else { line }
}

/// A key that must be there; where it is missing or broken, the rest of its map is still read.
#[derive(Debug, Clone)]
pub(crate) struct Required<T>(pub Option<T>);

impl<T> Required<T> {
    /// The value, where it could be read.
    pub(crate) fn get(&self) -> Option<&T> {
        self.0.as_ref()
    }
}

impl<T: Decode> Decode for Required<T> {
    fn decode(node: &Node, report: &mut Report) -> Option<Self> {
        Some(Self(T::decode(node, report)))
    }

    fn absent(key: &str, owner: &Fields<'_>, report: &mut Report) -> Option<Self> {
        Some(Self(T::absent(key, owner, report)))
    }
}

impl<T: Decode> Decode for Option<T> {
    fn decode(node: &Node, report: &mut Report) -> Option<Self> {
        Some(if matches!(node.value, Value::Null) { None } else { T::decode(node, report) })
    }

    fn absent(_: &str, _: &Fields<'_>, _: &mut Report) -> Option<Self> {
        Some(None)
    }
}

/// A list in which broken items are left out, after they were reported.
impl<T: Decode> Decode for Vec<T> {
    fn decode(node: &Node, report: &mut Report) -> Option<Self> {
        match &node.value {
            Value::List(items) => Some(items.iter().filter_map(|item| T::decode(item, report)).collect()),
            Value::Null => Some(Self::new()),
            _ => {
                expected("a list (`[a, b]`, or a line starting with `- ` for each)", node, report);
                None
            }
        }
    }
}

/// A list that must not be written empty.
#[derive(Debug, Clone)]
pub(crate) struct NonEmpty<T>(pub Vec<T>);

impl<T: Decode> Decode for NonEmpty<T> {
    fn decode(node: &Node, report: &mut Report) -> Option<Self> {
        match &node.value {
            Value::List(items) if items.is_empty() => {
                report.error(node.place, "this list must not be empty");
                None
            }
            Value::Null => {
                expected("a list with at least one item", node, report);
                None
            }
            _ => Vec::decode(node, report).map(Self),
        }
    }
}

/// One value, or a list of them that must not be empty.
#[derive(Debug, Clone)]
pub(crate) struct OneOrMany<T>(pub Vec<T>);

impl<T: Decode> Decode for OneOrMany<T> {
    fn decode(node: &Node, report: &mut Report) -> Option<Self> {
        match &node.value {
            Value::List(_) => NonEmpty::decode(node, report).map(|many| Self(many.0)),
            _ => T::decode(node, report).map(|one| Self(vec![one])),
        }
    }
}

/// A map from names that the policy's author chose. A name whose value is broken stays known, so
/// that whoever refers to it is not accused of a second mistake.
#[derive(Debug, Clone)]
pub(crate) struct Named<T>(pub Vec<(Key, Option<T>)>);

impl<T> Default for Named<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Decode> Decode for Named<T> {
    fn decode(node: &Node, report: &mut Report) -> Option<Self> {
        match &node.value {
            Value::Map(entries) => Some(Self(
                entries.iter().map(|(key, value)| (key.clone(), T::decode(value, report))).collect(),
            )),
            Value::Null => Some(Self::default()),
            _ => {
                expected("a map of names (`name: …`)", node, report);
                None
            }
        }
    }
}

/// A map with known keys while it is read.
pub(crate) struct Fields<'n> {
    /// What the map is, with an article.
    pub what: &'static str,
    /// Where it starts.
    pub place: Place,
    entries: &'n [(Key, Node)],
}

impl<'n> Fields<'n> {
    /// The map at `node`, held to the keys in `known`; those in `later` are understood, but not
    /// built yet.
    pub(crate) fn of(
        node: &'n Node,
        what: &'static str,
        known: &[&str],
        later: &[&str],
        report: &mut Report,
    ) -> Option<Self> {
        let Value::Map(entries) = &node.value else {
            if !matches!(node.value, Value::Broken) {
                expected(&format!("{what} (a map with `{}`)", known.join("`, `")), node, report);
            }
            return None;
        };
        for (key, _) in entries {
            if later.contains(&key.text.as_str()) {
                report
                    .error(key.place, format!("`{}` in {what} is not built yet", key.text))
                    .help("remove it; the changelog will say when it can be used");
            } else if !known.contains(&key.text.as_str()) {
                report
                    .error(key.place, format!("unknown key `{}` in {what}", key.text))
                    .suggest(&key.text, known.iter().copied());
            }
        }
        Some(Self { what, place: node.place, entries })
    }

    /// Reads the value of one key.
    pub(crate) fn read<T: Decode>(&self, key: &str, report: &mut Report) -> Option<T> {
        match self.entries.iter().find(|(known, _)| known.text == key) {
            Some((_, node)) => T::decode(node, report),
            None => T::absent(key, self, report),
        }
    }
}

macro_rules! delegate_schema {
    ($($name:ident<T: $bound:ident> => $inner:expr;)*) => {$(
        impl<T: $bound> JsonSchema for $name<T> {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(generator: &mut SchemaGenerator) -> Schema {
                let schema: fn(&mut SchemaGenerator) -> Schema = $inner;
                schema(generator)
            }
        }
    )*};
}
delegate_schema! {
    Located<T: Leaf> => |_| T::schema();
    Required<T: JsonSchema> => |generator| generator.subschema_for::<T>();
    OneOrMany<T: JsonSchema> => |generator| {
        let one = generator.subschema_for::<T>();
        json_schema!({ "anyOf": [one.clone(), { "type": "array", "items": one, "minItems": 1 }] })
    };
    NonEmpty<T: JsonSchema> => |generator| {
        let one = generator.subschema_for::<T>();
        json_schema!({ "type": "array", "items": one, "minItems": 1 })
    };
    Named<T: JsonSchema> => |generator| {
        let value = generator.subschema_for::<T>();
        json_schema!({ "type": "object", "additionalProperties": value })
    };
}

/// A field's name as a key: `match` for `r#match`.
pub(crate) const fn key(field: &'static str) -> &'static str {
    match field.as_bytes() {
        [b'r', b'#', ..] => field.split_at(2).1,
        _ => field,
    }
}

/// Declares a map with known keys once, for all three: the struct, its decoder and its JSON
/// Schema. They cannot drift apart.
macro_rules! record {
    (
        $(#[$meta:meta])*
        $name:ident is $what:literal $(, later [$($later:literal),*])?;
        $( $(#[$field_meta:meta])* $field:ident: $kind:ty, )*
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, schemars::JsonSchema)]
        #[schemars(deny_unknown_fields)]
        pub(crate) struct $name {
            $( $(#[$field_meta])* pub $field: $kind, )*
            /// Where it is written.
            #[schemars(skip)]
            #[allow(dead_code)]
            pub place: $crate::policy::source::Place,
            /// Whether nothing in it was reported while it was read.
            #[schemars(skip)]
            #[allow(dead_code)]
            pub sound: bool,
        }

        impl $name {
            /// Every key that it may have.
            pub(crate) const KNOWN: &[&str] = &[$($crate::policy::decode::key(stringify!($field))),*];
            const LATER: &[&str] = &[$($($later),*)?];
        }

        impl $crate::policy::decode::Decode for $name {
            fn decode(
                node: &$crate::policy::yaml::Node,
                report: &mut $crate::policy::diagnostic::Report,
            ) -> Option<Self> {
                let before = report.count();
                let fields = $crate::policy::decode::Fields::of(node, $what, Self::KNOWN, Self::LATER, report)?;
                // Each field is read before any is missed, so that all mistakes are reported.
                $( let $field = fields.read($crate::policy::decode::key(stringify!($field)), report); )*
                Some(Self { $( $field: $field?, )* place: fields.place, sound: report.count() == before })
            }
        }
    };
}
pub(crate) use record;
