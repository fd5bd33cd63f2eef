//! `innkeeper plugin`: commands for plugin authors.

pub mod build;
pub mod check;
mod contract;
mod language;
pub mod new;
pub mod record;
mod settings;
pub mod sign;
pub mod test;

use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::process::ExitCode;

pub use self::language::Language;
pub use self::settings::SettingsArgs;
use super::{fail, print};
use crate::snapshot::MAX_PLUGIN_BYTES;
use crate::surroundings::{read_file, too_large};

/// Begin, build, check, test and sign plugins.
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Begin a plugin: a project that builds, in the language of your choice.
    New(new::NewArgs),
    /// Build a plugin's project, and write the component and its hash.
    Build(build::BuildArgs),
    /// Show what a component is, what it asks for and what it costs; exit 1 when it cannot serve.
    Check(check::CheckArgs),
    /// Run cases against a plugin, and show what it decides differently.
    Test(test::TestArgs),
    /// Record what a plugin decides on live traffic, as cases for `innkeeper plugin test`.
    Record(record::RecordArgs),
    /// Make a key pair to sign plugins with.
    Keygen(sign::KeygenArgs),
    /// Sign a component, so that a policy can check who made it.
    Sign(sign::SignArgs),
}

/// Runs the command.
pub async fn run(args: &Args) -> ExitCode {
    match &args.command {
        Command::New(args) => ended(new::run(args)),
        Command::Build(args) => ended(build::run(args)),
        Command::Check(args) => check::run(args).await,
        Command::Test(args) => test::run(args).await,
        Command::Record(args) => record::run(args).await,
        Command::Keygen(args) => ended(sign::keygen(args).map(|public_key| {
            print(&format!(
                "{}: keep it secret\npolicy:   trusted_keys: [\"{public_key}\"]",
                args.output.display()
            ));
        })),
        Command::Sign(args) => ended(sign::sign(args).map(|signed| {
            print(&format!("{}, verified by the public key {}", signed.path.display(), signed.public_key));
        })),
    }
}

fn ended(result: Result<(), impl std::fmt::Display>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(error),
    }
}

/// Reads a component, as large as a gateway takes one.
fn read_component(path: &Path) -> io::Result<Vec<u8>> {
    read_file(path, MAX_PLUGIN_BYTES)
}

/// Reads a text of at most so many bytes. It may come through a pipe, as a shell makes one of `<(…)`: that is how
/// secrets are handed over.
fn read_text(path: &Path, most: u64) -> io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?.take(most + 1).read_to_string(&mut text)?;
    if text.len() as u64 > most { Err(too_large(most)) } else { Ok(text) }
}

/// Writes a whole file or nothing: a running gateway may watch it, and must never see half of it.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(dir)?;
    file.write_all(bytes)?;
    // A temporary file is private; a plugin is for whoever runs the gateway, and what was there before for
    // whom it was.
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(path).map_or(0o644, |before| before.permissions().mode() & 0o777);
        file.as_file().set_permissions(std::fs::Permissions::from_mode(mode))?;
    }
    file.persist(path)?;
    Ok(())
}
