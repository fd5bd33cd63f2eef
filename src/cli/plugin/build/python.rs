//! Builds a plugin in Python with componentize-py.

use std::path::Path;
use std::process::Command;

use super::{BuildArgs, BuildError, Compiled, contract_directory, on_path, read, run_compiler, scratch};
use crate::cli::plugin::contract;
use crate::cli::plugin::language::sources;
use crate::cli::progress;

/// The module that a project should have; another one serves if it is the only one.
const MODULE: &str = "plugin";

/// What puts Python and a plugin together.
const PROGRAM: &str = "componentize-py";

/// What to install, in words to copy.
const INSTALL: &str = "componentize-py was not found. Install it in the project:\n  \
    python3 -m venv .venv && .venv/bin/pip install componentize-py";

/// Makes a component of the project's module and of what it imports.
pub(super) fn compile(args: &BuildArgs) -> Result<Compiled, BuildError> {
    let module = module(&args.dir)?;
    let mut command = find(&args.dir).ok_or_else(|| BuildError::NoToolchain(INSTALL.into()))?;
    let scratch = scratch()?;
    let contract = contract_directory(&args.dir, scratch.path())?;
    let component = scratch.path().join("plugin.wasm");
    progress("componentize-py puts Python and the plugin together, which takes half a minute");
    command
        .current_dir(&args.dir)
        .args(["--wit-path".as_ref(), contract.as_os_str()])
        // Files and sockets are not there for a plugin: an import that traps is an import less.
        .args(["--world", contract::WORLD, "componentize", "--stub-wasi"])
        .args([&module, "--output"])
        .arg(&component)
        .args(&args.compiler);
    run_compiler(&mut command, PROGRAM, &args.dir)?;
    Ok(Compiled { component: read(&component)?, name: None, compiler: PROGRAM.into() })
}

/// The project's own environment first.
fn find(dir: &Path) -> Option<Command> {
    // Absolute, because the compiler runs in the project's directory.
    let own = dir.canonicalize().ok().map(|dir| dir.join(".venv/bin").join(PROGRAM));
    if let Some(own) = own.filter(|own| own.is_file()) {
        return Some(Command::new(own));
    }
    on_path(PROGRAM).then(|| Command::new(PROGRAM))
}

fn module(dir: &Path) -> Result<String, BuildError> {
    let names: Vec<String> = sources(dir, "py")
        .iter()
        .filter_map(|path| path.file_stem().map(|stem| stem.to_string_lossy().into_owned()))
        .collect();
    match &names[..] {
        [only] => Ok(only.clone()),
        several if several.iter().any(|name| name == MODULE) => Ok(MODULE.into()),
        _ => Err(BuildError::NotAPlugin(format!("{} has no {MODULE}.py", dir.display()))),
    }
}
