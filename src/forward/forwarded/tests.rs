//! What is believed of hops: examples, and properties of what anyone could write.

use http::HeaderValue;
use proptest::prelude::*;

use super::*;

fn trusted() -> Vec<PeerRange> {
    ["10.0.0.0/8", "::1/128", "fd00::/8", "unix"]
        .map(|range| range.parse().expect("the case is sound"))
        .into()
}

fn hop() -> Peer {
    SocketAddr::from(([10, 0, 0, 1], 7)).into()
}

fn read(lines: &[(&str, &str)]) -> Result<Origin, Refusal> {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(
            HeaderName::from_bytes(name.as_bytes()).expect("the case is sound"),
            value.parse().expect("the case is sound"),
        );
    }
    origin(&headers, hop(), &trusted())
}

fn said(origin: &Origin) -> String {
    let ip = |peer: &Peer| peer.ip().map_or("unix".into(), |ip| ip.to_string());
    let hops: Vec<String> = origin.hops.iter().map(ip).collect();
    format!(
        "{} via {} {} {}",
        ip(&origin.client),
        hops.join(","),
        origin.scheme.unwrap_or("-"),
        origin.host.as_deref().unwrap_or("-")
    )
}

#[test]
fn the_client_is_the_first_from_the_right_that_is_not_trusted() {
    for (lines, expected) in [
        (&[][..], "10.0.0.1 via  - -"),
        (&[("x-forwarded-for", "192.0.2.1")], "192.0.2.1 via 10.0.0.1 - -"),
        (&[("x-forwarded-for", "6.6.6.6, 192.0.2.1")], "192.0.2.1 via 10.0.0.1 - -"),
        (&[("x-forwarded-for", "garbage, 192.0.2.1")], "192.0.2.1 via 10.0.0.1 - -"),
        (&[("x-forwarded-for", "192.0.2.1, 10.0.0.9")], "192.0.2.1 via 10.0.0.9,10.0.0.1 - -"),
        (
            &[("x-forwarded-for", "192.0.2.1"), ("x-forwarded-for", "10.0.0.9")],
            "192.0.2.1 via 10.0.0.9,10.0.0.1 - -",
        ),
        (&[("x-forwarded-for", "10.0.0.8, 10.0.0.9")], "10.0.0.8 via 10.0.0.9,10.0.0.1 - -"),
        (&[("x-forwarded-for", "192.0.2.1:4711")], "192.0.2.1 via 10.0.0.1 - -"),
        (&[("x-forwarded-for", "2001:db8::1")], "2001:db8::1 via 10.0.0.1 - -"),
        (&[("x-forwarded-for", "[2001:db8::1]:4711")], "2001:db8::1 via 10.0.0.1 - -"),
        (&[("x-forwarded-for", "::ffff:192.0.2.1")], "192.0.2.1 via 10.0.0.1 - -"),
        (&[("x-forwarded-for", "unknown")], "10.0.0.1 via  - -"),
        (&[("x-forwarded-for", " , ")], "10.0.0.1 via  - -"),
        (&[("x-forwarded-proto", "https")], "10.0.0.1 via  https -"),
        (
            &[("x-forwarded-for", "6.6.6.6, 192.0.2.1"), ("x-forwarded-proto", "gopher, HTTPS")],
            "192.0.2.1 via 10.0.0.1 https -",
        ),
        (
            &[
                ("x-forwarded-for", "192.0.2.1, 10.0.0.9"),
                ("x-forwarded-proto", "https, http"),
                ("x-forwarded-host", "a.example, b"),
            ],
            "192.0.2.1 via 10.0.0.9,10.0.0.1 https a.example",
        ),
        (
            &[("forwarded", "for=192.0.2.1;proto=https;host=a.example")],
            "192.0.2.1 via 10.0.0.1 https a.example",
        ),
        (&[("forwarded", "For=\"[2001:db8::1]:4711\" ; Proto=http;by=x")], "2001:db8::1 via 10.0.0.1 http -"),
        (
            &[("forwarded", "for=6.6.6.6;proto=http, for=192.0.2.1;proto=https, for=10.0.0.9;proto=http")],
            "192.0.2.1 via 10.0.0.9,10.0.0.1 https -",
        ),
        (&[("forwarded", "for=_hidden;proto=https")], "10.0.0.1 via  https -"),
        (&[("forwarded", "proto=https")], "10.0.0.1 via  https -"),
        (
            &[("forwarded", "for=\"192.0.2.1\";host=\"a\\.example:8080\"")],
            "192.0.2.1 via 10.0.0.1 - a.example:8080",
        ),
        (
            &[
                ("forwarded", "for=192.0.2.1"),
                ("x-forwarded-for", "192.0.2.1"),
                ("x-forwarded-proto", "https"),
            ],
            "192.0.2.1 via 10.0.0.1 https -",
        ),
    ] {
        assert_eq!(said(&read(lines).expect("the case is sound")), expected, "{lines:?}");
    }
}

#[test]
fn what_cannot_be_read_or_contradicts_itself_is_refused() {
    for lines in [
        &[("x-forwarded-for", "192.0.2.1, garbage")][..],
        &[("x-forwarded-for", "192.0.2.999")],
        &[("x-forwarded-for", "10.0.0.9 10.0.0.8")],
        &[("x-forwarded-for", "garbage, 10.0.0.9")],
        &[("x-forwarded-proto", "gopher")],
        &[("forwarded", "for=\"192.0.2.1")],
        &[("forwarded", "for=\"x, for=\"[::1]\"")],
        &[("forwarded", "for=1.1.1.1;for=192.0.2.1")],
        &[("forwarded", "for")],
        &[("forwarded", "=192.0.2.1")],
        &[("forwarded", "for= 192.0.2.1")],
        &[("forwarded", "for=192.0.2.1 proto=https")],
        &[("forwarded", "for=garbage")],
        &[("forwarded", "for=192.0.2.1"), ("x-forwarded-for", "192.0.2.2")],
        &[
            ("forwarded", "for=192.0.2.1;proto=http"),
            ("x-forwarded-for", "192.0.2.1"),
            ("x-forwarded-proto", "https"),
        ],
        &[("forwarded", "for=192.0.2.1;host=a"), ("x-forwarded-for", "192.0.2.1"), ("x-forwarded-host", "b")],
    ] {
        assert_eq!(read(lines).expect_err("refused").code(), Code::RequestInvalid, "{lines:?}");
    }
}

proptest! {
    /// Whatever a client wrote before it, what the trusted hop appended decides.
    #[test]
    fn a_client_cannot_talk_itself_away(written in "[ -~]{0,40}", last in any::<[u8; 4]>()) {
        let last = IpAddr::from(last);
        let expected = Peer::from(SocketAddr::new(last, 0));
        prop_assume!(!is_trusted(&expected, &trusted()));
        let origin = read(&[("x-forwarded-for", &format!("{written},{last}"))]).expect("the case is sound");
        prop_assert_eq!(origin.client, expected);
        // The standard's header has quotes: what a client leaves open refuses its own request.
        if let Ok(origin) = read(&[("forwarded", &format!("{written},for={last}"))]) {
            prop_assert_eq!(origin.client, expected);
        }
    }

    #[test]
    fn no_bytes_panic(line in prop::collection::vec(any::<u8>(), 0..60)) {
        if let Ok(value) = HeaderValue::from_bytes(&line) {
            for name in [FORWARDED, X_FORWARDED_FOR, X_FORWARDED_PROTO] {
                let mut headers = HeaderMap::new();
                headers.insert(name, value.clone());
                let _ = origin(&headers, hop(), &trusted());
            }
        }
    }

    /// Elements that are written by the book are read as they were meant.
    #[test]
    fn elements_are_read_as_written(values in prop::collection::vec("[ -~]{0,12}", 1..4)) {
        let quote = |value: &String| value.replace('\\', "\\\\").replace('"', "\\\"");
        let line: Vec<String> = values.iter().map(|value| format!("host=\"{}\";by=a", quote(value))).collect();
        let read = read_elements(&line.join(", ")).expect("the case is sound");
        let hosts: Vec<String> = read.into_iter().map(|element| element.host.expect("the case is sound")).collect();
        prop_assert_eq!(hosts, values);
    }
}

#[test]
fn whoever_comes_over_a_unix_socket_can_be_a_hop() {
    let mut headers = HeaderMap::new();
    headers.insert(X_FORWARDED_FOR, "192.0.2.1, 10.0.0.9".parse().expect("the case is sound"));
    let origin = origin(&headers, Peer::Unix, &trusted()).expect("the case is sound");
    assert_eq!(said(&origin), "192.0.2.1 via 10.0.0.9,unix - -");
}
