//! Forwarding: a request goes to one of an upstream's endpoints, its response comes back, both
//! streamed.

pub mod forwarded;
pub mod headers;
pub mod rewrite;

mod balance;
mod connect;
mod endpoint;
mod endpoints;
mod errand;
mod exchange;
mod health;
mod hedge;
mod latency;
mod outgoing;
mod pool;
mod response;
mod retry;
mod standing;
mod status;
mod tally;
mod tls;
mod tries;
mod tunnel;

use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use http::{Request, Response, StatusCode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use self::balance::Balancer;
use self::endpoints::Endpoints;
use self::exchange::Answer;
use self::outgoing::{Outgoing, Progress, within};
use self::retry::Budget;
use self::tally::Tally;
use self::tunnel::Proposal;
use crate::body::Body;
use crate::error::{Code, Refusal};
use crate::policy;
use crate::telemetry::Metrics;

pub use endpoints::{LookUpFailure, Resolve, Resolving, SystemResolver};
pub use errand::Errand;
pub use status::{EndpointState, EndpointStatus, UpstreamStatus};

/// What clients of a full upstream are told to wait.
const OVERLOADED_RETRY_AFTER: Duration = Duration::from_secs(1);

/// An upstream with its connections. It is shared by every snapshot whose policy describes the
/// upstream alike, so that a reload keeps connections, and what is known of each endpoint.
pub struct Upstream {
    settings: Arc<policy::Upstream>,
    endpoints: Arc<Endpoints>,
    balancer: Balancer,
    budget: Budget,
    /// One for each request that may be under way.
    places: Arc<Semaphore>,
    ejecting: Mutex<()>,
    tally: Tally,
    resolver: Arc<dyn Resolve>,
    /// Look-ups and health checks; they end with the upstream.
    tasks: OnceLock<Vec<AbortOnDropHandle<()>>>,
}

impl Upstream {
    /// An upstream without a connection yet.
    pub fn new(settings: Arc<policy::Upstream>, metrics: &Metrics) -> Self {
        Self::with_resolver(settings, metrics, Arc::new(SystemResolver))
    }

    /// An upstream whose host names are looked up by `resolver`.
    pub fn with_resolver(
        settings: Arc<policy::Upstream>,
        metrics: &Metrics,
        resolver: Arc<dyn Resolve>,
    ) -> Self {
        let tally = Tally::new(&settings.name, metrics);
        Self {
            endpoints: Arc::new(Endpoints::new(Arc::clone(&settings))),
            balancer: Balancer::new(settings.balance),
            budget: Budget::new(&settings.retries, tally.requests(), Instant::now()),
            places: Arc::new(Semaphore::new(settings.max_requests.min(Semaphore::MAX_PERMITS))),
            ejecting: Mutex::default(),
            tally,
            resolver,
            tasks: OnceLock::new(),
            settings,
        }
    }

    /// What the policy says of it.
    pub fn settings(&self) -> &Arc<policy::Upstream> {
        &self.settings
    }

    /// Begins to look up host names and to check endpoints. The first request does it where nobody
    /// has; whoever puts an upstream in force does not want to wait for that.
    pub fn start(&self) {
        self.tasks.get_or_init(|| {
            let mut tasks = Vec::new();
            if self.endpoints.are_looked_up() {
                let looking = Arc::clone(&self.endpoints).look_up(Arc::clone(&self.resolver));
                tasks.push(AbortOnDropHandle::new(tokio::spawn(looking)));
            }
            if let Some(rules) = &self.settings.health {
                let checking = health::watch(Arc::clone(&self.endpoints), rules.clone());
                tasks.push(AbortOnDropHandle::new(tokio::spawn(checking)));
            }
            tasks
        });
    }

    /// Sends a request whose headers were prepared ([`headers::prepare`]) and waits for the
    /// response's head.
    ///
    /// An endpoint that cannot be connected to is passed over for the next. What may have reached
    /// an endpoint is sent again only if its method says that this does no harm and its body had
    /// not begun (RFC 9110, section 9.2.2), and within the retry budget; a safe request that met a
    /// kept connection in the moment of its closing goes over a new one in any case.
    ///
    /// Dropping the future, or the response's body, cancels the request at the upstream.
    ///
    /// # Errors
    /// `upstream-unreachable`, `upstream-timeout` or `upstream-overloaded`, whose cause names the
    /// endpoint; or what was wrong with the request's own body.
    pub async fn send(
        &self,
        request: Request<Body>,
        errand: &mut Errand<'_>,
    ) -> Result<Response<Body>, Refusal> {
        let outcome = self.send_within_limits(request, errand).await;
        self.tally.count(&outcome);
        outcome
    }

    async fn send_within_limits(
        &self,
        request: Request<Body>,
        errand: &mut Errand<'_>,
    ) -> Result<Response<Body>, Refusal> {
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| {
            let most = self.settings.max_requests;
            overloaded().because(format_args!("{}: {most} requests are under way", self.settings.name))
        })?;
        self.start();
        let (mut head, body) = request.into_parts();
        let switch = errand.switch.take();
        let proposal = switch.map(|switch| Proposal::put(switch, &mut head, &self.settings));
        let (outgoing, progress) = Outgoing::new(body);
        let request = Request::from_parts(head, outgoing);
        let answer = match self.settings.total_timeout {
            None => self.try_endpoints(request, progress.as_deref(), errand).await?,
            Some(limit) => {
                let tries = Box::pin(self.try_endpoints(request, progress.as_deref(), errand));
                within(limit, progress.as_deref(), tries).await.map_err(|_| self.out_of_time(limit))??
            }
        };
        accept(answer, place, progress, &self.settings, proposal).await
    }

    fn out_of_time(&self, limit: Duration) -> Refusal {
        Refusal::new(Code::UpstreamTimeout, "the upstream did not answer in time").because(format_args!(
            "{}: no response head within {limit:?}, all tries together",
            self.settings.name
        ))
    }
}

/// Turns an upstream's answer into ours.
async fn accept(
    answer: Answer,
    place: OwnedSemaphorePermit,
    progress: Option<Arc<Progress>>,
    settings: &policy::Upstream,
    proposal: Option<Proposal>,
) -> Result<Response<Body>, Refusal> {
    let Answer { mut response, mut lease } = answer;
    lease.hold(place);
    let agreed = match proposal {
        Some(proposal) => proposal.judge(&mut response).await?,
        // What follows would be bytes of no protocol.
        None if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
            return Err(unreachable("the upstream switched protocols unasked"));
        }
        None => None,
    };
    let (mut head, body) = response.into_parts();
    headers::clean_response(&mut head.headers);
    let body = match agreed {
        Some(agreed) => Body::tunnel(agreed.hold(lease)),
        None => response::receive(body, lease, progress, settings.body_idle_timeout),
    };
    Ok(Response::from_parts(head, body))
}

fn unreachable(detail: &'static str) -> Refusal {
    Refusal::new(Code::UpstreamUnreachable, detail)
}

fn overloaded() -> Refusal {
    Refusal::new(Code::UpstreamOverloaded, "the upstream has as many requests as it may have; try again")
        .retry_after(OVERLOADED_RETRY_AFTER)
}
