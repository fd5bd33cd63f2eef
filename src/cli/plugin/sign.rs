//! `innkeeper plugin sign` and `keygen`: who made a plugin, in a form that a policy can check.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey as _, EncodePrivateKey as _, KeypairBytes};
use ed25519_dalek::{SECRET_KEY_LENGTH, Signer as _, SigningKey};

/// A key's text takes a hundred bytes, and openssl may write what it is above it.
const MAX_KEY_BYTES: u64 = 64 << 10;

/// Makes a key pair.
#[derive(Debug, Clone, clap::Args)]
pub struct KeygenArgs {
    /// File to write the private key to; it must not exist
    #[arg(long, short, value_name = "FILE", default_value = "plugin-key.pem")]
    pub output: PathBuf,
}

/// Signs a plugin.
#[derive(Debug, Clone, clap::Args)]
pub struct SignArgs {
    /// The component
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// The private key: Ed25519 in PKCS#8 PEM, from `innkeeper plugin keygen` or from openssl
    #[arg(long, value_name = "KEY.pem")]
    pub key: PathBuf,
    /// File to write the signature to [default: FILE.sig]
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// Why there is no key or no signature.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The key is of another kind.
    #[error(
        "{}: not a private Ed25519 key in PKCS#8 PEM ({why}); make one with `innkeeper plugin keygen`",
        path.display()
    )]
    NotAKey {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The system gives no randomness.
    #[error("no key can be made: {0}")]
    Random(String),
}

/// Makes a key pair: the private key goes to a file that nobody else may read, the public key is
/// returned as a policy's `trusted_keys` takes it.
///
/// # Errors
/// When the file exists or cannot be written, or the system gives no randomness.
pub fn keygen(args: &KeygenArgs) -> Result<String, SignError> {
    let mut secret = [0; SECRET_KEY_LENGTH];
    getrandom::fill(&mut secret).map_err(|error| SignError::Random(error.to_string()))?;
    let key = SigningKey::from_bytes(&secret);
    // Without the public half, which older versions of openssl do not expect there.
    let pem = KeypairBytes { secret_key: secret, public_key: None }
        .to_pkcs8_pem(LineEnding::LF)
        .expect("a key of the right length can be encoded");
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&args.output)
        .and_then(|mut output| output.write_all(pem.as_bytes()))
        .map_err(|source| file(&args.output, source))?;
    Ok(public_half(&key))
}

/// What was signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// The signature's file.
    pub path: PathBuf,
    /// The public key that verifies it, as `trusted_keys` takes it.
    pub public_key: String,
}

/// Signs a file's bytes, and writes the signature beside it in base64.
///
/// # Errors
/// When a file cannot be read or written, or the key is no key.
pub fn sign(args: &SignArgs) -> Result<Signed, SignError> {
    let key = read_key(&args.key)?;
    let bytes = super::read_component(&args.file).map_err(|source| file(&args.file, source))?;
    let path = args.output.clone().unwrap_or_else(|| {
        let mut path = args.file.clone().into_os_string();
        path.push(".sig");
        path.into()
    });
    let signature = BASE64.encode(key.sign(&bytes).to_bytes()) + "\n";
    super::replace(&path, signature.as_bytes()).map_err(|source| file(&path, source))?;
    Ok(Signed { path, public_key: public_half(&key) })
}

fn read_key(path: &Path) -> Result<SigningKey, SignError> {
    let pem = super::read_text(path, MAX_KEY_BYTES).map_err(|source| file(path, source))?;
    SigningKey::from_pkcs8_pem(&pem)
        .map_err(|why| SignError::NotAKey { path: path.into(), why: why.to_string() })
}

fn public_half(key: &SigningKey) -> String {
    BASE64.encode(key.verifying_key().as_bytes())
}

fn file(path: &Path, source: std::io::Error) -> SignError {
    SignError::File { path: path.into(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ed25519_dalek::{Signature, VerifyingKey};
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn what_one_key_signed_its_public_half_verifies() {
        let dir = tempfile::tempdir().unwrap();
        let (key, file) = (dir.path().join("key.pem"), dir.path().join("a.wasm"));
        std::fs::write(&file, b"bytes").unwrap();
        let public = keygen(&KeygenArgs { output: key.clone() }).unwrap();
        assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);

        let signed = sign(&SignArgs { file, key, output: None }).unwrap();
        assert_eq!(signed.public_key, public);
        assert_eq!(signed.path, dir.path().join("a.wasm.sig"));
        let text = std::fs::read_to_string(signed.path).unwrap();
        let signature = Signature::from_slice(&BASE64.decode(text.trim()).unwrap()).unwrap();
        let public: [u8; 32] = BASE64.decode(public).unwrap().try_into().unwrap();
        VerifyingKey::from_bytes(&public).unwrap().verify_strict(b"bytes", &signature).unwrap();
    }

    #[test]
    fn a_key_is_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let output = dir.path().join("key.pem");
        keygen(&KeygenArgs { output: output.clone() }).unwrap();
        let before = std::fs::read(&output).unwrap();
        assert!(keygen(&KeygenArgs { output: output.clone() }).is_err());
        assert_eq!(std::fs::read(&output).unwrap(), before);
    }

    #[test]
    fn a_key_of_openssl_is_taken() {
        // The first test vector of RFC 8032, section 7.1, as openssl writes keys.
        let pem = "-----BEGIN PRIVATE KEY-----\n\
            MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n\
            -----END PRIVATE KEY-----\n";
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key.pem");
        std::fs::write(&path, pem).unwrap();
        let public = public_half(&read_key(&path).unwrap());
        assert_eq!(public, "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=");
    }

    #[test]
    fn what_does_not_end_is_neither_signed_nor_a_key() {
        let dir = tempfile::tempdir().unwrap();
        let (key, endless) = (dir.path().join("key.pem"), PathBuf::from("/dev/zero"));
        keygen(&KeygenArgs { output: key.clone() }).unwrap();
        let output = Some(dir.path().join("sig"));
        let args = SignArgs { file: endless.clone(), key: key.clone(), output: output.clone() };
        let error = sign(&args).unwrap_err().to_string();
        assert_eq!(error, "/dev/zero: it is no regular file");
        let error = sign(&SignArgs { file: key, key: endless, output }).unwrap_err().to_string();
        assert_eq!(error, "/dev/zero: it is larger than 64 KiB");
        assert!(!dir.path().join("sig").exists());
    }

    #[test]
    fn a_key_may_come_through_a_pipe() {
        let dir = tempfile::tempdir().unwrap();
        let (key, pipe) = (dir.path().join("key.pem"), dir.path().join("pipe"));
        let public = keygen(&KeygenArgs { output: key.clone() }).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        let pem = std::fs::read(key).unwrap();
        let writer = std::thread::spawn({
            let pipe = pipe.clone();
            move || std::fs::write(pipe, pem).unwrap()
        });
        assert_eq!(public_half(&read_key(&pipe).unwrap()), public);
        writer.join().unwrap();
    }

    #[test]
    fn what_is_no_key_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key.pem");
        std::fs::write(&path, "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n").unwrap();
        let error = read_key(&path).unwrap_err().to_string();
        assert!(error.contains("keygen"), "{error}");
    }
}
