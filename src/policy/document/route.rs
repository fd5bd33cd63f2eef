//! Routes as written: a match, a tenant rule, a target.

use std::borrow::Cow;
use std::time::Duration;

use http::{HeaderName, Method};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::{ApiKey, Assertion, ClientCertificate, HeaderRules, JwtClaim, Query, Sql, Upgrades, Verify};
use crate::address::ListenAddress;
use crate::policy::decode::{Decode, Located, Named, NonEmpty, OneOrMany, Required, expected, record};
use crate::policy::diagnostic::Report;
use crate::policy::word::ConnectionStringPart;
use crate::policy::yaml::{Node, Value};
use crate::tenant::SchemaName;

record! {
    /// One route.
    Route is "a route";
    /// Its name, in records and metrics: no two routes share one.
    name: Required<Located<String>>,
    /// Which requests it takes. Default: all.
    r#match: Option<Match>,
    /// How the tenant is found, or `none`.
    tenant: Required<TenantRule>,
    /// A token that every request must bring, whoever names the tenant; plugins see its claims.
    verify: Option<Verify>,
    /// The upstream that requests are sent on to.
    forward: Option<Forward>,
    /// The query that is run.
    query: Option<Query>,
    /// The endpoint for statements that clients write.
    sql: Option<Sql>,
    /// The schema that the query of a route with `tenant: none` runs in.
    schema: Option<Located<SchemaName>>,
}

/// The upstream that requests are sent on to, and how.
#[derive(Debug, Clone)]
pub(crate) struct Forward {
    /// The upstream's name.
    pub upstream: Located<String>,
    /// Whatever else is said of it.
    pub settings: Option<Box<ForwardSettings>>,
}

record! {
    /// An upstream with settings of this route.
    ForwardSettings is "`forward`";
    /// The upstream's name.
    upstream: Required<Located<String>>,
    /// Sends `X-Tenant-Ticket` along, valid for this long: with it the backend may run statements
    /// as the request's tenant, through a route whose tenant is found by `ticket`.
    ticket: Option<Located<Duration>>,
    /// What clients may switch to in place of HTTP (`Upgrade`): protocols, or `none`. Default
    /// `websocket`.
    upgrade: Option<Upgrades>,
    /// Sends `X-Tenant-Assertion` along: whose request it is, signed.
    assertion: Option<Assertion>,
    /// Takes this off the path's beginning, where it has it: `/t/{tenant}`; a name in braces stands
    /// for any one segment.
    strip_prefix: Option<Located<String>>,
    /// The path in place of what is left, as in `/v2{path}`.
    path: Option<Located<String>>,
    /// The host that the upstream is asked for: `keep` (default), `upstream` or a name.
    host: Option<Located<String>>,
    /// Changes of the request's headers.
    request_headers: Option<HeaderRules>,
    /// Changes of the response's headers.
    response_headers: Option<HeaderRules>,
}

impl Decode for Forward {
    fn decode(node: &Node, report: &mut Report) -> Option<Self> {
        if !matches!(node.value, Value::Map(_)) {
            return Some(Self { upstream: Located::decode(node, report)?, settings: None });
        }
        let settings = Box::new(ForwardSettings::decode(node, report)?);
        Some(Self { upstream: settings.upstream.get()?.clone(), settings: Some(settings) })
    }
}

record! {
    /// Which requests a route takes: all that is given must match.
    Match is "`match`";
    /// A listener or listeners of `server.listen`: requests that came in elsewhere are not taken.
    listener: Option<OneOrMany<Located<ListenAddress>>>,
    /// A host or hosts: `app.example.com`, `*.example.com`.
    host: Option<OneOrMany<Located<String>>>,
    /// A path: for `forward` with everything below it, for `query` as a whole.
    path: Option<PathPattern>,
    /// Methods, any of them. GET takes HEAD with it.
    methods: Option<OneOrMany<Located<Method>>>,
    /// Headers that must be there, each with its value, or `"*"` for any.
    headers: Option<Named<Presence>>,
}

/// A path with an explicit or the usual extent.
#[derive(Debug, Clone)]
pub(crate) enum PathPattern {
    /// As the target has it.
    Usual(Located<String>),
    /// This path only.
    Exact(Located<String>),
    /// This path and everything below.
    Prefix(Located<String>),
}

impl PathPattern {
    /// The pattern's text.
    pub(crate) fn text(&self) -> &Located<String> {
        match self {
            Self::Usual(text) | Self::Exact(text) | Self::Prefix(text) => text,
        }
    }
}

record! {
    /// A path with an explicit extent.
    Extent is "`path`";
    /// This path only.
    exact: Option<Located<String>>,
    /// This path and everything below.
    prefix: Option<Located<String>>,
}

impl Decode for PathPattern {
    fn decode(node: &Node, report: &mut Report) -> Option<Self> {
        if !matches!(node.value, Value::Map(_)) {
            return Located::decode(node, report).map(Self::Usual);
        }
        let extent = Extent::decode(node, report)?;
        match (extent.exact, extent.prefix) {
            (Some(exact), None) => Some(Self::Exact(exact)),
            (None, Some(prefix)) => Some(Self::Prefix(prefix)),
            (Some(_), Some(_)) => {
                report.error(node.place, "`path` is either `exact` or `prefix`, not both");
                None
            }
            (None, None) => None,
        }
    }
}

/// What a header must be.
#[derive(Debug, Clone)]
pub(crate) enum Presence {
    /// Anything.
    Any,
    /// This.
    Value(Located<String>),
}

impl Decode for Presence {
    fn decode(node: &Node, report: &mut Report) -> Option<Self> {
        match &node.value {
            Value::Null => Some(Self::Any),
            Value::Scalar(scalar) if scalar.text == "*" => Some(Self::Any),
            _ => Located::decode(node, report).map(Self::Value),
        }
    }
}

/// How a route's tenant is found.
#[derive(Debug, Clone)]
pub(crate) enum TenantRule {
    /// The route serves no tenant.
    None,
    /// One resolver says.
    One(Box<Resolver>),
    /// The first that names a tenant.
    First(Vec<Resolver>),
    /// All must agree.
    All(Vec<Resolver>),
}

record! {
    /// Several resolvers.
    Several is "a tenant rule";
    /// The first resolver that names a tenant wins.
    first: Option<NonEmpty<Resolver>>,
    /// Every resolver must name the same tenant.
    all: Option<NonEmpty<Resolver>>,
}

record! {
    /// One way to read a tenant from a request: exactly one of its keys.
    Resolver is "a resolver";
    /// The value of this header.
    header: Option<Located<HeaderName>>,
    /// A label of the host: `"{tenant}.example.com"`.
    host: Option<Located<String>>,
    /// A segment of the path: `"/t/{tenant}"`.
    path: Option<Located<String>>,
    /// The value of this field of the query string.
    query: Option<Located<String>>,
    /// The value of this cookie.
    cookie: Option<Located<String>>,
    /// What this plugin decides.
    plugin: Option<Located<String>>,
    /// `user`: the user part of the driver's connection string, on a route with `sql`.
    connection_string: Option<Located<ConnectionStringPart>>,
    /// The tenant of the request that the ticket in this header was given to.
    ticket: Option<Located<HeaderName>>,
    /// A claim of a verified token.
    jwt: Option<JwtClaim>,
    /// The tenant that a key stands for.
    api_key: Option<ApiKey>,
    /// A name in the client's certificate: `common_name`, `dns`, `uri` or `email`, or a pattern of
    /// one, on a listener that asks for certificates.
    client_certificate: Option<ClientCertificate>,
}

impl Decode for TenantRule {
    fn decode(node: &Node, report: &mut Report) -> Option<Self> {
        match &node.value {
            Value::Scalar(scalar) if scalar.text == "none" => Some(Self::None),
            Value::Map(entries) if is_several(entries) => {
                let several = Several::decode(node, report)?;
                match (several.first, several.all) {
                    (Some(first), None) => Some(Self::First(first.0)),
                    (None, Some(all)) => Some(Self::All(all.0)),
                    (Some(_), Some(_)) => {
                        report.error(node.place, "a tenant rule is either `first` or `all`, not both");
                        None
                    }
                    (None, None) => None,
                }
            }
            Value::Map(_) => Resolver::decode(node, report).map(|one| Self::One(Box::new(one))),
            Value::List(_) => {
                expected("a tenant rule", node, report)
                    .help("say how the resolvers go together: `first: [ … ]` or `all: [ … ]`");
                None
            }
            Value::Null | Value::Scalar(_) | Value::Broken => {
                expected(
                    "a tenant rule: `none`, a resolver such as `header: X-Tenant-ID`, or `first: [ … ]`",
                    node,
                    report,
                );
                None
            }
        }
    }

    fn absent(_: &str, owner: &crate::policy::decode::Fields<'_>, report: &mut Report) -> Option<Self> {
        report
            .error(owner.place, "a route must say how its tenant is found: the key `tenant` is missing")
            .help("name a resolver (`tenant: { header: X-Tenant-ID }`), or write `tenant: none` for a route that serves no tenant");
        None
    }
}

/// Whether a rule is a combination: by its keys, or, should those be misspelt, by its shape.
fn is_several(entries: &[(crate::policy::yaml::Key, Node)]) -> bool {
    entries.iter().any(|(key, _)| matches!(key.text.as_str(), "first" | "all"))
        || matches!(entries, [(key, Node { value: Value::List(_), .. })] if !Resolver::KNOWN.contains(&key.text.as_str()))
}

/// Publishes a map or value that has several shapes.
macro_rules! union_schema {
    ($($name:ident: $schema:expr;)*) => {$(
        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(generator: &mut SchemaGenerator) -> Schema {
                let schema: fn(&mut SchemaGenerator) -> Schema = $schema;
                schema(generator)
            }
        }
    )*};
}
pub(super) use union_schema;

union_schema! {
    PathPattern: |generator| json_schema!({
        "anyOf": [{ "type": "string" }, generator.subschema_for::<Extent>()]
    });
    Forward: |generator| json_schema!({
        "anyOf": [{ "type": "string" }, generator.subschema_for::<ForwardSettings>()]
    });
    Presence: |_| json_schema!({ "type": ["string", "number", "null"] });
    TenantRule: |generator| json_schema!({
        "anyOf": [
            { "const": "none" },
            generator.subschema_for::<Resolver>(),
            generator.subschema_for::<Several>()
        ]
    });
}
