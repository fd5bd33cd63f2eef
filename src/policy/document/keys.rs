//! What tokens and keys of clients are checked against, as written.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::route::union_schema;
use crate::policy::attached::FileName;
use crate::policy::decode::{Decode, Located, NonEmpty, OneOrMany, Required, record};
use crate::policy::diagnostic::Report;
use crate::policy::leaf::{DurationOrZero, Instant, KeySetPlace, Sha256, SharedKey};
use crate::policy::yaml::{Node, Value};
use crate::tenant::TenantId;

/// Keys under one name: of those who issue tokens, or a table of API keys.
#[derive(Debug, Clone)]
pub(crate) enum Keys {
    /// Whoever issues the tokens, one or several.
    Issuers(Vec<Issuer>),
    /// A table.
    Table(KeyTable),
}

impl Keys {
    /// The files that its issuers name.
    pub(crate) fn files(&self) -> impl Iterator<Item = FileName<'_>> {
        let issuers = match self {
            Self::Issuers(issuers) => issuers.as_slice(),
            Self::Table(_) => &[],
        };
        issuers
            .iter()
            .flat_map(|issuer| [issuer.key_set_file(), issuer.ca.as_ref().map(FileName::from)])
            .flatten()
    }
}

impl Issuer {
    /// The file with its key set, where it is no URL.
    pub(crate) fn key_set_file(&self) -> Option<FileName<'_>> {
        let set = self.jwks.as_ref()?;
        match &set.value {
            KeySetPlace::File(path) => Some(FileName { place: set.place, path, shown: set.shown() }),
            KeySetPlace::Url(_) => None,
        }
    }
}

record! {
    /// Several issuers: a token's `iss` says which of them it is by.
    Issuers is "`keys`";
    /// The issuers, each with its own `issuer`.
    issuers: Required<NonEmpty<Issuer>>,
}

record! {
    /// Who issues tokens (JWT), and what the tokens must say.
    Issuer is "`keys`";
    /// Its public keys as a JWK set: an `https:` URL, or a file beside this one.
    jwks: Option<Located<KeySetPlace>>,
    /// In place of `jwks`, a secret of at least 32 bytes, shared with the issuer: for HS256 and its kin.
    secret: Option<Located<SharedKey>>,
    /// Certificates (PEM) that the URL's server is checked against, in place of the machine's own list.
    ca: Option<Located<String>>,
    /// What a token's `iss` must be. Default: anything, which only one issuer may have.
    issuer: Option<Located<String>>,
    /// What a token's `aud` must be: one of these. Default: anything.
    audience: Option<OneOrMany<Located<String>>>,
    /// Algorithms that a token may be signed with. Default: all that use a public key; HS256 with a `secret`.
    algorithms: Option<NonEmpty<Located<jsonwebtoken::Algorithm>>>,
    /// How far the issuer's clock may be off ours. Default 30s.
    leeway: Option<Located<DurationOrZero>>,
    /// How often a URL is fetched; sooner where its `Cache-Control` says so. Default 10m.
    refresh: Option<Located<std::time::Duration>>,
    /// How long keys are used while a URL cannot be fetched. Default 24h.
    stale_if_error: Option<Located<DurationOrZero>>,
}

record! {
    /// A table of keys, each by its SHA-256: exactly one of its keys.
    KeyTable is "`keys`";
    /// The entries.
    list: Option<Vec<KeyEntry>>,
    /// A YAML file with the list of entries.
    file: Option<Located<String>>,
}

record! {
    /// One API key, or one certificate by its fingerprint.
    KeyEntry is "a key";
    /// The SHA-256 of the key's text, or of the certificate (DER), in hexadecimal digits.
    sha256: Required<Located<Sha256>>,
    /// The tenant that it stands for.
    tenant: Required<Located<TenantId>>,
    /// When it ends: `2027-01-01T00:00:00Z`. Default: never.
    expires: Option<Located<Instant>>,
}

impl Decode for Keys {
    fn decode(node: &Node, report: &mut Report) -> Option<Self> {
        let has = |name: &str| match &node.value {
            Value::Map(entries) => entries.iter().any(|(key, _)| key.text == name),
            _ => false,
        };
        if matches!(node.value, Value::List(_)) {
            let list = Some(Vec::decode(node, report)?);
            return Some(Self::Table(KeyTable { list, file: None, place: node.place, sound: true }));
        }
        if has("list") || has("file") {
            return KeyTable::decode(node, report).map(Self::Table);
        }
        if has("issuers") {
            return Issuers::decode(node, report)?.issuers.0.map(|many| Self::Issuers(many.0));
        }
        Issuer::decode(node, report).map(|one| Self::Issuers(vec![one]))
    }
}

union_schema! {
    Keys: |generator| json_schema!({
        "anyOf": [
            generator.subschema_for::<Issuer>(),
            generator.subschema_for::<Issuers>(),
            generator.subschema_for::<KeyTable>(),
            { "type": "array", "items": generator.subschema_for::<KeyEntry>() }
        ]
    });
}
