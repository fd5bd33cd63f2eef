//! Any text as a file of cases: it may be refused, but nothing may panic, and what was read can be
//! written and read again.
#![no_main]

use std::io;
use std::path::Path;

use innkeeper::policy::{Cases, Surroundings};
use libfuzzer_sys::fuzz_target;

struct Desk<'a>(&'a str);

impl Surroundings for Desk<'_> {
    fn read(&self, _: &Path) -> io::Result<String> {
        Ok(self.0.to_owned())
    }

    fn variable(&self, name: &str) -> Option<String> {
        panic!("cases ask for no variable, but for {name}")
    }
}

fuzz_target!(|text: &str| {
    let Ok(cases) = Cases::parse("cases.yaml".as_ref(), &Desk(text)) else { return };
    let written = cases.to_string();
    if let Err(error) = Cases::parse("cases.yaml".as_ref(), &Desk(&written)) {
        panic!("{written}\n{error}");
    }
});
