//! The resolver that reads client certificates.

use super::{Names, keys};
use crate::policy::decode::Located;
use crate::policy::diagnostic::Report;
use crate::policy::document;
use crate::policy::{CertificateName, CertificateRule, Keys, NamePattern, Resolver};

/// What stands for the tenant in a pattern.
const TENANT: &str = "{tenant}";

pub(super) fn resolve(
    written: &document::ClientCertificate,
    keys: &Names<Keys>,
    report: &mut Report,
) -> Option<Resolver> {
    rule(written, keys, report).map(Resolver::ClientCertificate)
}

fn rule(
    written: &document::ClientCertificate,
    keys: &Names<Keys>,
    report: &mut Report,
) -> Option<CertificateRule> {
    let settings = match written {
        document::ClientCertificate::Whole(kind) => {
            return Some(CertificateRule::Name(*kind, NamePattern::default()));
        }
        document::ClientCertificate::Settings(settings) => settings,
    };
    let named = [
        (CertificateName::CommonName, &settings.common_name),
        (CertificateName::Dns, &settings.dns),
        (CertificateName::Uri, &settings.uri),
        (CertificateName::Email, &settings.email),
    ];
    let named: Vec<_> = named.into_iter().filter_map(|(kind, name)| Some((kind, name.as_ref()?))).collect();
    match (named.as_slice(), &settings.fingerprint) {
        ([(kind, name)], None) => Some(CertificateRule::Name(*kind, pattern(*kind, name, report)?)),
        ([], Some(table)) => keys::key_table(table, keys, report).map(CertificateRule::Fingerprint),
        ([], None) => {
            if settings.sound {
                report
                    .error(settings.place, "this does not say what of the certificate names the tenant")
                    .help("write `common_name`, or `dns: \"{tenant}.clients.example\"`, for one");
            }
            None
        }
        _ => {
            report
                .error(settings.place, "a certificate names the tenant in one way, but this has several")
                .help("make a resolver of each: `first: [ … ]` or `all: [ … ]`");
            None
        }
    }
}

fn pattern(kind: CertificateName, name: &Located<String>, report: &mut Report) -> Option<NamePattern> {
    // Names of hosts have no case, and a certificate's are compared in lower case.
    let text = match kind {
        CertificateName::Dns => name.value.to_ascii_lowercase(),
        _ => name.value.clone(),
    };
    match text.split_once(TENANT) {
        Some((prefix, suffix)) if !suffix.contains(TENANT) => {
            Some(NamePattern { prefix: prefix.to_owned(), suffix: suffix.to_owned() })
        }
        Some(_) => {
            report.error(name.place, format!("`{TENANT}` may stand only once"));
            None
        }
        None => {
            report
                .error(name.place, format!("`{}` does not say where the tenant stands", name.shown()))
                .help(format!("write `{TENANT}` for it"));
            None
        }
    }
}
