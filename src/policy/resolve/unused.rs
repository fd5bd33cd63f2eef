//! Warnings about definitions that nothing refers to: most are a name that was meant elsewhere.

use std::collections::HashSet;

use crate::policy::decode::Named;
use crate::policy::diagnostic::Report;
use crate::policy::load::Whole;
use crate::policy::{CertificateRule, DirectorySource, Override, Resolver, Route, Target, TenantRule};

/// Warns about plugins, upstreams and databases that no route and no tenant uses.
pub(super) fn warn(
    whole: &Whole,
    routes: &[std::sync::Arc<Route>],
    directory: Option<&DirectorySource>,
    overrides: &[Override],
    report: &mut Report,
) {
    let mut used = HashSet::new();
    for route in routes {
        match &route.target {
            Target::Forward(forward) => used.insert(("upstream", forward.upstream.name.as_ref())),
            Target::Query(query) => used.insert(("database", query.database.name.as_ref())),
            Target::Sql(endpoint) => used.insert(("database", endpoint.database.name.as_ref())),
        };
        used.extend(route.verify.iter().map(|token| ("set of keys", token.keys.name.as_ref())));
        if let TenantRule::First(resolvers) | TenantRule::All(resolvers) = &route.tenant {
            used.extend(resolvers.iter().filter_map(|resolver| match resolver {
                Resolver::Plugin(plugin) => Some(("plugin", plugin.name.as_ref())),
                Resolver::Jwt(token, _) => Some(("set of keys", token.keys.name.as_ref())),
                Resolver::ApiKey(_, table)
                | Resolver::ClientCertificate(CertificateRule::Fingerprint(table)) => {
                    Some(("set of keys", table.name.as_ref()))
                }
                _ => None,
            }));
        }
    }
    let placed = overrides.iter().flat_map(Override::upstreams);
    used.extend(placed.map(|upstream| ("upstream", upstream.as_ref())));
    match directory {
        Some(DirectorySource::List(tenants)) => {
            used.extend(
                tenants.values().filter_map(|tenant| Some(("database", tenant.database.as_deref()?))),
            );
        }
        Some(DirectorySource::Table(table)) => {
            used.insert(("database", table.database.name.as_ref()));
            used.extend(table.databases.iter().map(|name| ("database", name.as_ref())));
        }
        None => {}
    }
    warn_of("set of keys", "resolver", &whole.keys, &used, report);
    warn_of("plugin", "resolver", &whole.plugins, &used, report);
    warn_of("database", "route and no tenant", &whole.databases, &used, report);
    // A plugin may send a request to any upstream by its name.
    if whole.plugins.0.is_empty() {
        warn_of("upstream", "route", &whole.upstreams, &used, report);
    }
}

fn warn_of<T>(kind: &str, user: &str, named: &Named<T>, used: &HashSet<(&str, &str)>, report: &mut Report) {
    for (key, _) in &named.0 {
        if !used.contains(&(kind, key.text.as_str())) {
            report
                .warning(key.place, format!("the {kind} `{}` is used by no {user}", key.text))
                .help("remove it, or use it");
        }
    }
}
