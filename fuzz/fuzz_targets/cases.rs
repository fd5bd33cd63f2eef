//! Any text as a file of cases: it may be refused, but nothing may panic, and what was read can be
//! written and read again.
#![no_main]

use std::collections::BTreeMap;

use innkeeper::policy::{CaseAnswer, Cases};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(cases) = Cases::read("cases.yaml".as_ref(), text) else { return };
    let written = cases.to_string();
    if let Err(error) = Cases::read("cases.yaml".as_ref(), &written) {
        panic!("{written}\n{error}");
    }
    let other: BTreeMap<_, _> =
        cases.cases.iter().map(|case| (case.name.as_str(), CaseAnswer::Next)).collect();
    let _ = cases.rewrite(text, &other);
    if let Err(error) = cases.rewrite(&written, &BTreeMap::new()) {
        panic!("{written}\n{error}");
    }
});
