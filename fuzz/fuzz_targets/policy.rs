//! Any text as a policy: it may be refused, but nothing may panic, and no variable may be shown.
#![no_main]

use std::io;
use std::path::Path;

use innkeeper::policy::{Policy, Surroundings};
use libfuzzer_sys::fuzz_target;

/// A value that no fuzzer writes by chance.
const SECRET: &str = "kq7-zz9-plural-alpha";

struct Desk<'a>(&'a str);

impl Surroundings for Desk<'_> {
    fn read(&self, path: &Path) -> io::Result<String> {
        match path.to_str() {
            Some("policy.yaml") => Ok(self.0.to_owned()),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn variable(&self, name: &str) -> Option<String> {
        (name == "SECRET").then(|| SECRET.to_owned())
    }
}

fuzz_target!(|text: &str| {
    match Policy::parse("policy.yaml".as_ref(), &Desk(text)) {
        Ok((policy, _)) => assert_eq!(policy.hash.len(), 64),
        Err(diagnostics) => assert!(!diagnostics.to_string().contains(SECRET)),
    }
});
