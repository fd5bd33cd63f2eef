//! `innkeeper plugin build`: from a project in any of the languages to a component and its hash.

mod c;
mod componentize;
mod javascript;
mod python;
mod rust;
mod toolchain;

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sha2::{Digest as _, Sha256};

pub use self::componentize::{ComponentizeError, componentize};
use super::language::Language;
use super::{contract, replace};

/// The plugin's own stack, bytes. Small, because a fresh instance pays for what it touches.
const STACK_BYTES: u32 = 65_536;

/// Builds a plugin.
#[derive(Debug, Clone, clap::Args)]
pub struct BuildArgs {
    /// Directory of the plugin's project
    #[arg(default_value = ".")]
    pub dir: PathBuf,
    /// The project's language [default: what its files speak for]
    #[arg(long, value_name = "LANGUAGE")]
    pub lang: Option<Language>,
    /// File to write; its hash goes beside it as FILE.sha256 [default: NAME.wasm in DIR]
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Rust: compile for this target and no other: wasm32-unknown-unknown, wasm32-wasip2 or
    /// wasm32-wasip1
    #[arg(long)]
    pub target: Option<String>,
    /// Rust and C: bytes of the plugin's stack
    #[arg(long, value_name = "BYTES", default_value_t = STACK_BYTES)]
    pub stack_size: u32,
    /// Further arguments for the compiler
    #[arg(last = true, value_name = "COMPILER ARGUMENTS")]
    pub compiler: Vec<String>,
}

impl BuildArgs {
    /// What `innkeeper plugin build DIR` does.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            lang: None,
            output: None,
            target: None,
            stack_size: STACK_BYTES,
            compiler: Vec::new(),
        }
    }
}

/// Why there is no plugin.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// Nothing on this machine can compile it. The text says what to install.
    #[error("{0}")]
    NoToolchain(String),
    /// The compiler refused it. It has said why.
    #[error("`{program}` failed for {}", dir.display())]
    Compiler {
        /// What was run.
        program: String,
        /// The project.
        dir: PathBuf,
    },
    /// The project is no plugin.
    #[error("{0}")]
    NotAPlugin(String),
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
}

/// What was built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Built {
    /// The component.
    pub path: PathBuf,
    /// Its SHA-256 in lower-case hex.
    pub sha256: String,
    /// Its size, bytes.
    pub size: usize,
    /// What compiled it.
    pub compiler: String,
}

/// What a compiler made of a project.
struct Compiled {
    component: Vec<u8>,
    /// The name that the project gives itself, where it does.
    name: Option<String>,
    compiler: String,
}

/// Builds, and tells on standard output what was built. The compiler shows its own progress.
///
/// # Errors
/// As [`build`].
pub fn run(args: &BuildArgs) -> Result<(), BuildError> {
    let built = build(args)?;
    let mut text = format!("{} ({} bytes, {})\n", built.path.display(), built.size, built.compiler);
    let _ = writeln!(text, "sha256: {}", built.sha256);
    // A closed pipe is not a failed build.
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(())
}

/// Compiles the project in `args.dir`, makes it a component, and writes it with its hash.
///
/// # Errors
/// When there is no toolchain, the project does not compile or is no plugin, or a file cannot be
/// written.
pub fn build(args: &BuildArgs) -> Result<Built, BuildError> {
    let language = match args.lang {
        Some(language) => language,
        None => Language::detect(&args.dir).map_err(BuildError::NotAPlugin)?,
    };
    let compiled = match language {
        Language::Rust => rust::compile(args)?,
        Language::C => c::compile(args)?,
        Language::Js => javascript::compile(args)?,
        Language::Python => python::compile(args)?,
    };
    let path = match (&args.output, compiled.name) {
        (Some(output), _) => output.clone(),
        (None, Some(name)) => args.dir.join(name).with_extension("wasm"),
        (None, None) => args.dir.join(directory_name(&args.dir)).with_extension("wasm"),
    };
    let sha256 = write(&path, &compiled.component)?;
    Ok(Built { path, sha256, size: compiled.component.len(), compiler: compiled.compiler })
}

/// A project in a language that has no place for its name is called like its directory.
fn directory_name(dir: &Path) -> PathBuf {
    let absolute = dir.canonicalize().ok();
    absolute.as_deref().and_then(Path::file_name).map_or_else(|| "plugin".into(), PathBuf::from)
}

/// Runs a compiler, which says on standard error what it does and what is wrong.
fn run_compiler(command: &mut Command, program: &str, dir: &Path) -> Result<(), BuildError> {
    // Standard output is for what was built.
    let status = command
        .stdin(Stdio::null())
        .stdout(std::io::stderr())
        .status()
        .map_err(|source| BuildError::File { path: program.into(), source })?;
    if status.success() {
        return Ok(());
    }
    Err(BuildError::Compiler { program: program.into(), dir: dir.into() })
}

fn on_path(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).is_file()))
}

fn read(path: &Path) -> Result<Vec<u8>, BuildError> {
    std::fs::read(path).map_err(|source| BuildError::File { path: path.into(), source })
}

/// A directory with the contract, for a compiler that reads it itself.
fn contract_directory(dir: &Path, scratch: &Path) -> Result<PathBuf, BuildError> {
    contract::directory(dir, scratch).map_err(|source| BuildError::File { path: dir.into(), source })
}

/// A directory for what nobody keeps.
fn scratch() -> Result<tempfile::TempDir, BuildError> {
    tempfile::tempdir().map_err(|source| BuildError::File { path: std::env::temp_dir(), source })
}

/// Writes the component, then its hash in the format of `sha256sum`.
fn write(path: &Path, component: &[u8]) -> Result<String, BuildError> {
    let mut sha256 = String::new();
    for byte in Sha256::digest(component) {
        let _ = write!(sha256, "{byte:02x}");
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut beside = path.as_os_str().to_owned();
    beside.push(".sha256");
    let sum = format!("{sha256}  {name}\n");
    for (path, bytes) in [(path, component), (Path::new(&beside), sum.as_bytes())] {
        replace(path, bytes).map_err(|source| BuildError::File { path: path.into(), source })?;
    }
    Ok(sha256)
}
