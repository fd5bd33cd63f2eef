//! Builds a snapshot from a policy, carrying over what did not change.

use std::sync::Arc;
use std::time::SystemTime;

use indexmap::IndexMap;

use super::resolve::{Agreement, Resolver};
use super::{Route, Snapshot, Target, TenantRule};
use crate::decision::{DirectoryUnavailable, FindTenant, Lookup};
use crate::directory::Directory;
use crate::plugin::{LoadedPlugin, PluginHost};
use crate::policy::{Diagnostic, Diagnostics, DirectorySource, Name, Policy};
use crate::telemetry::Metrics;
use crate::tenant::TenantId;
use crate::{forward, policy, sql};

pub(super) type BoundUpstreams = IndexMap<Name, Arc<forward::Upstream>>;

/// Why a policy that parsed cannot serve: a plugin's file that cannot be run, or inline tests that
/// failed. Each finding has its place in the policy.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct BuildError(#[from] pub Diagnostics);

/// Builds snapshots; holds what outlives each of them.
pub struct Builder {
    host: Arc<PluginHost>,
    metrics: Arc<Metrics>,
}

impl Builder {
    /// A builder for one process.
    pub fn new(host: Arc<PluginHost>, metrics: Arc<Metrics>) -> Self {
        Self { host, metrics }
    }

    /// Builds the snapshot that follows `previous`, and runs the policy's tests against it.
    /// Plugins, pools, upstream connections and the directory's cache carry over where their
    /// settings, and the plugin's bytes, are the same.
    ///
    /// # Errors
    /// Every plugin that cannot be loaded, or every inline test that failed.
    pub async fn build(&self, policy: Policy, previous: Option<&Snapshot>) -> Result<Snapshot, BuildError> {
        let plugins = self.plugins(&policy, previous).await?;
        let databases = self.databases(&policy, previous)?;
        let upstreams = upstreams(&policy, previous);
        let directory = self.directory(&policy, previous);
        let routes = policy.routes.iter().map(|route| bind(route, &plugins, &upstreams)).collect();
        let snapshot = Snapshot {
            generation: previous.map_or(1, |previous| previous.generation + 1),
            loaded_at: SystemTime::now(),
            policy,
            routes,
            upstreams,
            databases,
            plugins: plugins.into_values().collect(),
            directory,
            metrics: Arc::clone(&self.metrics),
        };
        let failed = snapshot.rehearse().await;
        if failed.is_empty() { Ok(snapshot) } else { Err(Diagnostics::from(failed).into()) }
    }

    async fn plugins(
        &self,
        policy: &Policy,
        previous: Option<&Snapshot>,
    ) -> Result<IndexMap<Name, Arc<LoadedPlugin>>, BuildError> {
        let mut plugins = IndexMap::with_capacity(policy.plugins.len());
        let mut failures = Vec::new();
        for (name, settings) in &policy.plugins {
            match self.plugin(settings, previous).await {
                Ok(plugin) => drop(plugins.insert(Arc::clone(name), plugin)),
                Err(why) => {
                    let at = policy.places.plugins.get(name).expect("each plugin has a path").clone();
                    failures.push(Diagnostic::error(at, format!("the plugin `{name}` {why}")));
                }
            }
        }
        if failures.is_empty() { Ok(plugins) } else { Err(Diagnostics::from(failures).into()) }
    }

    async fn plugin(
        &self,
        settings: &Arc<policy::Plugin>,
        previous: Option<&Snapshot>,
    ) -> Result<Arc<LoadedPlugin>, String> {
        let path = &settings.path;
        let read = tokio::fs::read(path).await;
        let bytes = read.map_err(|error| format!("cannot be read from `{}`: {error}", path.display()))?;
        let kept = previous
            .into_iter()
            .flat_map(|previous| &previous.plugins)
            .find(|loaded| loaded.serves(settings, &bytes));
        if let Some(kept) = kept {
            return Ok(Arc::clone(kept));
        }
        let loaded = self.host.load(Arc::clone(settings), &bytes).await;
        loaded.map(Arc::new).map_err(|error| format!("cannot be run: {error}"))
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

fn upstreams(policy: &Policy, previous: Option<&Snapshot>) -> BoundUpstreams {
    let build = |settings: &Arc<policy::Upstream>| {
        let kept = previous
            .and_then(|previous| previous.upstreams.get(&settings.name))
            .filter(|upstream| upstream.settings() == settings);
        kept.map_or_else(|| Arc::new(forward::Upstream::new(Arc::clone(settings))), Arc::clone)
    };
    policy.upstreams.iter().map(|(name, settings)| (Arc::clone(name), build(settings))).collect()
}

fn bind(
    route: &Arc<policy::Route>,
    plugins: &IndexMap<Name, Arc<LoadedPlugin>>,
    upstreams: &BoundUpstreams,
) -> Route {
    let plugin = |name: &str| Arc::clone(plugins.get(name).expect("the parser resolved every plugin's name"));
    let all = |rules: &[policy::Resolver]| rules.iter().map(|rule| Resolver::bind(rule, plugin)).collect();
    let tenant = match &route.tenant {
        policy::TenantRule::None => TenantRule::None,
        policy::TenantRule::First(rules) => TenantRule::Resolve(Agreement::First, all(rules)),
        policy::TenantRule::All(rules) => TenantRule::Resolve(Agreement::All, all(rules)),
    };
    let target = match &route.target {
        policy::Target::Forward(settings) => {
            let upstream = upstreams.get(&settings.name).expect("the parser resolved every upstream's name");
            Target::Forward(Arc::clone(upstream))
        }
        policy::Target::Query(query) => Target::Query(Arc::clone(query)),
    };
    Route { policy: Arc::clone(route), tenant, target }
}

/// The directory of a policy in which every route says `tenant: none`. Nothing asks it.
struct NoDirectory;

impl FindTenant for NoDirectory {
    fn find<'a>(&'a self, _: &'a TenantId) -> Lookup<'a> {
        Box::pin(async { Err(DirectoryUnavailable("the policy has no tenants".into())) })
    }
}
