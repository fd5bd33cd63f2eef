//! HTTP/2 in its corners, frame by frame: what each case must get, and where that is written.
//! `h2spec` says more; it is run where it is installed and asked for (`INNKEEPER_H2SPEC=1`).

use std::fmt::Write as _;
use std::time::Duration;

use super::support::edge::{Edge, measure};
use super::support::frames::{
    ACK, COMPRESSION_ERROR, CONTINUATION, DATA, END_HEADERS, END_STREAM, FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR, FrameClient, GOAWAY, HEADERS, PING, PRIORITY, PROTOCOL_ERROR, PUSH_PROMISE, RST_STREAM,
    SETTINGS, STREAM_CLOSED, WINDOW_UPDATE, fields, frame,
};

/// What a case must get.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Verdict {
    /// A response with this status on stream 1.
    Status(u16),
    /// Stream 1 is reset; or the connection ends, which the RFC leaves to us.
    Reset(u32),
    /// The connection ends.
    End(u32),
    /// Nothing is wrong: a PING is answered.
    Alive,
}

struct Case {
    /// The section of RFC 9113, unless another is named.
    section: &'static str,
    name: &'static str,
    bytes: Vec<u8>,
    verdict: Verdict,
}

const GET: [(&str, &str); 4] = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a")];
const POST: [(&str, &str); 4] =
    [(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", "a")];

/// A request of this head, on stream 1 and without a body.
fn request(head: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, 1, &fields(head))
}

/// A GET with these fields besides.
fn get_with(more: &[(&str, &str)]) -> Vec<u8> {
    request(&[&GET, more].concat())
}

/// The GET with one of its pseudo-headers replaced, or removed.
fn get_where(name: &str, value: Option<&'static str>) -> Vec<u8> {
    let head: Vec<(&str, &str)> = GET
        .into_iter()
        .filter_map(|(other, old)| if other == name { Some((other, value?)) } else { Some((other, old)) })
        .collect();
    request(&head)
}

/// A POST with these fields, and a body in one frame.
fn post_with(more: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let head = frame(HEADERS, END_HEADERS, 1, &fields(&[&POST, more].concat()));
    [head, frame(DATA, END_STREAM, 1, body)].concat()
}

#[allow(clippy::too_many_lines, reason = "a table")]
fn cases() -> Vec<Case> {
    use Verdict::{Alive, End, Reset, Status};
    let get = || request(&GET);
    let rows: Vec<(&str, &str, Vec<u8>, Verdict)> = vec![
        // Sound.
        ("8.1", "a plain request", get(), Status(200)),
        ("8.1", "a request with a body", post_with(&[], b"abc"), Status(200)),
        ("8.1.1", "a length that is kept", post_with(&[("content-length", "3")], b"abc"), Status(200)),
        (
            "8.1",
            "trailers",
            [
                frame(HEADERS, END_HEADERS, 1, &fields(&POST)),
                frame(HEADERS, END_HEADERS | END_STREAM, 1, &fields(&[("x-sum", "1")])),
            ]
            .concat(),
            Status(200),
        ),
        // Malformed, but the library drops it, and nobody behind us hears of it.
        (
            "8.3",
            "a pseudo-header in trailers",
            [
                frame(HEADERS, END_HEADERS, 1, &fields(&POST)),
                frame(HEADERS, END_HEADERS | END_STREAM, 1, &fields(&[(":path", "/evil")])),
            ]
            .concat(),
            Status(200),
        ),
        ("8.2.2", "te: trailers", get_with(&[("te", "trailers")]), Status(200)),
        ("8.2.3", "a cookie in crumbs", get_with(&[("cookie", "a=b"), ("cookie", "c=d")]), Status(200)),
        ("8.3.1", "the host said twice alike", get_with(&[("host", "a")]), Status(200)),
        ("4.1", "a frame of unknown type", [frame(99, 0, 0, b"x"), get()].concat(), Status(200)),
        (
            "6.2",
            "a head in pieces",
            {
                let block = fields(&GET);
                [frame(HEADERS, END_STREAM, 1, &block[..5]), frame(CONTINUATION, END_HEADERS, 1, &block[5..])]
                    .concat()
            },
            Status(200),
        ),
        ("6.5", "settings are acknowledged", frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 9]), Alive),
        ("6.3", "a priority of an idle stream", frame(PRIORITY, 0, 7, &[0, 0, 0, 0, 9]), Alive),
        // Malformed heads (8.1.1): a stream error of type PROTOCOL_ERROR.
        ("8.2.1", "a name in capitals", get_with(&[("X-Upper", "y")]), Reset(PROTOCOL_ERROR)),
        ("8.2.1", "a name with a space", get_with(&[("x y", "z")]), Reset(PROTOCOL_ERROR)),
        ("8.2.1", "a name with a line end", get_with(&[("x\r\nx-tenant-id", "evil")]), Reset(PROTOCOL_ERROR)),
        ("8.2.1", "a name with a colon", get_with(&[("x:y", "z")]), Reset(PROTOCOL_ERROR)),
        (
            "8.2.1",
            "a value with a line end",
            get_with(&[("x", "a\r\nx-tenant-id: evil")]),
            Reset(PROTOCOL_ERROR),
        ),
        ("8.2.1", "a value with LF", get_with(&[("x", "a\nb")]), Reset(PROTOCOL_ERROR)),
        ("8.2.1", "a value with NUL", get_with(&[("x", "a\0b")]), Reset(PROTOCOL_ERROR)),
        ("8.2.2", "connection", get_with(&[("connection", "close")]), Reset(PROTOCOL_ERROR)),
        ("8.2.2", "keep-alive", get_with(&[("keep-alive", "1")]), Reset(PROTOCOL_ERROR)),
        ("8.2.2", "proxy-connection", get_with(&[("proxy-connection", "close")]), Reset(PROTOCOL_ERROR)),
        (
            "8.2.2",
            "transfer-encoding",
            post_with(&[("transfer-encoding", "chunked")], b"0\r\n\r\n"),
            Reset(PROTOCOL_ERROR),
        ),
        ("8.2.2", "upgrade", get_with(&[("upgrade", "h2c")]), Reset(PROTOCOL_ERROR)),
        ("8.2.2", "te: gzip", get_with(&[("te", "gzip")]), Reset(PROTOCOL_ERROR)),
        ("8.3", "an unknown pseudo-header", get_with(&[(":tenant", "evil")]), Reset(PROTOCOL_ERROR)),
        ("8.3", "a response's pseudo-header", get_with(&[(":status", "200")]), Reset(PROTOCOL_ERROR)),
        (
            "8.3",
            "a pseudo-header behind a field",
            request(&[GET[0], GET[1], GET[2], ("x", "y"), GET[3]]),
            Reset(PROTOCOL_ERROR),
        ),
        ("8.3.1", "two methods", get_with(&[(":method", "POST")]), Reset(PROTOCOL_ERROR)),
        ("8.3.1", "two schemes", get_with(&[(":scheme", "https")]), Reset(PROTOCOL_ERROR)),
        ("8.3.1", "two paths", get_with(&[(":path", "/evil")]), Reset(PROTOCOL_ERROR)),
        ("8.3.1", "two authorities", get_with(&[(":authority", "evil")]), Reset(PROTOCOL_ERROR)),
        ("8.3.1", "no method", get_where(":method", None), Reset(PROTOCOL_ERROR)),
        ("8.3.1", "no scheme", get_where(":scheme", None), Reset(PROTOCOL_ERROR)),
        ("8.3.1", "no path", get_where(":path", None), Reset(PROTOCOL_ERROR)),
        ("8.3.1", "an empty path", get_where(":path", Some("")), Reset(PROTOCOL_ERROR)),
        ("8.3.1", "a path with a space", get_where(":path", Some("/a HTTP/1.1")), Reset(PROTOCOL_ERROR)),
        (
            "8.3.1",
            "a path with a line end",
            get_where(":path", Some("/\r\nx-tenant-id: evil")),
            Reset(PROTOCOL_ERROR),
        ),
        (
            "8.3.1",
            "an authority with a line end",
            get_where(":authority", Some("a\r\nx: evil")),
            Reset(PROTOCOL_ERROR),
        ),
        ("8.3.1", "a method with a space", get_where(":method", Some("GET /evil")), Reset(PROTOCOL_ERROR)),
        (
            "8.1.1",
            "a length above the body's",
            post_with(&[("content-length", "5")], b"abc"),
            Reset(PROTOCOL_ERROR),
        ),
        (
            "8.1.1",
            "a length below the body's",
            post_with(&[("content-length", "1")], b"abc"),
            Reset(PROTOCOL_ERROR),
        ),
        ("8.1.1", "a length without a body", get_with(&[("content-length", "5")]), Reset(PROTOCOL_ERROR)),
        (
            "8.1.1",
            "a length that is no number",
            post_with(&[("content-length", "+3")], b"abc"),
            Reset(PROTOCOL_ERROR),
        ),
        (
            "8.1",
            "trailers that do not end the stream",
            [
                frame(HEADERS, END_HEADERS, 1, &fields(&POST)),
                frame(HEADERS, END_HEADERS, 1, &fields(&[("x-sum", "1")])),
            ]
            .concat(),
            Reset(PROTOCOL_ERROR),
        ),
        // Frames.
        ("4.2", "a frame over the limit", frame(DATA, 0, 1, &[0; (16 << 10) + 1]), End(FRAME_SIZE_ERROR)),
        (
            "4.3",
            "a head that cannot be decompressed",
            frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0xff, 0xff, 0xff]),
            End(COMPRESSION_ERROR),
        ),
        (
            "7541 2.3.3",
            "an index beyond the table",
            frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0xff, 0x00]),
            End(COMPRESSION_ERROR),
        ),
        ("5.1", "DATA on an idle stream", frame(DATA, END_STREAM, 1, b"x"), End(PROTOCOL_ERROR)),
        ("5.1", "RST_STREAM on an idle stream", frame(RST_STREAM, 0, 1, &[0, 0, 0, 8]), End(PROTOCOL_ERROR)),
        (
            "5.1",
            "WINDOW_UPDATE on an idle stream",
            frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]),
            End(PROTOCOL_ERROR),
        ),
        (
            "5.1",
            "DATA behind the end",
            [get(), frame(DATA, END_STREAM, 1, b"x")].concat(),
            Reset(STREAM_CLOSED),
        ),
        (
            "5.1.1",
            "an even stream",
            frame(HEADERS, END_HEADERS | END_STREAM, 2, &fields(&GET)),
            End(PROTOCOL_ERROR),
        ),
        (
            "5.1.1",
            "a stream that goes back",
            [
                frame(HEADERS, END_HEADERS | END_STREAM, 5, &fields(&GET)),
                frame(HEADERS, END_HEADERS | END_STREAM, 3, &fields(&GET)),
            ]
            .concat(),
            End(PROTOCOL_ERROR),
        ),
        ("6.1", "DATA on stream 0", frame(DATA, 0, 0, b"x"), End(PROTOCOL_ERROR)),
        (
            "6.1",
            "padding longer than the frame",
            [frame(HEADERS, END_HEADERS, 1, &fields(&POST)), frame(DATA, END_STREAM | 8, 1, &[200, b'x'])]
                .concat(),
            End(PROTOCOL_ERROR),
        ),
        (
            "6.2",
            "HEADERS on stream 0",
            frame(HEADERS, END_HEADERS | END_STREAM, 0, &fields(&GET)),
            End(PROTOCOL_ERROR),
        ),
        (
            "6.2",
            "another frame within a head",
            [frame(HEADERS, END_STREAM, 1, &fields(&GET)), frame(PING, 0, 0, &[0; 8])].concat(),
            End(PROTOCOL_ERROR),
        ),
        (
            "6.4",
            "RST_STREAM of 3 bytes",
            [get(), frame(RST_STREAM, 0, 1, &[0, 0, 8])].concat(),
            End(FRAME_SIZE_ERROR),
        ),
        ("6.5", "SETTINGS on a stream", frame(SETTINGS, 0, 1, &[]), End(PROTOCOL_ERROR)),
        ("6.5", "SETTINGS of 5 bytes", frame(SETTINGS, 0, 0, &[0; 5]), End(FRAME_SIZE_ERROR)),
        (
            "6.5",
            "an acknowledgement that says something",
            frame(SETTINGS, ACK, 0, &[0; 6]),
            End(FRAME_SIZE_ERROR),
        ),
        (
            "6.5.2",
            "a window over the limit",
            frame(SETTINGS, 0, 0, &[0, 4, 0x80, 0, 0, 0]),
            End(FLOW_CONTROL_ERROR),
        ),
        (
            "6.5.2",
            "a frame size below the least",
            frame(SETTINGS, 0, 0, &[0, 5, 0, 0, 0, 1]),
            End(PROTOCOL_ERROR),
        ),
        (
            "6.6",
            "a client that pushes",
            frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2]),
            End(PROTOCOL_ERROR),
        ),
        ("6.7", "PING of 6 bytes", frame(PING, 0, 0, &[0; 6]), End(FRAME_SIZE_ERROR)),
        ("6.7", "PING on a stream", frame(PING, 0, 1, &[0; 8]), End(PROTOCOL_ERROR)),
        ("6.9", "a window that grows by nothing", frame(WINDOW_UPDATE, 0, 0, &[0; 4]), End(PROTOCOL_ERROR)),
        (
            "6.9.1",
            "a window that overflows",
            frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]),
            End(FLOW_CONTROL_ERROR),
        ),
        (
            "6.10",
            "CONTINUATION of nothing",
            frame(CONTINUATION, END_HEADERS, 1, &fields(&GET)),
            End(PROTOCOL_ERROR),
        ),
        (
            "8441 4",
            "an extended CONNECT without a path",
            request(&[
                (":method", "CONNECT"),
                (":protocol", "websocket"),
                (":scheme", "http"),
                (":authority", "a"),
            ]),
            Reset(PROTOCOL_ERROR),
        ),
        ("8441 4", ":protocol on a GET", get_with(&[(":protocol", "websocket")]), Reset(PROTOCOL_ERROR)),
    ];
    rows.into_iter().map(|(section, name, bytes, verdict)| Case { section, name, bytes, verdict }).collect()
}

/// Reads until it is known what became of stream 1, or of the connection.
async fn verdict(client: &mut FrameClient) -> Verdict {
    while let Some(frame) = client.frame().await {
        match (frame.kind, frame.stream) {
            // The statuses that stand in HPACK's static table (RFC 7541, appendix A).
            (HEADERS, 1) => {
                let statuses = [(0x88, 200), (0x89, 204), (0x8c, 400), (0x8d, 404), (0x8e, 500)];
                let status = statuses.iter().find(|(byte, _)| frame.payload.first() == Some(byte));
                return Verdict::Status(status.map_or(0, |(_, status)| *status));
            }
            (RST_STREAM, 1) => return Verdict::Reset(frame.error()),
            (GOAWAY, _) => return Verdict::End(frame.error()),
            (PING, _) if frame.flags & ACK != 0 => return Verdict::Alive,
            _ => {}
        }
    }
    // Closed without a word, which the RFC allows too (section 5.4.1).
    Verdict::End(u32::MAX)
}

#[tokio::test]
async fn every_case_gets_what_the_rfc_says() {
    let edge = Edge::start(measure).await;
    let mut wrong = String::new();
    for case in cases() {
        let mut client = FrameClient::connect(edge.address).await;
        client.send(&case.bytes).await;
        if case.verdict == Verdict::Alive {
            client.send(&frame(PING, 0, 0, b"are you?")).await;
        }
        let patience = Duration::from_secs(30);
        let got = tokio::time::timeout(patience, verdict(&mut client)).await;
        let got = got.unwrap_or_else(|_| panic!("{}: nothing came of it", case.name));
        let fits = match (case.verdict, got) {
            (Verdict::Reset(_), Verdict::Status(400)) => true,
            // A generic code may stand for a more specific one (section 5.4).
            (Verdict::Reset(code) | Verdict::End(code), Verdict::End(other)) => {
                [code, PROTOCOL_ERROR, u32::MAX].contains(&other)
            }
            // Section 5.4.2: what ends a stream may have been answered before.
            (Verdict::Reset(STREAM_CLOSED), Verdict::Status(200)) => true,
            (expected, got) => expected == got,
        };
        if !fits {
            let _ = writeln!(wrong, "{} {}: {got:?}, must be {:?}", case.section, case.name, case.verdict);
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
    let seen = edge.seen.lock().unwrap();
    assert!(!seen.iter().any(|line| line.contains("evil")), "{seen:?}");
}

/// Runs the whole of `h2spec`, in its strict mode too, where somebody asks for it.
#[tokio::test]
async fn h2spec_finds_nothing() {
    if std::env::var_os("INNKEEPER_H2SPEC").is_none() {
        return;
    }
    let edge = Edge::start(|inbound, _| async move {
        // It expects a body, also where it sends none.
        let body =
            inbound.request.into_body().read_whole(usize::MAX).await.map_err(|error| error.refusal())?;
        Ok(http::Response::new(innkeeper::body::Body::full(format!("{} bytes", body.len()))))
    })
    .await;
    for mode in [&[][..], &["-S"]] {
        let port = edge.address.port().to_string();
        let output = tokio::process::Command::new("h2spec")
            .args(["-h", "127.0.0.1", "-p", &port, "-o", "5"])
            .args(mode)
            .output()
            .await
            .expect("h2spec is on the PATH");
        let report = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && report.contains(" 0 failed"), "{report}");
    }
}
