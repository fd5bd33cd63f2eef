//! What a plugin imports and exports, held against the contract and its capabilities.

use wasmtime::component::Component;
use wasmtime::component::types::ComponentItem;

use super::load_error::{LoadError, LoadErrorClass};
use crate::policy::{Capabilities, Capability};

/// The world that we serve.
const PACKAGE: &str = "innkeeper:policy";
/// Its version.
const VERSION: &str = "0.1.0";
/// What a plugin must export.
const EXPORTS: [&str; 2] = ["configure", "resolve"];

/// The harmless part of WASI, without versions: what a stock `wasm32-wasip2` component imports.
const WASI: [&str; 22] = [
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

/// Compares imports with what is granted and exports with the world, to say in words what does not
/// fit.
pub(super) fn check_world(component: &Component, granted: &Capabilities) -> Result<(), LoadError> {
    check_imports(component, granted)?;
    check_exports(component)
}

fn check_imports(component: &Component, granted: &Capabilities) -> Result<(), LoadError> {
    let kind = component.component_type();
    let (mut unknown, mut withheld, mut wanted) = (Vec::new(), Vec::new(), Vec::new());
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
        match access(interface) {
            Access::Free => {}
            Access::With(capability) if granted.grant(capability) => {}
            Access::With(capability) => {
                withheld.push(name);
                wanted.push(capability.as_str());
            }
            Access::Never => unknown.push(name),
        }
    }
    if !unknown.is_empty() {
        let message = format!(
            "it imports {}; a plugin may import {PACKAGE} and the harmless part of WASI (clocks, \
             randomness, output), but no files, network or processes",
            quoted(&unknown)
        );
        return Err(LoadError::new(LoadErrorClass::ImportNotGranted, message));
    }
    if !withheld.is_empty() {
        wanted.dedup();
        let has: Vec<&str> = granted.0.iter().map(|capability| capability.as_str()).collect();
        let has = if has.is_empty() { "none".to_owned() } else { quoted(&has) };
        let message = format!(
            "it imports {}, which the policy does not grant it: add {} to its `capabilities`, if it may \
             (granted: {has})",
            quoted(&withheld),
            quoted(&wanted)
        );
        return Err(LoadError::new(LoadErrorClass::ImportNotGranted, message));
    }
    Ok(())
}

/// What an import takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Nothing: every plugin reads requests.
    Free,
    /// A capability.
    With(Capability),
    /// No plugin gets it.
    Never,
}

/// What a plugin needs to import `interface`, an interface's name without its version.
pub fn access(interface: &str) -> Access {
    match interface {
        // `request.claims` is one function of it, and answers none without its capability.
        "innkeeper:policy/types" => Access::Free,
        "innkeeper:policy/directory" => Access::With(Capability::Directory),
        "innkeeper:policy/kv" => Access::With(Capability::Kv),
        "innkeeper:policy/log" => Access::With(Capability::Log),
        _ if WASI.contains(&interface) => Access::With(Capability::Wasi),
        _ => Access::Never,
    }
}

fn check_exports(component: &Component) -> Result<(), LoadError> {
    let kind = component.component_type();
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

fn quoted(words: &[&str]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

/// Below 1.0, a minor version is a contract of its own; a patch only adds words to it.
fn compatible(version: &str) -> bool {
    let minor = VERSION.rsplit_once('.').map_or(VERSION, |(minor, _)| minor);
    version.rsplit_once('.').is_some_and(|(theirs, _)| theirs == minor)
}
