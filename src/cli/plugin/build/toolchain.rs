//! Finds a Rust that can compile for WebAssembly on this machine.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::on_path;

/// Targets that a plugin can be built for, the leaner one first: its components import nothing but
/// what the plugin uses.
pub(super) const TARGETS: [&str; 3] = ["wasm32-unknown-unknown", "wasm32-wasip2", "wasm32-wasip1"];

/// What to install, in words to copy.
const INSTALL: &str = "no Rust toolchain that can build WebAssembly was found. Install one of:\n  \
    rustup target add wasm32-unknown-unknown\n  \
    apt-get install rustc-web cargo-web rust-web-src lld    (Debian, Ubuntu)";

/// A compiler, how to call it and what for.
#[derive(Debug)]
pub(super) struct Toolchain {
    cargo: PathBuf,
    rustc: PathBuf,
    sysroot: PathBuf,
    pub(super) target: String,
    /// The target's standard library is compiled from source, because none is installed.
    builds_std: bool,
    /// The linker, where the toolchain brings none.
    linker: Option<&'static str>,
}

/// Finds a toolchain for `wanted`, or for the first of [`TARGETS`] that one is there for.
pub(super) fn find(dir: &Path, wanted: Option<&str>) -> Result<Toolchain, String> {
    let targets: Vec<&str> = wanted.map_or_else(|| TARGETS.to_vec(), |target| vec![target]);
    let compilers = compilers(dir);
    for (cargo, rustc, sysroot) in &compilers {
        for target in &targets {
            if sysroot.join("lib/rustlib").join(target).join("lib").is_dir() {
                return with_linker(cargo, rustc, sysroot, target, false);
            }
        }
    }
    let from_source = TARGETS[0];
    if targets.contains(&from_source) {
        for (cargo, rustc, sysroot) in &compilers {
            if sysroot.join("lib/rustlib/src/rust/library/std/Cargo.toml").is_file() {
                return with_linker(cargo, rustc, sysroot, from_source, true);
            }
        }
    }
    Err(INSTALL.into())
}

impl Toolchain {
    /// `cargo build` for this target.
    pub(super) fn build(&self, dir: &Path, stack_bytes: u32) -> Command {
        let mut command = Command::new(&self.cargo);
        command.current_dir(dir).env("RUSTC", &self.rustc).env_remove("RUSTUP_TOOLCHAIN");
        // Flags from the environment would replace those below.
        command.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
        command.args(["build", "--release", "--target", &self.target]);
        command.arg("--message-format=json-render-diagnostics");
        // The compiler's own stack of 1 MiB would have to be mapped for each fresh instance.
        let mut flags = vec![format!("-Clink-arg=-zstack-size={stack_bytes}")];
        // What is built must not depend on where: panic messages name source files.
        for (path, name) in self.paths(dir) {
            flags.push(format!("--remap-path-prefix={}={name}", path.display()));
        }
        let flags = serde_json::to_string(&flags).expect("strings are JSON");
        command.args(["--config", &format!("target.{}.rustflags={flags}", self.target)]);
        if let Some(linker) = self.linker {
            command.args(["--config", &format!("target.{}.linker=\"{linker}\"", self.target)]);
        }
        if self.builds_std {
            command.env("RUSTC_BOOTSTRAP", "1").args(["-Z", "build-std=std,panic_abort"]);
        }
        command
    }

    fn paths(&self, dir: &Path) -> Vec<(PathBuf, &'static str)> {
        let mut paths = vec![(self.sysroot.join("lib/rustlib/src/rust"), "/rust")];
        let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".cargo"));
        let crates = std::env::var_os("CARGO_HOME").map(PathBuf::from).or_else(home);
        let registries = crates.and_then(|cargo| cargo.join("registry/src").read_dir().ok());
        paths.extend(registries.into_iter().flatten().flatten().map(|registry| (registry.path(), "/crates")));
        if let Ok(absolute) = dir.canonicalize() {
            // A workspace's members name each other's files: map what is above this one too.
            paths.push((absolute.parent().unwrap_or(&absolute).to_path_buf(), "/plugin"));
        }
        paths
    }
}

fn with_linker(
    cargo: &Path,
    rustc: &Path,
    sysroot: &Path,
    target: &str,
    builds_std: bool,
) -> Result<Toolchain, String> {
    let linker = if brings_linker(sysroot) {
        None
    } else if on_path("rust-lld") {
        Some("rust-lld")
    } else if on_path("wasm-ld") {
        Some("wasm-ld")
    } else {
        return Err(format!(
            "{} can compile for {target}, but there is no linker: install the package `lld`",
            rustc.display()
        ));
    };
    let (cargo, rustc, sysroot) = (cargo.into(), rustc.into(), sysroot.into());
    Ok(Toolchain { cargo, rustc, sysroot, target: target.into(), builds_std, linker })
}

/// Pairs of cargo and rustc with their root: the one that the project chooses, and the system's.
fn compilers(dir: &Path) -> Vec<(PathBuf, PathBuf, PathBuf)> {
    let chosen = (PathBuf::from("cargo"), PathBuf::from("rustc"));
    let system = (PathBuf::from("/usr/bin/cargo"), PathBuf::from("/usr/bin/rustc"));
    [chosen, system]
        .into_iter()
        .filter_map(|(cargo, rustc)| {
            // The environment of a build that runs us must not choose for the plugin.
            let asked = Command::new(&rustc)
                .args(["--print", "sysroot"])
                .current_dir(dir)
                .env_remove("RUSTUP_TOOLCHAIN")
                .output()
                .ok()?;
            let sysroot = String::from_utf8(asked.stdout).ok()?;
            (asked.status.success() && Command::new(&cargo).arg("--version").output().is_ok())
                .then(|| (cargo, rustc, PathBuf::from(sysroot.trim())))
        })
        .collect()
}

fn brings_linker(sysroot: &Path) -> bool {
    let Ok(hosts) = sysroot.join("lib/rustlib").read_dir() else { return false };
    hosts.flatten().any(|host| host.path().join("bin/rust-lld").is_file())
}
