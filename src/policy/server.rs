//! Listeners, limits and timeouts.

use std::time::Duration;

use ed25519_dalek::SigningKey;

use super::{AccessLog, Listener, Secret, Tracing};
use crate::address::{ListenAddress, PeerRange};

/// How the process faces its clients and its operator.
#[derive(Debug, Clone, PartialEq)]
pub struct Server {
    /// Where the gateway listens; never empty.
    pub listen: Vec<Listener>,
    /// Where the admin listener is. A change needs a restart.
    pub admin: ListenAddress,
    /// Names that the admin listener answers to, in lower case, beside addresses and `localhost`.
    pub admin_hosts: Vec<String>,
    /// Whether a successor may bind the same addresses beside us. A change needs a restart.
    pub reuse_port: bool,
    /// Size limits.
    pub limits: Limits,
    /// Timeouts.
    pub timeouts: Timeouts,
    /// What tickets are signed with; `None` for a key of the process's own.
    pub ticket_key: Option<Secret>,
    /// What assertions are signed with, the first one; empty for a key of the process's own.
    pub assertion_keys: Vec<SigningKey>,
    /// Whose `Forwarded` and `X-Forwarded-*` are believed. Default: none.
    pub trusted_proxies: Vec<PeerRange>,
    /// Whether they may also say for which host a request is.
    pub forwarded_host: bool,
    /// Which requests are recorded.
    pub access_log: AccessLog,
    /// Which are traced; `None` for none, whose trace context then passes as it came.
    pub tracing: Option<Tracing>,
    /// How many tenants have metrics of their own. Default 0.
    pub tenant_metrics: usize,
}

/// Size limits; each has a default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Header section of a request, bytes. Default 64 KiB, the order of Envoy's 60 KiB.
    pub header_bytes: usize,
    /// Header fields of a request. Default 100, as Envoy and hyper have it.
    pub header_count: usize,
    /// Body of a request, bytes. Default 100 MiB; a query route holds bodies to `query_body_bytes`.
    pub body_bytes: u64,
    /// Body that a query route reads into memory, bytes. Default 1 MiB.
    pub query_body_bytes: usize,
    /// What a client must send of a body, or take of its responses, on average while we wait for it,
    /// bytes per second, once it has kept us waiting for `body_idle`. Zero for no such limit.
    /// Default 128.
    pub min_body_rate: u64,
    /// Open client connections. Default 10,000.
    pub connections: usize,
    /// TLS handshakes under way at a time. Default 1,000: each keeps a core busy for a moment, and
    /// those that wait are counted as slow.
    pub handshakes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_bytes: 64 << 10,
            header_count: 100,
            body_bytes: 100 << 20,
            query_body_bytes: 1 << 20,
            min_body_rate: 128,
            connections: 10_000,
            handshakes: 1_000,
        }
    }
}

/// Timeouts; each has a default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeouts {
    /// From accepting a connection to the end of its PROXY header and TLS handshake. Default 10 s.
    pub handshake: Duration,
    /// From a connection's first byte (or the previous response) to the end of a header section.
    /// Default 10 s.
    pub header_read: Duration,
    /// Between two pieces of a request's body, or of a response that a client takes. Default 30 s.
    pub body_idle: Duration,
    /// A connection with no request. Default 75 s.
    pub keep_alive: Duration,
    /// A tunnel (an upgraded connection) through which nothing passes. Default 1 h.
    pub tunnel_idle: Duration,
    /// What requests in flight are given after SIGTERM. Default 30 s.
    pub drain: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(10),
            header_read: Duration::from_secs(10),
            body_idle: Duration::from_secs(30),
            keep_alive: Duration::from_secs(75),
            tunnel_idle: Duration::from_hours(1),
            drain: Duration::from_secs(30),
        }
    }
}
