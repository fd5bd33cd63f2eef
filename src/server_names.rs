//! The hosts that a server's certificate speaks for.

use std::net::IpAddr;

use x509_parser::extensions::GeneralName;
use x509_parser::prelude::X509Certificate;

/// The names in a certificate (RFC 6125): whole ones, wildcards of one label, and addresses. The
/// common name is none of them, as clients no longer read it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServerNames {
    whole: Vec<String>,
    /// `.example.com` for `*.example.com`.
    wildcards: Vec<String>,
    addresses: Vec<IpAddr>,
}

impl ServerNames {
    /// The names in `certificate`; what cannot be read names nobody.
    pub fn of(certificate: &X509Certificate<'_>) -> Self {
        let mut names = Self::default();
        let extension = certificate.subject_alternative_name().ok().flatten();
        for name in extension.iter().flat_map(|extension| &extension.value.general_names) {
            match name {
                GeneralName::DNSName(name) => match name.strip_prefix('*') {
                    Some(suffix) => names.wildcards.push(suffix.to_ascii_lowercase()),
                    None => names.whole.push(name.to_ascii_lowercase()),
                },
                GeneralName::IPAddress(bytes) => names.addresses.extend(address(bytes)),
                _ => {}
            }
        }
        names
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.whole.is_empty() && self.wildcards.is_empty() && self.addresses.is_empty()
    }

    /// Whether `host`, in lower case and as a request names it, is one of them as a whole.
    pub fn have(&self, host: &str) -> bool {
        let host = host.strip_suffix('.').unwrap_or(host);
        let literal = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
        self.whole.iter().any(|name| name == host)
            || literal.parse().is_ok_and(|address: IpAddr| self.addresses.contains(&address))
    }

    /// Whether `host`, in lower case and as a request names it, is one of them or falls under a
    /// wildcard, which stands for exactly one label.
    pub fn cover(&self, host: &str) -> bool {
        let whole = host.strip_suffix('.').unwrap_or(host);
        let parent = whole.find('.').filter(|label| *label > 0).map(|label| &whole[label..]);
        self.have(host) || parent.is_some_and(|parent| self.wildcards.iter().any(|suffix| suffix == parent))
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(bytes)
        .map(IpAddr::from)
        .ok()
        .or_else(|| <[u8; 16]>::try_from(bytes).map(IpAddr::from).ok())
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};
    use x509_parser::prelude::FromDer;

    use super::*;

    #[test]
    fn a_wildcard_stands_for_one_label() {
        let names = ["App.example.com", "*.tenants.example.com", "127.0.0.1", "::1"];
        let params = CertificateParams::new(names.map(str::to_owned)).unwrap();
        let der = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let (_, certificate) = X509Certificate::from_der(der.der()).unwrap();
        let names = ServerNames::of(&certificate);
        for host in ["app.example.com", "app.example.com.", "a.tenants.example.com", "127.0.0.1", "[::1]"] {
            assert!(names.cover(host), "{host}");
        }
        for host in [
            "",
            ".",
            "x.example.com",
            "tenants.example.com",
            ".tenants.example.com",
            "a.b.tenants.example.com",
            "127.0.0.2",
        ] {
            assert!(!names.cover(host), "{host}");
        }
        assert!(!names.have("a.tenants.example.com"));
        assert!(!names.is_empty());
    }
}
