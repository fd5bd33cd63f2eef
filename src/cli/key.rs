//! `innkeeper key`: API keys for clients, and what backends verify assertions with.

use std::path::PathBuf;
use std::process::ExitCode;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use clap::Subcommand;
use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::DecodePrivateKey as _;
use sha2::{Digest, Sha256};

use super::{fail, print};
use crate::identity::AssertionKeys;
use crate::tenant::TenantId;

/// As much randomness as nobody guesses.
const API_KEY_BYTES: usize = 32;

/// Make API keys, and show the public keys of assertions.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make an API key: the key itself, and its line in a table of keys.
    New {
        /// The tenant that it stands for.
        #[arg(long, value_name = "ID")]
        tenant: TenantId,
    },
    /// Print the public halves of private keys as a JWK set, as the admin listener does.
    Jwks {
        /// Private Ed25519 keys in PKCS#8 PEM: those of `server.assertion_key`.
        #[arg(required = true, value_name = "KEY.pem")]
        files: Vec<PathBuf>,
    },
}

/// Runs the command.
pub fn run(args: Args) -> ExitCode {
    let printed = match args.command {
        Command::New { tenant } => new(&tenant),
        Command::Jwks { files } => key_set(&files),
    };
    match printed {
        Ok(text) => {
            print(&text);
            ExitCode::SUCCESS
        }
        Err(error) => fail(error),
    }
}

/// The key is shown this once: only its hash is kept anywhere.
fn new(tenant: &TenantId) -> Result<String, String> {
    let mut secret = [0; API_KEY_BYTES];
    getrandom::fill(&mut secret).map_err(|error| format!("no key can be made: {error}"))?;
    let key = BASE64.encode(secret);
    let hash: String = Sha256::digest(&key).iter().map(|byte| format!("{byte:02x}")).collect();
    let tenant = serde_json::to_string(tenant.as_str()).expect("a text is JSON");
    Ok(format!("# for the client: {key}\n- {{ sha256: {hash}, tenant: {tenant} }}"))
}

fn key_set(files: &[PathBuf]) -> Result<String, String> {
    let read = |file: &PathBuf| {
        let pem = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
        SigningKey::from_pkcs8_pem(&pem).map_err(|error| {
            format!(
                "{}: not a private Ed25519 key in PKCS#8 PEM ({error}); make one: `openssl genpkey -algorithm ed25519`",
                file.display()
            )
        })
    };
    let keys = files.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    Ok(format!("{:#}", AssertionKeys::new(&keys).key_set()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_key_fits_its_line() {
        let printed = new(&"acme".parse().unwrap()).unwrap();
        let (key, line) = printed.split_once('\n').unwrap();
        let key = key.strip_prefix("# for the client: ").unwrap();
        let hash: String = Sha256::digest(key).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(line, format!("- {{ sha256: {hash}, tenant: \"acme\" }}"));
        assert_ne!(printed, new(&"acme".parse().unwrap()).unwrap());
    }

    #[test]
    fn what_is_no_key_is_named() {
        assert!(key_set(&["no-such.pem".into()]).unwrap_err().contains("no-such.pem"));
    }
}
