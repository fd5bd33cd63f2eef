//! HTTP/2 clients that would keep us busy, or fill our memory: each is stopped, and nobody else
//! notices.

use std::time::Duration;

use super::support::edge::{Edge, measure};
use super::support::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, FrameClient, GOAWAY, HEADERS, PING,
    PRIORITY, RST_STREAM, SETTINGS, WINDOW_UPDATE, fields, frame,
};
use super::support::raw_client::RawClient;

const GET: [(&str, &str); 4] = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a")];
const POST: [(&str, &str); 4] =
    [(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", "a")];
/// More than any of the limits, and little enough to be sent at once.
const MANY: u32 = 20_000;

/// Sends frames one after another until the server no longer takes them, or it has had `MANY`.
/// Whether it ended the connection.
async fn flood(edge: &Edge, opening: &[u8], one: impl Fn(u32) -> Vec<u8>) -> Option<u32> {
    let mut client = FrameClient::connect(edge.address).await;
    client.send(opening).await;
    let mut index = 0;
    while index < MANY {
        let piece: Vec<u8> = (index..index + 100).flat_map(&one).collect();
        index += 100;
        let sending = tokio::time::timeout(Duration::from_secs(2), client.send(&piece)).await;
        if !matches!(sending, Ok(true)) {
            break;
        }
    }
    let ended = async {
        while let Some(frame) = client.frame().await {
            if frame.kind == GOAWAY {
                return frame.error();
            }
        }
        u32::MAX
    };
    tokio::time::timeout(Duration::from_secs(20), ended).await.ok()
}

async fn others_are_served(edge: &Edge) {
    let mut other = RawClient::connect(edge.address).await;
    other.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc").await;
    assert_eq!(other.response().await.expect("an answer").text(), "3");
}

#[tokio::test]
async fn whoever_floods_is_shut_out_alone() {
    let edge = Edge::start(measure).await;
    let open = frame(HEADERS, END_HEADERS, 1, &fields(&POST));
    let stream = |index: u32| (2 * index + 1).to_be_bytes();
    let reset = |index: u32| {
        let id = u32::from_be_bytes(stream(index));
        let head = frame(HEADERS, END_HEADERS | END_STREAM, id, &fields(&GET));
        [head, frame(RST_STREAM, 0, id, &[0, 0, 0, 8])].concat()
    };
    let rapid_reset = flood(&edge, &[], reset).await;
    assert_eq!(rapid_reset, Some(ENHANCE_YOUR_CALM), "rapid reset (CVE-2023-44487)");
    for (name, opening, one) in [
        ("PING (CVE-2019-9512)", &[][..], frame(PING, 0, 0, &[7; 8])),
        ("SETTINGS (CVE-2019-9515)", &[], frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 9])),
        ("PRIORITY (CVE-2019-9513)", &[], frame(PRIORITY, 0, 9, &[0, 0, 0, 0, 1])),
        ("WINDOW_UPDATE", &open, frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1])),
        ("empty DATA (CVE-2019-9518)", &open, frame(DATA, 0, 1, &[])),
        ("unknown frames", &[], frame(77, 0, 0, &[])),
    ] {
        assert!(flood(&edge, opening, |_| one.clone()).await.is_some(), "{name}: it went on");
        others_are_served(&edge).await;
    }
    assert_eq!(edge.metrics.requests_in_flight.get(), 0);
}

#[tokio::test]
async fn a_head_without_end_is_not_kept() {
    let edge = Edge::start(measure).await;
    // CVE-2024-27316: pieces that are never the last.
    let begun = frame(HEADERS, END_STREAM, 1, &fields(&GET));
    let piece = frame(CONTINUATION, 0, 1, &fields(&[("x", "yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy")]));
    assert!(flood(&edge, &begun, |_| piece.clone()).await.is_some(), "it was read on and on");
    others_are_served(&edge).await;
}

#[tokio::test]
async fn a_head_that_unpacks_to_more_than_the_limit_is_refused() {
    let edge = Edge::start(measure).await;
    let mut client = FrameClient::connect(edge.address).await;
    // One long field goes into HPACK's table, and is then repeated at a byte each.
    let mut bomb = fields(&GET);
    bomb.extend_from_slice(&[0x40, 1, b'x', 127]);
    let mut rest = 3000_usize - 127;
    while rest >= 128 {
        bomb.push(u8::try_from(rest % 128).unwrap() | 128);
        rest /= 128;
    }
    bomb.push(u8::try_from(rest).unwrap());
    bomb.extend(std::iter::repeat_n(b'y', 3000));
    bomb.extend(std::iter::repeat_n(0xbe, 10_000));
    client.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &bomb)).await;
    let mut refused = false;
    while let Ok(Some(frame)) = tokio::time::timeout(Duration::from_secs(20), client.frame()).await {
        // 431 is no status of HPACK's static table: it is spelled out behind that of 200's name.
        refused =
            matches!(frame.kind, RST_STREAM | GOAWAY) || frame.kind == HEADERS && frame.payload[0] != 0x88;
        if refused || frame.kind == HEADERS {
            break;
        }
    }
    assert!(refused, "30 MB of headers were taken");
    assert!(edge.seen.lock().unwrap().is_empty());
    others_are_served(&edge).await;
}
