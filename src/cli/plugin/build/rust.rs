//! Builds a crate with cargo.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use super::{BuildArgs, BuildError, Compiled, componentize, read, toolchain};

/// Compiles the crate in `args.dir`. Cargo shows its own progress.
pub(super) fn compile(args: &BuildArgs) -> Result<Compiled, BuildError> {
    if let Some(target) = args.target.as_deref().filter(|target| !toolchain::TARGETS.contains(target)) {
        let known = toolchain::TARGETS.join(" or ");
        return Err(BuildError::NoToolchain(format!("target must be {known}, got `{target}`")));
    }
    let toolchain = toolchain::find(&args.dir, args.target.as_deref()).map_err(BuildError::NoToolchain)?;
    let output = toolchain
        .build(&args.dir, args.stack_size)
        .args(&args.compiler)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|source| BuildError::File { path: "cargo".into(), source })?;
    if !output.status.success() {
        return Err(BuildError::Compiler { program: "cargo build".into(), dir: args.dir.clone() });
    }
    let module = built_module(&String::from_utf8_lossy(&output.stdout), &args.dir)?;
    let component = componentize(&read(&module)?).map_err(|error| {
        BuildError::NotAPlugin(format!(
            "{error}: does the crate name its plugin in `innkeeper_plugin::plugin!(…)`, and is it a `cdylib`?"
        ))
    })?;
    // `legacy_keys.wasm` is `legacy-keys` to everybody but the compiler.
    let name = module.file_stem().map(|stem| stem.to_string_lossy().replace('_', "-"));
    Ok(Compiled { component, name, compiler: toolchain.target })
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
