//! From the document as written to the policy as resolved: every name is looked up, every rule
//! that spans several keys is checked, and all mistakes are reported.

mod access_log;
mod assertion;
mod certificate;
mod expectations;
mod keys;
mod listeners;
mod matching;
mod overrides;
mod pem;
mod plugins;
mod queries;
mod rewrite;
mod routes;
mod settings;
mod shadow;
mod sql;
mod statement;
mod tenants;
mod tracing;
mod unused;
mod upstreams;

use std::collections::BTreeSet;
use std::sync::Arc;

use indexmap::IndexMap;

use super::attached::Attached;
use super::decode::Located;
use super::diagnostic::Report;
use super::document;
use super::load::Whole;
use super::source::Sources;
use super::{Database, Excerpt, Keys, Listener, Name, Places, Plugin, Policy, Upstream};

/// Names that can be referred to; `None` stands for one whose definition is broken, and was
/// reported there.
pub(crate) struct Names<T> {
    kind: &'static str,
    section: &'static str,
    known: IndexMap<Name, Option<Arc<T>>>,
}

impl<T> Names<T> {
    /// Looks `name` up; an unknown one is reported.
    fn find(&self, name: &Located<String>, report: &mut Report) -> Option<Arc<T>> {
        if let Some(found) = self.known.get(name.value.as_str()) {
            return found.clone();
        }
        let finding = report.error(name.place, format!("unknown {} `{}`", self.kind, name.shown()));
        if self.known.is_empty() {
            finding.help(format!("define it under `{}:`", self.section));
        } else {
            finding.suggest(name.shown(), self.known.keys().map(AsRef::as_ref));
        }
        None
    }

    fn whole(&self) -> IndexMap<Name, Arc<T>> {
        self.known.iter().filter_map(|(name, one)| Some((Arc::clone(name), one.clone()?))).collect()
    }
}

/// Everything that routes refer to.
pub(crate) struct Scope {
    listen: Vec<Listener>,
    databases: Names<Database>,
    keys: Names<Keys>,
    plugins: Names<Plugin>,
    upstreams: Names<Upstream>,
    has_tenants: bool,
}

/// Resolves a policy. The hash and the files are left to the caller, who read them.
pub(crate) fn resolve(
    whole: &Whole,
    tenants: Option<&document::Tenants>,
    entries: Vec<document::TenantEntry>,
    sources: &Sources,
    attached: &Attached,
    report: &mut Report,
) -> Option<Policy> {
    let server = settings::server(whole.server.as_ref(), attached, report);
    let scope = Scope {
        listen: server.listen.clone(),
        databases: settings::databases(&whole.databases, report),
        keys: keys::keys(&whole.keys, attached, report),
        plugins: plugins::plugins(&whole.plugins, sources, report),
        upstreams: upstreams::upstreams(&whole.upstreams, attached, report),
        has_tenants: tenants.is_some(),
    };
    let routes = routes::resolve(&whole.routes, &scope, report);
    // Tenants without a database of their own live in whichever database a route names.
    let queried: BTreeSet<Name> = whole
        .routes
        .iter()
        .filter(|route| !matches!(route.tenant.get(), Some(document::TenantRule::None)))
        .filter_map(|route| match (&route.query, &route.sql) {
            (Some(query), _) => query.database.get(),
            (None, endpoint) => endpoint.as_ref()?.database.get(),
        })
        .filter_map(|name| scope.databases.known.get_key_value(name.value.as_str()))
        .map(|(name, _)| Arc::clone(name))
        .collect();
    let directory = tenants.and_then(|tenants| tenants::resolve(tenants, entries, &scope, &queried, report));
    let upstream = |name: &Located<String>, report: &mut Report| {
        scope.upstreams.find(name, report).map(|upstream| Arc::clone(&upstream.name))
    };
    let around =
        overrides::Surroundings { upstream: &upstream, listen: &scope.listen, directory: directory.as_ref() };
    let overrides = overrides::resolve(&whole.overrides, &around, report);
    let tests = expectations::resolve(&whole.tests, &whole.routes, sources, report);
    if report.has_errors() {
        return None;
    }
    unused::warn(whole, &routes, directory.as_ref(), &overrides, report);
    Some(Policy {
        server,
        databases: scope.databases.whole(),
        directory,
        overrides,
        keys: scope.keys.whole(),
        plugins: scope.plugins.whole(),
        places: places(whole, sources),
        upstreams: scope.upstreams.whole(),
        routes,
        tests,
        hash: String::new(),
        files: Vec::new(),
    })
}

fn places(whole: &Whole, sources: &Sources) -> Places {
    let plugins = whole.plugins.0.iter().filter_map(|(name, plugin)| {
        let path = plugin.as_ref()?.path.get()?;
        Some((name.text.as_str().into(), Excerpt::of(path.place, sources, &[])))
    });
    let databases = whole.databases.0.iter().filter_map(|(name, database)| {
        let url = database.as_ref()?.url.get()?;
        Some((name.text.as_str().into(), Excerpt::of(url.place, sources, &[url.place])))
    });
    Places { plugins: plugins.collect(), databases: databases.collect() }
}

/// A setting's value, or its default.
fn or<T: Copy>(given: Option<&Located<T>>, default: T) -> T {
    given.map_or(default, |given| given.value)
}
