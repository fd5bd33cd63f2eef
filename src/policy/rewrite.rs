//! How a route changes what it forwards: path, host and headers.

use http::{HeaderName, HeaderValue};

use super::PathMatch;

/// What a route changes of a request and of its response. Nothing of it can touch what only we
/// may say, nor how messages are framed: the parser has seen to that.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Rewrite {
    /// What is taken off the path's beginning, where the path has it.
    pub strip_prefix: Option<PathMatch>,
    /// The path that takes the place of what is left.
    pub path: Option<Template>,
    /// The `Host` that the upstream is asked for.
    pub host: HostRewrite,
    /// Changes of the request's headers.
    pub request_headers: HeaderRules,
    /// Changes of the response's headers.
    pub response_headers: HeaderRules,
}

/// The host that an upstream is asked for.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum HostRewrite {
    /// The one that the client asked for.
    #[default]
    Keep,
    /// The upstream's own.
    Upstream,
    /// This one.
    Name(HeaderValue),
}

/// Changes of headers, in this order: removed, set, added.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct HeaderRules {
    /// Those that are taken away.
    pub remove: Vec<HeaderName>,
    /// Those that take the place of what is there.
    pub set: Vec<(HeaderName, Template)>,
    /// Those that come to what is there.
    pub add: Vec<(HeaderName, Template)>,
}

/// A text with places that a request fills in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(pub Vec<TemplatePart>);

/// A part of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TemplatePart {
    /// This text.
    Text(String),
    /// `{tenant}`: the tenant's id.
    Tenant,
    /// `{schema}`: the tenant's schema.
    Schema,
    /// `{request_id}`: the request's id.
    RequestId,
    /// `{path}`: the path that is left, with its first `/`.
    Path,
    /// `{name}`: what the route's path captured under this name, decoded.
    Capture(String),
}

impl HeaderRules {
    /// Whether they change nothing.
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.set.is_empty() && self.add.is_empty()
    }
}
