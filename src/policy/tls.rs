//! TLS as a policy has it: certificates that fit their keys, and who must vouch for clients.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{Error, RootCertStore};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::server_names::ServerNames;

/// The oldest version of TLS that a listener speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TlsVersion {
    /// RFC 5246.
    #[default]
    Tls12,
    /// RFC 8446.
    Tls13,
}

/// TLS at one listener.
#[derive(Debug, Clone, PartialEq)]
pub struct Tls {
    /// Never empty; the first serves clients whose name no other has.
    pub certificates: Vec<Arc<Certificate>>,
    /// Who vouches for clients; `None` where they are not asked.
    pub clients: Option<ClientAuthority>,
    /// The oldest version.
    pub min_version: TlsVersion,
}

impl Tls {
    /// The certificate for a client that asks for `name` (SNI, RFC 6066, section 3): one that has
    /// the whole name, else one with a wildcard over it, else the first.
    pub fn certificate_for(&self, name: Option<&str>) -> &Arc<Certificate> {
        let named = name.map(str::to_ascii_lowercase).and_then(|name| {
            let whole = self.certificates.iter().find(|one| one.names.have(&name));
            whole.or_else(|| self.certificates.iter().find(|one| one.names.cover(&name)))
        });
        named.unwrap_or_else(|| self.certificates.first().expect("a policy's TLS has a certificate"))
    }
}

/// A certificate that its private key fits, with those that vouch for it.
#[derive(Clone)]
pub struct Certificate {
    key: Arc<CertifiedKey>,
    names: Arc<ServerNames>,
    begins: SystemTime,
    expires: SystemTime,
    files: Arc<CertificateFiles>,
    held_back: bool,
}

/// Where a certificate and its key come from.
#[derive(Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The file of the certificate, as the policy writes it: its name in logs and metrics.
    pub name: Arc<str>,
    /// The same, as a path.
    pub certificate: PathBuf,
    /// The file of the key.
    pub key: PathBuf,
}

/// What is wrong with a pair of files, and in which of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// The file of the certificate has none.
    #[error("it has no certificate: expected PEM with `-----BEGIN CERTIFICATE-----`")]
    NoCertificate,
    /// The certificate cannot be read.
    #[error("its first certificate is broken")]
    BrokenCertificate,
    /// The file of the key has none.
    #[error("it has no private key: expected PEM with `-----BEGIN PRIVATE KEY-----`, not encrypted")]
    NoKey,
    /// A key of a kind that TLS has no use for.
    #[error("its key cannot be used: expected RSA of at least 2048 bits, ECDSA (P-256, P-384) or Ed25519")]
    UnusableKey,
    /// They do not belong together.
    #[error("this key is not the certificate's")]
    Mismatch,
}

impl Certificate {
    /// Reads both files' texts.
    ///
    /// # Errors
    /// What is wrong, and with which of the two.
    pub fn read(certificate: &str, key: &str, files: CertificateFiles) -> Result<Self, CertificateError> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate.as_bytes()).collect();
        let chain = chain.map_err(|_| CertificateError::NoCertificate)?;
        let own = chain.first().ok_or(CertificateError::NoCertificate)?.clone();
        let (_, read) = X509Certificate::from_der(&own).map_err(|_| CertificateError::BrokenCertificate)?;
        let names = Arc::new(ServerNames::of(&read));
        let (begins, expires) = (read.validity().not_before, read.validity().not_after);
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|_| CertificateError::NoKey)?;
        let key = CertifiedKey::from_der(chain, key, &default_provider()).map_err(|error| match error {
            Error::InconsistentKeys(_) => CertificateError::Mismatch,
            Error::InvalidCertificate(_) => CertificateError::BrokenCertificate,
            _ => CertificateError::UnusableKey,
        })?;
        let (begins, expires) = (time(begins.timestamp()), time(expires.timestamp()));
        Ok(Self { key: Arc::new(key), names, begins, expires, files: Arc::new(files), held_back: false })
    }

    /// What rustls presents to a client.
    pub fn key(&self) -> &Arc<CertifiedKey> {
        &self.key
    }

    /// The hosts that it speaks for.
    pub fn names(&self) -> &Arc<ServerNames> {
        &self.names
    }

    /// When it begins to be valid.
    pub fn begins(&self) -> SystemTime {
        self.begins
    }

    /// When it ceases to be.
    pub fn expires(&self) -> SystemTime {
        self.expires
    }

    /// Whether clients whose clock says `now` take it for valid.
    pub fn is_valid_at(&self, now: SystemTime) -> bool {
        self.begins <= now && now <= self.expires
    }

    /// Its files.
    pub fn files(&self) -> &CertificateFiles {
        &self.files
    }

    /// Whether its files have changed since, and what they hold now cannot take its place.
    pub fn is_held_back(&self) -> bool {
        self.held_back
    }

    /// This certificate, in place of what its files hold now.
    pub(super) fn standing_in(&self) -> Self {
        Self { held_back: true, ..self.clone() }
    }
}

fn time(seconds: i64) -> SystemTime {
    // No clock of ours is before 1970; a certificate from then is out of date in any case.
    SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

impl PartialEq for Certificate {
    fn eq(&self, other: &Self) -> bool {
        // One key fits a certificate, so that the key need not be compared.
        self.key.cert == other.key.cert && self.files == other.files
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("files", &self.files)
            .field("names", &self.names)
            .finish_non_exhaustive()
    }
}

/// Who vouches for clients, and whom they no longer vouch for.
#[derive(Clone)]
pub struct ClientAuthority {
    verifier: Arc<dyn ClientCertVerifier>,
    roots: Vec<CertificateDer<'static>>,
    revoked: Vec<CertificateRevocationListDer<'static>>,
    required: bool,
}

/// What is wrong with the files of client authorities, and in which kind of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuthorityError {
    /// The file of the authorities has none, or one that cannot be read.
    #[error(
        "it has no certificate of an authority that can be used: expected PEM with `-----BEGIN CERTIFICATE-----`"
    )]
    NoAuthority,
    /// A list of revoked certificates is of a kind that cannot be read.
    #[error("a list of revoked certificates in it cannot be used: expected a complete one, version 2")]
    UnusableList,
}

impl ClientAuthority {
    /// Reads a file's text. Where a certificate is not required, a client without one is served,
    /// and one with a certificate that nobody vouches for is turned away all the same.
    ///
    /// Where there are lists of `revoked` certificates (RFC 5280, section 5), nobody is let in whose
    /// certificate, or one of those that vouch for it, is on one, or whose issuer has no list that is
    /// in date.
    ///
    /// # Errors
    /// Where no authority can be read from it, or one cannot, or a list.
    pub fn read(
        text: &str,
        revoked: Vec<CertificateRevocationListDer<'static>>,
        required: bool,
    ) -> Result<Self, AuthorityError> {
        let roots: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
        let roots = roots.map_err(|_| AuthorityError::NoAuthority)?;
        let mut store = RootCertStore::empty();
        for root in &roots {
            store.add(root.clone()).map_err(|_| AuthorityError::NoAuthority)?;
        }
        let provider = Arc::new(default_provider());
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(store), provider)
            .with_crls(revoked.iter().cloned())
            .enforce_revocation_expiration();
        let builder = if required { builder } else { builder.allow_unauthenticated() };
        let verifier = builder.build().map_err(|error| match error {
            VerifierBuilderError::InvalidCrl(_) => AuthorityError::UnusableList,
            _ => AuthorityError::NoAuthority,
        })?;
        Ok(Self { verifier, roots, revoked, required })
    }

    /// What rustls asks.
    pub fn verifier(&self) -> &Arc<dyn ClientCertVerifier> {
        &self.verifier
    }
}

impl PartialEq for ClientAuthority {
    fn eq(&self, other: &Self) -> bool {
        (&self.roots, &self.revoked, self.required) == (&other.roots, &other.revoked, other.required)
    }
}

impl fmt::Debug for ClientAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientAuthority")
            .field("authorities", &self.roots.len())
            .field("lists", &self.revoked.len())
            .field("required", &self.required)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn pair(names: &[&str]) -> (String, String) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    fn read(certificate: &str, key: &str) -> Result<Arc<Certificate>, CertificateError> {
        let files = CertificateFiles {
            name: "cert.pem".into(),
            certificate: "cert.pem".into(),
            key: "key.pem".into(),
        };
        Certificate::read(certificate, key, files).map(Arc::new)
    }

    #[test]
    fn a_key_fits_its_certificate_or_is_refused() {
        let (one, other) = (pair(&["a.example.com"]), pair(&["a.example.com"]));
        assert_eq!(read(&one.0, &one.1), read(&one.0, &one.1));
        assert_ne!(read(&one.0, &one.1), read(&other.0, &other.1));
        assert_eq!(read(&one.0, &other.1), Err(CertificateError::Mismatch));
        assert_eq!(read("", &one.1), Err(CertificateError::NoCertificate));
        assert_eq!(read(&one.1, &one.1), Err(CertificateError::NoCertificate));
        assert_eq!(read(&one.0, &one.0), Err(CertificateError::NoKey));
    }

    #[test]
    fn a_whole_name_comes_before_a_wildcard_and_the_first_serves_the_rest() {
        let made = |names: &[&str]| {
            let (certificate, key) = pair(names);
            read(&certificate, &key).unwrap()
        };
        let [first, wildcard, whole] =
            [made(&["first.example"]), made(&["*.example.com"]), made(&["a.example.com"])];
        let certificates = vec![Arc::clone(&first), Arc::clone(&wildcard), Arc::clone(&whole)];
        let tls = Tls { certificates, clients: None, min_version: TlsVersion::default() };
        assert_eq!(tls.certificate_for(Some("A.example.com")), &whole);
        assert_eq!(tls.certificate_for(Some("b.example.com")), &wildcard);
        assert_eq!(tls.certificate_for(Some("c.b.example.com")), &first);
        assert_eq!(tls.certificate_for(None), &first);
    }
}
