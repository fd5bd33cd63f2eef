//! Fetches a key set over HTTP.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CACHE_CONTROL};
use http::{HeaderMap, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};

use crate::error;
use crate::policy::KeySet;

/// From the first byte to the last: a key set is some kilobytes.
const TIME_LIMIT: Duration = Duration::from_secs(10);

/// A hundred times the largest that is known to be published.
const MAX_BYTES: usize = 1 << 20;

/// Fetches from one server, whose certificate is checked.
pub(super) struct Client(legacy::Client<HttpsConnector<HttpConnector>, Empty<Bytes>>);

/// A key set, and how long its server says that it is fresh.
#[derive(Debug)]
pub(super) struct Fetched {
    pub(super) keys: KeySet,
    pub(super) max_age: Option<Duration>,
}

impl Client {
    /// A client that believes these certificates, or those of the machine.
    pub(super) fn new(ca: Option<&[CertificateDer<'static>]>) -> Result<Self, String> {
        let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots(ca)?)
            .with_no_client_auth();
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().build();
        Ok(Self(legacy::Client::builder(TokioExecutor::new()).build(connector)))
    }

    /// Fetches the set. A redirection is not followed: whoever can send us elsewhere could choose
    /// the keys.
    pub(super) async fn fetch(&self, url: &Uri) -> Result<Fetched, String> {
        let fetching = async {
            let request = Request::get(url)
                .header(ACCEPT, "application/jwk-set+json, application/json")
                .body(Empty::new())
                .map_err(|error| error.to_string())?;
            let response = self.0.request(request).await.map_err(|error| error::in_full(&error))?;
            read(response).await
        };
        match tokio::time::timeout(TIME_LIMIT, fetching).await {
            Ok(fetched) => fetched,
            Err(_) => Err(format!("no whole answer within {}s", TIME_LIMIT.as_secs())),
        }
    }
}

async fn read(response: Response<Incoming>) -> Result<Fetched, String> {
    if response.status() != StatusCode::OK {
        return Err(format!("the server answered {}", response.status()));
    }
    let max_age = max_age(response.headers());
    let body = Limited::new(response.into_body(), MAX_BYTES).collect();
    let text = body.await.map_err(|error| error.to_string())?.to_bytes();
    let keys = KeySet::parse(&text).map_err(|error| error.to_string())?;
    Ok(Fetched { keys, max_age })
}

/// How long an answer is fresh (RFC 9111, section 5.2.2); not at all where it must not be kept.
fn max_age(headers: &HeaderMap) -> Option<Duration> {
    let values = headers.get_all(CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).find_map(|directive| {
        let directive = directive.to_ascii_lowercase();
        match directive.as_str() {
            "no-store" | "no-cache" => Some(Duration::ZERO),
            other => other.strip_prefix("max-age=")?.parse().ok().map(Duration::from_secs),
        }
    })
}

fn roots(ca: Option<&[CertificateDer<'static>]>) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    let Some(ca) = ca else {
        store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        return Ok(store);
    };
    for certificate in ca {
        store.add(certificate.clone()).map_err(|error| format!("`ca`: {error}"))?;
    }
    Ok(store)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_says_how_long_its_keys_are_fresh() {
        let age = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(CACHE_CONTROL, text.parse().unwrap());
            max_age(&headers).map(|age| age.as_secs())
        };
        assert_eq!(age("public, max-age=300"), Some(300));
        assert_eq!(age("Max-Age=7, must-revalidate"), Some(7));
        assert_eq!(age("no-store"), Some(0));
        assert_eq!(age("public"), None);
        assert_eq!(age("max-age=soon"), None);
        assert_eq!(max_age(&HeaderMap::new()), None);
    }
}
