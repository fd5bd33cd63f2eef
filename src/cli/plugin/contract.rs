//! The contract with plugins as this binary carries it: its text, its meaning, its words in C.

use std::path::{Path, PathBuf};

use wit_bindgen_core::Files;
use wit_bindgen_core::wit_parser::{Resolve, WorldId};

/// The text that the host's own bindings are generated from.
pub(super) const TEXT: &str = include_str!("../../../wit/policy.wit");

/// Where a project keeps its copy.
pub(super) const DIRECTORY: &str = "wit";

/// The name of the copy.
pub(super) const FILE: &str = "policy.wit";

/// The world that a plugin is built for.
pub(super) const WORLD: &str = "policy";

/// A contract that was understood.
pub(super) struct Contract {
    /// Every type and function.
    pub(super) resolve: Resolve,
    /// What a plugin imports and exports.
    pub(super) world: WorldId,
}

impl Contract {
    /// The contract of this binary.
    pub(super) fn current() -> Self {
        let mut resolve = Resolve::default();
        let package = resolve.push_str(FILE, TEXT).expect("the host is generated from the same text");
        let world = resolve.select_world(&[package], Some(WORLD)).expect("the text has the world");
        Self { resolve, world }
    }

    /// The contract that a project was begun with, or this binary's where it keeps no copy.
    ///
    /// # Errors
    /// When its copy is not WIT, or has no world of that name.
    pub(super) fn of_project(dir: &Path) -> Result<Self, String> {
        let Some(copy) = copy_in(dir) else { return Ok(Self::current()) };
        let mut resolve = Resolve::default();
        let read = resolve.push_dir(&copy).and_then(|(package, _)| {
            let world = resolve.select_world(&[package], Some(WORLD))?;
            Ok((resolve, world))
        });
        match read {
            Ok((resolve, world)) => Ok(Self { resolve, world }),
            Err(error) => Err(format!("{}: {error:#}", copy.display())),
        }
    }

    /// What lets C speak the contract, by file name: a header, a source, and an object that tells
    /// which world the module is for.
    pub(super) fn in_c(&mut self) -> Files {
        // A request's handle is given back by the generated code: who forgets it fails every call.
        let options =
            wit_bindgen_c::Opts { autodrop_borrows: wit_bindgen_c::Enabled::Yes, ..Default::default() };
        let mut files = Files::default();
        options
            .build()
            .generate(&mut self.resolve, self.world, &mut files)
            .expect("the contract uses nothing that C cannot say");
        files
    }
}

/// A directory with the contract for a foreign compiler: the project's own, or else one that is
/// written below `scratch`.
pub(super) fn directory(dir: &Path, scratch: &Path) -> std::io::Result<PathBuf> {
    if let Some(copy) = copy_in(dir) {
        return copy.canonicalize();
    }
    let written = scratch.join(DIRECTORY);
    std::fs::create_dir(&written)?;
    std::fs::write(written.join(FILE), TEXT)?;
    Ok(written)
}

/// The directory with a project's own copy of the contract.
fn copy_in(dir: &Path) -> Option<PathBuf> {
    let copy = dir.join(DIRECTORY);
    copy.is_dir().then_some(copy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_project_without_a_copy_speaks_the_current_contract() {
        let dir = tempfile::tempdir().unwrap();
        let theirs = Contract::of_project(dir.path()).unwrap();
        let ours = Contract::current();
        assert_eq!(theirs.resolve.worlds[theirs.world].name, ours.resolve.worlds[ours.world].name);
    }

    #[test]
    fn a_damaged_copy_is_named() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join(DIRECTORY)).unwrap();
        std::fs::write(dir.path().join(DIRECTORY).join(FILE), "package innkeeper;").unwrap();
        let error = Contract::of_project(dir.path()).err().unwrap();
        assert!(error.contains("wit"), "{error}");
    }

    #[test]
    fn c_gets_a_header_a_source_and_an_object() {
        let files = Contract::current().in_c();
        let names: Vec<&str> = files.iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["policy.c", "policy.h", "policy_component_type.o"]);
    }
}
