//! Forwarding: a request goes to one of an upstream's endpoints, its response comes back, both
//! streamed.

pub mod headers;

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
mod tunnel;

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use http::{Request, Response, StatusCode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use self::balance::Balancer;
use self::endpoint::{Endpoint, Set};
use self::endpoints::Endpoints;
use self::exchange::{Answer, Failure, Tried, attempt};
use self::outgoing::{Outgoing, Progress, within};
use self::retry::Budget;
use self::tally::Tally;
use self::tunnel::Proposal;
use crate::body::Body;
use crate::error::{Code, Refusal};
use crate::policy;
use crate::policy::RetryOn;
use crate::telemetry::Metrics;

pub use endpoints::{Resolve, Resolving, SystemResolver};
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
        let proposal = match errand.switch.take() {
            Some(switch) => Proposal::put(switch, &mut head, &self.settings)?,
            None => None,
        };
        let (outgoing, progress) = Outgoing::new(body);
        let request = Request::from_parts(head, outgoing);
        let tries = self.try_endpoints(request, progress.as_deref(), errand);
        let answer = match self.settings.total_timeout {
            None => tries.await?,
            Some(limit) => within(limit, progress.as_deref(), tries).await.unwrap_or_else(|_| {
                Err(Refusal::new(Code::UpstreamTimeout, "the upstream did not answer in time").because(
                    format_args!(
                        "{}: no response head within {limit:?}, all tries together",
                        self.settings.name
                    ),
                ))
            })?,
        };
        accept(answer, place, progress, &self.settings, proposal).await
    }

    /// Tries endpoints until one answers, or nothing more may be tried.
    async fn try_endpoints(
        &self,
        mut request: Request<Outgoing>,
        progress: Option<&Progress>,
        errand: &mut Errand<'_>,
    ) -> Result<Answer, Refusal> {
        let set = self.known_endpoints().await?;
        let mut tried = Vec::new();
        let mut retries = self.settings.retries.attempts;
        // An answer that is passed on unless a further try gives another.
        let mut answered = None;
        let mut failed = None;
        while let Some(index) = self.balancer.choose(&set, &tried, Instant::now()) {
            let (endpoint, Tried { outcome, again }) =
                self.try_one(&set, &mut tried, index, request, progress, errand).await;
            let unsent = matches!(outcome, Err(Failure::Connect(_)));
            let reason = match &outcome {
                Ok(answer) => RetryOn::Status(answer.response.status()),
                Err(Failure::Broke(_)) => RetryOn::Reset,
                Err(Failure::Slow(_)) => RetryOn::Timeout,
                Err(_) => RetryOn::Reset,
            };
            match outcome {
                Ok(answer) => answered = Some(answer),
                Err(failure) => failed = Some((endpoint, failure)),
            }
            let Some(next) = again else { break };
            if !tried.contains(&index) {
                tried.push(index);
            }
            request = next;
            if unsent {
                continue;
            }
            if retries == 0 || !self.may_retry(reason, &set, &mut tried, errand) {
                break;
            }
            retries -= 1;
        }
        match (answered, failed) {
            (Some(answer), _) => Ok(answer),
            (None, Some((endpoint, failure))) => Err(failure.refusal(&endpoint)),
            (None, None) => Err(unreachable("the upstream has no endpoint")),
        }
    }

    /// Sends to one endpoint, or to two if the policy hedges and the first is slow.
    async fn try_one(
        &self,
        set: &Set,
        tried: &mut Vec<usize>,
        index: usize,
        request: Request<Outgoing>,
        progress: Option<&Progress>,
        errand: &mut Errand<'_>,
    ) -> (Arc<Endpoint>, Tried) {
        let send = |index: usize, request| {
            let endpoint = Arc::clone(&set[index]);
            async move {
                let tried = self.try_endpoint(&endpoint, set, request, progress).await;
                (endpoint, tried)
            }
        };
        errand.attempts += 1;
        let hedge = self
            .settings
            .hedge
            .filter(|_| set.len() > 1 && progress.is_none() && retry::is_safe(request.method()));
        let (endpoint, outcome) = match hedge {
            None => send(index, request).await,
            Some(after) => {
                let copy = exchange::copy_of(&request);
                let second = || {
                    tried.push(index);
                    let second = self.balancer.choose(set, tried, Instant::now())?;
                    self.withdraw(errand.tenant).then(|| {
                        tried.push(second);
                        self.tally.hedged.inc();
                        errand.attempts += 1;
                        send(second, copy)
                    })
                };
                hedge::race(send(index, request), after, second).await
            }
        };
        errand.endpoint = Some(Arc::clone(&endpoint.label));
        (endpoint, outcome)
    }

    /// Sends to one endpoint, and remembers how it fared.
    async fn try_endpoint(
        &self,
        endpoint: &Endpoint,
        set: &Set,
        request: Request<Outgoing>,
        progress: Option<&Progress>,
    ) -> Tried {
        if set.len() == 1 {
            // There is nothing to choose from: nobody asks how it fares.
            return attempt(endpoint, request, progress, &self.settings).await;
        }
        let begun = Instant::now();
        let tried = attempt(endpoint, request, progress, &self.settings).await;
        let now = Instant::now();
        let failed = match &tried.outcome {
            // What the application answers to one tenant says nothing of the endpoint, but that
            // somebody could not get through to it does.
            Ok(answer) => matches!(answer.response.status().as_u16(), 502..=504),
            Err(Failure::Connect(connect::ConnectError::Busy(_)) | Failure::Refused(_)) => return tried,
            Err(_) => true,
        };
        if progress.is_none() {
            endpoint.latency.observe(now - begun, now);
        }
        if !failed {
            endpoint.standing.succeeded();
        } else if endpoint.standing.failed(&self.settings.ejection) {
            self.eject(endpoint, set, now);
        }
        tried
    }

    fn eject(&self, endpoint: &Endpoint, set: &Set, now: Instant) {
        // One at a time, so that two that fail together are not both out.
        let _one = self.ejecting.lock().unwrap_or_else(PoisonError::into_inner);
        let rules = &self.settings.ejection;
        if !endpoint.standing.is_out(now) && standing::may_eject(set, rules, now) {
            let time = endpoint.standing.eject(rules, now);
            tracing::warn!(endpoint = %endpoint, ?time, "the endpoint fails its requests and is passed over");
        }
    }

    /// Whether a request that is safe to repeat is sent again, after what became of it.
    fn may_retry(&self, reason: RetryOn, set: &Set, tried: &mut Vec<usize>, errand: &Errand<'_>) -> bool {
        if !self.settings.retries.on.contains(&reason) {
            return false;
        }
        if tried.len() >= set.len() {
            if matches!(reason, RetryOn::Status(_)) {
                // Whoever has just said no says it again.
                return false;
            }
            tried.clear();
        }
        let may = self.withdraw(errand.tenant);
        let counter = if may { &self.tally.retried } else { &self.tally.exhausted };
        counter.inc();
        may
    }

    fn withdraw(&self, tenant: Option<&str>) -> bool {
        self.budget.withdraw(tenant, self.tally.requests(), Instant::now())
    }

    async fn known_endpoints(&self) -> Result<Set, Refusal> {
        let limit = self.settings.connect_timeout;
        let looking = tokio::time::timeout(limit, self.endpoints.get());
        looking.await.map_err(|_| {
            unreachable("the upstream's address is not known")
                .because(format_args!("{}: no host name was looked up within {limit:?}", self.settings.name))
        })
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

/// An error with everything that it wraps, for the log.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        source = inner.source();
    }
    text
}
