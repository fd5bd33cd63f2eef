//! `innkeeper plugin build`: from a Rust crate to a component and its hash.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use sha2::{Digest as _, Sha256};

pub use super::componentize::{ComponentizeError, componentize};
use super::toolchain;

/// The plugin's own stack, bytes. Small, because a fresh instance pays for what it touches.
const STACK_BYTES: u32 = 65_536;

/// Builds a plugin written in Rust.
#[derive(Debug, Clone, clap::Args)]
pub struct BuildArgs {
    /// Directory of the plugin's crate
    #[arg(default_value = ".")]
    pub dir: PathBuf,
    /// File to write; its hash goes beside it as FILE.sha256 [default: NAME.wasm in DIR]
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Compile for this target and no other: wasm32-unknown-unknown or wasm32-wasip2
    #[arg(long)]
    pub target: Option<String>,
    /// Bytes of the plugin's stack
    #[arg(long, value_name = "BYTES", default_value_t = STACK_BYTES)]
    pub stack_size: u32,
    /// Further arguments for `cargo build`
    #[arg(last = true, value_name = "CARGO ARGUMENTS")]
    pub cargo: Vec<String>,
}

/// Why there is no plugin.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// Nothing on this machine can compile it. The text says what to install.
    #[error("{0}")]
    NoToolchain(String),
    /// The compiler refused it. It has said why.
    #[error("`cargo build` failed for {}", .0.display())]
    Cargo(PathBuf),
    /// The crate is not a plugin.
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
    /// The target that it was compiled for.
    pub target: String,
}

/// Builds, and tells on standard output what was built. The compiler shows its own progress.
///
/// # Errors
/// As [`build`].
pub fn run(args: &BuildArgs) -> Result<(), BuildError> {
    let built = build(args)?;
    let mut text = format!("{} ({} bytes, {})\n", built.path.display(), built.size, built.target);
    let _ = writeln!(text, "sha256: {}", built.sha256);
    // A closed pipe is not a failed build.
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(())
}

/// Compiles the crate in `args.dir`, makes it a component, and writes it with its hash.
///
/// # Errors
/// When there is no toolchain, the crate does not compile or is no plugin, or a file cannot be
/// written.
pub fn build(args: &BuildArgs) -> Result<Built, BuildError> {
    if let Some(target) = args.target.as_deref().filter(|target| !toolchain::TARGETS.contains(target)) {
        let known = toolchain::TARGETS.join(" or ");
        return Err(BuildError::NoToolchain(format!("target must be {known}, got `{target}`")));
    }
    let toolchain = toolchain::find(&args.dir, args.target.as_deref()).map_err(BuildError::NoToolchain)?;
    let output = toolchain
        .build(&args.dir, args.stack_size)
        .args(&args.cargo)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|source| BuildError::File { path: "cargo".into(), source })?;
    if !output.status.success() {
        return Err(BuildError::Cargo(args.dir.clone()));
    }
    let module = built_module(&String::from_utf8_lossy(&output.stdout), &args.dir)?;
    let wasm = std::fs::read(&module).map_err(|source| BuildError::File { path: module.clone(), source })?;
    let component = componentize(&wasm).map_err(|error| BuildError::NotAPlugin(error.to_string()))?;
    let path = args.output.clone().unwrap_or_else(|| args.dir.join(default_name(&module)));
    let sha256 = write(&path, &component)?;
    Ok(Built { path, sha256, size: component.len(), target: toolchain.target })
}

/// The `cdylib` among what cargo says that it built, the last one being the crate itself.
fn built_module(messages: &str, dir: &Path) -> Result<PathBuf, BuildError> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["reason"] == "compiler-artifact")
        .filter_map(|message| {
            let files = message["filenames"].as_array()?.clone();
            files
                .iter()
                .filter_map(|file| file.as_str())
                .find(|file| file.ends_with(".wasm"))
                .map(PathBuf::from)
        })
        .next_back()
        .ok_or_else(|| {
            BuildError::NotAPlugin(format!(
                "{} builds no library for WebAssembly: set `crate-type = [\"cdylib\"]` under `[lib]`",
                dir.display()
            ))
        })
}

/// `legacy_keys.wasm` is `legacy-keys` to everybody but the compiler.
fn default_name(module: &Path) -> PathBuf {
    let stem = module.file_stem().map(|stem| stem.to_string_lossy().replace('_', "-"));
    PathBuf::from(stem.unwrap_or_else(|| "plugin".into())).with_extension("wasm")
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

/// A running gateway may watch the file: it must never see half of it.
fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(dir)?;
    file.write_all(bytes)?;
    let kept = file.persist(path)?;
    // A temporary file is private; a plugin is for whoever runs the gateway.
    #[cfg(unix)]
    kept.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
    drop(kept);
    Ok(())
}
