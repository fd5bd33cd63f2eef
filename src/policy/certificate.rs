//! How a verified client certificate names a tenant.

use std::sync::Arc;

use super::KeyTable;

/// What of a certificate names the tenant.
#[derive(Debug, Clone, PartialEq)]
pub enum CertificateRule {
    /// One of its names.
    Name(CertificateName, NamePattern),
    /// Its entry in a table, by its fingerprint.
    Fingerprint(Arc<KeyTable>),
}

/// A kind of name in a certificate (RFC 5280, sections 4.1.2.6 and 4.2.1.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CertificateName {
    /// The common name of the subject.
    CommonName,
    /// A DNS name.
    Dns,
    /// A URI.
    Uri,
    /// A mail address.
    Email,
}

/// What stands around the tenant's id in a name; both empty where the name is the id.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NamePattern {
    /// What stands before it.
    pub prefix: String,
    /// What follows it.
    pub suffix: String,
}

impl NamePattern {
    /// The id in a name, if the name fits: it reaches over none of the signs by which such names are
    /// divided.
    pub fn id_in<'n>(&self, kind: CertificateName, name: &'n str) -> Option<&'n str> {
        let id = name.strip_prefix(self.prefix.as_str())?.strip_suffix(self.suffix.as_str())?;
        let dividers: &[char] = match kind {
            // The whole of a name may have any.
            _ if self.prefix.is_empty() && self.suffix.is_empty() => &[],
            CertificateName::CommonName => &[],
            CertificateName::Dns => &['.'],
            CertificateName::Uri => &['/', '?', '#', ':', '@'],
            CertificateName::Email => &['@'],
        };
        (!id.is_empty() && !id.contains(dividers)).then_some(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_one_part_of_a_name() {
        let pattern =
            |prefix: &str, suffix: &str| NamePattern { prefix: prefix.into(), suffix: suffix.into() };
        for (kind, pattern, name, id) in [
            (CertificateName::Dns, pattern("", ".clients.example"), "acme.clients.example", Some("acme")),
            (CertificateName::Dns, pattern("", ".clients.example"), "a.b.clients.example", None),
            (CertificateName::Dns, pattern("", ".clients.example"), ".clients.example", None),
            (CertificateName::Dns, pattern("", ".clients.example"), "clients.example", None),
            (CertificateName::Uri, pattern("spiffe://e/t/", ""), "spiffe://e/t/acme", Some("acme")),
            (CertificateName::Uri, pattern("spiffe://e/t/", ""), "spiffe://e/t/acme/x", None),
            (CertificateName::Email, pattern("", "@e"), "acme@e", Some("acme")),
            (CertificateName::Email, pattern("", "@e"), "a@b@e", None),
            (CertificateName::CommonName, NamePattern::default(), "a.b/c", Some("a.b/c")),
        ] {
            assert_eq!(pattern.id_in(kind, name), id, "{name}");
        }
    }
}
