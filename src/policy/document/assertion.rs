//! What is asserted to backends, as written.

use std::borrow::Cow;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::route::union_schema;
use crate::policy::AssertionBinding;
use crate::policy::attached::FileName;
use crate::policy::decode::{Decode, Located, Required, record};
use crate::policy::diagnostic::Report;
use crate::policy::leaf::SharedKey;
use crate::policy::yaml::{Node, Value};

record! {
    /// A signed statement of whose request it is, sent as `X-Tenant-Assertion`.
    Assertion is "`assertion`";
    /// Who is to believe it (`aud`).
    audience: Required<Located<String>>,
    /// Who says so (`iss`). Default `innkeeper`.
    issuer: Option<Located<String>>,
    /// How long it is valid. Default 60s.
    lifetime: Option<Located<Duration>>,
    /// What it is for: this `request` (default), or any of the `tenant`, which is signed less often.
    bind: Option<Located<AssertionBinding>>,
}

record! {
    /// A file with a private key.
    AssertionKeyFile is "`assertion_key`";
    /// The file: Ed25519 in PKCS#8 PEM.
    file: Required<Located<String>>,
}

/// A private key, as a text from the environment or in a file.
#[derive(Debug, Clone)]
pub(crate) enum AssertionKey {
    /// The key itself.
    Text(Located<SharedKey>),
    /// Where it is.
    File(Located<String>),
}

impl AssertionKey {
    /// The file that it names, if it does.
    pub(crate) fn file(&self) -> Option<FileName<'_>> {
        match self {
            Self::Text(_) => None,
            Self::File(file) => Some(file.into()),
        }
    }
}

impl Decode for AssertionKey {
    fn decode(node: &Node, report: &mut Report) -> Option<Self> {
        if matches!(node.value, Value::Map(_)) {
            return AssertionKeyFile::decode(node, report)?.file.0.map(Self::File);
        }
        Located::decode(node, report).map(Self::Text)
    }
}

union_schema! {
    AssertionKey: |generator| json_schema!({
        "anyOf": [{ "type": "string" }, generator.subschema_for::<AssertionKeyFile>()]
    });
}
