//! Headers on their way to a backend: whatever a client sends, the tenant is said once and by us,
//! and nothing of the hop remains.
#![no_main]

use http::header::{HeaderMap, HeaderName, HeaderValue};
use innkeeper::address::Peer;
use innkeeper::forward::headers::{Caller, Hop, is_reserved, prepare};
use innkeeper::request_id::RequestId;
use innkeeper::upgrade::{Protocol, Wish};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|lines: Vec<(String, Vec<u8>)>| {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(&value))
        {
            headers.append(name, value);
        }
    }
    let switch = Wish::of_headers(&headers).and_then(|wish| wish.grant(&[Protocol::websocket()]));
    assert!(switch.is_none_or(|switch| switch.protocol.is_websocket()));
    let peer = Peer::Ip(([192, 0, 2, 1], 5).into());
    let hop = Hop { scheme: "http", authority: "app.example", peer, hops: &[] };
    prepare(&mut headers, hop, Caller::NoTenant, &RequestId::fresh());
    let ours = ["forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-request-id"];
    for name in headers.keys() {
        assert!(!is_reserved(name) || ours.contains(&name.as_str()), "{name}");
        assert!(
            !["connection", "upgrade", "transfer-encoding", "keep-alive"].contains(&name.as_str()),
            "{name}"
        );
    }
    for name in ours {
        assert_eq!(headers.get_all(name).iter().count(), 1, "{name}");
    }
});
