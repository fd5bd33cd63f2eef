//! Where one HTTP/1 request ends and the next begins: read strictly, before the HTTP library does,
//! because that one quietly repairs what two readers could read differently.
//!
//! Pure: bytes in, verdicts out, the same ones however the bytes are split.

use std::ops::Range;

use super::reason::Reason;

/// Most hexadecimal digits of a chunk's size: what fits 60 bits, so that nothing overflows.
const CHUNK_DIGITS: u8 = 15;
/// Most bytes of all of a body's chunk extensions, which nobody uses.
const CHUNK_EXTENSION_BYTES: u16 = 1024;
/// Most bytes of trailers.
const TRAILER_BYTES: u16 = 8 << 10;

/// Limits of one head.
#[derive(Debug, Clone, Copy)]
pub struct HeadLimits {
    /// Request line and fields, with their line ends.
    pub bytes: usize,
    /// Fields.
    pub fields: usize,
}

/// Reads one connection's requests.
#[derive(Debug)]
pub struct Scanner {
    limits: HeadLimits,
    phase: Phase,
}

/// What the scanner makes of the bytes that it was shown.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// So many bytes, from the first one, are sound. Zero: it takes more bytes to tell; show them
    /// again with what follows.
    Pass(usize),
    /// A request's whole head is sound.
    Head(Head),
    /// Nothing may be read from byte `at` on, and nothing after it: the connection is to end.
    Refuse {
        /// How many bytes before it are sound.
        at: usize,
        /// What is wrong.
        reason: Reason,
        /// For a head: method and target, if they were sound. For a body: `None`.
        head: Option<RequestLine>,
    },
}

/// A sound head.
#[derive(Debug, PartialEq, Eq)]
pub struct Head {
    /// How many bytes it is long.
    pub length: usize,
    /// How the end of the body is found.
    pub framing: Framing,
}

/// How the end of a request's body is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// By counting; zero where there is no body.
    Length(u64),
    /// By chunks.
    Chunked,
}

/// Where in the bytes method and target stand; empty where they are not sound.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestLine {
    /// The method.
    pub method: Range<usize>,
    /// The request target.
    pub target: Range<usize>,
}

#[derive(Debug)]
enum Phase {
    Head(HeadScan),
    Counted(u64),
    Chunked(ChunkScan),
    Over,
}

/// What is known of a head whose lines were read up to `line`.
#[derive(Debug, Default)]
struct HeadScan {
    line: usize,
    searched: usize,
    request: Option<RequestLine>,
    http_10: bool,
    fields: usize,
    hosts: u32,
    lengths: u32,
    length: u64,
    encodings: u32,
}

#[derive(Debug)]
struct ChunkScan {
    at: ChunkPhase,
    extension_bytes: u16,
    trailer_bytes: u16,
}

#[derive(Debug, Clone, Copy)]
enum ChunkPhase {
    Size { digits: u8, value: u64 },
    Extension { value: u64 },
    SizeEnd { value: u64 },
    Data(u64),
    DataReturn,
    DataEnd,
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerEnd,
    LastEnd,
}

impl Scanner {
    /// A scanner at the start of a connection.
    pub fn new(limits: HeadLimits) -> Self {
        Self { limits, phase: Phase::Head(HeadScan::default()) }
    }

    /// Whether a request's body is under way.
    pub fn is_inside_body(&self) -> bool {
        matches!(self.phase, Phase::Counted(_) | Phase::Chunked(_))
    }

    /// Looks at bytes that follow those that it let pass.
    pub fn advance(&mut self, unread: &[u8]) -> Step {
        match &mut self.phase {
            Phase::Head(scan) => match scan.advance(unread, self.limits) {
                Ok(None) => Step::Pass(0),
                Ok(Some(head)) => {
                    self.phase = match head.framing {
                        Framing::Length(0) => Phase::Head(HeadScan::default()),
                        Framing::Length(length) => Phase::Counted(length),
                        Framing::Chunked => Phase::Chunked(ChunkScan::new()),
                    };
                    Step::Head(head)
                }
                Err(reason) => {
                    let head = scan.request.take().unwrap_or_default();
                    self.phase = Phase::Over;
                    Step::Refuse { at: 0, reason, head: Some(head) }
                }
            },
            Phase::Counted(remaining) => {
                let passed = usize::try_from(*remaining).unwrap_or(usize::MAX).min(unread.len());
                *remaining -= passed as u64;
                if *remaining == 0 {
                    self.phase = Phase::Head(HeadScan::default());
                }
                Step::Pass(passed)
            }
            Phase::Chunked(scan) => match scan.advance(unread) {
                Ok((passed, false)) => Step::Pass(passed),
                Ok((passed, true)) => {
                    self.phase = Phase::Head(HeadScan::default());
                    Step::Pass(passed)
                }
                Err((at, reason)) => {
                    self.phase = Phase::Over;
                    Step::Refuse { at, reason, head: None }
                }
            },
            Phase::Over => Step::Pass(0),
        }
    }
}

impl HeadScan {
    /// Reads whole lines. `head` starts where the head starts.
    fn advance(&mut self, head: &[u8], limits: HeadLimits) -> Result<Option<Head>, Reason> {
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
                    return Ok(Some(Head { length: end + 1, framing: self.framing()? }));
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
            _ => return Err(Reason::RequestLine),
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

impl ChunkScan {
    fn new() -> Self {
        Self { at: ChunkPhase::Size { digits: 0, value: 0 }, extension_bytes: 0, trailer_bytes: 0 }
    }

    /// Reads on: how many bytes were read, and whether the body's end is among them; or where and
    /// why it is broken.
    fn advance(&mut self, bytes: &[u8]) -> Result<(usize, bool), (usize, Reason)> {
        let mut index = 0;
        while index < bytes.len() {
            if let ChunkPhase::Data(remaining) = self.at {
                let passed = usize::try_from(remaining).unwrap_or(usize::MAX).min(bytes.len() - index);
                index += passed;
                let remaining = remaining - passed as u64;
                self.at = if remaining == 0 { ChunkPhase::DataReturn } else { ChunkPhase::Data(remaining) };
                continue;
            }
            let next = self.step(bytes[index]).map_err(|reason| (index, reason))?;
            index += 1;
            match next {
                Some(next) => self.at = next,
                None => return Ok((index, true)),
            }
        }
        Ok((index, false))
    }

    /// Reads one byte outside of data: the next state, or `None` at the body's end.
    fn step(&mut self, byte: u8) -> Result<Option<ChunkPhase>, Reason> {
        use ChunkPhase as P;
        if matches!(self.at, P::TrailerStart | P::TrailerName | P::TrailerValue | P::TrailerEnd) {
            self.trailer_bytes += 1;
            if self.trailer_bytes > TRAILER_BYTES {
                return Err(Reason::Trailer);
            }
        }
        Ok(Some(match (self.at, byte) {
            (P::Size { digits, value }, _) if byte.is_ascii_hexdigit() => {
                if digits == CHUNK_DIGITS {
                    return Err(Reason::ChunkSize);
                }
                let digit = char::from(byte).to_digit(16).expect("a hexadecimal digit");
                P::Size { digits: digits + 1, value: value << 4 | u64::from(digit) }
            }
            (P::Size { digits: 1.., value }, b'\r') => P::SizeEnd { value },
            (P::Size { digits: 1.., value }, b';') => P::Extension { value },
            (P::Size { .. }, _) => return Err(Reason::ChunkSize),
            (P::Extension { value }, b'\r') => P::SizeEnd { value },
            (P::Extension { value }, b'\t' | b' '..=b'~') => {
                self.extension_bytes += 1;
                if self.extension_bytes > CHUNK_EXTENSION_BYTES {
                    return Err(Reason::ChunkSize);
                }
                P::Extension { value }
            }
            (P::SizeEnd { value: 0 }, b'\n') => P::TrailerStart,
            (P::SizeEnd { value }, b'\n') => P::Data(value),
            (P::Extension { .. } | P::SizeEnd { .. }, _) => return Err(Reason::ChunkSize),
            (P::DataReturn, b'\r') => P::DataEnd,
            (P::DataEnd, b'\n') => P::Size { digits: 0, value: 0 },
            (P::DataReturn | P::DataEnd, _) => return Err(Reason::ChunkEnd),
            (P::TrailerStart, b'\r') => P::LastEnd,
            (P::TrailerStart | P::TrailerName, _) if is_token(byte) => P::TrailerName,
            (P::TrailerName, b':') => P::TrailerValue,
            (P::TrailerValue, b'\r') => P::TrailerEnd,
            (P::TrailerValue, b'\t' | b' '..=b'~' | 0x80..) => P::TrailerValue,
            (P::TrailerEnd, b'\n') => P::TrailerStart,
            (P::LastEnd, b'\n') => return Ok(None),
            (P::TrailerStart | P::TrailerName | P::TrailerValue | P::TrailerEnd | P::LastEnd, _) => {
                return Err(Reason::Trailer);
            }
            (P::Data(_), _) => unreachable!("data is passed by count"),
        }))
    }
}

/// Any control character but the tab. No early exit, so that it is done many bytes at a time.
fn has_control(line: &[u8]) -> bool {
    line.iter().fold(false, |found, byte| found | (*byte < b' ' && *byte != b'\t') | (*byte == 0x7f))
}

/// `tchar` of RFC 9110, section 5.6.2.
fn is_token(byte: u8) -> bool {
    const TOKEN: [bool; 256] = {
        let mut table = [false; 256];
        let mut byte = 0;
        while byte < 128 {
            table[byte] = (byte as u8).is_ascii_alphanumeric();
            byte += 1;
        }
        let others = b"!#$%&'*+-.^_`|~";
        let mut index = 0;
        while index < others.len() {
            table[others[index] as usize] = true;
            index += 1;
        }
        table
    };
    TOKEN[usize::from(byte)]
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
