//! What clients and hops say of themselves: no bytes panic, and what is trusted is never theirs.
#![no_main]

use std::net::SocketAddr;

use http::header::FORWARDED;
use http::{HeaderMap, HeaderName, HeaderValue};
use innkeeper::address::{Peer, PeerRange};
use innkeeper::forward::forwarded::origin;
use innkeeper::identity::Claims;
use innkeeper::policy::KeySet;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let trusted: [PeerRange; 1] = ["10.0.0.0/8".parse().expect("a network")];
    let peer = Peer::from(SocketAddr::from(([10, 0, 0, 1], 0)));
    if let Ok(value) = HeaderValue::from_bytes(bytes) {
        for name in [FORWARDED, HeaderName::from_static("x-forwarded-for")] {
            let headers: HeaderMap = [(name, value.clone())].into_iter().collect();
            if let Ok(origin) = origin(&headers, peer, &trusted) {
                assert!(origin.hops.iter().all(|hop| trusted[0].contains(hop)));
            }
        }
    }
    let _ = KeySet::parse(bytes);
    let Some((path, claims)) = bytes.split_first_chunk::<2>() else { return };
    if let Ok(claims) = serde_json::from_slice::<Claims>(claims) {
        let path: Vec<String> = path.iter().map(|step| char::from(*step).to_string()).collect();
        // What plugins get says the same. Numbers with a fraction may lose their last bit, and are no text.
        let again = serde_json::from_str::<Claims>(&claims.to_json()).expect("our own JSON");
        assert_eq!(again.text(&path).ok(), claims.text(&path).ok());
    }
});
