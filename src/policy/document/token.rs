//! Where a request's token or key is, as written.

use std::borrow::Cow;

use http::HeaderName;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::route::union_schema;
use crate::policy::decode::{Decode, Located, OneOrMany, Required, record};
use crate::policy::diagnostic::Report;
use crate::policy::yaml::{Node, Value};

record! {
    /// A claim of a verified token (JWT).
    JwtClaim is "`jwt`";
    /// The claim: its name, or a path of names for one inside of others.
    claim: Required<OneOrMany<Located<String>>>,
    /// The name of the issuers' keys, under `keys:`.
    keys: Required<Located<String>>,
    /// The header with the token. Default: `Authorization`, after `Bearer`.
    header: Option<Located<HeaderName>>,
    /// In place of a header, the cookie with the token.
    cookie: Option<Located<String>>,
}

record! {
    /// A key that stands for its tenant.
    ApiKey is "`api_key`";
    /// The header with the key. Default `X-Api-Key`.
    header: Option<Located<HeaderName>>,
    /// The name of the table of keys, under `keys:`.
    keys: Required<Located<String>>,
}

record! {
    /// A token that every request must bring.
    TokenSource is "`verify`";
    /// The name of the issuers' keys, under `keys:`.
    keys: Required<Located<String>>,
    /// The header with the token. Default: `Authorization`, after `Bearer`.
    header: Option<Located<HeaderName>>,
    /// In place of a header, the cookie with the token.
    cookie: Option<Located<String>>,
}

/// A token that every request of a route must bring.
#[derive(Debug, Clone)]
pub(crate) struct Verify(pub TokenSource);

impl Decode for Verify {
    fn decode(node: &Node, report: &mut Report) -> Option<Self> {
        if matches!(node.value, Value::Map(_)) {
            return TokenSource::decode(node, report).map(Self);
        }
        let keys = Required(Some(Located::decode(node, report)?));
        Some(Self(TokenSource { keys, header: None, cookie: None, place: node.place, sound: true }))
    }
}

union_schema! {
    Verify: |generator| json_schema!({
        "anyOf": [{ "type": "string" }, generator.subschema_for::<TokenSource>()]
    });
}
