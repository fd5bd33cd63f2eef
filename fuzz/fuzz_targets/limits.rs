//! Any text as a tenant's limits, as a column of a table may hold it: refused or read, never a panic.
#![no_main]

use innkeeper::policy::{DefaultLimits, WrittenLimits};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(written) = WrittenLimits::parse(text) else { return };
    let Ok(Some(limits)) = DefaultLimits::default().with(Some(&written)) else { return };
    for quota in [limits.requests, limits.bytes].into_iter().flatten() {
        assert!(quota.time_of(1) <= quota.window());
        let _ = quota.earned_in(quota.window());
    }
});
