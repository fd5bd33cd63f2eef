//! TLS to upstreams: whom they must prove to be, and what an operator is told when they do not.

use std::io;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{CertificateError, ClientConfig, Error, RootCertStore, crypto};

use crate::policy;

/// HTTP/2 in the handshake (RFC 9113, section 3.2).
pub(super) const HTTP2: &[u8] = b"h2";
/// HTTP/1.1 in the handshake (RFC 7301, section 6).
const HTTP1: &[u8] = b"http/1.1";

/// The configuration of all connections to one upstream; sessions are resumed among them.
pub(super) fn configuration(upstream: &policy::Upstream) -> ClientConfig {
    let tls = &upstream.tls;
    let builder = ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider has the suites of TLS 1.2 and 1.3")
        .with_root_certificates(issuers(tls));
    let mut configuration = match &tls.identity {
        None => builder.with_no_client_auth(),
        Some(identity) => builder
            .with_client_auth_cert(identity.chain.clone(), identity.key.clone_key())
            .expect("the policy's parser has tried the key on the certificate"),
    };
    configuration.alpn_protocols = match (tls.negotiates, upstream.http2) {
        (true, _) => vec![HTTP2.to_vec(), HTTP1.to_vec()],
        (false, true) => vec![HTTP2.to_vec()],
        (false, false) => vec![HTTP1.to_vec()],
    };
    configuration
}

/// What kept a handshake from its end, in the words of the policy.
pub(super) fn reason(error: &io::Error, name: &ServerName<'_>) -> String {
    use CertificateError as Flaw;
    let flaw = match error.get_ref().and_then(|inner| inner.downcast_ref()) {
        Some(Error::InvalidCertificate(flaw)) => flaw,
        Some(other) => return other.to_string(),
        None => return error.to_string(),
    };
    match flaw {
        Flaw::Expired | Flaw::ExpiredContext { .. } => "its certificate has expired".into(),
        Flaw::NotValidYet | Flaw::NotValidYetContext { .. } => "its certificate is not valid yet".into(),
        Flaw::NotValidForName | Flaw::NotValidForNameContext { .. } => format!(
            "its certificate is not for `{}`: name the right one under `tls: {{ server_name: … }}`",
            name.to_str()
        ),
        Flaw::UnknownIssuer => {
            "its certificate's issuer is not trusted: name the issuer's file under `tls: { ca: … }`".into()
        }
        // Authorities are found by their names: one that was made anew has the same.
        Flaw::BadSignature => {
            "its certificate was signed with another key than its issuer's: is the file under `tls: { ca: … }` an old one?"
                .into()
        }
        other => format!("its certificate is refused: {other}"),
    }
}

fn issuers(tls: &policy::UpstreamTls) -> RootCertStore {
    let mut store = RootCertStore::empty();
    match &tls.issuers {
        Some(issuers) => {
            store.add_parsable_certificates(issuers.iter().cloned());
        }
        None => {
            let found = rustls_native_certs::load_native_certs();
            for error in &found.errors {
                tracing::warn!("the machine's list of issuers: {error}");
            }
            store.add_parsable_certificates(found.certs);
        }
    }
    store
}
