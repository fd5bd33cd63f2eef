//! Runs a route's resolvers: from a request to the tenant that it names, or to a refusal.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::SystemTime;

use cookie::Cookie;
use http::header::COOKIE;
use percent_encoding::percent_decode_str;

use super::active::{ActivePlugin, PluginVersion};
use super::matching::{match_host, match_path};
use super::overrides::Overrides;
use super::tokens::{self, TokenSource, Tokens};
use super::trail::{Step, Trail};
use crate::decision::{Decision, Denial, FindTenant, Placement, RequestHead};
use crate::error::{Code, Refusal};
use crate::identity::{self, Verifier};
use crate::policy::{CertificateRule, HostMatch, KeyTable, OnFailure, PathMatch, Resolver as Rule};
use crate::tenant::TenantId;
use crate::ticket::Tickets;

/// A resolver with its plugin ready.
#[derive(Debug)]
pub(super) enum Resolver {
    Header(http::HeaderName),
    Host(HostMatch),
    Path(PathMatch),
    Query(String),
    Cookie(String),
    Plugin(Arc<ActivePlugin>),
    ConnectionStringUser,
    Ticket(http::HeaderName),
    Jwt(TokenSource, Vec<String>),
    ApiKey(http::HeaderName, Arc<KeyTable>),
    ClientCertificate(CertificateRule),
}

/// How several resolvers agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Agreement {
    First,
    All,
}

/// A tenant that resolvers named, and which of them did. Only the directory knows whether it
/// exists.
#[derive(Debug)]
pub struct Resolution {
    /// Where the request goes.
    pub placement: Placement,
    /// The resolver that named the tenant, for the record.
    pub by: ResolvedBy,
}

/// The resolver that named a tenant.
#[derive(Debug, Clone)]
pub struct ResolvedBy {
    /// Its kind: `header`, `host`, `path`, `query`, `cookie`, `plugin`, `connection_string`, `ticket`,
    /// `jwt`, `api_key` or `client_certificate`; `override` where a plugin failed and an operator has
    /// said it.
    pub kind: &'static str,
    /// The version that answered, where it was a plugin.
    pub plugin: Option<PluginVersion>,
}

/// What resolvers need besides the request.
#[derive(Clone, Copy)]
pub(super) struct Surroundings<'a> {
    pub(super) directory: &'a Arc<dyn FindTenant>,
    pub(super) overrides: &'a Overrides,
    pub(super) tickets: &'a Tickets,
}

/// Asks the resolvers in order, and leaves on the `trail` whom it asked.
pub(super) async fn resolve<'r>(
    agreement: Agreement,
    resolvers: &'r [Resolver],
    head: &Arc<RequestHead>,
    mut tokens: Tokens<'r>,
    around: Surroundings<'_>,
    trail: &mut Trail,
) -> Result<Resolution, Refusal> {
    let mut agreed: Option<Resolution> = None;
    let mut failure: Option<Refusal> = None;
    for resolver in resolvers {
        let said = resolver.decide(head, &mut tokens, around, trail).await;
        trail.step(|| Step::new(resolver, &said));
        let (decision, by) = match said {
            Ok(decided) => decided,
            Err(refusal) if agreement == Agreement::First && resolver.may_fail(&refusal) => {
                failure = Some(refusal);
                continue;
            }
            Err(refusal) => {
                let Resolution { placement, by } = around.stand_in(refusal, head)?;
                (Decision::Place(placement), by)
            }
        };
        match (decision, agreement) {
            (Decision::Deny(denial), _) => return Err(denied(denial)),
            (Decision::Place(placement), Agreement::First) => {
                return Ok(Resolution { placement, by });
            }
            (Decision::Place(placement), Agreement::All) => match &mut agreed {
                None => agreed = Some(Resolution { placement, by }),
                Some(earlier) => merge(&mut earlier.placement, placement)?,
            },
            (Decision::Next, Agreement::First) => {}
            (Decision::Next, Agreement::All) => return Err(missing(resolvers, agreement)),
        }
    }
    // A plugin that failed may have been the one to name the tenant: that is not the client's fault.
    match (agreed, failure) {
        (Some(agreed), _) => Ok(agreed),
        (None, Some(failure)) => around.stand_in(failure, head),
        (None, None) => Err(missing(resolvers, agreement)),
    }
}

impl Surroundings<'_> {
    /// An operator's word in place of a plugin's that failed. It counts as much as the plugin's
    /// would have, and no more: where all resolvers must agree, it must agree with the others.
    fn stand_in(&self, refusal: Refusal, head: &RequestHead) -> Result<Resolution, Refusal> {
        if refusal.code() != Code::PluginFailed {
            return Err(refusal);
        }
        let tenant = self.overrides.stand_in(head, SystemTime::now()).ok_or(refusal)?;
        Ok(Resolution { placement: tenant.clone().into(), by: ResolvedBy { kind: "override", plugin: None } })
    }
}

impl Resolver {
    /// What it says, and who really said it.
    async fn decide<'r>(
        &'r self,
        head: &Arc<RequestHead>,
        tokens: &mut Tokens<'r>,
        around: Surroundings<'_>,
        trail: &mut Trail,
    ) -> Result<(Decision, ResolvedBy), Refusal> {
        let mut by = ResolvedBy { kind: self.kind(), plugin: None };
        let key = match self {
            Self::Header(name) => head.header_once(name)?.map(str::to_owned),
            Self::Host(pattern) => match_host(pattern, &head.host).map(str::to_owned),
            Self::Path(pattern) => match_path(pattern, head.uri.path())
                .and_then(|captures| captures.get(TENANT_CAPTURE).map(str::to_owned)),
            Self::Query(name) => query_field(head, name)?,
            Self::Cookie(name) => cookie_value(head, name)?,
            Self::ConnectionStringUser => connection_string_user(head)?,
            Self::Ticket(name) => match head.header_once(name)? {
                Some(ticket) => {
                    return around.tickets.tenant(ticket).map(|tenant| (Decision::Place(tenant.into()), by));
                }
                None => None,
            },
            Self::Jwt(source, claim) => match tokens.claims(source, head).await? {
                Some(claims) => claims.text(claim)?,
                None => None,
            },
            Self::ApiKey(name, table) => match tokens::after_bearer(name, head)? {
                Some(key) => {
                    return identity::owner(table, key).map(|tenant| (Decision::Place(tenant.into()), by));
                }
                None => None,
            },
            Self::ClientCertificate(rule) => {
                let certificate = head.client_certificate.as_deref();
                let named = certificate.map(|one| identity::tenant_of_certificate(rule, one)).transpose()?;
                let named = named.flatten().map(|tenant| Decision::Place(tenant.into()));
                return Ok((named.unwrap_or(Decision::Next), by));
            }
            Self::Plugin(plugin) => {
                let (decision, version) = plugin.ask(tokens.tell(head), around, trail).await?;
                by.plugin = Some(version);
                return Ok((decision, by));
            }
        };
        let Some(key) = key else { return Ok((Decision::Next, by)) };
        let tenant: TenantId = key.parse().map_err(|error| {
            // What cannot be an id cannot be known; to try the next resolver would be to guess.
            Refusal::new(Code::TenantUnknown, format!("there is no such tenant: {error}"))
        })?;
        Ok((Decision::Place(tenant.into()), by))
    }

    fn may_fail(&self, refusal: &Refusal) -> bool {
        matches!(self, Self::Plugin(plugin)
            if plugin.settings().on_failure == OnFailure::Next && refusal.code() == Code::PluginFailed)
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Header(_) => "header",
            Self::Host(_) => "host",
            Self::Path(_) => "path",
            Self::Query(_) => "query",
            Self::Cookie(_) => "cookie",
            Self::Plugin(_) => "plugin",
            Self::ConnectionStringUser => "connection_string",
            Self::Ticket(_) => "ticket",
            Self::Jwt(..) => "jwt",
            Self::ApiKey(..) => "api_key",
            Self::ClientCertificate(_) => "client_certificate",
        }
    }

    /// The resolver as a client would recognise it, for `tenant-missing` and `explain`.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Header(name) => format!("the header `{name}`"),
            Self::Host(HostMatch::Label { prefix, suffix }) => {
                format!("the host `{prefix}{{tenant}}{suffix}`")
            }
            Self::Host(HostMatch::Exact(host)) => format!("the host `{host}`"),
            Self::Path(_) => "the path".into(),
            Self::Query(name) => format!("the query field `{name}`"),
            Self::Cookie(name) => format!("the cookie `{name}`"),
            Self::Plugin(plugin) => format!("the plugin `{}`", plugin.name()),
            Self::ConnectionStringUser => "the user of the connection string".into(),
            Self::Ticket(name) => format!("the ticket in `{name}`"),
            Self::Jwt(source, claim) => format!("the claim `{}` of {}", claim.join("."), source.describe()),
            Self::ApiKey(name, _) => format!("the key in `{name}`"),
            Self::ClientCertificate(_) => "the client's certificate".into(),
        }
    }

    /// Binds a resolver of the policy to its plugin or verifier.
    pub(super) fn bind(
        rule: &Rule,
        plugin: impl Fn(&str) -> Arc<ActivePlugin>,
        verifier: impl Fn(&str) -> Arc<Verifier>,
    ) -> Self {
        match rule {
            Rule::Header(name) => Self::Header(name.clone()),
            Rule::Host(pattern) => Self::Host(pattern.clone()),
            Rule::Path(pattern) => Self::Path(pattern.clone()),
            Rule::Query(name) => Self::Query(name.clone()),
            Rule::Cookie(name) => Self::Cookie(name.clone()),
            Rule::Plugin(settings) => Self::Plugin(plugin(&settings.name)),
            Rule::ConnectionStringUser => Self::ConnectionStringUser,
            Rule::Ticket(name) => Self::Ticket(name.clone()),
            Rule::Jwt(source, claim) => Self::Jwt(TokenSource::bind(source, verifier), claim.clone()),
            Rule::ApiKey(name, table) => Self::ApiKey(name.clone(), Arc::clone(table)),
            Rule::ClientCertificate(rule) => Self::ClientCertificate(rule.clone()),
        }
    }
}

/// Where Neon's serverless driver sends its connection string.
const NEON_CONNECTION_STRING: http::HeaderName = http::HeaderName::from_static("neon-connection-string");

/// The capture that a `path` resolver reads.
const TENANT_CAPTURE: &str = "tenant";

impl Step {
    fn new(resolver: &Resolver, said: &Result<(Decision, ResolvedBy), Refusal>) -> Self {
        let said = match said {
            Ok((Decision::Place(placement), _)) => {
                let reason = placement.reason.as_ref().map(|reason| format!(" because {reason}"));
                format!("tenant `{}`{}", placement.tenant, reason.unwrap_or_default())
            }
            Ok((Decision::Next, _)) => "names no tenant".to_owned(),
            Ok((Decision::Deny(denial), _)) => {
                format!("denied with {} `{}`: {}", denial.status.as_u16(), denial.code, denial.message)
            }
            Err(refusal) => format!("refused: {refusal}"),
        };
        Self { resolver: resolver.describe(), said }
    }
}

fn merge(agreed: &mut Placement, other: Placement) -> Result<(), Refusal> {
    if agreed.tenant != other.tenant {
        return Err(Refusal::new(
            Code::TenantAmbiguous,
            "the request names two different tenants; every place that names one must name the same",
        )
        .because(format!("`{}` and `{}`", agreed.tenant, other.tenant)));
    }
    if agreed.upstream.is_some() && other.upstream.is_some() && agreed.upstream != other.upstream {
        return Err(Refusal::new(Code::PluginFailed, "the request cannot be placed now")
            .because("two plugins chose different upstreams"));
    }
    agreed.headers.extend(other.headers);
    agreed.upstream = agreed.upstream.take().or(other.upstream);
    agreed.reason = agreed.reason.take().or(other.reason);
    Ok(())
}

fn denied(denial: Denial) -> Refusal {
    Refusal::new(Code::Denied, denial.message)
        .with_status(denial.status)
        .with_extension("denial", denial.code)
}

fn missing(resolvers: &[Resolver], agreement: Agreement) -> Refusal {
    let places: Vec<String> = resolvers.iter().map(Resolver::describe).collect();
    let joint = if agreement == Agreement::All { " and " } else { " or " };
    Refusal::new(Code::TenantMissing, format!("name the tenant in {}", places.join(joint)))
}

fn query_field(head: &RequestHead, name: &str) -> Result<Option<String>, Refusal> {
    let query = head.uri.query().unwrap_or_default();
    let values = form_urlencoded::parse(query.as_bytes()).filter(|(field, _)| field == name);
    only(values.map(|(_, value)| value.into_owned()), || format!("the query field `{name}`"))
}

pub(super) fn cookie_value(head: &RequestHead, name: &str) -> Result<Option<String>, Refusal> {
    let pairs = head.headers.get_all(COOKIE).into_iter().filter_map(|value| value.to_str().ok());
    let values = pairs
        .flat_map(Cookie::split_parse_encoded)
        .filter_map(Result::ok)
        .filter(|cookie| cookie.name() == name)
        .map(|cookie| cookie.value().to_owned());
    only(values, || format!("the cookie `{name}`"))
}

/// The user part of the connection string that the driver sends. What is no URL names nobody.
fn connection_string_user(head: &RequestHead) -> Result<Option<String>, Refusal> {
    let Some(written) = head.header_once(&NEON_CONNECTION_STRING)? else { return Ok(None) };
    let Ok(url) = url::Url::parse(written) else {
        return Err(Refusal::new(Code::RequestInvalid, "the connection string must be a URL"));
    };
    let user = percent_decode_str(url.username()).decode_utf8();
    Ok(user.ok().map(Cow::into_owned).filter(|user| !user.is_empty()))
}

/// The only value, if any; several, even equal ones, are more than a careful reader would accept.
fn only(
    mut values: impl Iterator<Item = String>,
    what: impl Fn() -> String,
) -> Result<Option<String>, Refusal> {
    let first = values.next();
    if values.next().is_some() {
        return Err(Refusal::new(Code::TenantAmbiguous, format!("{} must be given once", what())));
    }
    Ok(first.filter(|value| !value.is_empty()))
}
