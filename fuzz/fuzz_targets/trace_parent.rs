//! Any bytes as a `traceparent`: what is read is written and read as the same.
#![no_main]

use innkeeper::trace::TraceParent;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|value: &[u8]| {
    let Some(parent) = TraceParent::parse(value) else { return };
    assert_eq!(TraceParent::parse(parent.header().as_bytes()), Some(parent));
});
