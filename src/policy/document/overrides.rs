//! Placement overrides as written.

use std::time::Duration;

use http::HeaderName;

use super::Match;
use crate::policy::decode::{Located, NonEmpty, Required, record};
use crate::policy::rate::{Percent, Timestamp};

record! {
    /// Placements that go before those of resolvers and plugins: `list` or `file`.
    Overrides is "`overrides`";
    /// The overrides themselves.
    list: Option<Vec<Override>>,
    /// A YAML file with the list.
    file: Option<Located<String>>,
}

record! {
    /// A file of overrides that is a map.
    OverrideFile is "an overrides file";
    /// The overrides.
    list: Option<Vec<Override>>,
    /// The overrides.
    overrides: Option<Vec<Override>>,
}

record! {
    /// One override: a tenant, and exactly one of `upstream`, `upstreams`, `quarantine`, `refuse`,
    /// `hold` and `mirror`.
    Override is "an override";
    /// Its name in records and on the admin listener. Default: `override-` and its number.
    id: Option<Located<String>>,
    /// The tenant's id, or `"*"` for every tenant.
    tenant: Required<Located<String>>,
    /// The upstream that its requests go to; with `percent` or `header`, some of them.
    upstream: Option<Located<String>>,
    /// The part of the clients that `upstream`, or of the requests that `mirror` is for: `5`.
    percent: Option<Located<Percent>>,
    /// Only requests with this header go to `upstream`.
    header: Option<Located<HeaderName>>,
    /// Upstreams of which the tenant is given a few, always the same ones.
    upstreams: Option<NonEmpty<Located<String>>>,
    /// How many of `upstreams` it is given. Default 1.
    choose: Option<Located<u32>>,
    /// The upstream that its requests go to, and nothing else: queries are refused.
    quarantine: Option<Located<String>>,
    /// `true`: its requests are refused.
    refuse: Option<Located<bool>>,
    /// How long its requests wait for the override to go, before they are refused: `5s`.
    hold: Option<Located<Duration>>,
    /// The upstream that is sent a copy of its requests that only read; what it answers is dropped.
    mirror: Option<Located<String>>,
    /// Requests that are taken for the tenant's where the plugin that would know has failed.
    if_unresolved: Option<Match>,
    /// When it ends. Default: when it is removed.
    until: Option<Located<Timestamp>>,
    /// Why there is one, for the operator.
    reason: Option<Located<String>>,
}
