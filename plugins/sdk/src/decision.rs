//! What a plugin answers.

use crate::bindings::innkeeper::policy::types as wire;

/// What becomes of the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It belongs to a tenant.
    Place(Placement),
    /// This plugin cannot tell; the next resolver may.
    Next,
    /// It is refused.
    Deny(Denial),
}

impl Decision {
    /// The request belongs to `tenant`.
    pub fn tenant(tenant: impl Into<String>) -> Self {
        Self::Place(Placement { tenant: tenant.into(), ..Placement::default() })
    }

    /// The request is refused: `status` is 400 to 599, `code` is for machines, `message` for people.
    pub fn deny(status: u16, code: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Deny(Denial { status, code: code.into(), message: message.into() })
    }

    /// Adds why, for the operator's eyes only. Does nothing where the request is not placed.
    ///
    /// ```
    /// use innkeeper_plugin::Decision;
    /// let Decision::Place(placement) = Decision::tenant("acme").because("api key") else { unreachable!() };
    /// assert_eq!(placement.reason.as_deref(), Some("api key"));
    /// ```
    #[must_use]
    pub fn because(mut self, reason: impl Into<String>) -> Self {
        if let Self::Place(placement) = &mut self {
            placement.reason = Some(reason.into());
        }
        self
    }
}

/// Where a request goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Placement {
    /// The tenant's id. The directory decides whether it exists.
    pub tenant: String,
    /// Headers to add to a forwarded request.
    pub headers: Vec<(String, String)>,
    /// The upstream to use in place of the route's own.
    pub upstream: Option<String>,
    /// Why, for the operator's eyes only.
    pub reason: Option<String>,
}

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// 400 to 599.
    pub status: u16,
    /// The plugin's own machine-readable code.
    pub code: String,
    /// What the client is told.
    pub message: String,
}

impl From<Decision> for wire::Decision {
    fn from(decision: Decision) -> Self {
        match decision {
            Decision::Place(Placement { tenant, headers, upstream, reason }) => {
                Self::Place(wire::Placement { tenant, headers, upstream, reason })
            }
            Decision::Next => Self::Next,
            Decision::Deny(Denial { status, code, message }) => {
                Self::Deny(wire::Denial { status, code, message })
            }
        }
    }
}
