//! The tries of one request: which endpoint, in what order, and when it is enough.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use http::Request;
use tokio::time::Instant;

use super::connect::ConnectError;
use super::endpoint::{Endpoint, Set};
use super::errand::Errand;
use super::exchange::{self, Answer, Failure, Tried, attempt};
use super::outgoing::{Outgoing, Progress};
use super::{Upstream, hedge, retry, standing, unreachable};
use crate::error::Refusal;
use crate::policy::RetryOn;

/// How long a failure is taken to have lasted at least: who refuses quickly is not quick.
const FAILURE_WEIGHS: Duration = Duration::from_secs(1);

impl Upstream {
    /// Tries endpoints until one answers, or nothing more may be tried.
    pub(super) async fn try_endpoints(
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
        while let Some(index) = self.balancer.choose(&set, &tried) {
            let (endpoint, Tried { outcome, again }) =
                self.try_one(&set, &mut tried, index, request, progress, errand).await;
            let unsent = matches!(outcome, Err(Failure::Connect(_)));
            let reason = match &outcome {
                Ok(answer) => RetryOn::Status(answer.response.status()),
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
            // On the heap: every future around it would be larger by its size, and is moved whole.
            None => Box::pin(send(index, request)).await,
            Some(after) => {
                let copy = exchange::copy_of(&request);
                let second = || {
                    tried.push(index);
                    let second = self.balancer.choose(set, tried)?;
                    self.withdraw(errand.tenant).then(|| {
                        tried.push(second);
                        self.tally.hedged.inc();
                        errand.attempts += 1;
                        send(second, copy)
                    })
                };
                Box::pin(hedge::race(send(index, request), after, second)).await
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
            Err(Failure::Connect(ConnectError::Busy(_)) | Failure::Refused(_)) => return tried,
            Err(_) => true,
        };
        if failed {
            endpoint.latency.observe((now - begun).max(FAILURE_WEIGHS), now);
        } else if progress.is_none() {
            // How long a body takes is the client's affair.
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
        let known = self.endpoints.known();
        if !known.is_empty() {
            return Ok(known);
        }
        let limit = self.settings.connect_timeout;
        let looking = tokio::time::timeout(limit, self.endpoints.get());
        looking.await.map_err(|_| {
            unreachable("the upstream's address is not known")
                .because(format_args!("{}: no host name was looked up within {limit:?}", self.settings.name))
        })
    }
}
