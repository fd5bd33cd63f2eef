//! Listeners: their addresses, the certificates that they present, and whom they believe.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::pem;
use super::settings::DEFAULT_LISTEN;
use crate::address::ListenAddress;
use crate::policy::attached::Attached;
use crate::policy::decode::{Located, OneOrMany};
use crate::policy::diagnostic::Report;
use crate::policy::{
    AuthorityError, Certificate, CertificateError, CertificateFiles, ClientAuthority, Listener, Tls, document,
};

/// A certificate that expires within this is worth a word; those who renew by machine do so weeks
/// before.
const SOON: Duration = Duration::from_hours(7 * 24);

/// Every listener; one at the default address where none is written.
pub(super) fn listeners(
    written: Option<&OneOrMany<document::Listener>>,
    admin: Option<&Located<ListenAddress>>,
    attached: &Attached,
    report: &mut Report,
) -> Vec<Listener> {
    let mut listeners: Vec<Listener> = Vec::new();
    for document::Listener(one) in written.iter().flat_map(|many| &many.0) {
        let Some(address) = one.address.get() else { continue };
        let is_taken = listeners.iter().any(|other| other.address == address.value)
            || admin.is_some_and(|admin| admin.value == address.value);
        // Port 0 asks for any free port, and may be asked for several times.
        if is_taken && !address.value.is_picked() {
            report
                .error(address.place, format!("the address `{}` is used twice", address.shown()))
                .help("give each listener its own port");
        }
        if let (Some(mode), ListenAddress::Tcp(_)) = (&one.mode, &address.value) {
            report
                .error(mode.place, "only a Unix socket has a `mode`")
                .help("remove it: who reaches a TCP port is up to the network");
        }
        let plain = Listener::plain(address.value.clone());
        listeners.push(Listener {
            mode: one.mode.as_ref().map_or(plain.mode, |mode| mode.value.0),
            tls: one.tls.as_ref().and_then(|written| tls(written, attached, report)),
            proxy_protocol: one.proxy_protocol.as_ref().map_or(vec![], |proxy| believed(proxy, report)),
            ..plain
        });
    }
    if listeners.is_empty() {
        listeners.push(Listener::plain(DEFAULT_LISTEN.into()));
    }
    listeners
}

fn believed(written: &document::ProxyProtocol, report: &mut Report) -> Vec<crate::address::PeerRange> {
    let from = written.from.get().map(|from| from.0.as_slice()).unwrap_or_default();
    for one in from.iter().filter(|one| one.value.is_everyone()) {
        report
            .warning(one.place, "everyone may say by the PROXY protocol who they are")
            .help("name the load balancers only, as in `10.0.0.0/8`");
    }
    from.iter().map(|one| one.value.clone()).collect()
}

fn tls(written: &document::Tls, attached: &Attached, report: &mut Report) -> Option<Tls> {
    let pairs = written.certificates.get()?.0.iter();
    let certificates: Vec<_> = pairs.filter_map(|pair| certificate(pair, attached, report)).collect();
    let clients = match &written.client_certificate {
        Some(written) => Some(authority(written, attached, report)?),
        None => None,
    };
    // Where all are broken they were reported, and the policy is refused.
    (!certificates.is_empty()).then(|| Tls {
        certificates,
        clients,
        min_version: super::or(written.min_version.as_ref(), Default::default()),
    })
}

/// The certificate that a pair of files holds, or the one in force that was made of them before: a
/// renewal that went wrong must neither be served nor keep the rest of the policy from changing.
fn certificate(
    pair: &document::Certificate,
    attached: &Attached,
    report: &mut Report,
) -> Option<Arc<Certificate>> {
    let (certificate, key) = (pair.certificate.get()?, pair.key.get()?);
    let (files, in_force) = attached.pair(certificate, key)?;
    let mut found = Report::default();
    let read = read(certificate, key, files, attached, &mut found);
    let now = SystemTime::now();
    let is_better = |in_force: &&Certificate| match &read {
        None => true,
        Some(read) => in_force.is_valid_at(now) && !read.is_valid_at(now),
    };
    if let Some(in_force) = in_force.filter(is_better) {
        report.take_held_back(found, "the certificate before it goes on until these files are repaired");
        return Some(Arc::new(in_force.standing_in()));
    }
    report.take(found);
    read.map(Arc::new)
}

fn read(
    certificate: &Located<String>,
    key: &Located<String>,
    files: CertificateFiles,
    attached: &Attached,
    report: &mut Report,
) -> Option<Certificate> {
    let texts = (attached.text(certificate, report), attached.text(key, report));
    let (Some(certificate_text), Some(key_text)) = texts else { return None };
    let read = match Certificate::read(certificate_text, key_text, files) {
        Ok(read) => read,
        Err(error) => {
            let at = match error {
                CertificateError::NoCertificate | CertificateError::BrokenCertificate => certificate,
                CertificateError::NoKey | CertificateError::UnusableKey | CertificateError::Mismatch => key,
            };
            let finding = report.error(at.place, format!("cannot use `{}`: {error}", at.shown()));
            if error == CertificateError::Mismatch {
                finding.also(certificate.place, "the certificate is named here");
            }
            return None;
        }
    };
    let now = SystemTime::now();
    let day = |time| humantime::format_rfc3339_seconds(time);
    if read.expires() < now {
        report
            .warning(
                certificate.place,
                format!("`{}` expired at {}", certificate.shown(), day(read.expires())),
            )
            .help("clients refuse it: put a new one in its place");
    } else if read.expires() < now + SOON {
        report.warning(
            certificate.place,
            format!("`{}` expires at {}", certificate.shown(), day(read.expires())),
        );
    } else if read.begins() > now {
        report.warning(
            certificate.place,
            format!("`{}` is not valid before {}", certificate.shown(), day(read.begins())),
        );
    }
    if read.names().is_empty() {
        report
            .warning(certificate.place, format!("`{}` names no host", certificate.shown()))
            .help("clients read the subject's alternative names only: have it issued with them");
    }
    Some(read)
}

fn authority(
    written: &document::ClientAuthority,
    attached: &Attached,
    report: &mut Report,
) -> Option<ClientAuthority> {
    let ca = written.ca.get()?;
    let required = super::or(written.require.as_ref(), true);
    let mut revoked = Vec::new();
    for file in written.crl.iter().flat_map(|files| &files.0) {
        revoked.extend(pem::revocations(file, attached, report)?);
    }
    let read = ClientAuthority::read(attached.text(ca, report)?, revoked, required);
    if let Err(error) = &read {
        let lists = written.crl.as_ref().and_then(|files| files.0.first());
        let at = match error {
            AuthorityError::NoAuthority => ca,
            AuthorityError::UnusableList => lists.unwrap_or(ca),
        };
        report.error(at.place, format!("cannot use `{}`: {error}", at.shown()));
    }
    read.ok()
}
