//! A request's head, read line by line.

use super::{Framing, Head, HeadLimits, RequestLine, is_token};
use crate::server::reason::Reason;

/// What is known of a head whose lines were read up to `line`.
#[derive(Debug, Default)]
pub(super) struct HeadScan {
    line: usize,
    searched: usize,
    pub(super) request: Option<RequestLine>,
    http_10: bool,
    fields: usize,
    hosts: u32,
    lengths: u32,
    length: u64,
    encodings: u32,
    upgrades: bool,
}

impl HeadScan {
    /// Reads whole lines. `head` starts where the head starts.
    pub(super) fn advance(&mut self, head: &[u8], limits: HeadLimits) -> Result<Option<Head>, Reason> {
        if self.searched == 0 && head.first().is_some_and(|byte| !is_token(*byte) && *byte != b'\r') {
            return Err(if head[0] == b'\n' { Reason::LineEnd } else { Reason::RequestLine });
        }
        while let Some(found) = memchr::memchr(b'\n', &head[self.searched..]) {
            let end = self.searched + found;
            if end >= limits.bytes {
                return Err(self.too_large());
            }
            let line = head[self.line..end].strip_suffix(b"\r").ok_or(Reason::LineEnd)?;
            let start = self.line;
            self.line = end + 1;
            self.searched = end + 1;
            match (&self.request, line) {
                // Clients of old send an empty line after a body (RFC 9112, section 2.2).
                (None, []) => {}
                (None, line) => self.request_line(line, start)?,
                (Some(_), []) => {
                    let framing = self.framing()?;
                    // HTTP/1.0 has no upgrades (RFC 9110, section 7.8).
                    let asks_to_switch = self.upgrades && !self.http_10 && framing == Framing::Length(0);
                    return Ok(Some(Head { length: end + 1, framing, asks_to_switch }));
                }
                (Some(_), line) => {
                    self.fields += 1;
                    if self.fields > limits.fields {
                        return Err(Reason::TooManyFields);
                    }
                    self.field(line)?;
                }
            }
        }
        self.searched = head.len();
        if head.len() >= limits.bytes { Err(self.too_large()) } else { Ok(None) }
    }

    fn too_large(&self) -> Reason {
        if self.request.is_some() { Reason::HeadTooLarge } else { Reason::TargetTooLong }
    }

    fn request_line(&mut self, line: &[u8], start: usize) -> Result<(), Reason> {
        if has_control(line) {
            return Err(Reason::ControlCharacter);
        }
        let method = line.iter().position(|byte| *byte == b' ').ok_or(Reason::RequestLine)?;
        let rest = &line[method + 1..];
        let target = rest.iter().position(|byte| *byte == b' ').ok_or(Reason::RequestLine)?;
        if method == 0 || target == 0 || !line[..method].iter().copied().all(is_token) {
            return Err(Reason::RequestLine);
        }
        self.http_10 = match &rest[target + 1..] {
            b"HTTP/1.1" => false,
            b"HTTP/1.0" => true,
            version if version.starts_with(b"HTTP/") && !version.contains(&b' ') => {
                return Err(Reason::Version);
            }
            version if version.contains(&b' ') => return Err(Reason::RequestLine),
            _ => return Err(Reason::Foreign),
        };
        let bytes = &rest[..target];
        if bytes.len() >= usize::from(u16::MAX) {
            return Err(Reason::TargetTooLong);
        }
        self.check_target(&line[..method], bytes)?;
        let target_start = start + method + 1;
        self.request = Some(RequestLine {
            method: start..start + method,
            target: target_start..target_start + bytes.len(),
        });
        Ok(())
    }

    fn check_target(&self, method: &[u8], target: &[u8]) -> Result<(), Reason> {
        if method == b"CONNECT" {
            return Err(Reason::Tunnel);
        }
        // The HTTP library drops a fragment without a word.
        if target.contains(&b'#') || !target.iter().all(u8::is_ascii_graphic) {
            return Err(Reason::Target);
        }
        let ordinary = |byte: &u8| byte.is_ascii_alphanumeric() || b"/-._~%?=&+:@!$'()*,;".contains(byte);
        let is_origin = target[0] == b'/' && target.get(1) != Some(&b'/');
        // What looks out of the ordinary must at least be what the HTTP library can read.
        let readable = if is_origin && target.iter().all(ordinary) {
            true
        } else {
            let form = target[0] == b'/'
                || target == b"*"
                || target.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"http://"))
                || target.get(..8).is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"https://"));
            form && http::Uri::try_from(target).is_ok()
        };
        if readable { Ok(()) } else { Err(Reason::Target) }
    }

    fn field(&mut self, line: &[u8]) -> Result<(), Reason> {
        if has_control(line) {
            return Err(Reason::ControlCharacter);
        }
        if matches!(line[0], b' ' | b'\t') {
            return Err(Reason::FoldedLine);
        }
        let colon = line.iter().position(|byte| !is_token(*byte)).ok_or(Reason::FieldName)?;
        let name = &line[..colon];
        match line[colon] {
            b':' if !name.is_empty() => {}
            b' ' | b'\t' if line[colon..].trim_ascii_start().starts_with(b":") => {
                return Err(Reason::SpaceBeforeColon);
            }
            _ => return Err(Reason::FieldName),
        }
        let value = line[colon + 1..].trim_ascii();
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => self.hosts += 1,
            7 if name.eq_ignore_ascii_case(b"upgrade") => self.upgrades = true,
            14 if is_spelling(name, b"content-length") => {
                if name[7] != b'-' {
                    return Err(Reason::FieldName);
                }
                self.lengths += 1;
                self.length = parse_length(value).ok_or(Reason::Length)?;
            }
            17 if is_spelling(name, b"transfer-encoding") => {
                if name[8] != b'-' {
                    return Err(Reason::FieldName);
                }
                self.encodings += 1;
                if !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Reason::Encoding);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Judges a head as a whole.
    fn framing(&self) -> Result<Framing, Reason> {
        if self.encodings > 0 && self.lengths > 0 {
            return Err(Reason::LengthAndEncoding);
        }
        if self.lengths > 1 {
            return Err(Reason::RepeatedLength);
        }
        if self.encodings > 1 {
            return Err(Reason::Encoding);
        }
        if self.encodings == 1 && self.http_10 {
            return Err(Reason::EncodingInHttp10);
        }
        if self.hosts > 1 {
            return Err(Reason::RepeatedHost);
        }
        if self.hosts == 0 && !self.http_10 {
            return Err(Reason::MissingHost);
        }
        Ok(if self.encodings == 1 { Framing::Chunked } else { Framing::Length(self.length) })
    }
}

/// Any control character but the tab. No early exit, so that it is done many bytes at a time.
fn has_control(line: &[u8]) -> bool {
    line.iter().fold(false, |found, byte| found | (*byte < b' ' && *byte != b'\t') | (*byte == 0x7f))
}

/// Whether a backend could read `name` as `header`: letters must agree, the dash may be anything.
fn is_spelling(name: &[u8], header: &[u8]) -> bool {
    name.iter()
        .zip(header)
        .all(|(a, b)| *b == b'-' && !a.is_ascii_alphanumeric() || a.eq_ignore_ascii_case(b))
}

fn parse_length(value: &[u8]) -> Option<u64> {
    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    let length: u64 = digits.then(|| std::str::from_utf8(value).ok()?.parse().ok()).flatten()?;
    (length <= i64::MAX.cast_unsigned()).then_some(length)
}
