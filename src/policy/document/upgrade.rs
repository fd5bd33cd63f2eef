//! What a route's clients may switch to, as written.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use crate::policy::decode::{Decode, Leaf, Located, OneOrMany, Unreadable};
use crate::policy::diagnostic::Report;
use crate::policy::yaml::{Node, Scalar, ScalarKind, Value};
use crate::upgrade::Protocol;

/// Protocols, or the word that there are none.
#[derive(Debug, Clone)]
pub(crate) struct Upgrades(pub Vec<Located<Protocol>>);

impl Decode for Upgrades {
    fn decode(node: &Node, report: &mut Report) -> Option<Self> {
        match &node.value {
            Value::Scalar(scalar) if scalar.text == "none" => Some(Self(Vec::new())),
            _ => OneOrMany::decode(node, report).map(|protocols| Self(protocols.0)),
        }
    }
}

impl JsonSchema for Upgrades {
    fn schema_name() -> Cow<'static, str> {
        "Upgrades".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        generator.subschema_for::<OneOrMany<Located<Protocol>>>()
    }
}

impl Leaf for Protocol {
    const EXPECTED: &'static str = "`none`, or a protocol such as `websocket`";

    fn read(scalar: &Scalar) -> Result<Self, Unreadable> {
        match scalar.kind {
            ScalarKind::Text | ScalarKind::Interpolated => Ok(scalar.text.parse()?),
            _ => Err(Unreadable::Kind),
        }
    }

    fn schema() -> Schema {
        json_schema!({ "type": "string" })
    }
}
