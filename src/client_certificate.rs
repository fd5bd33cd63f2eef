//! Whom a verified client certificate names.

use std::fmt;

use sha2::{Digest, Sha256};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{AttributeTypeAndValue, FromDer, X509Certificate};

/// Names longer than this are nobody's: DNS has 253, and a URI that names a client is short.
const LONGEST_NAME: usize = 2048;

/// A client's certificate after the TLS handshake has verified it: issued by an authority that the
/// listener trusts, in date, and its key in the client's hands. The names are those of the
/// certificate itself (RFC 5280, sections 4.1.2.6 and 4.2.1.6), in its order.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The common name of the subject, where it has exactly one.
    pub common_name: Option<String>,
    /// DNS names, in lower case.
    pub dns: Vec<String>,
    /// URIs, such as `spiffe://example.org/billing`.
    pub uri: Vec<String>,
    /// Mail addresses.
    pub email: Vec<String>,
    /// SHA-256 of the whole certificate, in lower-case hex.
    pub fingerprint: String,
}

/// Why a certificate names nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the client's certificate cannot be read")]
pub struct UnreadableCertificate;

impl ClientCertificate {
    /// Reads the names in a certificate, DER. That it is verified is the caller's to have seen to.
    ///
    /// # Errors
    /// Where it is no X.509 certificate, or its names cannot be read.
    pub fn read(der: &[u8]) -> Result<Self, UnreadableCertificate> {
        let (rest, certificate) = X509Certificate::from_der(der).map_err(|_| UnreadableCertificate)?;
        if !rest.is_empty() {
            return Err(UnreadableCertificate);
        }
        let mut names = certificate.subject().iter_common_name().map(AttributeTypeAndValue::as_str);
        let common_name = match (names.next(), names.next()) {
            (Some(Ok(name)), None) if is_name(name) => Some(name.to_owned()),
            // Two names, or one that is no text, could be read in two ways.
            _ => None,
        };
        let (mut dns, mut uri, mut email) = (Vec::new(), Vec::new(), Vec::new());
        let alternatives = certificate.subject_alternative_name().map_err(|_| UnreadableCertificate)?;
        for name in alternatives.iter().flat_map(|extension| &extension.value.general_names) {
            match name {
                GeneralName::DNSName(name) if is_name(name) => dns.push(name.to_ascii_lowercase()),
                GeneralName::URI(name) if is_name(name) => uri.push((*name).to_owned()),
                GeneralName::RFC822Name(name) if is_name(name) => email.push((*name).to_owned()),
                _ => {}
            }
        }
        let fingerprint = Sha256::digest(der).iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { common_name, dns, uri, email, fingerprint })
    }
}

/// Whether a name is text that can be compared and logged: a NUL or a line end in it was put there
/// to be read in two ways.
fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= LONGEST_NAME && !name.chars().any(char::is_control)
}

/// Names of clients are theirs: a log that prints a request's state tells only which certificate.
impl fmt::Debug for ClientCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientCertificate").field("fingerprint", &self.fingerprint).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    #[test]
    fn names_are_read_in_their_kinds() {
        let mut params = CertificateParams::new(["A.Example.com".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, "acme");
        params.subject_alt_names.push(SanType::URI("spiffe://example.com/acme".try_into().unwrap()));
        params.subject_alt_names.push(SanType::Rfc822Name("ops@example.com".try_into().unwrap()));
        let der = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let read = ClientCertificate::read(der.der()).unwrap();
        assert_eq!(read.common_name.as_deref(), Some("acme"));
        assert_eq!(read.dns, ["a.example.com"]);
        assert_eq!(read.uri, ["spiffe://example.com/acme"]);
        assert_eq!(read.email, ["ops@example.com"]);
        assert_eq!(read.fingerprint.len(), 64);

        let mut longer = der.der().to_vec();
        longer.push(0);
        assert_eq!(ClientCertificate::read(&longer), Err(UnreadableCertificate));
        assert_eq!(ClientCertificate::read(b"no certificate"), Err(UnreadableCertificate));
    }
}
