//! Who made a plugin: an Ed25519 signature over its file, by a key that the policy trusts.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use ed25519_dalek::{PUBLIC_KEY_LENGTH, SIGNATURE_LENGTH, Signature, VerifyingKey};
use tokio::fs::File;
use tokio::io::AsyncReadExt as _;

use super::engine::PluginHost;
use super::load_error::{LoadError, LoadErrorClass};
use crate::files::open_regular;
use crate::policy;

/// The largest file that can hold a signature, bytes: 64, or 88 in base64, and generous white space.
const MAX_FILE_BYTES: u64 = 1024;

/// Signatures that are remembered. Each is a version and a key; a plugin has a handful of both.
const MAX_SEEN: usize = 1024;

/// Signatures that were good. That one was made stays true of the same bytes and the same key: a
/// version that serves again, or a candidate that is promoted, needs no file with it any more.
#[derive(Default)]
pub(super) struct Signatures(Mutex<BTreeSet<(Arc<str>, [u8; PUBLIC_KEY_LENGTH])>>);

impl Signatures {
    /// Refuses a file that no trusted key has signed.
    pub(super) async fn check(
        &self,
        host: &PluginHost,
        trusted: &policy::Signature,
        version: &Arc<str>,
        wasm: &Arc<[u8]>,
    ) -> Result<(), LoadError> {
        let was_seen = |key: &VerifyingKey| self.lock().contains(&(Arc::clone(version), key.to_bytes()));
        if trusted.keys.iter().any(was_seen) {
            return Ok(());
        }
        let key = verify(host, trusted, wasm).await?;
        let mut seen = self.lock();
        if seen.len() >= MAX_SEEN {
            seen.clear();
        }
        seen.insert((Arc::clone(version), key.to_bytes()));
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<(Arc<str>, [u8; PUBLIC_KEY_LENGTH])>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The trusted key that has signed a file.
async fn verify(
    host: &PluginHost,
    trusted: &policy::Signature,
    wasm: &Arc<[u8]>,
) -> Result<VerifyingKey, LoadError> {
    let invalid = |message: String| LoadError::new(LoadErrorClass::SignatureInvalid, message);
    let path = trusted.path.display();
    let bytes = read(&trusted.path).await.map_err(|error| {
        invalid(format!(
            "the signature cannot be read from `{path}`: {error}; make it with `innkeeper plugin sign`"
        ))
    })?;
    let signature = parse(&bytes).map_err(|why| invalid(format!("`{path}` is not a signature: {why}")))?;
    let (keys, wasm) = (trusted.keys.clone(), Arc::clone(wasm));
    let signed =
        host.aside(move || keys.into_iter().find(|key| key.verify_strict(&wasm, &signature).is_ok())).await;
    match signed {
        Ok(Some(key)) => Ok(key),
        Ok(None) => Err(invalid(format!(
            "none of the {} trusted keys made the signature in `{path}` for this file: the file was changed \
             after it was signed, or another key signed it",
            trusted.keys.len()
        ))),
        Err(panicked) => Err(invalid(format!("the signature cannot be checked: {panicked}"))),
    }
}

async fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::from_std(open_regular(path)?).take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).await?;
    Ok(bytes)
}

/// 64 raw bytes, or the same in base64.
fn parse(bytes: &[u8]) -> Result<Signature, String> {
    if let Ok(raw) = <[u8; SIGNATURE_LENGTH]>::try_from(bytes) {
        return Ok(Signature::from_bytes(&raw));
    }
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(format!("it has more than {MAX_FILE_BYTES} bytes"));
    }
    let text: Vec<u8> = bytes.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let decoded = BASE64.decode(text).map_err(|_| {
        format!("it has {} bytes, neither {SIGNATURE_LENGTH} raw ones nor base64", bytes.len())
    })?;
    let raw = <[u8; SIGNATURE_LENGTH]>::try_from(decoded)
        .map_err(|other| format!("a signature has {SIGNATURE_LENGTH} bytes, this one has {}", other.len()))?;
    Ok(Signature::from_bytes(&raw))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_64_bytes_raw_or_in_base64() {
        let raw = [7; 64];
        let wanted = Signature::from_bytes(&raw);
        let base64 = BASE64.encode(raw);
        let (one, two) = base64.split_at(40);
        for good in [&raw[..], base64.as_bytes(), format!(" {one}\r\n{two}\n").as_bytes()] {
            assert_eq!(parse(good).unwrap(), wanted);
        }
        for (bad, why) in [
            (&b""[..], "has 0"),
            (&raw[..63], "63 bytes, neither"),
            (BASE64.encode([7; 63]).as_bytes(), "this one has 63"),
            (&[b'A'; 2000], "more than 1024"),
        ] {
            let error = parse(bad).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
