//! Certificates and private keys in files that the policy names (RFC 7468).

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use x509_parser::prelude::{ASN1Time, CertificateRevocationList, FromDer as _};

use crate::policy::attached::Attached;
use crate::policy::decode::Located;
use crate::policy::diagnostic::Report;

/// The certificates in a PEM file; at least one.
pub(super) fn certificates(
    file: &Located<String>,
    attached: &Attached,
    report: &mut Report,
) -> Option<Vec<CertificateDer<'static>>> {
    let text = attached.text(file, report)?;
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    match read {
        Ok(certificates) if !certificates.is_empty() => return Some(certificates),
        Ok(_) => report.error(file.place, format!("`{}` has no certificate in it", file.shown())),
        Err(error) => report.error(file.place, format!("`{}` is not PEM: {error}", file.shown())),
    }
    .help("a certificate starts with `-----BEGIN CERTIFICATE-----`");
    None
}

/// The certificates of authorities in a PEM file, each of which others can be checked against.
pub(super) fn issuers(
    file: &Located<String>,
    attached: &Attached,
    report: &mut Report,
) -> Option<Vec<CertificateDer<'static>>> {
    let issuers = certificates(file, attached, report)?;
    let mut store = RootCertStore::empty();
    for issuer in &issuers {
        if let Err(error) = store.add(issuer.clone()) {
            report.error(
                file.place,
                format!("`{}` has a certificate that nobody can be checked against: {error}", file.shown()),
            );
            return None;
        }
    }
    Some(issuers)
}

/// The lists of revoked certificates in a PEM file; at least one.
pub(super) fn revocations(
    file: &Located<String>,
    attached: &Attached,
    report: &mut Report,
) -> Option<Vec<CertificateRevocationListDer<'static>>> {
    let text = attached.text(file, report)?;
    let lists: Vec<_> = CertificateRevocationListDer::pem_slice_iter(text.as_bytes())
        .collect::<Result<_, _>>()
        .ok()
        .filter(|lists: &Vec<_>| !lists.is_empty())
        .or_else(|| {
            report
                .error(file.place, format!("`{}` has no list of revoked certificates in it", file.shown()))
                .help("such a list starts with `-----BEGIN X509 CRL-----`");
            None
        })?;
    for list in &lists {
        let Ok((_, read)) = CertificateRevocationList::from_der(list) else {
            report
                .error(file.place, format!("a list of revoked certificates in `{}` is broken", file.shown()));
            return None;
        };
        if read.next_update().is_some_and(|next| next < ASN1Time::now()) {
            report
                .warning(
                    file.place,
                    format!("a list of revoked certificates in `{}` is out of date", file.shown()),
                )
                .help("clients of its authority are turned away: put a new one in its place");
        }
    }
    Some(lists)
}

/// The private key in a PEM file.
pub(super) fn key(
    file: &Located<String>,
    attached: &Attached,
    report: &mut Report,
) -> Option<PrivateKeyDer<'static>> {
    match PrivateKeyDer::from_pem_slice(attached.text(file, report)?.as_bytes()) {
        Ok(key) => Some(key),
        Err(_) => {
            report
                .error(file.place, format!("`{}` has no private key in it", file.shown()))
                .help("a key starts with `-----BEGIN PRIVATE KEY-----`");
            None
        }
    }
}
