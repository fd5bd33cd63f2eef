//! Any bytes as the beginning of a connection from a load balancer: what is read of them stays
//! what it was when more bytes follow.
#![no_main]

use innkeeper::server::proxy_protocol::{Announced, read};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Announced::Whole { length, client } = read(bytes) else { return };
    assert!(length <= bytes.len());
    assert_eq!(read(&bytes[..length]), Announced::Whole { length, client });
    assert!(!matches!(read(&bytes[..length - 1]), Announced::Whole { .. }));
});
