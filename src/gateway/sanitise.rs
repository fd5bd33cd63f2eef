//! What is refused before anything is decided: requests that two readers could read differently.

use http::header;
use http::{Method, Version, request};

use crate::error::{Code, Refusal};

/// Host and port that a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    /// As the client wrote it: what backends are told.
    pub written: String,
    /// The host in lower case, without a trailing dot and without the port; empty where an
    /// HTTP/1.0 request names none.
    pub host: String,
    /// The port, if written.
    pub port: Option<u16>,
}

/// Inspects a request's head and says which host it asks for.
///
/// # Errors
/// `request-invalid`, with what is wrong, for every head that is ambiguous.
pub fn inspect(head: &request::Parts) -> Result<Authority, Refusal> {
    inspect_method(head)?;
    inspect_path(head.uri.path())?;
    if head.version == Version::HTTP_2 {
        inspect_fields(head)?;
    }
    authority(head)
}

/// Refuses what a connection over HTTP/1.1 is closed for before we see it, and what HTTP/2 calls
/// malformed (RFC 9113, sections 8.2.1 and 8.3.1): a backend behind us would read it in its own way.
fn inspect_fields(head: &request::Parts) -> Result<(), Refusal> {
    if !matches!(head.uri.scheme_str(), Some("http" | "https")) {
        return Err(invalid("`:scheme` must be `http` or `https`"));
    }
    if head.headers.get_all(header::CONTENT_LENGTH).iter().nth(1).is_some() {
        return Err(invalid("header `content-length` must be sent once"));
    }
    let is_blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    for (name, value) in &head.headers {
        let value = value.as_bytes();
        if is_blank(value.first()) || is_blank(value.last()) {
            return Err(invalid(format!("header `{name}` must not begin or end with a space")));
        }
    }
    Ok(())
}

fn inspect_method(head: &request::Parts) -> Result<(), Refusal> {
    match head.method {
        Method::CONNECT => Err(invalid("method CONNECT is not offered: this is no tunnel")),
        // A backend's TRACE would show a client the headers that we add.
        Method::TRACE => Err(invalid("method TRACE is not offered")),
        _ if head.uri.path() == "*" => Err(invalid("request target `*` is not offered; name a path")),
        _ => match head.headers.get(header::EXPECT) {
            Some(expectation) if !expectation.as_bytes().eq_ignore_ascii_case(b"100-continue") => {
                Err(invalid("header `expect` must be `100-continue`")
                    .with_status(http::StatusCode::EXPECTATION_FAILED))
            }
            _ => Ok(()),
        },
    }
}

/// Refuses what one reader would normalise and another would not: the path decides routes and
/// tenants here, and files and handlers behind us.
pub(super) fn inspect_path(path: &str) -> Result<(), Refusal> {
    if !path.starts_with('/') {
        return Err(invalid("request target must start with `/`"));
    }
    let bytes = path.as_bytes();
    let mut index = 0;
    while index < bytes.len() {
        match bytes[index] {
            b'%' => {
                let escaped = bytes.get(index + 1..index + 3).and_then(decode_hex);
                match escaped {
                    None => return Err(invalid("path must not contain `%` without two hexadecimal digits")),
                    Some(b'/' | b'\\') => {
                        return Err(invalid("path must not contain an encoded slash or backslash"));
                    }
                    Some(b'.') => return Err(invalid("path must not contain an encoded dot (`%2e`)")),
                    // Harmless alone; before two digits, whoever decodes twice reads another path.
                    Some(b'%') if bytes.get(index + 3..index + 5).and_then(decode_hex).is_some() => {
                        return Err(invalid("path must not be percent-encoded twice"));
                    }
                    Some(byte) if byte.is_ascii_control() => {
                        return Err(invalid("path must not contain encoded control characters"));
                    }
                    Some(_) => index += 3,
                }
            }
            b'\\' => return Err(invalid("path must not contain a backslash")),
            b'#' => return Err(invalid("request target must not contain a fragment")),
            byte if byte.is_ascii_control() || !byte.is_ascii() => {
                return Err(invalid("path must be visible ASCII; encode other characters as %XX"));
            }
            _ => index += 1,
        }
    }
    let mut segments = bytes[1..].split(|byte| *byte == b'/').peekable();
    while let Some(segment) = segments.next() {
        if segment.is_empty() && segments.peek().is_some() {
            return Err(invalid("path must not contain empty segments (`//`)"));
        }
        // Some servers cut parameters off first: to them `..;x` is `..`.
        let name = segment.split(|byte| *byte == b';').next().unwrap_or_default();
        if name == b"." || name == b".." {
            return Err(invalid("path must not contain dot segments (`.` or `..`)"));
        }
        if name.is_empty() && !segment.is_empty() {
            return Err(invalid("path must not contain segments that start with `;`"));
        }
    }
    Ok(())
}

fn authority(head: &request::Parts) -> Result<Authority, Refusal> {
    let mut hosts = head.headers.get_all(header::HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(invalid("header `host` must be sent once"));
    }
    let host = host
        .map(|value| value.to_str().map_err(|_| invalid("header `host` must be visible ASCII")))
        .transpose()?;
    let target = head.uri.authority();
    match (target, host) {
        (Some(target), Some(host)) => {
            let (target, host) = (parse(target.as_str())?, parse(host)?);
            if (&target.host, target.port) != (&host.host, host.port) {
                return Err(invalid("header `host` must agree with the host of the request target"));
            }
            Ok(target)
        }
        (Some(target), None) if head.version == Version::HTTP_11 => {
            let _ = target;
            Err(invalid("header `host` is missing"))
        }
        (Some(target), None) => parse(target.as_str()),
        (None, Some(host)) => parse(host),
        // HTTP/1.0 knows no Host. No route that names a host, and no host resolver, will match.
        (None, None) if head.version <= Version::HTTP_10 => {
            Ok(Authority { written: String::new(), host: String::new(), port: None })
        }
        (None, None) => Err(invalid("header `host` is missing")),
    }
}

/// Reads host and port.
///
/// # Errors
/// `request-invalid` where it is neither a name nor an address.
pub(super) fn parse(text: &str) -> Result<Authority, Refusal> {
    let wrong = || invalid("host must be a name or an address, with a port if needed");
    if text.as_bytes().contains(&b'@') {
        return Err(invalid("host must not contain user information"));
    }
    let (host, rest) = match text.strip_prefix('[') {
        Some(bracketed) => {
            let end = bracketed.find(']').ok_or_else(wrong)?;
            bracketed[..end].parse::<std::net::Ipv6Addr>().map_err(|_| wrong())?;
            text.split_at(end + 2)
        }
        None => text.split_at(text.bytes().position(|byte| byte == b':').unwrap_or(text.len())),
    };
    let port = match rest {
        "" => None,
        _ => {
            let digits = rest.strip_prefix(':').ok_or_else(wrong)?;
            if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(wrong());
            }
            Some(digits.parse().map_err(|_| wrong())?)
        }
    };
    let name = host.strip_suffix('.').unwrap_or(host);
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    let sound = host.starts_with('[')
        || (!name.is_empty()
            && name.bytes().all(is_name)
            && name.as_bytes().split(|byte| *byte == b'.').all(|label| !label.is_empty()));
    if !sound {
        return Err(wrong());
    }
    Ok(Authority { written: text.to_owned(), host: name.to_ascii_lowercase(), port })
}

fn decode_hex(digits: &[u8]) -> Option<u8> {
    let value = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    Some(value(digits[0])? << 4 | value(digits[1])?)
}

fn invalid(detail: impl Into<std::borrow::Cow<'static, str>>) -> Refusal {
    Refusal::new(Code::RequestInvalid, detail)
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn verdict(target: &str) -> Result<Authority, Refusal> {
        let request = Request::get(target).header("host", "a.example").body(()).unwrap();
        inspect(&request.into_parts().0)
    }

    #[test]
    fn what_http_2_lets_through_is_held_to_what_http_1_does() {
        let verdict = |target: &str, lines: &[(&str, &str)]| {
            let mut request = Request::get(target).version(Version::HTTP_2);
            for (name, value) in lines {
                request = request.header(*name, *value);
            }
            inspect(&request.body(()).unwrap().into_parts().0).map(drop)
        };
        let length = ("content-length", "3");
        verdict("https://a.example/", &[length, ("x-plan", "gold and silver")]).unwrap();
        for (target, lines) in [
            ("https://a.example/", &[length, length][..]),
            ("https://a.example/", &[length, ("content-length", "03")]),
            ("https://a.example/", &[("x-tenant-id", " acme")]),
            ("https://a.example/", &[("x-tenant-id", "acme\t")]),
            ("ftp://a.example/", &[]),
            ("/", &[("host", "a.example")]),
        ] {
            let refusal = verdict(target, lines).expect_err(target);
            assert_eq!(refusal.code(), Code::RequestInvalid, "{target} {lines:?}");
        }
    }

    #[test]
    fn plain_paths_pass() {
        for path in [
            "/",
            "/a",
            "/a/",
            "/a/b.c",
            "/.well-known/x",
            "/a..b",
            "/...",
            "/a%20b",
            "/100%25",
            "/100%25/b",
            "/%C3%A4",
            "/a;v=1/b",
            "/a?x=%2e%2e/../%00//\\",
            "/a:b@c",
        ] {
            assert!(verdict(path).is_ok(), "{path}: {:?}", verdict(path));
        }
    }

    #[test]
    fn paths_that_two_readers_read_differently_are_refused() {
        for path in [
            "//",
            "/a//b",
            "//a",
            "/./a",
            "/a/.",
            "/a/..",
            "/../a",
            "/a/%2e%2e/b",
            "/a/%2E",
            "/a/.%2e/b",
            "/a/..;/b",
            "/a/..;x=1",
            "/a/.;/b",
            "/a/;/b",
            "/a%2fb",
            "/a%2Fb",
            "/a%5cb",
            "/a%5Cb",
            "/a%00b",
            "/a%0d%0ab",
            "/a%7f",
            "/a%",
            "/a%2",
            "/a%zz",
            "/a%252e",
        ] {
            let refusal = verdict(path).expect_err(path);
            assert_eq!(refusal.code(), Code::RequestInvalid, "{path}");
        }
        assert!(inspect_path("/a\\b").is_err());
        assert!(inspect_path("/a#b").is_err());
        assert!(inspect_path("a").is_err());
        assert!(inspect_path("/ä").is_err());
    }

    #[test]
    fn there_is_one_host() {
        let parts = |build: fn(request::Builder) -> request::Builder| {
            build(Request::builder()).body(()).unwrap().into_parts().0
        };
        let named = inspect(&parts(|r| r.uri("/").header("host", "ACME.Example.com.:8080"))).unwrap();
        assert_eq!((named.host.as_str(), named.port), ("acme.example.com", Some(8080)));
        let absolute = parts(|r| r.uri("http://a.example/x").header("host", "A.example"));
        assert_eq!(inspect(&absolute).unwrap().host, "a.example");
        let h2 = parts(|r| r.uri("http://a.example/x").version(Version::HTTP_2));
        assert_eq!(inspect(&h2).unwrap().host, "a.example");
        let h10 = parts(|r| r.uri("/").version(Version::HTTP_10));
        assert_eq!(inspect(&h10).unwrap().host, "");
        let v6 = parts(|r| r.uri("/").header("host", "[::1]:80"));
        assert_eq!(inspect(&v6).unwrap().host, "[::1]");

        for refused in [
            parts(|r| r.uri("/")),
            parts(|r| r.uri("http://a.example/")),
            parts(|r| r.uri("http://a.example/").header("host", "b.example")),
            parts(|r| r.uri("http://a.example:1/").header("host", "a.example:2")),
            parts(|r| r.uri("http://a.example/").header("host", "b.example").version(Version::HTTP_2)),
            parts(|r| r.uri("/").header("host", "a").header("host", "a")),
            parts(|r| r.uri("/").header("host", "user@a")),
            parts(|r| r.uri("http://user:secret@a/").header("host", "a")),
            parts(|r| r.uri("/").header("host", "")),
            parts(|r| r.uri("/").header("host", "a b")),
            parts(|r| r.uri("/").header("host", "a,b")),
            parts(|r| r.uri("/").header("host", "a:")),
            parts(|r| r.uri("/").header("host", "a:+80")),
            parts(|r| r.uri("/").header("host", "a:99999")),
            parts(|r| r.uri("/").header("host", "a/b")),
            parts(|r| r.uri("/").header("host", "a..b")),
            parts(|r| r.uri("/").header("host", "[::1")),
            parts(|r| r.uri("/").header("host", "[x]")),
            parts(|r| r.uri("/").header("host", "a%2eb")),
        ] {
            assert!(inspect(&refused).is_err(), "{refused:?}");
        }
    }

    #[test]
    fn methods_that_are_not_for_a_gateway_are_refused() {
        for (method, target) in [("CONNECT", "a.example:443"), ("TRACE", "/"), ("OPTIONS", "*")] {
            let request =
                Request::builder().method(method).uri(target).header("host", "a.example").body(()).unwrap();
            assert!(inspect(&request.into_parts().0).is_err(), "{method}");
        }
    }
}
