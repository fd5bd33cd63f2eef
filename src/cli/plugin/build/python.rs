//! Builds a plugin in Python with componentize-py.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{BuildArgs, BuildError, Compiled, contract_directory, on_path, read, run_compiler, scratch};
use crate::cli::plugin::contract;
use crate::cli::plugin::language::sources;
use crate::cli::progress;

/// The module that a project should have; another one serves if it is the only one.
const MODULE: &str = "plugin";

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
    run_compiler(&mut command, "componentize-py", &args.dir)?;
    Ok(Compiled { component: read(&component)?, name: None, compiler: "componentize-py".into() })
}

/// A Python that has a module: the project's own environment first.
pub(super) fn interpreter_with(dir: &Path, module: &str) -> Option<PathBuf> {
    // Absolute, because the compiler runs in the project's directory.
    let own = dir.canonicalize().ok().map(|dir| dir.join(".venv/bin/python"));
    let pythons = own.filter(|python| python.is_file()).into_iter().chain([PathBuf::from("python3")]);
    pythons.into_iter().find(|python| {
        Command::new(python)
            .args(["-c", &format!("import {module}")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    })
}

fn find(dir: &Path) -> Option<Command> {
    if let Some(python) = interpreter_with(dir, "componentize_py") {
        let mut command = Command::new(python);
        command.args(["-m", "componentize_py"]);
        return Some(command);
    }
    on_path("componentize-py").then(|| Command::new("componentize-py"))
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
