//! Keeps the terms of listeners that run as the policy in force has them.

use std::sync::Arc;
use std::time::SystemTime;

use crate::address::ListenAddress;
use crate::policy;
use crate::server::TermsHandle;
use crate::snapshot::SnapshotStore;
use crate::telemetry::{CertificateLabel, Metrics};

/// The listeners that run, each with the place of its settings in a policy.
#[derive(Default)]
pub(super) struct Terms(Vec<(Settings, TermsHandle)>);

/// Which of a policy's listeners is meant: the one at this address, or one of several for which the
/// system picks the port.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Settings {
    address: ListenAddress,
    nth: usize,
}

impl Terms {
    /// Adds a listener that runs with the settings of the one at `index` in the policy.
    pub(super) fn add(&mut self, listen: &[policy::Listener], index: usize, handle: TermsHandle) {
        let address = listen[index].address.clone();
        let nth = listen[..index].iter().filter(|earlier| earlier.address == address).count();
        self.0.push((Settings { address, nth }, handle));
    }

    /// Follows the policy for as long as it is polled. A listener that the policy no longer has goes
    /// on under its last terms: it ends with the process.
    pub(super) async fn follow(self, store: Arc<SnapshotStore>, metrics: Arc<Metrics>) {
        let mut news = store.news();
        loop {
            // Seen before it is read: what comes meanwhile is news again.
            news.borrow_and_update();
            // Not kept: a generation is freed with its last request.
            self.set(&store.load().policy().server.listen, &metrics);
            if news.changed().await.is_err() {
                return;
            }
        }
    }

    fn set(&self, listen: &[policy::Listener], metrics: &Metrics) {
        for (settings, handle) in &self.0 {
            let mut alike = listen.iter().filter(|listener| listener.address == settings.address);
            if let Some(policy) = alike.nth(settings.nth) {
                handle.set(policy);
            }
        }
        tell_certificates(listen, metrics);
    }
}

fn tell_certificates(listen: &[policy::Listener], metrics: &Metrics) {
    metrics.certificate_expiry.clear();
    metrics.certificate_held_back.clear();
    for certificate in
        listen.iter().filter_map(|listener| listener.tls.as_ref()).flat_map(|tls| &tls.certificates)
    {
        let seconds =
            certificate.expires().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let label = CertificateLabel { certificate: Arc::clone(&certificate.files().name) };
        metrics.certificate_held_back.get_or_create(&label).set(certificate.is_held_back().into());
        metrics.certificate_expiry.get_or_create(&label).set(i64::try_from(seconds).unwrap_or(i64::MAX));
    }
}
