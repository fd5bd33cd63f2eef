//! Client certificates: which tenant a verified one names.

use super::{api_key, invalid};
use crate::client_certificate::ClientCertificate;
use crate::error::{Code, Refusal};
use crate::policy::{CertificateName, CertificateRule};
use crate::tenant::TenantId;

/// The tenant that a certificate names; `None` where it has no such name.
///
/// # Errors
/// `tenant-ambiguous` where it names several, `tenant-unknown` where a name cannot be an id, and
/// `token-invalid` where a table does not have its fingerprint.
pub fn tenant(rule: &CertificateRule, certificate: &ClientCertificate) -> Result<Option<TenantId>, Refusal> {
    let (kind, pattern) = match rule {
        CertificateRule::Name(kind, pattern) => (*kind, pattern),
        CertificateRule::Fingerprint(table) => {
            let digest = api_key::digest(&certificate.fingerprint)
                .ok_or_else(|| invalid("the certificate is not known here"))?;
            return api_key::entry(table, &digest, "the certificate is not known here").map(Some);
        }
    };
    let names = match kind {
        CertificateName::CommonName => certificate.common_name.as_slice(),
        CertificateName::Dns => &certificate.dns,
        CertificateName::Uri => &certificate.uri,
        CertificateName::Email => &certificate.email,
    };
    let mut ids = names.iter().filter_map(|name| pattern.id_in(kind, name));
    let Some(id) = ids.next() else { return Ok(None) };
    if ids.any(|other| other != id) {
        return Err(Refusal::new(Code::TenantAmbiguous, "the certificate names more than one tenant"));
    }
    let named = id.parse::<TenantId>();
    named.map(Some).map_err(|error| {
        Refusal::new(Code::TenantUnknown, "the certificate names no tenant that could exist").because(error)
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use sha2::{Digest, Sha256};

    use super::*;
    use crate::policy::{KeyOwner, KeyTable, NamePattern};

    fn certificate(dns: &[&str]) -> ClientCertificate {
        let digest: [u8; 32] = Sha256::digest(b"der").into();
        ClientCertificate {
            common_name: Some("acme corp".into()),
            dns: dns.iter().map(|&name| name.into()).collect(),
            uri: Vec::new(),
            email: Vec::new(),
            fingerprint: digest.iter().map(|byte| format!("{byte:02x}")).collect(),
        }
    }

    #[test]
    fn one_tenant_is_named_or_none() {
        let pattern = NamePattern { prefix: String::new(), suffix: ".clients.example".into() };
        let rule = CertificateRule::Name(CertificateName::Dns, pattern);
        let of =
            |dns: &[&str]| tenant(&rule, &certificate(dns)).map(|id| id.map(|id| id.as_str().to_owned()));
        assert_eq!(of(&["www.other.example", "acme.clients.example"]).unwrap().as_deref(), Some("acme"));
        assert_eq!(of(&["acme.clients.example", "acme.clients.example"]).unwrap().as_deref(), Some("acme"));
        assert_eq!(of(&["www.other.example"]).unwrap(), None);
        let several = of(&["acme.clients.example", "globex.clients.example"]).unwrap_err();
        assert_eq!(several.code(), Code::TenantAmbiguous);
        let common_name = CertificateRule::Name(CertificateName::CommonName, NamePattern::default());
        assert_eq!(tenant(&common_name, &certificate(&[])).unwrap_err().code(), Code::TenantUnknown);
    }

    #[test]
    fn a_table_knows_certificates_by_their_fingerprint() {
        let owner = KeyOwner { tenant: "acme".parse().unwrap(), expires: None };
        let owners = [(Sha256::digest(b"der").into(), owner)].into();
        let rule = |owners| CertificateRule::Fingerprint(Arc::new(KeyTable { name: "c".into(), owners }));
        assert_eq!(tenant(&rule(owners), &certificate(&[])).unwrap().unwrap().as_str(), "acme");
        let unknown = tenant(&rule(Default::default()), &certificate(&[])).unwrap_err();
        assert_eq!(unknown.code(), Code::TokenInvalid);
    }
}
