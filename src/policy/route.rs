//! Routes: a match, a tenant rule, a target.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, Method};

use super::{
    Assertion, CertificateRule, KeyTable, Name, Plugin, Query, Rewrite, SqlEndpoint, TokenSource, Upstream,
};
use crate::address::ListenAddress;
use crate::upgrade::Protocol;

/// One route.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// Its name, in records and metrics.
    pub name: Name,
    /// Which requests it takes.
    pub matches: RouteMatch,
    /// How the tenant is found.
    pub tenant: TenantRule,
    /// A token that every request must bring.
    pub verify: Option<TokenSource>,
    /// What is done.
    pub target: Target,
}

/// Which requests a route takes: all that is given must match.
#[derive(Debug, Clone, PartialEq)]
pub struct RouteMatch {
    /// Listeners, any of them; empty means every listener.
    pub listeners: Vec<ListenAddress>,
    /// Hosts, any of them; empty means every host.
    pub hosts: Vec<HostMatch>,
    /// The path.
    pub path: PathMatch,
    /// Methods, any of them; empty means every method. GET takes HEAD with it.
    pub methods: Vec<Method>,
    /// Headers that must be there, with the value if one is given.
    pub headers: Vec<(HeaderName, Option<String>)>,
}

/// A host in lower case, without a port; also `*.example.com`, or `{tenant}.example.com` where it
/// resolves. The capture is one label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostMatch {
    /// This host.
    Exact(String),
    /// One label, not empty and without a dot, between a prefix and a suffix.
    Label {
        /// What stands before the label, often nothing: `t-` in `t-{tenant}.example.com`.
        prefix: String,
        /// What follows the label: `.example.com`.
        suffix: String,
    },
}

/// A path by segments: `/api/buildings/{id}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathMatch {
    /// Segments, in order.
    pub segments: Vec<PathSegment>,
    /// Whether paths below match too.
    pub below: bool,
}

/// A segment of a path pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathSegment {
    /// This text, percent-decoded.
    Literal(String),
    /// Any one segment, under a name.
    Capture(String),
}

/// How a route's tenant is found. There is no default tenant: a rule either names one or fails.
#[derive(Debug, Clone, PartialEq)]
pub enum TenantRule {
    /// The route serves no tenant, and its author said so.
    None,
    /// The first resolver that names a tenant wins.
    First(Vec<Resolver>),
    /// Every resolver must name the same tenant.
    All(Vec<Resolver>),
}

/// One way to read a tenant from a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Resolver {
    /// A header's value.
    Header(HeaderName),
    /// A label of the host.
    Host(HostMatch),
    /// A segment of the path: the capture named `tenant`.
    Path(PathMatch),
    /// A field of the query string.
    Query(String),
    /// A cookie's value.
    Cookie(String),
    /// A plugin's decision.
    Plugin(Arc<Plugin>),
    /// The user part of the connection string that Neon's serverless driver sends.
    ConnectionStringUser,
    /// The tenant of the request that the ticket in this header was given to.
    Ticket(HeaderName),
    /// A claim of a verified token: the names that lead to it.
    Jwt(TokenSource, Vec<String>),
    /// The tenant that the key in this header stands for.
    ApiKey(HeaderName, Arc<KeyTable>),
    /// A verified client certificate.
    ClientCertificate(CertificateRule),
}

/// Where a request is sent on to.
#[derive(Debug, Clone, PartialEq)]
pub struct Forward {
    /// The upstream, unless a plugin names another.
    pub upstream: Arc<Upstream>,
    /// How long the ticket that goes with the request is valid; `None` for no ticket.
    pub ticket: Option<Duration>,
    /// What a client may switch to in place of HTTP. Default: WebSocket.
    pub upgrade: Vec<Protocol>,
    /// The assertion that goes with the request.
    pub assertion: Option<Assertion>,
    /// What is changed of the request and its response.
    pub rewrite: Option<Arc<Rewrite>>,
}

/// What a route does.
#[derive(Debug, Clone, PartialEq)]
pub enum Target {
    /// Sends the request on.
    Forward(Forward),
    /// Runs a named query.
    Query(Arc<Query>),
    /// Runs statements that clients write.
    Sql(Arc<SqlEndpoint>),
}
