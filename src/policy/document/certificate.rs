//! How a client certificate names a tenant, as written.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::route::union_schema;
use crate::policy::CertificateName;
use crate::policy::decode::{Decode, Located, record};
use crate::policy::diagnostic::Report;
use crate::policy::yaml::{Node, Value};

record! {
    /// What of a verified client certificate names the tenant: exactly one of its keys.
    CertificateSettings is "`client_certificate`";
    /// The common name: `"{tenant}"`, or a pattern around it.
    common_name: Option<Located<String>>,
    /// A DNS name: `"{tenant}.clients.example"`.
    dns: Option<Located<String>>,
    /// A URI: `"spiffe://example.org/{tenant}"`.
    uri: Option<Located<String>>,
    /// A mail address: `"{tenant}@clients.example"`.
    email: Option<Located<String>>,
    /// The name of a table, under `keys:`, with the SHA-256 of certificates (DER).
    fingerprint: Option<Located<String>>,
}

/// What of a certificate names the tenant.
#[derive(Debug, Clone)]
pub(crate) enum ClientCertificate {
    /// The whole of a name.
    Whole(CertificateName),
    /// A part of one, or a table.
    Settings(Box<CertificateSettings>),
}

impl Decode for ClientCertificate {
    fn decode(node: &Node, report: &mut Report) -> Option<Self> {
        if matches!(node.value, Value::Map(_)) {
            return CertificateSettings::decode(node, report).map(Box::new).map(Self::Settings);
        }
        Located::decode(node, report).map(|name: Located<CertificateName>| Self::Whole(name.value))
    }
}

union_schema! {
    ClientCertificate: |generator| json_schema!({
        "anyOf": [
            { "enum": ["common_name", "dns", "uri", "email"] },
            generator.subschema_for::<CertificateSettings>()
        ]
    });
}
