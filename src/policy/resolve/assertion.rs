//! Assertions and the keys that they are signed with.

use std::time::Duration;

use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::DecodePrivateKey as _;

use super::or;
use crate::policy::attached::Attached;
use crate::policy::diagnostic::Report;
use crate::policy::document;
use crate::policy::{Assertion, AssertionBinding};

/// Long enough for clocks that are apart, short for whoever overhears one.
const DEFAULT_LIFETIME: Duration = Duration::from_secs(60);

/// The keys of `server.assertion_key`, in its order.
pub(super) fn keys(
    written: Option<&document::Server>,
    attached: &Attached,
    report: &mut Report,
) -> Vec<SigningKey> {
    let written = written.and_then(|server| server.assertion_key.as_ref());
    let keys = written.into_iter().flat_map(|many| &many.0).filter_map(|key| {
        let (pem, place) = match key {
            document::AssertionKey::Text(text) => (Some(text.value.0.reveal()), text.place),
            document::AssertionKey::File(file) => (attached.text(file, report), file.place),
        };
        let key = SigningKey::from_pkcs8_pem(pem?).ok();
        if key.is_none() {
            report
                .error(place, "`assertion_key` is no private Ed25519 key in PKCS#8 PEM")
                .help("make one: `openssl genpkey -algorithm ed25519`");
        }
        key
    });
    keys.collect()
}

/// The assertion of a route.
pub(super) fn resolve(written: &document::Assertion) -> Option<Assertion> {
    Some(Assertion {
        issuer: written.issuer.as_ref().map_or_else(|| "innkeeper".to_owned(), |issuer| issuer.value.clone()),
        audience: written.audience.get()?.value.clone(),
        lifetime: or(written.lifetime.as_ref(), DEFAULT_LIFETIME),
        binding: or(written.bind.as_ref(), AssertionBinding::default()),
    })
}
