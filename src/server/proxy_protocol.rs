//! The PROXY protocol, versions 1 and 2: what a load balancer says of its client before the client's
//! own first byte.

use std::net::SocketAddr;

use ppp::{v1, v2};

/// How a header of version 1 begins.
const TEXT: &[u8] = b"PROXY ";
/// How a header of version 2 begins.
const BINARY: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// What stands before a header of version 2 says how long the rest is.
const BINARY_START: usize = 16;
/// Longest header of version 1, its line end included.
const LONGEST_TEXT: usize = 107;
/// Longest header of version 2 that is read. The addresses take 232 bytes at most; the rest are
/// extensions, which load balancers fill with names and certificates' subjects.
const LONGEST_BINARY: usize = 4096;

/// What the bytes so far are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Announced {
    /// The beginning of a header.
    Part,
    /// A whole header.
    Whole {
        /// How many bytes it takes.
        length: usize,
        /// The client. `None` where the load balancer speaks for itself (`LOCAL`, as its health
        /// checks do), or of a client that has no IP address.
        client: Option<SocketAddr>,
    },
    /// No header.
    Nothing,
}

/// Reads the header at the beginning of `bytes`. Extensions of version 2 are passed over.
pub fn read(bytes: &[u8]) -> Announced {
    if begins(bytes, BINARY) {
        read_binary(bytes)
    } else if begins(bytes, TEXT) {
        read_text(bytes)
    } else {
        Announced::Nothing
    }
}

/// Whether `bytes` begin with `start`, as far as there are any.
fn begins(bytes: &[u8], start: &[u8]) -> bool {
    let length = bytes.len().min(start.len());
    bytes[..length] == start[..length]
}

fn read_text(bytes: &[u8]) -> Announced {
    let line = bytes.iter().take(LONGEST_TEXT).position(|byte| *byte == b'\n').map(|end| &bytes[..=end]);
    let Some(line) = line else {
        return if bytes.len() < LONGEST_TEXT { Announced::Part } else { Announced::Nothing };
    };
    let Ok(header) = v1::Header::try_from(line) else { return Announced::Nothing };
    let client = match header.addresses {
        v1::Addresses::Tcp4(of) => Some((of.source_address, of.source_port).into()),
        v1::Addresses::Tcp6(of) => Some((of.source_address, of.source_port).into()),
        v1::Addresses::Unknown => None,
    };
    Announced::Whole { length: line.len(), client }
}

fn read_binary(bytes: &[u8]) -> Announced {
    let Some(start) = bytes.first_chunk::<BINARY_START>() else { return Announced::Part };
    let length = BINARY_START + usize::from(u16::from_be_bytes([start[14], start[15]]));
    if length > LONGEST_BINARY {
        return Announced::Nothing;
    }
    let Some(header) = bytes.get(..length) else { return Announced::Part };
    let Ok(header) = v2::Header::try_from(header) else { return Announced::Nothing };
    let client = match (header.command, header.addresses) {
        (v2::Command::Local, _) => None,
        (v2::Command::Proxy, v2::Addresses::IPv4(of)) => Some((of.source_address, of.source_port).into()),
        (v2::Command::Proxy, v2::Addresses::IPv6(of)) => Some((of.source_address, of.source_port).into()),
        (v2::Command::Proxy, v2::Addresses::Unix(_) | v2::Addresses::Unspecified) => None,
    };
    Announced::Whole { length, client }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [BINARY, &[0x20 | command, family], &length, rest].concat()
    }

    fn whole(length: usize, client: Option<&str>) -> Announced {
        Announced::Whole { length, client: client.map(|client| client.parse().unwrap()) }
    }

    #[test]
    fn text_headers() {
        let line = b"PROXY TCP4 192.0.2.7 198.51.100.1 40000 443\r\n";
        assert_eq!(read(line), whole(line.len(), Some("192.0.2.7:40000")));
        let line = b"PROXY TCP6 2001:db8::7 2001:db8::1 40000 443\r\nGET / HTTP/1.1\r\n";
        assert_eq!(read(line), whole(46, Some("[2001:db8::7]:40000")));
        assert_eq!(read(b"PROXY UNKNOWN\r\n"), whole(15, None));
        for garbage in [
            &b"PROXY TCP4 192.0.2.7 198.51.100.1 40000\r\n"[..],
            b"PROXY TCP4 192.0.2.700 198.51.100.1 40000 443\r\n",
            b"PROXY TCP4 192.0.2.7 198.51.100.1 40000 443\n",
            b"PROXY UDP4 192.0.2.7 198.51.100.1 40000 443\r\n",
            b"PROXX",
            b"GET / HTTP/1.1\r\n",
            &[b"PROXY ".as_slice(), &[b'x'; LONGEST_TEXT]].concat(),
        ] {
            assert_eq!(read(garbage), Announced::Nothing, "{}", garbage.escape_ascii());
        }
    }

    #[test]
    fn binary_headers() {
        let addresses = [192, 0, 2, 7, 198, 51, 100, 1, 0x9c, 0x40, 1, 0xbb];
        assert_eq!(read(&binary(1, 0x11, &addresses)), whole(28, Some("192.0.2.7:40000")));
        // An extension of a type that nobody knows.
        let extended = [&addresses[..], &[0xe9, 0, 2, 1, 2]].concat();
        assert_eq!(read(&binary(1, 0x11, &extended)), whole(33, Some("192.0.2.7:40000")));
        assert_eq!(read(&binary(0, 0x11, &addresses)), whole(28, None));
        assert_eq!(read(&binary(0, 0, &[])), whole(16, None));
        assert_eq!(read(&binary(1, 0x31, &[0; 216])), whole(232, None));
        for garbage in [
            binary(1, 0x11, &addresses[..8]),
            binary(2, 0x11, &addresses),
            binary(1, 0x51, &addresses),
            binary(1, 0x11, &[0; LONGEST_BINARY]),
        ] {
            assert_eq!(read(&garbage), Announced::Nothing, "{}", garbage.escape_ascii());
        }
    }

    proptest! {
        #[test]
        fn a_header_comes_in_any_number_of_pieces(
            cut in 0..45_usize,
            rest in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let line = b"PROXY TCP4 192.0.2.7 198.51.100.1 40000 443\r\n";
            prop_assert_eq!(read(&line[..cut]), Announced::Part);
            prop_assert_eq!(read(&[line, rest.as_slice()].concat()), read(line));
            let header = binary(1, 0x11, &[192, 0, 2, 7, 198, 51, 100, 1, 0x9c, 0x40, 1, 0xbb]);
            prop_assert_eq!(read(&header[..cut.min(27)]), Announced::Part);
            prop_assert_eq!(read(&[header.as_slice(), &rest].concat()), read(&header));
        }

        #[test]
        fn no_bytes_are_too_strange(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = read(&bytes);
            let _ = read(&[BINARY, &bytes].concat());
            let _ = read(&[TEXT, &bytes].concat());
        }
    }
}
