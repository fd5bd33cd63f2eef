//! Placement overrides: what an operator decides above every resolver and plugin.

use std::fmt;
use std::time::{Duration, SystemTime};

use http::HeaderName;

use super::{Name, RouteMatch};
use crate::tenant::TenantId;

/// One override.
#[derive(Debug, Clone, PartialEq)]
pub struct Override {
    /// Its name in records and on the admin listener.
    pub id: Name,
    /// Whose requests it is for; `None` for every tenant's.
    pub tenant: Option<TenantId>,
    /// What becomes of them.
    pub action: Action,
    /// Requests that are taken for the tenant's where the plugin that would know has failed. Only
    /// an override of one tenant has it.
    pub if_unresolved: Option<RouteMatch>,
    /// When it ends.
    pub until: Option<SystemTime>,
    /// Why there is one.
    pub reason: Option<String>,
}

/// What becomes of a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// It goes to this upstream.
    Pin(Name),
    /// Some go to this upstream.
    Canary {
        /// The upstream.
        upstream: Name,
        /// Which ones.
        sample: Sample,
    },
    /// It goes to one of a few upstreams, always the same ones for a tenant.
    Shard {
        /// The upstreams that they are out of.
        upstreams: Vec<Name>,
        /// How many a tenant is given.
        choose: usize,
    },
    /// It goes to this upstream and nowhere else.
    Quarantine(Name),
    /// It is refused.
    Refuse,
    /// It waits for the override to go.
    Hold(Duration),
    /// A copy goes to this upstream too.
    Mirror {
        /// The upstream.
        upstream: Name,
        /// The part of the requests that is copied.
        part: Part,
    },
}

/// Which requests are part of a canary.
#[derive(Debug, Clone, PartialEq)]
pub enum Sample {
    /// Those of a part of the clients, always the same ones.
    Clients(Part),
    /// Those with this header.
    Header(HeaderName),
}

/// A part of the whole, in millionths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part(u32);

impl Part {
    /// Everything.
    pub const WHOLE: Self = Self(1_000_000);

    /// So many of a hundred, to the fourth decimal place.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "held to the range before")]
    pub fn of_hundred(percent: f64) -> Self {
        Self((percent.clamp(0.0, 100.0) * 10_000.0).round() as u32)
    }

    /// So many of a million.
    pub fn millionths(self) -> u64 {
        self.0.into()
    }
}

impl Override {
    /// Whether it is in force at `now`.
    pub fn holds_at(&self, now: SystemTime) -> bool {
        self.until.is_none_or(|until| now < until)
    }

    /// Every upstream that it names.
    pub fn upstreams(&self) -> &[Name] {
        match &self.action {
            Action::Pin(upstream)
            | Action::Canary { upstream, .. }
            | Action::Quarantine(upstream)
            | Action::Mirror { upstream, .. } => std::slice::from_ref(upstream),
            Action::Shard { upstreams, .. } => upstreams,
            Action::Refuse | Action::Hold(_) => &[],
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pin(upstream) => write!(f, "to `{upstream}`"),
            Self::Canary { upstream, sample: Sample::Clients(part) } => {
                write!(f, "{part} of the clients to `{upstream}`")
            }
            Self::Canary { upstream, sample: Sample::Header(header) } => {
                write!(f, "to `{upstream}` with the header `{header}`")
            }
            Self::Shard { upstreams, choose } => {
                write!(f, "to {choose} of `{}`", upstreams.join("`, `"))
            }
            Self::Quarantine(upstream) => write!(f, "quarantined in `{upstream}`"),
            Self::Refuse => f.write_str("refused"),
            Self::Hold(wait) => write!(f, "held for up to {}", humantime::format_duration(*wait)),
            Self::Mirror { upstream, part } => write!(f, "{part} copied to `{upstream}`"),
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", f64::from(self.0) / 10_000.0)
    }
}
