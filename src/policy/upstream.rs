//! A backend that requests are forwarded to.

use std::fmt;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::StatusCode;
use http::uri::{Authority, PathAndQuery};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::Name;

/// One upstream.
#[derive(Debug, Clone, PartialEq)]
pub struct Upstream {
    /// Its name in the policy.
    pub name: Name,
    /// Where it listens.
    pub endpoints: Vec<Endpoint>,
    /// Whether it speaks HTTP/2 without negotiation. Default: HTTP/1.1.
    pub http2: bool,
    /// Whom `https` endpoints must prove to be, and who we say that we are.
    pub tls: UpstreamTls,
    /// How often host names are looked up again. Default 30 s.
    pub dns_refresh: Duration,
    /// Which endpoint a request goes to. Default: least latency.
    pub balance: Balance,
    /// Time to connect, or to wait for a free connection. Default 2 s.
    pub connect_timeout: Duration,
    /// From the request's last byte to the response's head, of each try. Default 30 s.
    pub response_timeout: Duration,
    /// Until the response's head, all tries together. Default: only each try's own.
    pub total_timeout: Option<Duration>,
    /// Between two pieces of a response body. Default 60 s.
    pub body_idle_timeout: Duration,
    /// How long an unused connection is kept. Default 60 s.
    pub pool_idle_timeout: Duration,
    /// Unused connections kept per endpoint. Default 256.
    pub pool_max_idle: usize,
    /// HTTP/1.1 connections in use per endpoint. Default 1024.
    pub max_connections: usize,
    /// Requests per endpoint that wait for one of them. Default 1024.
    pub max_pending: usize,
    /// Requests under way, over all endpoints. Default 1024.
    pub max_requests: usize,
    /// How endpoints are asked whether they are well. Default: they are not.
    pub health: Option<Health>,
    /// When an endpoint that fails requests is passed over.
    pub ejection: Ejection,
    /// What is sent again.
    pub retries: Retries,
    /// How long an endpoint may keep a safe request waiting until another is asked too. Default:
    /// none ever is.
    pub hedge: Option<Duration>,
}

impl Upstream {
    /// An upstream with these endpoints, and every setting at its default.
    pub fn new(name: Name, endpoints: Vec<Endpoint>) -> Self {
        Self {
            name,
            endpoints,
            http2: false,
            tls: UpstreamTls { negotiates: true, ..UpstreamTls::default() },
            dns_refresh: Duration::from_secs(30),
            balance: Balance::LeastLatency,
            connect_timeout: Duration::from_secs(2),
            response_timeout: Duration::from_secs(30),
            total_timeout: None,
            body_idle_timeout: Duration::from_secs(60),
            pool_idle_timeout: Duration::from_secs(60),
            pool_max_idle: 256,
            max_connections: 1024,
            max_pending: 1024,
            max_requests: 1024,
            health: None,
            ejection: Ejection::default(),
            retries: Retries::default(),
            hedge: None,
        }
    }
}

/// One address of an upstream, without a path of the request's.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// `http://host:port`.
    Http(Authority),
    /// `https://host:port`.
    Https(Authority),
    /// `unix:/path`: HTTP over a Unix socket.
    Unix(PathBuf),
}

impl Endpoint {
    /// What it goes by in a request that names no host.
    pub fn authority(&self) -> Authority {
        match self {
            Self::Http(authority) | Self::Https(authority) => authority.clone(),
            Self::Unix(_) => Authority::from_static("localhost"),
        }
    }

    /// Whether connections to it are encrypted.
    pub fn is_encrypted(&self) -> bool {
        matches!(self, Self::Https(_))
    }

    /// The socket's file, of an endpoint on this machine.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Unix(path) => Some(path),
            Self::Http(_) | Self::Https(_) => None,
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(authority) => write!(f, "http://{authority}"),
            Self::Https(authority) => write!(f, "https://{authority}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Whom `https` endpoints must prove to be, and who we say that we are. Nothing here switches the
/// proof off.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct UpstreamTls {
    /// The only issuers that are trusted; `None` for the machine's own list.
    pub issuers: Option<Vec<CertificateDer<'static>>>,
    /// The name that certificates must have, and that the handshake asks for; `None` for the
    /// endpoint's host.
    pub server_name: Option<String>,
    /// Our own certificate.
    pub identity: Option<Identity>,
    /// Whether the handshake chooses between HTTP/1.1 and HTTP/2 (ALPN): the policy does not.
    pub negotiates: bool,
}

/// A certificate with those that lead to its issuer, and its key.
#[derive(Debug, PartialEq)]
pub struct Identity {
    /// The certificate first.
    pub chain: Vec<CertificateDer<'static>>,
    /// Its private key, which shows nothing of itself.
    pub key: PrivateKeyDer<'static>,
}

impl Clone for Identity {
    fn clone(&self) -> Self {
        Self { chain: self.chain.clone(), key: self.key.clone_key() }
    }
}

/// Which endpoint a request goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Balance {
    /// The better of two that are picked at random: latency times requests under way.
    LeastLatency,
    /// Each in its turn.
    RoundRobin,
}

/// How endpoints are asked whether they are well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// What is asked for.
    pub path: PathAndQuery,
    /// How often. Default 10 s.
    pub interval: Duration,
    /// How long the answer may take. Default 2 s.
    pub timeout: Duration,
    /// Good answers in a row after which an endpoint is well. Default 2.
    pub healthy: u32,
    /// Bad ones in a row after which it is not. Default 3.
    pub unhealthy: u32,
    /// Statuses of a good answer. Default 200 to 299.
    pub status: Vec<RangeInclusive<u16>>,
}

impl Health {
    /// Checks of this path, and every setting at its default.
    pub fn new(path: PathAndQuery) -> Self {
        Self {
            path,
            interval: Duration::from_secs(10),
            timeout: Duration::from_secs(2),
            healthy: 2,
            unhealthy: 3,
            status: vec![200..=299],
        }
    }

    /// Whether a status means that the endpoint is well.
    pub fn is_good(&self, status: StatusCode) -> bool {
        self.status.iter().any(|range| range.contains(&status.as_u16()))
    }
}

/// When an endpoint that fails requests is passed over.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ejection {
    /// Failures in a row; 0 for never. Default 5.
    pub failures: u32,
    /// For how long at first; twice as long when it fails again at once. Default 30 s.
    pub time: Duration,
    /// The part of the endpoints that may be out at a time, though always one and never all.
    /// Default 50 %.
    pub max_share: f64,
}

impl Default for Ejection {
    fn default() -> Self {
        Self { failures: 5, time: Duration::from_secs(30), max_share: 0.5 }
    }
}

/// What is sent again, of the requests that are safe to repeat.
#[derive(Debug, Clone, PartialEq)]
pub struct Retries {
    /// Further tries of one request. Default 1.
    pub attempts: u32,
    /// Retries as a part of all requests. Default 20 %.
    pub budget: f64,
    /// Retries a second that are allowed whatever the part. Default 3.
    pub floor: u32,
    /// After what. Default: a connection that broke, 502, 503 and 504.
    pub on: Vec<RetryOn>,
}

impl Default for Retries {
    fn default() -> Self {
        let statuses =
            [StatusCode::BAD_GATEWAY, StatusCode::SERVICE_UNAVAILABLE, StatusCode::GATEWAY_TIMEOUT];
        let on = [RetryOn::Reset].into_iter().chain(statuses.map(RetryOn::Status)).collect();
        Self { attempts: 1, budget: 0.2, floor: 3, on }
    }
}

/// What a request is sent again after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryOn {
    /// The connection broke before a response's head.
    Reset,
    /// No response's head in time.
    Timeout,
    /// An answer of this status, where another endpoint can be asked.
    Status(StatusCode),
}
