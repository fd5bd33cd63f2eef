//! Parts of a policy that are passed on as JSON: a plugin's configuration, a parameter's default.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::decode::Decode;
use super::diagnostic::Report;
use super::source::Place;
use super::yaml::{Node, Scalar, ScalarKind, Value};

/// Anything, as JSON.
#[derive(Debug, Clone)]
pub(crate) struct Json {
    /// The value.
    pub value: serde_json::Value,
    /// Where it is written.
    pub place: Place,
}

impl Decode for Json {
    fn decode(node: &Node, _: &mut Report) -> Option<Self> {
        to_json(node).map(|value| Self { value, place: node.place })
    }
}

fn to_json(node: &Node) -> Option<serde_json::Value> {
    Some(match &node.value {
        Value::Null => serde_json::Value::Null,
        Value::Scalar(scalar) => scalar_to_json(scalar),
        Value::List(items) => serde_json::Value::Array(items.iter().map(to_json).collect::<Option<_>>()?),
        Value::Map(entries) => serde_json::Value::Object(
            entries
                .iter()
                .map(|(key, value)| Some((key.text.clone(), to_json(value)?)))
                .collect::<Option<_>>()?,
        ),
        Value::Broken => return None,
    })
}

/// What the environment gave stays text, whatever it looks like: a key `0012` is not twelve.
fn scalar_to_json(scalar: &Scalar) -> serde_json::Value {
    match scalar.kind {
        ScalarKind::Bool => (scalar.text == "true").into(),
        ScalarKind::Number => {
            let digits = scalar.text.replace('_', "");
            let digits = digits.strip_prefix('+').unwrap_or(&digits);
            let whole = match digits.split_at_checked(2) {
                Some(("0x", rest)) => i64::from_str_radix(rest, 16).ok(),
                Some(("0o", rest)) => i64::from_str_radix(rest, 8).ok(),
                Some(("0b", rest)) => i64::from_str_radix(rest, 2).ok(),
                _ => digits.parse().ok(),
            };
            whole
                .map(serde_json::Value::from)
                .or_else(|| digits.parse::<u64>().ok().map(serde_json::Value::from))
                .or_else(|| digits.parse::<f64>().ok().map(serde_json::Value::from))
                .unwrap_or_else(|| scalar.text.clone().into())
        }
        ScalarKind::Text | ScalarKind::Interpolated => scalar.text.clone().into(),
    }
}

impl JsonSchema for Json {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Json".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!(true)
    }
}
