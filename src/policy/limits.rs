//! What tenants may take: as one place writes it, and as it holds with the defaults of all.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use super::decode::Decode as _;
use super::diagnostic::Report;
use super::rate::Rate;
use super::source::Sources;
use super::{document, yaml};
use crate::tenant::{Limits, Quota};

/// Requests that wait for a place where the policy does not say.
const DEFAULT_QUEUE: u32 = 64;

/// How long one of them waits: longer than a moment's crowd, shorter than a client's patience.
const DEFAULT_WAIT: Duration = Duration::from_secs(1);

/// The least burst of bytes. A body comes in pieces of this order, which are not torn.
const LEAST_BYTE_BURST: NonZeroU64 = NonZeroU64::new(64 << 10).expect("it is not zero");

/// Limits as one place writes them. What it does not name, another place may.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct WrittenLimits {
    requests: Option<Rate>,
    burst: Option<NonZeroU64>,
    bytes: Option<Rate>,
    concurrency: Option<u32>,
    queue: Option<u32>,
    wait: Option<Duration>,
    connections: Option<u32>,
}

/// The limits of all tenants, which a tenant's own go before.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DefaultLimits {
    written: WrittenLimits,
    /// What holds for a tenant without limits of its own, shared by all of them.
    alone: Option<Arc<Limits>>,
}

/// Why limits that are sound key by key do not make sense together. Names the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("`{key}` limits nothing without `{needs}`")]
pub struct IdleKey {
    /// The key that says nothing.
    pub key: &'static str,
    /// The key that it belongs to.
    pub needs: &'static str,
}

impl WrittenLimits {
    /// Reads limits from a JSON or YAML map with the keys of the policy's `limits`.
    ///
    /// # Errors
    /// What is wrong, in one line.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (mut sources, mut report) = (Sources::default(), Report::default());
        let file = sources.add("limits".as_ref(), text.into());
        let written = yaml::parse(text, file, &mut report)
            .and_then(|node| document::TenantLimits::decode(&node, &mut report));
        let findings = report.finish(&sources);
        match (written, findings.iter().next()) {
            (Some(written), None) => Ok(Self::from(&written)),
            (_, Some(first)) => Err(first.message.clone()),
            (None, None) => Err("expected a map of limits".to_owned()),
        }
    }

    /// These limits, and `others` where these name none.
    fn over(&self, others: &Self) -> Self {
        Self {
            requests: self.requests.or(others.requests),
            // A burst belongs to the rate that it was written with.
            burst: if self.requests.is_some() { self.burst } else { self.burst.or(others.burst) },
            bytes: self.bytes.or(others.bytes),
            concurrency: self.concurrency.or(others.concurrency),
            queue: self.queue.or(others.queue),
            wait: self.wait.or(others.wait),
            connections: self.connections.or(others.connections),
        }
    }

    /// What holds in the end; `None` where nothing is limited.
    fn effective(&self) -> Result<Option<Arc<Limits>>, IdleKey> {
        let idle = |key, needs| Err(IdleKey { key, needs });
        match self {
            Self { burst: Some(_), requests: None, .. } => return idle("burst", "requests"),
            Self { queue: Some(_), concurrency: None, .. } => return idle("queue", "concurrency"),
            Self { wait: Some(_), concurrency: None, bytes: None, .. } => return idle("wait", "concurrency"),
            Self { requests: None, bytes: None, concurrency: None, connections: None, .. } => {
                return Ok(None);
            }
            _ => {}
        }
        let quota = |rate: Rate, burst| Quota::new(rate.amount, rate.per, burst);
        Ok(Some(Arc::new(Limits {
            requests: self.requests.map(|rate| quota(rate, self.burst.unwrap_or(rate.in_a_second()))),
            bytes: self.bytes.map(|rate| quota(rate, rate.in_a_second().max(LEAST_BYTE_BURST))),
            concurrency: self.concurrency,
            queue: self.queue.unwrap_or(DEFAULT_QUEUE),
            wait: self.wait.unwrap_or(DEFAULT_WAIT),
            connections: self.connections,
        })))
    }
}

impl DefaultLimits {
    /// Defaults of which each may still be without effect: a tenant's own limits give it one.
    pub fn new(written: WrittenLimits) -> Self {
        let alone = written.effective().unwrap_or_default();
        Self { written, alone }
    }

    /// What holds for a tenant with limits of its own, or without.
    ///
    /// # Errors
    /// A key that would limit nothing: whoever wrote it thinks otherwise.
    pub fn with(&self, own: Option<&WrittenLimits>) -> Result<Option<Arc<Limits>>, IdleKey> {
        match own {
            Some(own) => own.over(&self.written).effective(),
            None => Ok(self.alone.clone()),
        }
    }

    /// A key that limits no tenant without limits of its own.
    pub(crate) fn idle_key(&self) -> Option<IdleKey> {
        self.written.effective().err()
    }
}

impl From<&document::TenantLimits> for WrittenLimits {
    fn from(written: &document::TenantLimits) -> Self {
        Self {
            requests: written.requests.as_ref().map(|rate| rate.value.0),
            burst: written.burst.as_ref().and_then(|burst| NonZeroU64::new(burst.value)),
            bytes: written.bytes.as_ref().map(|rate| rate.value.0),
            concurrency: written.concurrency.as_ref().map(|most| most.value),
            queue: written.queue.as_ref().map(|queue| u32::try_from(queue.value).unwrap_or(u32::MAX)),
            wait: written.wait.as_ref().map(|wait| wait.value.0),
            connections: written.connections.as_ref().map(|most| most.value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(defaults: &str, own: &str) -> Limits {
        let defaults = DefaultLimits::new(WrittenLimits::parse(defaults).unwrap());
        let own = WrittenLimits::parse(own).unwrap();
        Arc::unwrap_or_clone(defaults.with(Some(&own)).unwrap().unwrap())
    }

    #[test]
    fn a_tenants_own_limits_go_before_those_of_all() {
        let limits = limits(
            "{ requests: 100/s, burst: 7, concurrency: 64, wait: 2s }",
            r#"{ "requests": "1000/s", "queue": 0 }"#,
        );
        let requests = limits.requests.unwrap();
        // A burst goes with its own rate.
        assert_eq!((requests.burst(), requests.window()), (1000, Duration::from_secs(1)));
        assert_eq!((limits.concurrency, limits.queue, limits.wait), (Some(64), 0, Duration::from_secs(2)));
        assert_eq!(limits.bytes, None);
    }

    #[test]
    fn what_is_no_limit_is_refused_and_never_taken_for_none() {
        for wrong in ["", "[]", "fast", "{ requests: 100 }", "{ request: 1/s }", "{ concurrency: 0 }"] {
            assert!(WrittenLimits::parse(wrong).is_err(), "{wrong:?}");
        }
        let nothing = DefaultLimits::default();
        let burst = WrittenLimits::parse("{ burst: 5 }").unwrap();
        assert_eq!(nothing.with(Some(&burst)), Err(IdleKey { key: "burst", needs: "requests" }));
        assert_eq!(nothing.with(None), Ok(None));
    }
}
