//! A backend that requests are forwarded to.

use std::time::Duration;

use http::uri::Authority;

use super::Name;

/// One upstream.
#[derive(Debug, Clone, PartialEq)]
pub struct Upstream {
    /// Its name in the policy.
    pub name: Name,
    /// Where it listens; tried in turn.
    pub endpoints: Vec<Endpoint>,
    /// Whether it speaks HTTP/2 without negotiation. Default: HTTP/1.1.
    pub http2: bool,
    /// Time to connect. Default 2 s.
    pub connect_timeout: Duration,
    /// From the request's last byte to the response's head. Default 30 s.
    pub response_timeout: Duration,
    /// Between two pieces of a response body. Default 60 s.
    pub body_idle_timeout: Duration,
    /// How long an unused connection is kept. Default 60 s.
    pub pool_idle_timeout: Duration,
    /// Unused connections kept per endpoint. Default 256.
    pub pool_max_idle: usize,
}

impl Upstream {
    /// An upstream with these endpoints, and every setting at its default.
    pub fn new(name: Name, endpoints: Vec<Endpoint>) -> Self {
        Self {
            name,
            endpoints,
            http2: false,
            connect_timeout: Duration::from_secs(2),
            response_timeout: Duration::from_secs(30),
            body_idle_timeout: Duration::from_secs(60),
            pool_idle_timeout: Duration::from_secs(60),
            pool_max_idle: 256,
        }
    }
}

/// One address of an upstream: `http://host:port`, without a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Host and port.
    pub authority: Authority,
}
