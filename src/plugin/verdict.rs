//! What a plugin answered, held to the rules: from the wire's decision to ours.

use http::{HeaderName, HeaderValue, StatusCode};

use super::bindings::innkeeper::policy::types as wire;
use super::failure::{FailureClass, PluginFailure};
use super::log::printable;
use crate::decision::{Decision, Denial, Placement};

/// Headers that one decision may add.
const MAX_HEADERS: usize = 32;
/// Names and values of them together, bytes: well under what backends accept for all headers.
const MAX_HEADER_BYTES: usize = 8192;
/// The longest code of a denial, bytes.
const MAX_CODE_BYTES: usize = 64;
/// The longest message of a denial, bytes.
const MAX_MESSAGE_BYTES: usize = 1024;
/// The longest name of an upstream, bytes.
const MAX_UPSTREAM_BYTES: usize = 128;
/// The longest reason, bytes. A longer one is cut: it is a note for the operator, not an answer.
const MAX_REASON_BYTES: usize = 512;

/// Names that frame a message or belong to one connection (RFC 9110, section 7.6.1), and those that
/// only we may set, folded as [`fold`] does.
const NOT_FOR_PLUGINS: [&str; 19] = [
    "connection",
    "contentlength",
    "expect",
    "forwarded",
    "host",
    "http2settings",
    "keepalive",
    "proxyauthenticate",
    "proxyauthorization",
    "proxyconnection",
    "te",
    "traceparent",
    "tracestate",
    "trailer",
    "trailers",
    "transferencoding",
    "upgrade",
    "via",
    "xrequestid",
];

/// Beginnings that only we may use, folded.
const NOT_FOR_PLUGINS_PREFIXES: [&str; 3] = ["xtenant", "xforwarded", "xinnkeeper"];

/// Checks a plugin's decision.
pub(super) fn check(decision: wire::Decision) -> Result<Decision, PluginFailure> {
    match decision {
        wire::Decision::Next => Ok(Decision::Next),
        wire::Decision::Place(placement) => check_placement(placement).map(Decision::Place),
        wire::Decision::Deny(denial) => check_denial(denial).map(Decision::Deny),
    }
}

fn bad(message: impl AsRef<str>) -> PluginFailure {
    PluginFailure::new(FailureClass::BadResult, message)
}

fn check_placement(placement: wire::Placement) -> Result<Placement, PluginFailure> {
    let wire::Placement { tenant, headers, upstream, reason } = placement;
    let tenant = tenant.parse().map_err(|error| bad(format!("{error}")))?;
    if headers.len() > MAX_HEADERS {
        return Err(bad(format!("at most {MAX_HEADERS} headers may be added, got {}", headers.len())));
    }
    let bytes: usize = headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    if bytes > MAX_HEADER_BYTES {
        return Err(bad(format!("headers may have at most {MAX_HEADER_BYTES} bytes together, got {bytes}")));
    }
    let headers = headers.iter().map(|(name, value)| check_header(name, value)).collect::<Result<_, _>>()?;
    if let Some(name) = &upstream {
        let plain = !name.is_empty() && name.len() <= MAX_UPSTREAM_BYTES && !name.contains(char::is_control);
        if !plain {
            return Err(bad(format!("upstream must be a name of 1 to {MAX_UPSTREAM_BYTES} bytes")));
        }
    }
    let reason = reason.map(|reason| printable(&reason, MAX_REASON_BYTES).into_owned());
    Ok(Placement { tenant, headers, upstream, reason })
}

fn check_header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), PluginFailure> {
    let Ok(parsed) = name.parse::<HeaderName>() else {
        return Err(bad(format!("`{name}` is not a header name")));
    };
    let folded = fold(name);
    let ours = NOT_FOR_PLUGINS.contains(&folded.as_str())
        || NOT_FOR_PLUGINS_PREFIXES.iter().any(|prefix| folded.starts_with(prefix));
    if ours {
        return Err(bad(format!("a plugin may not set the header `{name}`")));
    }
    // The value may be a secret: it is not repeated.
    let value =
        value.parse().map_err(|_| bad(format!("the value of the header `{name}` has foreign bytes")))?;
    Ok((parsed, value))
}

/// How the most forgiving backend may read a header's name: CGI folds `-` into `_`, others drop
/// what is neither letter nor digit.
fn fold(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

fn check_denial(denial: wire::Denial) -> Result<Denial, PluginFailure> {
    let wire::Denial { status, code, message } = denial;
    let status = StatusCode::from_u16(status)
        .ok()
        .filter(|status| status.is_client_error() || status.is_server_error())
        .ok_or_else(|| bad(format!("a denial's status must be 400 to 599, got {status}")))?;
    if code.is_empty() || code.len() > MAX_CODE_BYTES || !code.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(bad(format!("a denial's code must be 1 to {MAX_CODE_BYTES} visible ASCII characters")));
    }
    if message.len() > MAX_MESSAGE_BYTES || message.contains(char::is_control) {
        return Err(bad(format!(
            "a denial's message must be at most {MAX_MESSAGE_BYTES} bytes without control characters"
        )));
    }
    Ok(Denial { status, code, message })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(headers: &[(&str, &str)]) -> Result<Decision, PluginFailure> {
        check(wire::Decision::Place(wire::Placement {
            tenant: "acme".into(),
            headers: headers.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
            upstream: None,
            reason: None,
        }))
    }

    fn deny(status: u16, code: &str, message: &str) -> Result<Decision, PluginFailure> {
        check(wire::Decision::Deny(wire::Denial { status, code: code.into(), message: message.into() }))
    }

    #[test]
    fn headers_that_only_we_may_set_are_refused_in_every_spelling() {
        for name in [
            "X-Tenant-ID",
            "x_tenant_id",
            "X.Tenant-Schema",
            "XTENANTID",
            "x-tenant",
            "Host",
            "Content-Length",
            "content_length",
            "Transfer-Encoding",
            "TE",
            "Connection",
            "Upgrade",
            "X-Forwarded-For",
            "Forwarded",
            "X-Request-ID",
            "traceparent",
        ] {
            assert_eq!(place(&[(name, "1")]).unwrap_err().class, FailureClass::BadResult, "{name}");
        }
        assert!(place(&[("X-Plan", "gold"), ("X-Internal-Tenant", "no")]).is_ok());
    }

    #[test]
    fn headers_must_be_headers() {
        for (name, value) in [("a b", "1"), ("", "1"), (":authority", "1"), ("x", "a\r\ny: z"), ("x", "\0")] {
            assert!(place(&[(name, value)]).is_err(), "{name:?}: {value:?}");
        }
        assert!(place(&[("x", "1"); 33]).is_err());
        assert!(place(&[("x", &"1".repeat(9000))]).is_err());
    }

    #[test]
    fn a_denial_is_a_denial() {
        assert!(deny(403, "no-access", "ask your administrator").is_ok());
        assert!(deny(599, "x", "").is_ok());
        for (status, code, message) in [
            (200, "x", ""),
            (302, "x", ""),
            (600, "x", ""),
            (0, "x", ""),
            (403, "", ""),
            (403, "a b", ""),
            (403, "x", "a\nb"),
        ] {
            assert!(deny(status, code, message).is_err(), "{status} {code:?} {message:?}");
        }
        assert!(deny(403, &"x".repeat(65), "").is_err());
        assert!(deny(403, "x", &"x".repeat(1025)).is_err());
    }

    #[test]
    fn an_upstream_is_a_name() {
        for upstream in ["", "a\nb", &"x".repeat(129)] {
            let decision = wire::Decision::Place(wire::Placement {
                tenant: "acme".into(),
                headers: Vec::new(),
                upstream: Some(upstream.into()),
                reason: None,
            });
            assert!(check(decision).is_err(), "{upstream:?}");
        }
    }
}
