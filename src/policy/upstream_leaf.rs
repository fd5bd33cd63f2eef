//! How the values of an upstream are spelled.

use std::ops::RangeInclusive;
use std::path::PathBuf;

use http::uri::{Authority, PathAndQuery, Scheme};
use http::{StatusCode, Uri};
use rustls::pki_types::ServerName;
use schemars::{Schema, json_schema};

use super::decode::{Leaf, Unreadable};
use super::upstream::{Endpoint, RetryOn};
use super::yaml::{Scalar, ScalarKind};

/// Longest path of a Unix socket on the systems that we run on (`sun_path`, with its final zero).
const LONGEST_SOCKET_PATH: usize = 107;

impl Leaf for Endpoint {
    const EXPECTED: &'static str =
        "an endpoint such as `http://127.0.0.1:9000`, `https://app.internal:8443` or `unix:/run/app.sock`";

    fn read(scalar: &Scalar) -> Result<Self, Unreadable> {
        let rule = |text: &str| Err(Unreadable::Rule(text.into()));
        let text = scalar.text.as_str();
        if let Some(path) = text.strip_prefix("unix:") {
            if !path.starts_with('/') {
                return rule("a Unix socket is named by its whole path: `unix:/run/app.sock`");
            }
            if path.len() > LONGEST_SOCKET_PATH {
                return Err(Unreadable::Rule(format!(
                    "the path of a Unix socket has at most {LONGEST_SOCKET_PATH} bytes, this one has {}",
                    path.len()
                )));
            }
            return Ok(Self::Unix(PathBuf::from(path)));
        }
        if !text.contains("://") {
            return Err(Unreadable::Rule(format!("an endpoint starts with its scheme: `http://{text}`")));
        }
        let uri: Uri = text.parse().map_err(|_| Unreadable::Kind)?;
        let encrypted = uri.scheme() == Some(&Scheme::HTTPS);
        let Some(authority) = uri.authority().filter(|_| encrypted || uri.scheme() == Some(&Scheme::HTTP))
        else {
            return Err(Unreadable::Kind);
        };
        if authority.as_str().contains('@') {
            return rule("an endpoint must not carry a user or password");
        }
        if uri.query().is_some() || uri.path() != "/" || text.ends_with('/') || text.contains('#') {
            return rule("an endpoint is a host and port only: a request keeps its own path and query");
        }
        if authority.port().is_some() && authority.port_u16().is_none_or(|port| port == 0) {
            return rule("an endpoint's port is a number from 1 to 65535");
        }
        let port = if encrypted { 443 } else { 80 };
        let authority = match authority.port() {
            Some(_) => authority.clone(),
            None => format!("{authority}:{port}").parse::<Authority>().map_err(|_| Unreadable::Kind)?,
        };
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        if encrypted && ServerName::try_from(host).is_err() {
            return Err(Unreadable::Rule(format!("`{host}` is no name that a certificate could have")));
        }
        Ok(if encrypted { Self::Https(authority) } else { Self::Http(authority) })
    }
}

/// What a health check asks for.
#[derive(Debug, Clone)]
pub(crate) struct CheckPath(pub PathAndQuery);

impl Leaf for CheckPath {
    const EXPECTED: &'static str = "a path such as `/healthz`";

    fn read(scalar: &Scalar) -> Result<Self, Unreadable> {
        if !scalar.text.starts_with('/') {
            return Err(Unreadable::Kind);
        }
        scalar.text.parse().map(Self).map_err(|_| Unreadable::Kind)
    }
}

/// A status, or all from one to another.
#[derive(Debug, Clone)]
pub(crate) struct StatusRange(pub RangeInclusive<u16>);

impl Leaf for StatusRange {
    const EXPECTED: &'static str = "a status such as `204`, or a range such as `200..299`";

    fn read(scalar: &Scalar) -> Result<Self, Unreadable> {
        let status = |text: &str| {
            let status: StatusCode = text.trim().parse().map_err(|_| Unreadable::Kind)?;
            Ok::<_, Unreadable>(status.as_u16())
        };
        let (first, last) = match scalar.text.split_once("..") {
            Some((first, last)) => (status(first)?, status(last)?),
            None => (status(&scalar.text)?, status(&scalar.text)?),
        };
        if first > last {
            return Err(Unreadable::Rule(format!("this range is empty: write `{last}..{first}`")));
        }
        Ok(Self(first..=last))
    }

    fn schema() -> Schema {
        json_schema!({
            "anyOf": [
                { "type": "string", "pattern": "^[0-9]{3}(\\.\\.[0-9]{3})?$", "examples": ["200..299"] },
                { "type": "integer", "minimum": 100, "maximum": 999 }
            ]
        })
    }
}

impl Leaf for RetryOn {
    const EXPECTED: &'static str = "`reset`, `timeout`, or a status from `500` to `599`";

    fn read(scalar: &Scalar) -> Result<Self, Unreadable> {
        match (scalar.kind, scalar.text.as_str()) {
            (_, "reset") => Ok(Self::Reset),
            (_, "timeout") => Ok(Self::Timeout),
            (_, "connect") => Err(Unreadable::Rule(
                "an endpoint that cannot be connected to is always passed over for the next: leave `connect` out"
                    .into(),
            )),
            (ScalarKind::Bool, _) => Err(Unreadable::Kind),
            (_, text) => match text.parse::<StatusCode>() {
                // What says that the request is wrong says so again.
                Ok(status) if status.is_server_error() => Ok(Self::Status(status)),
                _ => Err(Unreadable::Kind),
            },
        }
    }

    fn schema() -> Schema {
        json_schema!({
            "anyOf": [
                { "enum": ["reset", "timeout"] },
                { "type": "integer", "minimum": 500, "maximum": 599 }
            ]
        })
    }
}
