//! Every way in which a request can be refused: one closed list of codes, two texts for each.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde_json::{Map, Value};

/// The codes that clients see (RFC 9457 `type` is `urn:innkeeper:error:<code>`). The list is part
/// of the product's contract: a code is never renamed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Code {
    /// No route matches.
    RouteNotFound,
    /// No resolver named a tenant.
    TenantMissing,
    /// Resolvers named different tenants, or one read contradictory input.
    TenantAmbiguous,
    /// The directory does not know the tenant.
    TenantUnknown,
    /// A token or key that came with the request is not valid.
    TokenInvalid,
    /// The tenant is suspended.
    TenantSuspended,
    /// The tenant is held for a moment.
    TenantHeld,
    /// The tenant is over its limits.
    TenantLimited,
    /// A plugin refused the request.
    Denied,
    /// The request is malformed or ambiguous.
    RequestInvalid,
    /// Body, header section or request target is over its limit.
    RequestTooLarge,
    /// The client sent its request too slowly.
    RequestTimeout,
    /// An operator ended the request.
    RequestEnded,
    /// A plugin failed and its policy is to deny.
    PluginFailed,
    /// The directory cannot be read.
    DirectoryUnavailable,
    /// The keys that tokens are verified with are not known.
    KeysUnavailable,
    /// The upstream cannot be reached, or broke off.
    UpstreamUnreachable,
    /// The upstream took too long.
    UpstreamTimeout,
    /// The upstream has as many requests as it may have.
    UpstreamOverloaded,
    /// No database connection to be had.
    DatabaseUnavailable,
    /// The statement ran over its time.
    QueryTimeout,
    /// A parameter is missing or not of its type.
    QueryParameter,
    /// The statement is not allowed.
    QueryRefused,
    /// PostgreSQL refused the statement.
    QueryFailed,
    /// The scope was not what it must be at the end of the statement. Also an alarm.
    IsolationBreach,
    /// We are at fault.
    InternalError,
}

impl Code {
    /// The code as clients and dashboards read it.
    pub fn as_str(self) -> &'static str {
        self.facts().0
    }

    /// The status that goes with it, where the refusal names no other.
    pub fn status(self) -> StatusCode {
        self.facts().1
    }

    /// A short human title (RFC 9457, section 3.1.3).
    pub fn title(self) -> &'static str {
        self.facts().2
    }

    /// Whose fault it is, for the operator.
    pub fn blame(self) -> Blame {
        self.facts().3
    }

    fn facts(self) -> (&'static str, StatusCode, &'static str, Blame) {
        use Blame as B;
        use StatusCode as S;
        match self {
            Self::RouteNotFound => ("route-not-found", S::NOT_FOUND, "No such route", B::Client),
            Self::TenantMissing => {
                ("tenant-missing", S::BAD_REQUEST, "The request names no tenant", B::Client)
            }
            Self::TenantAmbiguous => {
                ("tenant-ambiguous", S::BAD_REQUEST, "The request names more than one tenant", B::Client)
            }
            Self::TenantUnknown => ("tenant-unknown", S::NOT_FOUND, "No such tenant", B::Client),
            Self::TokenInvalid => ("token-invalid", S::UNAUTHORIZED, "The token is not valid", B::Client),
            Self::TenantSuspended => ("tenant-suspended", S::FORBIDDEN, "The tenant is suspended", B::Client),
            Self::TenantHeld => {
                ("tenant-held", S::SERVICE_UNAVAILABLE, "The tenant is held for a moment", B::Policy)
            }
            Self::TenantLimited => {
                ("tenant-limited", S::TOO_MANY_REQUESTS, "The tenant is over its limits", B::Client)
            }
            Self::Denied => ("denied", S::FORBIDDEN, "The request was denied", B::Client),
            Self::RequestInvalid => ("request-invalid", S::BAD_REQUEST, "The request is invalid", B::Client),
            Self::RequestTooLarge => {
                ("request-too-large", S::PAYLOAD_TOO_LARGE, "The request is too large", B::Client)
            }
            Self::RequestTimeout => {
                ("request-timeout", S::REQUEST_TIMEOUT, "The request arrived too slowly", B::Client)
            }
            Self::RequestEnded => {
                ("request-ended", S::SERVICE_UNAVAILABLE, "The request was ended", B::Policy)
            }
            Self::PluginFailed => {
                ("plugin-failed", S::SERVICE_UNAVAILABLE, "The tenant cannot be resolved now", B::Plugin)
            }
            Self::DirectoryUnavailable => (
                "directory-unavailable",
                S::SERVICE_UNAVAILABLE,
                "The tenant cannot be looked up now",
                B::Database,
            ),
            Self::KeysUnavailable => {
                ("keys-unavailable", S::SERVICE_UNAVAILABLE, "Tokens cannot be verified now", B::Issuer)
            }
            Self::UpstreamUnreachable => {
                ("upstream-unreachable", S::BAD_GATEWAY, "The upstream cannot be reached", B::Upstream)
            }
            Self::UpstreamTimeout => {
                ("upstream-timeout", S::GATEWAY_TIMEOUT, "The upstream took too long", B::Upstream)
            }
            Self::UpstreamOverloaded => {
                ("upstream-overloaded", S::SERVICE_UNAVAILABLE, "The upstream is busy", B::Upstream)
            }
            Self::DatabaseUnavailable => {
                ("database-unavailable", S::SERVICE_UNAVAILABLE, "The database is unavailable", B::Database)
            }
            Self::QueryTimeout => {
                ("query-timeout", S::GATEWAY_TIMEOUT, "The query took too long", B::Database)
            }
            Self::QueryParameter => {
                ("query-parameter", S::BAD_REQUEST, "A query parameter is invalid", B::Client)
            }
            Self::QueryRefused => ("query-refused", S::FORBIDDEN, "The query is not allowed", B::Client),
            Self::QueryFailed => ("query-failed", S::BAD_REQUEST, "The query failed", B::Client),
            Self::IsolationBreach => {
                ("isolation-breach", S::INTERNAL_SERVER_ERROR, "The query left its tenant", B::Policy)
            }
            Self::InternalError => ("internal-error", S::INTERNAL_SERVER_ERROR, "Internal error", B::Us),
        }
    }
}

/// Whose fault a refusal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// Whoever sent the request.
    Client,
    /// Whoever wrote the policy.
    Policy,
    /// A plugin's author.
    Plugin,
    /// Whoever issues tokens and publishes the keys for them.
    Issuer,
    /// The application behind us.
    Upstream,
    /// PostgreSQL, or the way to it.
    Database,
    /// Innkeeper.
    Us,
}

impl Blame {
    /// The word in logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Policy => "policy",
            Self::Plugin => "plugin",
            Self::Issuer => "issuer",
            Self::Upstream => "upstream",
            Self::Database => "database",
            Self::Us => "innkeeper",
        }
    }
}

/// Why a request gets no ordinary answer. `detail` is for the client and helps it; `cause` is for
/// the operator's log and may name hosts, schemas and SQL.
#[derive(Debug, Clone)]
pub struct Refusal {
    code: Code,
    status: StatusCode,
    detail: Cow<'static, str>,
    cause: Option<String>,
    blame: Blame,
    retry_after: Option<Duration>,
    extension: Option<(&'static str, String)>,
    extras: Option<Box<Extras>>,
}

/// What few refusals have.
#[derive(Debug, Clone, Default)]
struct Extras {
    headers: HeaderMap,
    members: Map<String, Value>,
}

impl Refusal {
    /// A refusal with the code's own status.
    pub fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            status: code.status(),
            detail: detail.into(),
            cause: None,
            blame: code.blame(),
            retry_after: None,
            extension: None,
            extras: None,
        }
    }

    /// Replaces the code's status, for the codes that have several.
    #[must_use]
    pub fn with_status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    /// Adds what only the operator may read.
    #[must_use]
    pub fn because(mut self, cause: impl fmt::Display) -> Self {
        self.cause = Some(cause.to_string());
        self
    }

    /// Blames someone else than the code does: a failed statement is not always the client's.
    #[must_use]
    pub fn blamed_on(mut self, blame: Blame) -> Self {
        self.blame = blame;
        self
    }

    /// Tells the client when to try again (RFC 9110, section 10.2.3).
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// Adds a header to the response.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.extras.get_or_insert_default().headers.append(name, value);
        self
    }

    /// Adds a member to the problem document, such as a plugin's own code or an SQLSTATE
    /// (RFC 9457, section 3.2).
    #[must_use]
    pub fn with_extension(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.extension = Some((name, value.into()));
        self
    }

    /// Adds members that the problem document is to have besides its own, and those of its own
    /// that they replace: all that PostgreSQL says of a statement, to whoever wrote it.
    #[must_use]
    pub fn with_members(mut self, members: Map<String, Value>) -> Self {
        self.extras.get_or_insert_default().members = members;
        self
    }

    /// The code.
    pub fn code(&self) -> Code {
        self.code
    }

    /// The status of the response.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// What the client is told.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// What the operator is told besides.
    pub fn cause(&self) -> Option<&str> {
        self.cause.as_deref()
    }

    /// Whose fault it is, for the operator.
    pub fn blame(&self) -> Blame {
        self.blame
    }

    /// When the client should try again.
    pub fn retry_after_hint(&self) -> Option<Duration> {
        self.retry_after
    }

    /// Headers that the response has besides its own.
    pub fn headers(&self) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
        self.extras.iter().flat_map(|extras| extras.headers.iter())
    }

    /// An additional member of the problem document.
    pub fn extension(&self) -> Option<(&'static str, &str)> {
        self.extension.as_ref().map(|(name, value)| (*name, value.as_str()))
    }

    /// Members that the problem document has besides its own, or in their place.
    pub fn members(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.extras.iter().flat_map(|extras| extras.members.iter())
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.as_str(), self.detail)?;
        if let Some(cause) = &self.cause {
            write!(f, " ({cause})")?;
        }
        Ok(())
    }
}

impl std::error::Error for Refusal {}

/// An error with everything that it wraps, for the log.
pub fn in_full(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source())
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}
