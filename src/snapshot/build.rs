//! Builds a snapshot from a policy, carrying over what did not change.

use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use indexmap::IndexMap;
use tokio::sync::Notify;

use super::active::ActivePlugin;
use super::held_back::{HeldBack, HeldBackFiles};
use super::history::{History, Served};
use super::loading::Loading;
use super::overrides::Overrides;
use super::resolve::{Agreement, Resolver};
use super::tokens::TokenSource;
use super::{Forward, Route, Snapshot, Sql, Target, TenantRule};
use crate::decision::{DirectoryUnavailable, FindTenant, Lookup};
use crate::directory::Directory;
use crate::fairness::Fairness;
use crate::identity::{Asserter, AssertionKeys, Verifier};
use crate::otlp::Exporter;
use crate::plugin::{LiveVersions, PluginHost};
use crate::policy::{Diagnostic, Diagnostics, DirectorySource, Keys, Name, Override, Policy};
use crate::telemetry::{Metrics, RouteMetrics};
use crate::tenant::TenantId;
use crate::ticket::Tickets;
use crate::{forward, policy, sql};

pub(super) type BoundUpstreams = IndexMap<Name, Arc<forward::Upstream>>;
pub(super) type BoundVerifiers = IndexMap<Name, Arc<Verifier>>;

/// Why a policy that parsed cannot serve: a plugin's file that cannot be run, or inline tests that
/// failed. Each finding has its place in the policy.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct BuildError(#[from] pub Diagnostics);

/// A snapshot that can serve.
pub struct Built {
    /// The snapshot.
    pub snapshot: Snapshot,
    /// Plugin files that are not in it, because they cannot serve; the versions before them are.
    pub held_back: Diagnostics,
}

/// Builds snapshots; holds what outlives each of them.
pub struct Builder {
    pub(super) host: Arc<PluginHost>,
    pub(super) metrics: Arc<Metrics>,
    tickets: Arc<Tickets>,
    assertion_keys: Arc<AssertionKeys>,
    fairness: Arc<Fairness>,
    /// Overrides that an operator gave for a while; the last one first.
    pub(super) temporary: Mutex<Vec<Override>>,
    pub(super) history: History,
    pub(super) held_back: HeldBackFiles,
    pub(super) loading: Loading,
    pub(super) earned: Arc<Notify>,
}

impl Builder {
    /// A builder for one process.
    pub fn new(host: Arc<PluginHost>, metrics: Arc<Metrics>) -> Self {
        let (history, held_back) = (History::default(), HeldBackFiles::default());
        let tickets = Arc::new(Tickets::of_this_process());
        let assertion_keys = Arc::new(AssertionKeys::new(&[]));
        let (fairness, temporary) = (Arc::new(Fairness::new(Arc::clone(&metrics))), Mutex::default());
        let (loading, earned) = (Loading::default(), Arc::default());
        Self {
            host,
            metrics,
            tickets,
            assertion_keys,
            fairness,
            temporary,
            history,
            held_back,
            loading,
            earned,
        }
    }

    /// Builds the snapshot that follows `previous`, and runs the policy's tests against it.
    /// Plugins, pools, upstream connections and the directory's cache carry over where their
    /// settings, and the plugin's bytes, are the same.
    ///
    /// A plugin's file that cannot serve is held back where its settings are those of `previous`,
    /// whose version then goes on serving: one broken file must not keep the others from changing.
    ///
    /// # Errors
    /// Every plugin that cannot be loaded and has no version to go on with, or every inline test
    /// that failed.
    pub async fn build(&self, policy: Policy, previous: Option<&Snapshot>) -> Result<Built, BuildError> {
        let candidates = self.candidates(&policy, previous).await?;
        let mut snapshot = Snapshot {
            generation: previous.map_or(1, |previous| previous.generation + 1),
            loaded_at: SystemTime::now(),
            routes: Vec::new(),
            upstreams: self.upstreams(&policy, previous),
            databases: self.databases(&policy, previous)?,
            plugins: Vec::new(),
            directory: self.directory(&policy, previous),
            overrides: self.overrides(&policy, previous),
            fairness: Arc::clone(&self.fairness),
            verifiers: verifiers(&policy, previous),
            tickets: match &policy.server.ticket_key {
                Some(key) => Arc::new(Tickets::signed_with(key)),
                None => Arc::clone(&self.tickets),
            },
            assertion_keys: match policy.server.assertion_keys.as_slice() {
                [] => Arc::clone(&self.assertion_keys),
                keys => Arc::new(AssertionKeys::new(keys)),
            },
            traces: self.traces(&policy, previous),
            policy: Arc::new(policy),
            metrics: Arc::clone(&self.metrics),
        };
        let (chosen, held_back) = self.choose(&mut snapshot, candidates).await?;
        self.remember(&snapshot.policy, chosen);
        Ok(Built { snapshot, held_back: held_back.into() })
    }

    /// Versions of a plugin that served, the last one first.
    pub fn history(&self, name: &str) -> Vec<Served> {
        self.history.of(name)
    }

    /// The plugin's file, where it is held back.
    pub fn held_back(&self, name: &str) -> Option<HeldBack> {
        self.held_back.of(name)
    }

    /// Whether a plugin that a build did not wait for is loaded by now, since this was asked last.
    pub fn take_news(&self) -> bool {
        self.loading.take_news()
    }

    /// Told whenever a candidate has earned its promotion.
    pub fn earned(&self) -> &Notify {
        &self.earned
    }

    /// Versions of plugins that something still holds.
    pub fn live_versions(&self) -> LiveVersions {
        self.host.live_versions()
    }

    fn databases(
        &self,
        policy: &Policy,
        previous: Option<&Snapshot>,
    ) -> Result<Vec<Arc<sql::Database>>, BuildError> {
        let open = |(name, settings): (&Name, &Arc<policy::Database>)| {
            let kept = previous
                .into_iter()
                .flat_map(|previous| &previous.databases)
                .find(|database| database.settings() == settings);
            if let Some(kept) = kept {
                return Ok(Arc::clone(kept));
            }
            let opened = sql::Database::open(Arc::clone(settings), Arc::clone(&self.metrics));
            opened.map(Arc::new).map_err(|error| {
                let at = policy.places.databases.get(name).expect("each database has a URL").clone();
                BuildError(vec![Diagnostic::error(at, error.to_string())].into())
            })
        };
        policy.databases.iter().map(open).collect()
    }

    fn upstreams(&self, policy: &Policy, previous: Option<&Snapshot>) -> BoundUpstreams {
        let build = |settings: &Arc<policy::Upstream>| {
            let kept = previous
                .and_then(|previous| previous.upstreams.get(&settings.name))
                .filter(|upstream| upstream.settings() == settings);
            let new = || Arc::new(forward::Upstream::new(Arc::clone(settings), &self.metrics));
            kept.map_or_else(new, Arc::clone)
        };
        policy.upstreams.iter().map(|(name, settings)| (Arc::clone(name), build(settings))).collect()
    }

    fn overrides(&self, policy: &Policy, previous: Option<&Snapshot>) -> Arc<Overrides> {
        let temporary = self.temporary_for(policy);
        let previous = previous.map(Snapshot::overrides);
        Arc::new(Overrides::new(&temporary, &policy.overrides, previous))
    }

    fn traces(&self, policy: &Policy, previous: Option<&Snapshot>) -> Option<Arc<Exporter>> {
        let settings = policy.server.tracing.as_ref()?;
        let kept = previous
            .and_then(|previous| previous.traces.as_ref())
            .filter(|exporter| exporter.settings() == settings);
        let new = || Arc::new(Exporter::new(settings, Arc::clone(&self.metrics)));
        Some(kept.map_or_else(new, Arc::clone))
    }

    fn directory(&self, policy: &Policy, previous: Option<&Snapshot>) -> Arc<dyn FindTenant> {
        let Some(source) = &policy.directory else { return Arc::new(NoDirectory) };
        let kept = previous.filter(|previous| {
            matches!(source, DirectorySource::Table(_)) && previous.policy.directory.as_ref() == Some(source)
        });
        match kept {
            Some(previous) => Arc::clone(&previous.directory),
            None => Arc::new(Directory::open(source, Arc::clone(&self.metrics))),
        }
    }
}

impl Snapshot {
    /// Binds the routes to these plugins.
    pub(super) fn bind(&mut self, plugins: Vec<Arc<ActivePlugin>>) {
        let bind = |route| bind(route, &plugins, self);
        self.routes = self.policy.routes.iter().map(bind).collect();
        self.plugins = plugins;
    }
}

fn bind(route: &Arc<policy::Route>, plugins: &[Arc<ActivePlugin>], snapshot: &Snapshot) -> Route {
    let Snapshot { verifiers, upstreams, assertion_keys, .. } = snapshot;
    let plugin = |name: &str| {
        let bound = plugins.iter().find(|plugin| &**plugin.name() == name);
        Arc::clone(bound.expect("the parser resolved every plugin's name"))
    };
    let verifier =
        |name: &str| Arc::clone(verifiers.get(name).expect("the parser resolved all names of keys"));
    let all = |rules: &[policy::Resolver]| {
        rules.iter().map(|rule| Resolver::bind(rule, plugin, verifier)).collect()
    };
    let tenant = match &route.tenant {
        policy::TenantRule::None => TenantRule::None,
        policy::TenantRule::First(rules) => TenantRule::Resolve(Agreement::First, all(rules)),
        policy::TenantRule::All(rules) => TenantRule::Resolve(Agreement::All, all(rules)),
    };
    let target = match &route.target {
        policy::Target::Forward(policy::Forward { upstream, ticket, upgrade, assertion, rewrite }) => {
            let upstream = upstreams.get(&upstream.name).expect("the parser resolved every upstream's name");
            let asserter = assertion
                .clone()
                .map(|assertion| Arc::new(Asserter::new(assertion, Arc::clone(assertion_keys))));
            let (upstream, rewrite) = (Arc::clone(upstream), rewrite.clone());
            Target::Forward(Forward {
                upstream,
                ticket: *ticket,
                upgrade: upgrade.clone(),
                asserter,
                rewrite,
            })
        }
        policy::Target::Query(query) => Target::Query(Arc::clone(query)),
        policy::Target::Sql(endpoint) => {
            Target::Sql(Sql { endpoint: Arc::clone(endpoint), guard: Arc::new(sql::Guard::new(endpoint)) })
        }
    };
    let verify = route.verify.as_ref().map(|source| TokenSource::bind(source, verifier));
    let does = match target {
        Target::Forward(_) => "forward",
        Target::Query(_) => "query",
        Target::Sql(_) => "sql",
    };
    let counts = Arc::new(RouteMetrics::new(&snapshot.metrics, &route.name, does));
    Route { policy: Arc::clone(route), tenant, verify, target, counts }
}

/// Verifiers go on with the keys that they have fetched, where their settings are the same.
fn verifiers(policy: &Policy, previous: Option<&Snapshot>) -> BoundVerifiers {
    let build = |(name, keys): (&Name, &Arc<Keys>)| {
        let Keys::Issuers(settings) = &**keys else { return None };
        let kept = previous
            .and_then(|previous| previous.verifiers.get(name))
            .filter(|verifier| verifier.settings() == settings);
        let verifier = kept.map_or_else(|| Arc::new(Verifier::new(Arc::clone(settings))), Arc::clone);
        Some((Arc::clone(name), verifier))
    };
    policy.keys.iter().filter_map(build).collect()
}

/// The directory of a policy in which every route says `tenant: none`. Nothing asks it.
struct NoDirectory;

impl FindTenant for NoDirectory {
    fn find<'a>(&'a self, _: &'a TenantId) -> Lookup<'a> {
        Box::pin(async { Err(DirectoryUnavailable("the policy has no tenants".into())) })
    }
}
