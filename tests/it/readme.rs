//! What the README shows is what the code takes.

use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use innkeeper::policy::{Policy, Surroundings};

const README: &str = include_str!("../../README.md");
const SDK: &str = include_str!("../../plugins/sdk/src/lib.rs");

/// The only block of code in that language.
fn block(language: &str) -> &'static str {
    let mut blocks =
        README.split("\n```").filter_map(|block| block.strip_prefix(language)?.strip_prefix('\n'));
    let found = blocks.next().unwrap();
    assert!(blocks.next().is_none(), "the README has several blocks of {language}");
    found
}

#[test]
fn its_policy_is_right() {
    struct Shown;
    impl Surroundings for Shown {
        fn read(&self, _: &Path) -> io::Result<String> {
            Ok(block("yaml").into())
        }
        fn variable(&self, name: &str) -> Option<String> {
            (name == "DATABASE_URL").then(|| "postgres://app@db/app".into())
        }
    }
    let (policy, warnings) = Policy::parse(Path::new("policies/readme.yaml"), &Shown)
        .unwrap_or_else(|mistakes| panic!("{mistakes}"));
    assert!(warnings.is_empty(), "{warnings:?}");
    assert_eq!((policy.routes.len(), policy.tests.len()), (3, 1));
}

#[test]
fn its_plugin_is_the_one_that_the_sdk_tests() {
    let tested: Vec<&str> = SDK.lines().filter_map(|line| line.strip_prefix("//!")).map(str::trim).collect();
    let shown = block("rust");
    assert!(shown.lines().count() <= 20, "more than 20 lines");
    for line in shown.lines().map(str::trim) {
        assert!(tested.contains(&line), "the SDK's example has no line `{line}`");
    }
}

#[test]
fn its_commands_exist() {
    let commands: Vec<&str> = README
        .lines()
        .filter_map(|line| line.strip_prefix("| `innkeeper "))
        .map(|rest| rest.split([' ', '`']).next().unwrap())
        .collect();
    assert!(commands.len() >= 6, "{commands:?}");
    for command in commands {
        let status = Command::new(env!("CARGO_BIN_EXE_innkeeper"))
            .args([command, "--help"])
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success(), "innkeeper {command}");
    }
}
