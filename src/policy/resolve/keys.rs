//! Keys of issuers and tables of API keys, and the resolvers that use them.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use http::header::AUTHORIZATION;
use jsonwebtoken::{Algorithm, AlgorithmFamily};

use super::pem;
use super::settings::names;
use super::{Names, or};
use crate::policy::attached::Attached;
use crate::policy::decode::{Located, Named};
use crate::policy::diagnostic::Report;
use crate::policy::document;
use crate::policy::leaf::{DurationOrZero, KeySetPlace};
use crate::policy::source::Place;
use crate::policy::{
    Issuer, KeyOwner, KeySet, KeySource, KeyTable, Keys, Name, RemoteKeys, Resolver, TokenKeys, TokenPlace,
    TokenSource,
};

/// What clocks are apart where nobody keeps them in step.
const DEFAULT_LEEWAY: Duration = Duration::from_secs(30);
/// How often a key set is fetched.
const DEFAULT_REFRESH: Duration = Duration::from_mins(10);
/// How long an issuer may be down before its tokens are no longer believed.
const DEFAULT_STALE_IF_ERROR: Duration = Duration::from_hours(24);
/// As long as the shortest hash that it goes into (RFC 7518, section 3.2).
const MIN_SECRET_BYTES: usize = 32;

/// All that verify with a public key: whoever has it can sign nothing.
const ASYMMETRIC: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

pub(super) fn keys(written: &Named<document::Keys>, attached: &Attached, report: &mut Report) -> Names<Keys> {
    names("keys", "keys", written, report, |name, keys, report| match keys {
        document::Keys::Table(written) => table(name, written, report).map(Arc::new).map(Keys::Table),
        document::Keys::Issuers(written) => {
            check_issuers_differ(written, report);
            let issuers: Vec<_> = written.iter().map(|one| issuer(one, attached, report)).collect();
            let issuers = issuers.into_iter().collect::<Option<Vec<_>>>()?;
            Some(Keys::Issuers(Arc::new(TokenKeys { name, issuers })))
        }
    })
}

/// A token's `iss` says whose it is: among several issuers each must have its own.
fn check_issuers_differ(written: &[document::Issuer], report: &mut Report) {
    let mut places: HashMap<&str, Place> = HashMap::new();
    for one in written.iter().filter(|_| written.len() > 1) {
        let Some(issuer) = &one.issuer else {
            report
                .error(one.place, "where there are several issuers, each needs the key `issuer`")
                .help("write what the `iss` of its tokens is");
            continue;
        };
        match places.entry(&issuer.value) {
            Entry::Vacant(vacant) => drop(vacant.insert(issuer.place)),
            Entry::Occupied(first) => {
                report
                    .error(issuer.place, format!("two issuers are called `{}`", issuer.shown()))
                    .also(*first.get(), "the first one")
                    .help("a set of keys can have all of an issuer's keys: make them one");
            }
        }
    }
}

fn issuer(written: &document::Issuer, attached: &Attached, report: &mut Report) -> Option<Issuer> {
    let source = source(written, attached, report)?;
    let is_secret = matches!(source, KeySource::Secret(_));
    if written.audience.is_none() {
        report
            .warning(written.place, "no `audience`: tokens that the issuer made for others are taken too")
            .help("write what the `aud` of tokens for this service is");
    }
    let mut algorithms = Vec::new();
    for algorithm in written.algorithms.iter().flat_map(|many| &many.0) {
        if (algorithm.value.family() == AlgorithmFamily::Hmac) != is_secret {
            let (what, fix) = match is_secret {
                true => ("does not go with a `secret`", "with a secret there are HS256, HS384 and HS512"),
                // Whoever takes both can be made to verify with a public key as if it were a secret.
                false => ("needs a `secret`, and nothing else goes with one", "remove it"),
            };
            report.error(algorithm.place, format!("{} {what}", algorithm.shown())).help(fix);
        }
        algorithms.push(algorithm.value);
    }
    if algorithms.is_empty() {
        algorithms = if is_secret { vec![Algorithm::HS256] } else { ASYMMETRIC.to_vec() };
    }
    Some(Issuer {
        source,
        issuer: written.issuer.as_ref().map(|issuer| issuer.value.clone()),
        audience: written.audience.iter().flat_map(|many| &many.0).map(|one| one.value.clone()).collect(),
        algorithms,
        leeway: or(written.leeway.as_ref(), DurationOrZero(DEFAULT_LEEWAY)).0,
    })
}

fn source(written: &document::Issuer, attached: &Attached, report: &mut Report) -> Option<KeySource> {
    let is_url = written.jwks.as_ref().is_some_and(|set| matches!(set.value, KeySetPlace::Url(_)));
    let only_with_url = [
        written.ca.as_ref().map(|ca| ("ca", ca.place)),
        written.refresh.as_ref().map(|refresh| ("refresh", refresh.place)),
        written.stale_if_error.as_ref().map(|stale| ("stale_if_error", stale.place)),
    ];
    for (key, place) in only_with_url.into_iter().flatten().filter(|_| !is_url) {
        report
            .error(place, format!("`{key}` is for a `jwks` that is a URL"))
            .help("remove it: a file is read again whenever it changes");
    }
    match (&written.jwks, &written.secret) {
        (Some(set), None) => match &set.value {
            KeySetPlace::Url(url) => Some(KeySource::Url(RemoteKeys {
                url: url.clone(),
                ca: match &written.ca {
                    Some(ca) => Some(pem::issuers(ca, attached, report)?),
                    None => None,
                },
                refresh: or(written.refresh.as_ref(), DEFAULT_REFRESH),
                stale_if_error: or(written.stale_if_error.as_ref(), DurationOrZero(DEFAULT_STALE_IF_ERROR)).0,
            })),
            KeySetPlace::File(_) => {
                let text = attached.text(written.key_set_file()?, report)?;
                let parsed = KeySet::parse(text.as_bytes()).map_err(|error| {
                    report.error(set.place, format!("`{}` has no usable key: {error}", set.shown()));
                });
                parsed.ok().map(KeySource::Set)
            }
        },
        (None, Some(secret)) => {
            if secret.value.0.reveal().len() < MIN_SECRET_BYTES {
                report
                    .error(secret.place, format!("`secret` must be at least {MIN_SECRET_BYTES} bytes"))
                    .help("make one: `openssl rand -base64 32`");
            }
            Some(KeySource::Secret(secret.value.0.clone()))
        }
        (Some(_), Some(secret)) => {
            report
                .error(secret.place, "an issuer has either `jwks` or a `secret`, not both")
                .help("with both, a public key could be passed off as the secret");
            None
        }
        (None, None) => {
            if written.sound {
                report
                    .error(written.place, "these keys have no source")
                    .help("add `jwks: https://…`, `jwks: FILE`, a `secret`, or a `list` of API keys");
            }
            None
        }
    }
}

fn table(name: Name, written: &document::KeyTable, report: &mut Report) -> Option<KeyTable> {
    let mut owners = HashMap::new();
    let mut places: HashMap<[u8; 32], Place> = HashMap::new();
    for entry in written.list.as_ref()? {
        let (Some(digest), Some(tenant)) = (entry.sha256.get(), entry.tenant.get()) else { continue };
        if let Some(first) = places.insert(digest.value.0, digest.place) {
            report
                .error(digest.place, "this key is listed twice")
                .also(first, "first listed here")
                .help("a key stands for one tenant");
        }
        let expires = entry.expires.as_ref().map(|moment| moment.value.0);
        owners.insert(digest.value.0, KeyOwner { tenant: tenant.value.clone(), expires });
    }
    Some(KeyTable { name, owners })
}

/// A resolver that reads a claim.
pub(super) fn jwt(written: &document::JwtClaim, keys: &Names<Keys>, report: &mut Report) -> Option<Resolver> {
    let claim = written.claim.get();
    for step in claim.iter().flat_map(|claim| &claim.0).filter(|step| step.value.is_empty()) {
        report.error(step.place, "the name of a claim must not be empty");
    }
    let source = token(
        &document::TokenSource {
            keys: written.keys.clone(),
            header: written.header.clone(),
            cookie: written.cookie.clone(),
            place: written.place,
            sound: written.sound,
        },
        keys,
        report,
    )?;
    Some(Resolver::Jwt(source, claim?.0.iter().map(|step| step.value.clone()).collect()))
}

/// A token that is to be verified.
pub(super) fn token(
    written: &document::TokenSource,
    keys: &Names<Keys>,
    report: &mut Report,
) -> Option<TokenSource> {
    let place = match (&written.header, &written.cookie) {
        (None, None) => TokenPlace::Header(AUTHORIZATION),
        (Some(header), None) => TokenPlace::Header(header.value.clone()),
        (None, Some(cookie)) => {
            if cookie.value.is_empty() {
                report.error(cookie.place, "the name of a cookie must not be empty");
            }
            TokenPlace::Cookie(cookie.value.clone())
        }
        (Some(_), Some(cookie)) => {
            report
                .error(cookie.place, "a token is read from one place: either `header` or `cookie`")
                .help("for a token in either, make a resolver of each: `first: [ … ]`");
            return None;
        }
    };
    let named = written.keys.get()?;
    match &*keys.find(named, report)? {
        Keys::Issuers(keys) => Some(TokenSource { keys: Arc::clone(keys), place }),
        Keys::Table(_) => {
            report
                .error(
                    named.place,
                    format!("`{}` is a table of API keys, and verifies no token", named.shown()),
                )
                .help("name keys with `jwks` or a `secret`");
            None
        }
    }
}

/// A resolver that looks a key up.
pub(super) fn api_key(
    written: &document::ApiKey,
    keys: &Names<Keys>,
    report: &mut Report,
) -> Option<Resolver> {
    let header = written.header.as_ref().map(|header| header.value.clone());
    let header = header.unwrap_or(HeaderName::from_static("x-api-key"));
    key_table(written.keys.get()?, keys, report).map(|table| Resolver::ApiKey(header, table))
}

/// The table of keys of that name.
pub(super) fn key_table(
    named: &Located<String>,
    keys: &Names<Keys>,
    report: &mut Report,
) -> Option<Arc<KeyTable>> {
    match &*keys.find(named, report)? {
        Keys::Table(table) => Some(Arc::clone(table)),
        Keys::Issuers(_) => {
            report
                .error(named.place, format!("`{}` are keys of issuers, and no table", named.shown()))
                .help("name keys with a `list` or a `file` of `{ sha256: …, tenant: … }`");
            None
        }
    }
}
