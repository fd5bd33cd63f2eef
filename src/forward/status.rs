//! An upstream as an operator sees it: how its endpoints fare now.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Upstream;
use super::endpoint::Endpoint;
use super::endpoints::LookUpFailure;

/// How an upstream fares.
pub struct UpstreamStatus {
    /// Requests under way, until their responses have been read.
    pub in_flight: usize,
    /// Requests that wait for a connection.
    pub pending: usize,
    /// Open connections, unused ones included.
    pub connections: usize,
    /// Its endpoints; none where no host name has been looked up yet.
    pub endpoints: Vec<EndpointStatus>,
    /// Why a host was not found, where its last look-up failed. Addresses from before stay in use.
    pub last_failure: Option<LookUpFailure>,
}

/// How an endpoint fares.
pub struct EndpointStatus {
    /// As the policy writes it, with the address where that was looked up.
    pub endpoint: Arc<str>,
    /// Whether requests go to it.
    pub state: EndpointState,
    /// What it is thought to take until a response's head; `None` where there is no other to
    /// compare it with, so that nobody measures.
    pub latency: Option<Duration>,
    /// Requests that use a connection to it.
    pub in_flight: usize,
    /// Requests that wait for one.
    pub pending: usize,
    /// Open connections to it, unused ones included.
    pub connections: usize,
}

/// Whether requests go to an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndpointState {
    /// They do.
    Healthy,
    /// It failed health checks.
    Unhealthy,
    /// It failed requests, and is passed over for a while.
    Ejected,
}

impl EndpointState {
    /// Every state there is.
    pub const ALL: [Self; 3] = [Self::Healthy, Self::Unhealthy, Self::Ejected];

    /// The word in metrics and on the admin listener.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
            Self::Ejected => "ejected",
        }
    }
}

impl Upstream {
    /// How it fares now.
    pub fn status(&self) -> UpstreamStatus {
        let (set, now) = (self.endpoints.known(), Instant::now());
        let measured = set.len() > 1;
        let endpoints: Vec<_> = set.iter().map(|endpoint| status(endpoint, measured, now)).collect();
        UpstreamStatus {
            in_flight: self.settings.max_requests.saturating_sub(self.places.available_permits()),
            pending: endpoints.iter().map(|endpoint| endpoint.pending).sum(),
            connections: endpoints.iter().map(|endpoint| endpoint.connections).sum(),
            endpoints,
            last_failure: self.endpoints.failure(),
        }
    }
}

fn status(endpoint: &Endpoint, measured: bool, now: Instant) -> EndpointStatus {
    let state = match (endpoint.passes_checks(), endpoint.standing.is_out(now)) {
        (false, _) => EndpointState::Unhealthy,
        (true, true) => EndpointState::Ejected,
        (true, false) => EndpointState::Healthy,
    };
    let micros = endpoint.latency.estimate(now);
    EndpointStatus {
        endpoint: Arc::clone(&endpoint.label),
        state,
        latency: measured.then(|| Duration::from_secs_f32(micros / 1e6)),
        in_flight: endpoint.pool.in_flight(),
        pending: endpoint.pool.waiting(),
        connections: endpoint.pool.open(),
    }
}
