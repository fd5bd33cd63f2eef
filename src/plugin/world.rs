//! What a plugin imports and exports, held against the contract and its capabilities.

use std::fmt::Write as _;

use wasmtime::component::Component;
use wasmtime::component::types::ComponentItem;

use super::load_error::{LoadError, LoadErrorClass};

/// The world that we serve.
const PACKAGE: &str = "innkeeper:policy";
/// Its version.
const VERSION: &str = "0.1.0";
/// What a plugin must export.
const EXPORTS: [&str; 2] = ["configure", "resolve"];

/// Interfaces that a plugin may import, without their version.
const GRANTED: [&str; 25] = [
    "innkeeper:policy/types",
    "innkeeper:policy/directory",
    "innkeeper:policy/log",
    "wasi:cli/environment",
    "wasi:cli/exit",
    "wasi:cli/stdin",
    "wasi:cli/stdout",
    "wasi:cli/stderr",
    "wasi:cli/terminal-input",
    "wasi:cli/terminal-output",
    "wasi:cli/terminal-stdin",
    "wasi:cli/terminal-stdout",
    "wasi:cli/terminal-stderr",
    "wasi:clocks/monotonic-clock",
    "wasi:clocks/wall-clock",
    "wasi:filesystem/preopens",
    "wasi:filesystem/types",
    "wasi:io/error",
    "wasi:io/poll",
    "wasi:io/streams",
    "wasi:random/insecure",
    "wasi:random/insecure-seed",
    "wasi:random/random",
    // Only types, shared by the interfaces above.
    "wasi:clocks/timezone",
    "wasi:clocks/types",
];

/// Compares imports and exports with the world, to say in words what does not fit.
pub(super) fn check_world(component: &Component) -> Result<(), LoadError> {
    let kind = component.component_type();
    let mut refused = String::new();
    for (name, import) in kind.imports(component.engine()) {
        // The world names the types of our interface; nothing can be called through them.
        if matches!(import.ty, ComponentItem::Type(_) | ComponentItem::Resource(_)) {
            continue;
        }
        let (interface, version) = name.split_once('@').unwrap_or((name, ""));
        if interface.starts_with(PACKAGE) && !compatible(version) {
            let message = format!("it was built for `{name}`, this host serves {PACKAGE}@{VERSION}");
            return Err(LoadError::new(LoadErrorClass::WrongWorld, message));
        }
        if !GRANTED.contains(&interface) {
            let _ = write!(refused, "{}`{name}`", if refused.is_empty() { "" } else { ", " });
        }
    }
    if !refused.is_empty() {
        let message = format!(
            "it imports {refused}; a plugin may import {PACKAGE} and the harmless part of WASI (clocks, \
             randomness, output), but no files, network or processes"
        );
        return Err(LoadError::new(LoadErrorClass::ImportNotGranted, message));
    }
    let missing: Vec<&str> = EXPORTS
        .into_iter()
        .filter(|wanted| {
            !kind
                .exports(component.engine())
                .any(|(name, export)| name == *wanted && matches!(export.ty, ComponentItem::ComponentFunc(_)))
        })
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let message = format!(
        "it does not export `{}`: a plugin is built for the world `policy` of {PACKAGE}@{VERSION}",
        missing.join("` and `")
    );
    Err(LoadError::new(LoadErrorClass::WrongWorld, message))
}

/// Below 1.0, a minor version is a contract of its own; a patch only adds words to it.
fn compatible(version: &str) -> bool {
    let minor = VERSION.rsplit_once('.').map_or(VERSION, |(minor, _)| minor);
    version.rsplit_once('.').is_some_and(|(theirs, _)| theirs == minor)
}
