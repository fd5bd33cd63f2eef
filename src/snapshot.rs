//! A snapshot: one immutable policy generation with its plugins compiled and its pools attached.

mod active;
mod build;
mod candidate;
mod held_back;
mod history;
mod hold;
mod loading;
mod matching;
mod overrides;
mod rehearse;
mod replace;
mod resolve;
mod store;
mod temporary;
mod tokens;
mod trail;
mod watched;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{Method, Response, StatusCode};

use crate::admitted::{Active, Admitted};
use crate::body::Body;
use crate::decision::{FindTenant, Placement, RequestHead};
use crate::error::{Code, Refusal};
use crate::fairness::Fairness;
use crate::identity::{Asserter, AssertionKeys};
use crate::otlp::Exporter;
use crate::policy::{Action, Policy, Query, Rewrite, SqlEndpoint};
use crate::telemetry::{Metrics, RouteMetrics};
use crate::tenant::Tenant;
use crate::ticket::Tickets;
use crate::upgrade::Protocol;
use crate::{forward, sql};

pub use active::{ActivePlugin, PluginCall, PluginVersion};
pub use build::{BuildError, Builder, Built};
pub use held_back::HeldBack;
pub use history::{MAX_PLUGIN_BYTES, Served};
pub use hold::{Hold, Stopped};
pub use matching::Captures;
pub use overrides::{InForce, Overrides, Ruling};
pub use replace::{ReplaceError, Replacement};
pub use resolve::{Resolution, ResolvedBy};
pub use store::{LiveGenerations, SnapshotStore};
pub use trail::{Step, Trail};

use build::{BoundUpstreams, BoundVerifiers};
use resolve::{Agreement, Resolver, Surroundings, resolve};
use tokens::{TokenSource, Tokens};

/// One policy generation, ready to serve. A request loads one and keeps it to its end.
pub struct Snapshot {
    generation: u64,
    loaded_at: SystemTime,
    policy: Arc<Policy>,
    routes: Vec<Route>,
    upstreams: BoundUpstreams,
    databases: Vec<Arc<sql::Database>>,
    plugins: Vec<Arc<ActivePlugin>>,
    directory: Arc<dyn FindTenant>,
    overrides: Arc<Overrides>,
    fairness: Arc<Fairness>,
    verifiers: BoundVerifiers,
    tickets: Arc<Tickets>,
    assertion_keys: Arc<AssertionKeys>,
    traces: Option<Arc<Exporter>>,
    metrics: Arc<Metrics>,
}

/// A route bound to what it uses.
pub struct Route {
    policy: Arc<crate::policy::Route>,
    tenant: TenantRule,
    verify: Option<TokenSource>,
    target: Target,
    counts: Arc<RouteMetrics>,
}

enum TenantRule {
    None,
    Resolve(Agreement, Vec<Resolver>),
}

/// What a route does, bound to the upstream or databases that do it.
pub enum Target {
    /// Forwards.
    Forward(Forward),
    /// Runs a named query.
    Query(Arc<Query>),
    /// Runs statements that clients write.
    Sql(Sql),
}

/// Where a route forwards to.
pub struct Forward {
    /// The upstream, unless a plugin names another.
    pub upstream: Arc<forward::Upstream>,
    /// How long the ticket that goes with a request is valid; `None` for no ticket.
    pub ticket: Option<Duration>,
    /// What a client may switch to in place of HTTP.
    pub upgrade: Vec<Protocol>,
    /// What asserts to the backend whose request it is.
    pub asserter: Option<Arc<Asserter>>,
    /// What is changed of a request and its response.
    pub rewrite: Option<Arc<Rewrite>>,
}

/// An endpoint for statements that clients write.
pub struct Sql {
    /// What it may run, and where.
    pub endpoint: Arc<SqlEndpoint>,
    /// What reads statements before they run.
    pub guard: Arc<sql::Guard>,
}

/// A request whose route is known.
pub struct Matched<'s> {
    snapshot: &'s Snapshot,
    route: &'s Route,
    /// What the route's path captured.
    pub captures: Captures,
}

/// On whose behalf a target acts: an admitted tenant, or a route that says `tenant: none`.
#[derive(Debug)]
pub enum Caller {
    /// A tenant, and where its resolver placed the request.
    Tenant {
        /// The proof of admission.
        admitted: Admitted,
        /// Headers, upstream and reason that a plugin gave.
        placement: Placement,
        /// The resolver that named the tenant.
        by: ResolvedBy,
        /// What overrides made of the request.
        ruling: Ruling,
    },
    /// No tenant, because the policy's author said so.
    NoTenant,
}

impl Caller {
    /// The request's body, moved no faster than the tenant may.
    pub fn pace(&self, body: Body) -> Body {
        match self {
            Self::Tenant { admitted, .. } => admitted.pass().pace(body),
            Self::NoTenant => body,
        }
    }

    /// The response: its body moves no faster than the tenant may, and its head tells what is left
    /// to the tenant.
    pub fn answer(&self, response: Response<Body>) -> Response<Body> {
        let Self::Tenant { admitted, .. } = self else { return response };
        // What follows a 101 is a tunnel: no body that could be passed on piece by piece.
        let mut response = match response.status() {
            StatusCode::SWITCHING_PROTOCOLS => response,
            _ => response.map(|body| admitted.pass().pace(body)),
        };
        admitted.pass().tell(&mut response);
        response
    }
}

impl Snapshot {
    /// Counts up with every policy that came into force in this process.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// When it was built.
    pub fn loaded_at(&self) -> SystemTime {
        self.loaded_at
    }

    /// Whether the two serve alike: the same policy text, with the same plugins.
    pub fn same_as(&self, other: &Self) -> bool {
        self.policy.hash == other.policy.hash
            // What a certificate's files hold may serve later: dates pass.
            && self.policy.server.listen == other.policy.server.listen
            && self.plugins.len() == other.plugins.len()
            && self.plugins.iter().zip(&other.plugins).all(|(own, others)| Arc::ptr_eq(own, others))
    }

    /// The policy inside.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The plugins inside, in the policy's order.
    pub fn plugins(&self) -> &[Arc<ActivePlugin>] {
        &self.plugins
    }

    /// One of them, by its name in the policy.
    pub fn plugin(&self, name: &str) -> Option<&Arc<ActivePlugin>> {
        self.plugins.iter().find(|plugin| &**plugin.name() == name)
    }

    /// The first route that takes the request.
    ///
    /// # Errors
    /// `route-not-found`.
    pub fn route(&self, head: &RequestHead) -> Result<Matched<'_>, Refusal> {
        self.routes
            .iter()
            .find_map(|route| {
                let rule = &route.policy.matches;
                // A browser asks about the request that is to come, without its headers.
                let captures = match &route.target {
                    Target::Sql(_) if head.method == Method::OPTIONS => matching::reaches(rule, head)?,
                    _ => matching::matches(rule, head)?,
                };
                Some(Matched { snapshot: self, route, captures })
            })
            .ok_or_else(|| {
                Refusal::new(Code::RouteNotFound, "no route takes this method, host and path")
                    .because(format!("{} {}{}", head.method, head.authority, head.uri.path()))
            })
    }

    /// Begins what it does besides serving requests: looking up and checking its upstreams'
    /// endpoints. For a snapshot that is put in force; one that is only looked at does none of it.
    pub fn start(&self) {
        self.upstreams.values().for_each(|upstream| upstream.start());
    }

    /// The upstreams inside, in the policy's order.
    pub fn upstreams(&self) -> impl Iterator<Item = &Arc<forward::Upstream>> {
        self.upstreams.values()
    }

    /// The upstream that a plugin chose by name.
    ///
    /// # Errors
    /// `plugin-failed` where the policy has none of that name: a guess could reach a stranger.
    pub fn upstream(&self, name: &str) -> Result<&Arc<forward::Upstream>, Refusal> {
        self.upstreams.get(name).ok_or_else(|| {
            Refusal::new(Code::PluginFailed, "the request cannot be placed now")
                .because(format!("a plugin chose the upstream `{name}`, which the policy does not have"))
        })
    }

    /// The overrides inside.
    pub fn overrides(&self) -> &Overrides {
        &self.overrides
    }

    /// Sets requests free that wait for an override which `next`, now in force, does not have.
    pub(crate) async fn release_held(&self, next: &Self) {
        for gone in self.overrides.gone_from(&next.overrides) {
            if let Some(tenant) = &gone.rule().tenant {
                // Whoever was held while it moved is not to be sent where it was.
                next.directory.forget(tenant).await;
            }
            gone.release();
        }
    }

    /// What issues and honours this policy's tickets.
    pub fn tickets(&self) -> &Tickets {
        &self.tickets
    }

    /// Where traces go, where the policy wants them.
    pub fn traces(&self) -> Option<&Arc<Exporter>> {
        self.traces.as_ref()
    }

    /// The databases inside, in the policy's order.
    pub fn databases(&self) -> &[Arc<sql::Database>] {
        &self.databases
    }

    /// What assertions to backends are signed with.
    pub fn assertion_keys(&self) -> &AssertionKeys {
        &self.assertion_keys
    }

    /// The database of that name.
    ///
    /// # Errors
    /// `internal-error`: names are checked when a policy or a tenant is read.
    pub fn database(&self, name: &str) -> Result<&Arc<sql::Database>, Refusal> {
        self.databases.iter().find(|database| &*database.settings().name == name).ok_or_else(|| {
            Refusal::new(Code::InternalError, "the request cannot be served")
                .because(format!("no database `{name}` in the policy"))
        })
    }

    fn surroundings(&self) -> Surroundings<'_> {
        Surroundings { directory: &self.directory, overrides: &self.overrides, tickets: &self.tickets }
    }
}

impl Caller {
    /// The admitted tenant, if there is one.
    pub fn tenant(&self) -> Option<&Tenant> {
        match self {
            Self::Tenant { admitted, .. } => Some(admitted.tenant()),
            Self::NoTenant => None,
        }
    }
}

impl<'s> Matched<'s> {
    /// What is counted of the route's requests, its name with it.
    pub fn counts(&self) -> &'s Arc<RouteMetrics> {
        &self.route.counts
    }

    /// What the route does.
    pub fn target(&self) -> &'s Target {
        &self.route.target
    }

    /// Resolves the request's tenant, looks it up and admits it. The `trail` tells who was asked,
    /// also where the request is refused.
    ///
    /// # Errors
    /// Every refusal between a matched route and an admitted tenant, or that an override holds the
    /// request.
    pub async fn admit(&self, head: &Arc<RequestHead>, trail: &mut Trail) -> Result<Caller, Stopped> {
        let resolution = self.resolve(head, trail).await?;
        self.admit_resolved(resolution, head, trail).await
    }

    /// The tenant that the resolvers name; `None` where the route serves none.
    async fn resolve(
        &self,
        head: &Arc<RequestHead>,
        trail: &mut Trail,
    ) -> Result<Option<Resolution>, Refusal> {
        let mut tokens = Tokens::default();
        if let Some(source) = &self.route.verify {
            tokens.require(source, head).await?;
        }
        let TenantRule::Resolve(agreement, resolvers) = &self.route.tenant else { return Ok(None) };
        let resolved =
            resolve(*agreement, resolvers, head, tokens, self.snapshot.surroundings(), trail).await;
        if resolved.as_ref().is_err_and(|refusal| refusal.code() == Code::PluginFailed) && trail.is_live() {
            // On the heap, or every request would have room for it.
            Box::pin(self.hold_back_failed(trail)).await;
        }
        resolved.map(Some)
    }

    /// Waits with the refusal of a request whose plugin failed, within the time that the plugin had:
    /// while its breaker is open it takes none of it.
    async fn hold_back_failed(&self, trail: &Trail) {
        let Some(failed) = trail.calls.iter().rfind(|call| call.failed()) else { return };
        let Some(plugin) = self.snapshot.plugin(&failed.asked.name) else { return };
        let deadline = failed.ended - failed.took + plugin.settings().limits.time;
        self.snapshot.fairness.hold_back_failed(plugin.name(), deadline.into()).await;
    }

    /// Waits with the refusal of a request whose tenant met a limit behind the route's admission, as
    /// that does with its own refusals.
    pub async fn hold_back(&self, caller: &Caller) {
        if let Caller::Tenant { admitted, .. } = caller {
            self.snapshot.fairness.hold_back(&admitted.tenant().id).await;
        }
    }

    async fn admit_resolved(
        &self,
        resolution: Option<Resolution>,
        head: &RequestHead,
        trail: &Trail,
    ) -> Result<Caller, Stopped> {
        let Some(Resolution { mut placement, by }) = resolution else { return Ok(Caller::NoTenant) };
        let named = || format!("tenant `{}`, named by its {}", placement.tenant, by.kind);
        let found = self.snapshot.directory.find(&placement.tenant).await.map_err(|error| {
            Refusal::new(Code::DirectoryUnavailable, "tenants cannot be looked up now; try again later")
                .because(format_args!("{}: {error}", named()))
        })?;
        let tenant = found.ok_or_else(|| {
            Refusal::new(Code::TenantUnknown, format!("there is no tenant `{}`", placement.tenant))
                .because(named())
        })?;
        let active = Active::check(tenant).map_err(|refusal| refusal.because(named()))?;
        let ruling = self.snapshot.overrides.rule(&placement.tenant, head, SystemTime::now);
        if let Some(override_) = ruling.placed() {
            self.enforce(override_)?;
        }
        if let Some(upstream) = ruling.upstream() {
            placement.upstream = Some(upstream.to_string());
        }
        let admitted = match trail.is_rehearsal() {
            // A test takes nothing from its tenant, and nothing that the tenant took fails it.
            true => active.admit(&Fairness::new(Arc::clone(&self.snapshot.metrics))).await?,
            false => active.admit(&self.snapshot.fairness).await?,
        };
        Ok(Caller::Tenant { admitted, placement, by, ruling })
    }

    /// Stops what an override does not let through.
    fn enforce(&self, override_: &Arc<InForce>) -> Result<(), Stopped> {
        let refused = |detail: &'static str| {
            let cause = format!("the override `{}`", override_.rule().id);
            Err(Refusal::new(Code::TenantSuspended, detail).because(cause).into())
        };
        match &override_.rule().action {
            Action::Hold(wait) => Err(Stopped::Held(Hold::new(Arc::clone(override_), *wait))),
            Action::Refuse => refused("this tenant is suspended; ask whoever runs the service"),
            // Its upstream is the only place for it: a database is another.
            Action::Quarantine(_) if !matches!(self.target(), Target::Forward(_)) => {
                refused("this tenant is suspended here; ask whoever runs the service")
            }
            _ => Ok(()),
        }
    }
}
