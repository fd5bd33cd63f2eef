//! Builds a plugin in C with whatever compiler the machine has for WebAssembly.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{BuildArgs, BuildError, Compiled, componentize, on_path, read, run_compiler, scratch};
use crate::cli::plugin::contract::Contract;
use crate::cli::plugin::language::sources;
use crate::cli::progress;

/// Where a project finds the contract in C; written anew by each build.
const BINDINGS: &str = "bindings";

/// What to install, in words to copy.
const INSTALL: &str = "no C compiler that can build WebAssembly was found. Install one of:\n  \
    python3 -m venv .venv && .venv/bin/pip install ziglang    (in the project)\n  \
    zig, so that `zig cc` works\n  \
    apt-get install clang lld wasi-libc libclang-rt-dev-wasm32    (Debian, Ubuntu)\n  \
    the WASI SDK, and set WASI_SDK_PATH to its directory";

/// Compiles every `*.c` of the project together with the contract's bindings.
pub(super) fn compile(args: &BuildArgs) -> Result<Compiled, BuildError> {
    let dir = &args.dir;
    let mut written = sources(dir, "c");
    if written.is_empty() {
        return Err(BuildError::NotAPlugin(format!("{} has no *.c", dir.display())));
    }
    let mut contract = Contract::of_project(dir).map_err(BuildError::NotAPlugin)?;
    let bindings = write_bindings(&mut contract, dir)?;
    written.extend(sources(&bindings, "c"));
    let described = sources(&bindings, "o");
    let compiler = Compiler::find(dir).ok_or_else(|| BuildError::NoToolchain(INSTALL.into()))?;
    progress(format_args!("{} compiles {} files", compiler.name, written.len()));
    let scratch = scratch()?;
    let module_path = scratch.path().join("plugin.wasm");
    let mut command = compiler.command();
    // Without a `main`: a library that is called.
    command.args(["--target=wasm32-wasi", "-mexec-model=reactor", "-Os", "-Wall", "-Wextra"]);
    command.args([format!("-Wl,-z,stack-size={}", args.stack_size).as_str(), "-Wl,--strip-all"]);
    command
        .arg("-I")
        .arg(&bindings)
        .args(&written)
        .args(&described)
        .arg("-o")
        .arg(&module_path)
        .args(&args.compiler);
    run_compiler(&mut command, &compiler.name, dir)?;
    let component =
        componentize(&read(&module_path)?).map_err(|error| BuildError::NotAPlugin(error.to_string()))?;
    Ok(Compiled { component, name: None, compiler: compiler.name })
}

/// Says the contract in C, for this build and for the author's editor.
fn write_bindings(contract: &mut Contract, dir: &Path) -> Result<PathBuf, BuildError> {
    let bindings = dir.join(BINDINGS);
    let failed = |path: &Path, source| BuildError::File { path: path.into(), source };
    fs::create_dir_all(&bindings).map_err(|source| failed(&bindings, source))?;
    for (name, text) in contract.in_c().iter() {
        let path = bindings.join(name);
        fs::write(&path, text).map_err(|source| failed(&path, source))?;
    }
    Ok(bindings)
}

/// A C compiler with the headers and the library for WASI.
struct Compiler {
    name: String,
    program: PathBuf,
    /// What comes before the compiler's own arguments.
    leading: &'static [&'static str],
}

impl Compiler {
    fn find(dir: &Path) -> Option<Self> {
        let sdk = std::env::var_os("WASI_SDK_PATH").map(|sdk| Path::new(&sdk).join("bin/clang"));
        if let Some(clang) = sdk.filter(|clang| clang.is_file()) {
            return Some(Self { name: clang.display().to_string(), program: clang, leading: &[] });
        }
        if on_path("clang") && clang_links() {
            return Some(Self { name: "clang".into(), program: "clang".into(), leading: &[] });
        }
        if on_path("zig") {
            return Some(Self { name: "zig cc".into(), program: "zig".into(), leading: &["cc"] });
        }
        let python = python_with_zig(dir)?;
        Some(Self { name: "zig cc".into(), program: python, leading: &["-m", "ziglang", "cc"] })
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(self.leading);
        command
    }
}

/// Many a clang knows the target and has no library for it: only linking shows.
fn clang_links() -> bool {
    let Ok(scratch) = tempfile::tempdir() else { return false };
    Command::new("clang")
        .args(["--target=wasm32-wasi", "-mexec-model=reactor", "-x", "c", "-include", "stdlib.h"])
        .args(["/dev/null", "-o"])
        .arg(scratch.path().join("empty.wasm"))
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// A Python that has zig as a package: the project's own environment first.
fn python_with_zig(dir: &Path) -> Option<PathBuf> {
    [dir.join(".venv/bin/python"), PathBuf::from("python3")].into_iter().find(|python| {
        Command::new(python)
            .args(["-m", "ziglang", "version"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    })
}
