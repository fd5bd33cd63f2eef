//! The census of HTTP/2 frames: it must not depend on how the bytes are split.
#![no_main]

use innkeeper::server::census::Census;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let count = |step: usize| {
        let mut census = Census::new();
        bytes.chunks(step).try_for_each(|piece| census.count(piece))
    };
    let whole = count(bytes.len().max(1));
    assert_eq!(count(1), whole);
    assert_eq!(count(7), whole);
});
