//! Values that are one word out of a list.

use jsonwebtoken::Algorithm;
use schemars::{Schema, json_schema};

use super::decode::{Leaf, Unreadable};
use super::yaml::Scalar;
use super::{
    AccessLog, AssertionBinding, Balance, Capability, CertificateName, Instances, OnFailure, ParamType,
    ResultShape, StatementKind,
};
use crate::tenant::Isolation;

/// A word out of a list, each with what it stands for.
pub(crate) trait Word: Copy + 'static {
    /// As in "expected …".
    const EXPECTED: &'static str;
    /// The words.
    const WORDS: &'static [&'static str];
    /// What each word stands for, in the same order.
    const MEANINGS: &'static [Self];
    /// Whether YAML's `true` and `false` are words too.
    const BOOLEAN: bool = false;
}

impl<T: Word> Leaf for T {
    const EXPECTED: &'static str = <T as Word>::EXPECTED;

    fn read(scalar: &Scalar) -> Result<Self, Unreadable> {
        let text = scalar.text.as_str();
        if let Some(index) = T::WORDS.iter().position(|word| *word == text) {
            return Ok(T::MEANINGS[index]);
        }
        Err(Unreadable::Word(T::WORDS))
    }

    fn schema() -> Schema {
        let mut words: Vec<serde_json::Value> = T::WORDS.iter().map(|word| (*word).into()).collect();
        if T::BOOLEAN {
            words.retain(|word| word != "true" && word != "false");
            words.extend([true.into(), false.into()]);
        }
        json_schema!({ "enum": words })
    }
}

/// A tenant's state as one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StateWord {
    Active,
    Suspended,
    Held,
}

/// What an upstream speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    Http2,
}

/// Which errors a sampled log records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LoggedErrors {
    All,
    Sampled,
}

/// How a client reached us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scheme {
    Http,
    Https,
}

impl Scheme {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// A part of a connection string that may name a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ConnectionStringPart {
    User,
}

macro_rules! words {
    ($($kind:ty, $expected:literal { $($word:literal => $meaning:expr,)* };)*) => {$(
        impl Word for $kind {
            const EXPECTED: &'static str = $expected;
            const WORDS: &'static [&'static str] = &[$($word),*];
            const MEANINGS: &'static [Self] = &[$($meaning),*];
        }
    )*};
}
words! {
    Isolation, "`schema`, `role` or `login`" {
        "schema" => Self::Schema, "role" => Self::Role, "login" => Self::Login,
    };
    StatementKind, "a kind of statement: `select`, `insert`, `update`, `delete`, `merge`, `truncate`, `explain` or `ddl`" {
        "select" => Self::Select, "insert" => Self::Insert, "update" => Self::Update,
        "delete" => Self::Delete, "merge" => Self::Merge, "truncate" => Self::Truncate,
        "explain" => Self::Explain, "ddl" => Self::Ddl,
    };
    AssertionBinding, "`request` or `tenant`" { "request" => Self::Request, "tenant" => Self::Tenant, };
    CertificateName, "`common_name`, `dns`, `uri`, `email`, or a pattern such as `{ dns: \"{tenant}.clients.example\" }`" {
        "common_name" => Self::CommonName, "dns" => Self::Dns, "uri" => Self::Uri, "email" => Self::Email,
    };
    ConnectionStringPart, "`user`" { "user" => Self::User, };
    StateWord, "`active`, `suspended` or `held`" {
        "active" => Self::Active, "suspended" => Self::Suspended, "held" => Self::Held,
    };
    LoggedErrors, "`all` or `sampled`" { "all" => Self::All, "sampled" => Self::Sampled, };
    Protocol, "`http1` or `http2`" { "http1" => Self::Http1, "http2" => Self::Http2, };
    Balance, "`least-latency` or `round-robin`" {
        "least-latency" => Self::LeastLatency, "round-robin" => Self::RoundRobin,
    };
    Algorithm, "an algorithm such as `RS256`, `PS256`, `ES256`, `EdDSA` or, with a `secret`, `HS256`" {
        "RS256" => Self::RS256, "RS384" => Self::RS384, "RS512" => Self::RS512,
        "PS256" => Self::PS256, "PS384" => Self::PS384, "PS512" => Self::PS512,
        "ES256" => Self::ES256, "ES384" => Self::ES384, "EdDSA" => Self::EdDSA,
        "HS256" => Self::HS256, "HS384" => Self::HS384, "HS512" => Self::HS512,
    };
    super::TlsVersion, "`\"1.2\"` or `\"1.3\"`" { "1.2" => Self::Tls12, "1.3" => Self::Tls13, };
    Scheme, "`http` or `https`" { "http" => Self::Http, "https" => Self::Https, };
    Instances, "`per-request` or `reused`" { "per-request" => Self::PerRequest, "reused" => Self::Reused, };
    OnFailure, "`deny`, `next` or `previous`" {
        "deny" => Self::Deny, "next" => Self::Next, "previous" => Self::Previous,
    };
    Capability, "`directory`, `log`, `kv`, `claims` or `wasi`" {
        "directory" => Self::Directory, "log" => Self::Log, "kv" => Self::Kv,
        "claims" => Self::Claims, "wasi" => Self::Wasi,
    };
    ResultShape, "`rows`, `one`, `value` or `none`" {
        "rows" => Self::Rows, "one" => Self::One, "value" => Self::Value, "none" => Self::None,
    };
    ParamType, "a type: `text`, `int`, `float`, `numeric`, `bool`, `uuid`, `date`, `timestamp` or `json`" {
        "text" => Self::Text, "string" => Self::Text,
        "int" => Self::Int, "integer" => Self::Int, "bigint" => Self::Int,
        "float" => Self::Float, "numeric" => Self::Numeric,
        "bool" => Self::Bool, "boolean" => Self::Bool,
        "uuid" => Self::Uuid, "date" => Self::Date,
        "timestamp" => Self::Timestamp, "timestamptz" => Self::Timestamp,
        "json" => Self::Json, "jsonb" => Self::Json,
    };
}

impl Word for AccessLog {
    const EXPECTED: &'static str = "`on`, `off`, or a sample such as `{ sample: 10% }`";
    const WORDS: &'static [&'static str] = &["on", "off", "true", "false"];
    const MEANINGS: &'static [Self] = &[Self::On, Self::Off, Self::On, Self::Off];
    const BOOLEAN: bool = true;
}
