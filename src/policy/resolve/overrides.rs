//! Placement overrides: whose they are, and the one thing that each does.

use std::collections::HashMap;
use std::time::Duration;

use super::{matching, settings};
use crate::policy::decode::{Decode as _, Located};
use crate::policy::diagnostic::{Diagnostics, Report};
use crate::policy::document;
use crate::policy::source::{Place, Sources};
use crate::policy::{Action, DirectorySource, Listener, Name, Override, Part, Policy, Sample, yaml};
use crate::tenant::TenantId;

/// What stands for every tenant.
const EVERYONE: &str = "*";

/// The longest time that a request is held: its client has given up by then, and so has whatever
/// stands between.
const LONGEST_HOLD: Duration = Duration::from_secs(300);

/// What an override may refer to.
pub(super) struct Surroundings<'a> {
    /// The upstream of that name; an unknown one is reported.
    pub(super) upstream: &'a dyn Fn(&Located<String>, &mut Report) -> Option<Name>,
    pub(super) listen: &'a [Listener],
    pub(super) directory: Option<&'a DirectorySource>,
}

pub(super) fn resolve(
    written: &[document::Override],
    around: &Surroundings<'_>,
    report: &mut Report,
) -> Vec<Override> {
    let mut ids: HashMap<Name, Place> = HashMap::new();
    let mut overrides = Vec::new();
    for (index, one) in written.iter().enumerate() {
        let resolved = self::one(one, &format!("override-{}", index + 1), around, report);
        if let Some(id) = &one.id
            && let Some(first) = ids.insert(id.value.as_str().into(), id.place)
        {
            report
                .error(id.place, format!("two overrides have the id `{}`", id.shown()))
                .also(first, "the first one")
                .help("give each override its own id, or none");
        }
        overrides.extend(resolved);
    }
    overrides
}

impl Override {
    /// Reads one override, written as in the policy, that is to hold beside `policy`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str, default_id: &str, policy: &Policy) -> Result<Self, Diagnostics> {
        let (mut sources, mut report) = (Sources::default(), Report::default());
        let file = sources.add("override".as_ref(), text.into());
        let upstream = |name: &Located<String>, report: &mut Report| {
            let known = policy.upstreams.get_key_value(name.value.as_str());
            if known.is_none() {
                report
                    .error(name.place, format!("unknown upstream `{}`", name.shown()))
                    .suggest(name.shown(), policy.upstreams.keys().map(AsRef::as_ref));
            }
            known.map(|(name, _)| Name::clone(name))
        };
        let around = Surroundings {
            upstream: &upstream,
            listen: &policy.server.listen,
            directory: policy.directory.as_ref(),
        };
        let resolved = yaml::parse(text, file, &mut report)
            .and_then(|node| document::Override::decode(&node, &mut report))
            .and_then(|written| one(&written, default_id, &around, &mut report));
        let findings = report.finish(&sources);
        resolved.filter(|_| !findings.has_errors()).ok_or(findings)
    }
}

fn one(
    written: &document::Override,
    default_id: &str,
    around: &Surroundings<'_>,
    report: &mut Report,
) -> Option<Override> {
    if let Some(id) = &written.id {
        settings::check_text("override", &id.value, id.shown(), id.place, report);
    }
    let tenant = match written.tenant.get() {
        Some(tenant) => tenant_of(tenant, around, report),
        None => None,
    };
    let if_unresolved = match (&written.if_unresolved, &tenant) {
        (Some(written), Some(None)) => {
            report
                .error(
                    written.place,
                    "`if_unresolved` says whose a request is, and this override is for everyone",
                )
                .help("name one tenant");
            None
        }
        (Some(written), _) => stand_in(written, around, report),
        (None, _) => None,
    };
    let action = action(written, around, report);
    let id = written.id.as_ref().map_or(default_id, |id| id.value.as_str());
    Some(Override {
        id: id.into(),
        tenant: tenant?,
        action: action?,
        if_unresolved,
        until: written.until.as_ref().map(|until| until.value.0),
        reason: written.reason.as_ref().map(|reason| reason.value.clone()),
    })
}

/// The tenant that is named; `Some(None)` for every one of them.
fn tenant_of(
    written: &Located<String>,
    around: &Surroundings<'_>,
    report: &mut Report,
) -> Option<Option<TenantId>> {
    if written.value == EVERYONE {
        return Some(None);
    }
    let tenant: TenantId = match written.value.parse() {
        Ok(tenant) => tenant,
        Err(error) => {
            report.error(written.place, error.to_string());
            return None;
        }
    };
    if let Some(DirectorySource::List(tenants)) = around.directory
        && !tenants.contains_key(&tenant)
    {
        // No error: a tenant may go before its override does.
        report
            .warning(written.place, format!("`tenants` has no tenant `{}`", written.shown()))
            .suggest(written.shown(), tenants.keys().map(TenantId::as_str));
    }
    Some(Some(tenant))
}

fn stand_in(
    written: &document::Match,
    around: &Surroundings<'_>,
    report: &mut Report,
) -> Option<crate::policy::RouteMatch> {
    if written.sound && written.host.is_none() && written.path.is_none() && written.headers.is_none() {
        report
            .error(written.place, "`if_unresolved` would take every request for this tenant's")
            .help("name a `host`, a `path` or `headers` that only the tenant's requests have");
    }
    matching::route_match(Some(written), false, around.listen, report)
}

fn action(written: &document::Override, around: &Surroundings<'_>, report: &mut Report) -> Option<Action> {
    let document::Override { upstream, upstreams, quarantine, refuse, hold, mirror, .. } = written;
    let given = [
        upstream.is_some(),
        upstreams.is_some(),
        quarantine.is_some(),
        refuse.is_some(),
        hold.is_some(),
        mirror.is_some(),
    ];
    if given.into_iter().filter(|given| *given).count() != 1 {
        if written.sound {
            report.error(written.place, "an override does exactly one thing").help(
                "name one of `upstream`, `upstreams`, `quarantine`, `refuse`, `hold` and `mirror`; \
                 make an override of each",
            );
        }
        return None;
    }
    check_companions(written, report);
    if let Some(upstream) = upstream {
        let name = (around.upstream)(upstream, report)?;
        return Some(match (&written.percent, &written.header) {
            (Some(percent), None) => {
                Action::Canary { upstream: name, sample: Sample::Clients(Part::of_hundred(percent.value.0)) }
            }
            (None, Some(header)) => {
                Action::Canary { upstream: name, sample: Sample::Header(header.value.clone()) }
            }
            (None, None) => Action::Pin(name),
            (Some(_), Some(header)) => {
                report
                    .error(header.place, "a canary takes a part of the clients or a header, not both")
                    .help("make an override of each");
                return None;
            }
        });
    }
    if let Some(upstreams) = upstreams {
        let names: Vec<_> = upstreams.0.iter().map(|upstream| (around.upstream)(upstream, report)).collect();
        let names: Vec<Name> = names.into_iter().collect::<Option<_>>()?;
        let choose = written.choose.as_ref().map_or(1, |choose| choose.value as usize);
        if let Some(written) = &written.choose
            && choose > names.len()
        {
            report
                .error(written.place, format!("{choose} of {} upstreams cannot be chosen", names.len()))
                .help(format!("write at most {}", names.len()));
        }
        return Some(Action::Shard { upstreams: names, choose });
    }
    if let Some(upstream) = quarantine {
        return (around.upstream)(upstream, report).map(Action::Quarantine);
    }
    if let Some(wait) = hold {
        if wait.value > LONGEST_HOLD {
            report
                .error(wait.place, format!("a request is held for at most {}s", LONGEST_HOLD.as_secs()))
                .help("to turn requests away for longer, write `refuse: true`");
        }
        return Some(Action::Hold(wait.value));
    }
    if let Some(upstream) = mirror {
        let part = written.percent.as_ref().map_or(Part::WHOLE, |percent| Part::of_hundred(percent.value.0));
        return (around.upstream)(upstream, report).map(|upstream| Action::Mirror { upstream, part });
    }
    if let Some(refuse) = refuse
        && !refuse.value
    {
        report.error(refuse.place, "`refuse: false` does nothing").help("remove the override");
    }
    Some(Action::Refuse)
}

/// Keys that belong to one kind of override only.
fn check_companions(written: &document::Override, report: &mut Report) {
    let mut only_with = |given: Option<Place>, key: &str, with: &str, allowed: bool| {
        if let (Some(place), false) = (given, allowed) {
            report.error(place, format!("`{key}` belongs to {with}")).help("remove it");
        }
    };
    let (canary, mirror) = (written.upstream.is_some(), written.mirror.is_some());
    let place_of = |percent: &Option<Located<_>>| percent.as_ref().map(|percent| percent.place);
    only_with(place_of(&written.percent), "percent", "`upstream` and `mirror`", canary || mirror);
    only_with(written.header.as_ref().map(|header| header.place), "header", "`upstream`", canary);
    let choose = written.choose.as_ref().map(|choose| choose.place);
    only_with(choose, "choose", "`upstreams`", written.upstreams.is_some());
}
