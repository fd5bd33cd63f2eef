//! Builds a plugin in JavaScript with componentize-js.

use std::path::Path;
use std::process::{Command, Stdio};

use super::{BuildArgs, BuildError, Compiled, contract_directory, on_path, read, run_compiler, scratch};
use crate::cli::progress;

/// Calls the package's function, from the project's directory so that its packages are found.
const SCRIPT: &str = include_str!("componentize.mjs");

/// The module that a project should have, where its package.json names no other.
const MODULE: &str = "plugin.js";

/// The package that does the work.
const PACKAGE: &str = "@bytecodealliance/componentize-js";

/// What to install, in words to copy.
const INSTALL: &str = "node and npm were not found: install Node.js 20 or later";

/// Makes a component of the project's module.
pub(super) fn compile(args: &BuildArgs) -> Result<Compiled, BuildError> {
    let dir = &args.dir;
    if !on_path("node") || !on_path("npm") {
        return Err(BuildError::NoToolchain(INSTALL.into()));
    }
    let package = dir.join("package.json");
    let package: serde_json::Value = serde_json::from_slice(&read(&package)?)
        .map_err(|error| BuildError::NotAPlugin(format!("{}: {error}", package.display())))?;
    if !has_componentizer(dir) {
        progress("npm install, because node_modules is missing");
        run_compiler(Command::new("npm").current_dir(dir).arg("install"), "npm install", dir)?;
    }
    if !has_componentizer(dir) {
        let message = format!("{PACKAGE} is missing: npm install --save-dev {PACKAGE}");
        return Err(BuildError::NoToolchain(message));
    }
    let scratch = scratch()?;
    let contract = contract_directory(dir, scratch.path())?;
    let component = scratch.path().join("plugin.wasm");
    progress("componentize-js puts the engine and the plugin together, which takes half a minute");
    let mut command = Command::new("node");
    command.current_dir(dir).args(["--input-type=module", "--eval", SCRIPT, "--"]);
    command.arg(package["main"].as_str().unwrap_or(MODULE)).arg(contract).arg(&component);
    run_compiler(command.args(&args.compiler), "componentize-js", dir)?;
    let name = package["name"].as_str().map(|name| name.rsplit('/').next().unwrap_or(name).to_owned());
    Ok(Compiled { component: read(&component)?, name, compiler: "componentize-js".into() })
}

/// Asks node itself: a package may be installed in a directory above.
fn has_componentizer(dir: &Path) -> bool {
    Command::new("node")
        .current_dir(dir)
        .args(["--input-type=module", "--eval", &format!("import.meta.resolve({PACKAGE:?})")])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
