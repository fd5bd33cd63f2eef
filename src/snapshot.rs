//! A snapshot: one immutable policy generation with its plugins compiled and its pools attached.

mod active;
mod build;
mod candidate;
mod held_back;
mod history;
mod matching;
mod rehearse;
mod replace;
mod resolve;
mod store;
mod tokens;
mod trail;
mod watched;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::Method;

use crate::admitted::{self, Admitted};
use crate::decision::{FindTenant, Placement, RequestHead};
use crate::error::{Code, Refusal};
use crate::identity::{Asserter, AssertionKeys};
use crate::policy::{Name, Policy, Query, Rewrite, SqlEndpoint};
use crate::telemetry::Metrics;
use crate::tenant::Tenant;
use crate::ticket::Tickets;
use crate::{forward, sql};

pub use active::{ActivePlugin, PluginCall, PluginVersion};
pub use build::{BuildError, Builder, Built};
pub use held_back::HeldBack;
pub use history::Served;
pub use matching::Captures;
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
    verifiers: BoundVerifiers,
    tickets: Arc<Tickets>,
    assertion_keys: Arc<AssertionKeys>,
    metrics: Arc<Metrics>,
}

/// A route bound to what it uses.
pub struct Route {
    policy: Arc<crate::policy::Route>,
    tenant: TenantRule,
    verify: Option<TokenSource>,
    target: Target,
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
    },
    /// No tenant, because the policy's author said so.
    NoTenant,
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

    /// What issues and honours this policy's tickets.
    pub fn tickets(&self) -> &Tickets {
        &self.tickets
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
        Surroundings { directory: &self.directory, tickets: &self.tickets, metrics: &self.metrics }
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
    /// The route's name.
    pub fn name(&self) -> &'s Name {
        &self.route.policy.name
    }

    /// What the route does.
    pub fn target(&self) -> &'s Target {
        &self.route.target
    }

    /// Resolves the request's tenant, looks it up and admits it. The `trail` tells who was asked,
    /// also where the request is refused.
    ///
    /// # Errors
    /// Every refusal between a matched route and an admitted tenant.
    pub async fn admit(&self, head: &Arc<RequestHead>, trail: &mut Trail) -> Result<Caller, Refusal> {
        self.admit_resolved(self.resolve(head, trail).await?).await
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
        resolve(*agreement, resolvers, head, tokens, self.snapshot.surroundings(), trail).await.map(Some)
    }

    async fn admit_resolved(&self, resolution: Option<Resolution>) -> Result<Caller, Refusal> {
        let Some(Resolution { placement, by }) = resolution else { return Ok(Caller::NoTenant) };
        let named = || format!("tenant `{}`, named by its {}", placement.tenant, by.kind);
        let found = self.snapshot.directory.find(&placement.tenant).await.map_err(|error| {
            Refusal::new(Code::DirectoryUnavailable, "tenants cannot be looked up now; try again later")
                .because(format_args!("{}: {error}", named()))
        })?;
        let tenant = found.ok_or_else(|| {
            Refusal::new(Code::TenantUnknown, format!("there is no tenant `{}`", placement.tenant))
                .because(named())
        })?;
        let admitted = admitted::admit(tenant).map_err(|refusal| refusal.because(named()))?;
        Ok(Caller::Tenant { admitted, placement, by })
    }
}
