//! How keys, moments and networks are spelled.

use std::time::SystemTime;

use http::Uri;
use http::uri::Scheme;

use crate::policy::decode::{Leaf, Unreadable};
use crate::policy::yaml::Scalar;

/// Where a set of keys is.
#[derive(Debug, Clone)]
pub(crate) enum KeySetPlace {
    /// On a server.
    Url(Uri),
    /// In a file, relative to the one that names it.
    File(String),
}

impl Leaf for KeySetPlace {
    const EXPECTED: &'static str = "an `https:` URL, or a file";

    fn read(scalar: &Scalar) -> Result<Self, Unreadable> {
        let text = scalar.text.as_str();
        if text.is_empty() {
            return Err(Unreadable::Kind);
        }
        if !text.contains("://") {
            return Ok(Self::File(text.to_owned()));
        }
        let url: Uri = text.parse().map_err(|_| Unreadable::Kind)?;
        let host = url.host().unwrap_or_default().trim_matches(['[', ']']);
        let is_here = host == "localhost"
            || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
        if url.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err(Unreadable::Rule("a URL of keys must not carry a user or password".into()));
        }
        if url.scheme() == Some(&Scheme::HTTPS) || (url.scheme() == Some(&Scheme::HTTP) && is_here) {
            return Ok(Self::Url(url));
        }
        Err(Unreadable::Rule(
            "keys come over `https:`; over `http:` only from this machine: whoever can change them on \
             their way can name any tenant"
                .into(),
        ))
    }
}

/// A moment in UTC.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Instant(pub SystemTime);

impl Leaf for Instant {
    const EXPECTED: &'static str = "a moment such as `2027-01-01T00:00:00Z`";

    fn read(scalar: &Scalar) -> Result<Self, Unreadable> {
        humantime::parse_rfc3339(scalar.text.trim()).map(Self).map_err(|_| Unreadable::Kind)
    }
}
