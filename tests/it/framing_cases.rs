//! Requests that smuggle, and those that merely look odd, with what each must get.

/// Bytes of one connection, and the statuses of all the responses that they get before it ends.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) bytes: &'static [u8],
    pub(crate) statuses: &'static [u16],
}

const fn case(name: &'static str, bytes: &'static [u8], statuses: &'static [u16]) -> Case {
    Case { name, bytes, statuses }
}

/// A second request that must never be answered where the first one was refused.
macro_rules! then_more {
    ($head:literal) => {
        concat!($head, "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()
    };
}

pub(crate) const CASES: &[Case] = &[
    // Sound, however old-fashioned.
    case("plain", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", &[200]),
    case("pipelined", b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n", &[200, 200]),
    case("counted body", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", &[200]),
    case("empty body", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", &[200, 200]),
    case("chunked body", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", &[200, 200]),
    case("chunked in capitals", b"POST / HTTP/1.1\r\nHost: a\r\nTRANSFER-ENCODING:  Chunked \r\n\r\n0\r\n\r\n", &[200]),
    case("chunk extension", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x=\"y\"\r\nabc\r\n0\r\n\r\n", &[200]),
    case("chunk size with leading zeros", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0003\r\nabc\r\n000\r\n\r\n", &[200]),
    case("trailers", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-Sum: 1\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", &[200, 200]),
    case("an empty line first", b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", &[200]),
    case("an empty line after a body", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", &[200, 200]),
    case("lower-case method", b"get / HTTP/1.1\r\nHost: a\r\n\r\n", &[200]),
    case("unknown method", b"PROPFIND / HTTP/1.1\r\nHost: a\r\n\r\n", &[200]),
    case("HTTP/1.0 without host", b"GET / HTTP/1.0\r\n\r\n", &[200]),
    case("HTTP/1.0 with a body", b"POST / HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc", &[200]),
    case("absolute form", b"GET http://a/x HTTP/1.1\r\nHost: a\r\n\r\n", &[200]),
    case("header without a value", b"GET / HTTP/1.1\r\nHost: a\r\nX-Empty:\r\n\r\n", &[200]),
    case("tab in a value", b"GET / HTTP/1.1\r\nHost: a\r\nX: a\tb\r\n\r\n", &[200]),
    case("bytes over 127 in a value", b"GET / HTTP/1.1\r\nHost: a\r\nX: \xc3\xa4\r\n\r\n", &[200]),
    case("query of odd characters", b"GET /?a={%22b%22}&c=|^ HTTP/1.1\r\nHost: a\r\n\r\n", &[200]),
    case("half a request", b"GET / HTTP/1.1\r\nHost:", &[]),
    case("half a body", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc", &[400]),
    // Content-Length and Transfer-Encoding.
    case("CL.TE", then_more!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), &[400]),
    case("TE.CL", then_more!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"), &[400]),
    case("CL 0 and TE", then_more!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), &[400]),
    case("two lengths that differ", then_more!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 5\r\n\r\n"), &[400]),
    case("two lengths that agree", then_more!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n"), &[400]),
    case("a list of lengths", then_more!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0, 0\r\n\r\n"), &[400]),
    case("length with a plus", then_more!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +0\r\n\r\n"), &[400]),
    case("length with a minus", then_more!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n"), &[400]),
    case("length in hexadecimal", then_more!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x0\r\n\r\n"), &[400]),
    case("length with a fraction", then_more!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0.0\r\n\r\n"), &[400]),
    case("length with a space", then_more!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0 0\r\n\r\n"), &[400]),
    case("empty length", then_more!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n"), &[400]),
    case("length over 64 bits", then_more!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551616\r\n\r\n"), &[400]),
    case("length over 63 bits", then_more!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9223372036854775808\r\n\r\n"), &[400]),
    case("length over the limit", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 999999999999\r\n\r\n", &[413]),
    case("length spelled with an underscore", then_more!("POST / HTTP/1.1\r\nHost: a\r\nContent_Length: 5\r\n\r\n"), &[400]),
    case("encoding spelled with an underscore", then_more!("POST / HTTP/1.1\r\nHost: a\r\nTransfer_Encoding: chunked\r\n\r\n"), &[400]),
    case("TE identity", then_more!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n"), &[400]),
    case("TE gzip, chunked", then_more!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"), &[400]),
    case("TE chunked, identity", then_more!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"), &[400]),
    case("TE chunked, chunked", then_more!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"), &[400]),
    case("TE twice", then_more!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), &[400]),
    case("TE xchunked", then_more!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n"), &[400]),
    case("TE quoted", then_more!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n"), &[400]),
    case("TE with a parameter", then_more!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n"), &[400]),
    case("TE empty", then_more!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\r\n"), &[400]),
    case("TE with a vertical tab", then_more!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n"), &[400]),
    case("TE in HTTP/1.0", then_more!("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), &[400]),
    case("space before the colon", then_more!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n"), &[400]),
    case("tab before the colon", then_more!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length\t: 0\r\n\r\n"), &[400]),
    // Lines.
    case("folded line", then_more!("GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n"), &[400]),
    case("folded with a tab", then_more!("GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n\tb\r\n\r\n"), &[400]),
    case("space before the first field", then_more!("GET / HTTP/1.1\r\n Host: a\r\n\r\n"), &[400]),
    case("bare LF after the request line", then_more!("GET / HTTP/1.1\nHost: a\r\n\r\n"), &[400]),
    case("bare LF after a field", then_more!("GET / HTTP/1.1\r\nHost: a\n\r\n"), &[400]),
    case("bare LF at the end", then_more!("GET / HTTP/1.1\r\nHost: a\r\n\n"), &[400]),
    case("bare LF first", then_more!("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"), &[400]),
    case("bare CR in a value", then_more!("GET / HTTP/1.1\r\nHost: a\r\nX: a\rContent-Length: 5\r\n\r\n"), &[400]),
    case("CR CR LF", then_more!("GET / HTTP/1.1\r\nHost: a\r\r\n\r\n"), &[400]),
    case("NUL in a value", then_more!("GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n"), &[400]),
    case("NUL in a name", then_more!("GET / HTTP/1.1\r\nHost: a\r\nX\0: b\r\n\r\n"), &[400]),
    case("DEL in a value", then_more!("GET / HTTP/1.1\r\nHost: a\r\nX: a\x7fb\r\n\r\n"), &[400]),
    case("a field without a colon", then_more!("GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n"), &[400]),
    case("a field without a name", then_more!("GET / HTTP/1.1\r\nHost: a\r\n: x\r\n\r\n"), &[400]),
    case("a name in parentheses", then_more!("GET / HTTP/1.1\r\nHost: a\r\n(x): y\r\n\r\n"), &[400]),
    case("a name over 127", b"GET / HTTP/1.1\r\nHost: a\r\n\xc3\xa4: y\r\n\r\n", &[400]),
    // The request line.
    case("two spaces", then_more!("GET  / HTTP/1.1\r\nHost: a\r\n\r\n"), &[400]),
    case("a space in the target", then_more!("GET /a b HTTP/1.1\r\nHost: a\r\n\r\n"), &[400]),
    case("a space at the end", then_more!("GET / HTTP/1.1 \r\nHost: a\r\n\r\n"), &[400]),
    case("a tab between", then_more!("GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n"), &[400]),
    case("HTTP/0.9", then_more!("GET /\r\n\r\n"), &[400]),
    case("HTTP/1.2", then_more!("GET / HTTP/1.2\r\nHost: a\r\n\r\n"), &[400]),
    case("HTTP/2.0 on a line", then_more!("GET / HTTP/2.0\r\nHost: a\r\n\r\n"), &[400]),
    case("http/1.1 in lower case", then_more!("GET / http/1.1\r\nHost: a\r\n\r\n"), &[]),
    // Not HTTP at all: no answer could be understood.
    case("an ICY version", then_more!("GET / ICY\r\nHost: a\r\n\r\n"), &[]),
    case("an ICY version behind a request", then_more!("GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET / ICY\r\nHost: a\r\n\r\n"), &[200, 400]),
    case("another protocol's greeting", b"INVALID CONNECTION PREFACE\r\n\r\n", &[]),
    case("no target", then_more!("GET HTTP/1.1\r\nHost: a\r\n\r\n"), &[400]),
    case("a relative target", then_more!("GET a/b HTTP/1.1\r\nHost: a\r\n\r\n"), &[400]),
    case("a fragment", then_more!("GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n"), &[400]),
    case("a target over 127", b"GET /\xc3\xa4 HTTP/1.1\r\nHost: a\r\n\r\n", &[400]),
    case("a foreign scheme", then_more!("GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n"), &[400]),
    case("CONNECT", then_more!("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n"), &[400]),
    case("a method in brackets", then_more!("[GET] / HTTP/1.1\r\nHost: a\r\n\r\n"), &[400]),
    case("TLS on a plain port", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", &[400]),
    case("half an HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", &[400]),
    // Host.
    case("no host", then_more!("GET / HTTP/1.1\r\n\r\n"), &[400]),
    case("two hosts", then_more!("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"), &[400]),
    case("the same host twice", then_more!("GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n"), &[400]),
    case("no host in absolute form", then_more!("GET http://a/ HTTP/1.1\r\n\r\n"), &[400]),
    // Chunks.
    case("chunk size in decimal letters", then_more!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"), &[400]),
    case("chunk size 0x", then_more!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n"), &[400]),
    case("chunk size with a plus", then_more!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n+3\r\nabc\r\n0\r\n\r\n"), &[400]),
    case("chunk size with a space before", then_more!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n 3\r\nabc\r\n0\r\n\r\n"), &[400]),
    case("chunk size with a space after", then_more!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3 \r\nabc\r\n0\r\n\r\n"), &[400]),
    case("no chunk size", then_more!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\r\n"), &[400]),
    case("chunk size that overflows", then_more!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000000\r\n"), &[400]),
    case("chunk size and bare LF", then_more!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n"), &[400]),
    case("bare LF in an extension", then_more!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x\nabc\r\n0\r\n\r\n"), &[400]),
    case("bare CR in an extension", then_more!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x\ry\r\nabc\r\n0\r\n\r\n"), &[400]),
    case("chunk longer than its size", then_more!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n"), &[400]),
    case("chunk without CRLF", then_more!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc0\r\n\r\n"), &[400]),
    case("chunk that ends in bare LF", then_more!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\n0\r\n\r\n"), &[400]),
    case("trailer without a colon", then_more!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX\r\n\r\n"), &[400]),
    case("trailer that ends in bare LF", then_more!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: y\n\r\n"), &[400]),
    // A sound request is answered before the one behind it is refused.
    case("sound, then refused", then_more!("GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\n\r\n"), &[200, 400]),
];
