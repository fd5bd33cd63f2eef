//! W3C Trace Context: where a request stands in a trace, as `traceparent` says it.

use http::{HeaderMap, HeaderName, HeaderValue};
use uuid::Uuid;

/// Carries the trace's id, the caller's span and its flags (Trace Context, section 3.2).
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// Carries what vendors add to it (section 3.3).
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// The flag that says: the caller may have recorded its span.
const SAMPLED: u8 = 1;
/// How many of an id's low bits are random in trace ids and request ids alike: above them, the
/// latter (UUID version 7) have a counter, which would put requests of one moment into one sample.
const RANDOM_BITS: u32 = 32;

/// A sound `traceparent`: neither id is zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceParent {
    trace: u128,
    span: u64,
    flags: u8,
}

impl TraceParent {
    /// The one that a request came with. What is there twice, or is malformed, is as good as absent.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(TRACEPARENT).iter();
        match (values.next(), values.next()) {
            (Some(value), None) => Self::parse(value.as_bytes()),
            _ => None,
        }
    }

    /// Reads `version-trace-parent-flags`. Of a later version the part that version 00 has is read.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let [version, trace, span, flags] =
            [value.get(..2)?, value.get(3..35)?, value.get(36..52)?, value.get(53..55)?];
        let dashed = [value[2], value[35], value[52]] == *b"---";
        let ended = match (version, value.get(55)) {
            (b"ff", _) => false,
            (_, None) => true,
            (b"00", Some(_)) => false,
            (_, Some(next)) => *next == b'-',
        };
        hexadecimal(version)?;
        let (trace, span) = (hexadecimal(trace)?, u64::try_from(hexadecimal(span)?).ok()?);
        let flags = u8::try_from(hexadecimal(flags)?).ok()?;
        (dashed && ended && trace != 0 && span != 0).then_some(Self { trace, span, flags })
    }

    /// A trace that begins here, and that nobody records.
    pub fn begin() -> Self {
        Self { trace: new_trace(), span: new_span(), flags: 0 }
    }

    /// As a header of version 00.
    pub fn header(self) -> HeaderValue {
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        write_hexadecimal(&mut text[3..35], self.trace);
        write_hexadecimal(&mut text[36..52], self.span.into());
        write_hexadecimal(&mut text[53..], self.flags.into());
        HeaderValue::from_bytes(&text).expect("hexadecimal digits and dashes")
    }
}

/// Our part of a trace: a span for a request, and one for the call that serves it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    trace: u128,
    parent: Option<u64>,
    request: u64,
    call: u64,
    flags: u8,
}

impl Position {
    /// Goes on with the trace of `headers`, or begins one. Whether it is recorded is the caller's
    /// choice where there is a caller, and else falls on this `share` of traces.
    pub fn of(headers: &HeaderMap, share: f64) -> Self {
        let caller = TraceParent::of(headers);
        let trace = caller.map_or_else(new_trace, |caller| caller.trace);
        let flags =
            caller.map_or_else(|| if falls_on(trace, share) { SAMPLED } else { 0 }, |caller| caller.flags);
        let (request, call) = new_spans();
        Self { trace, parent: caller.map(|caller| caller.span), request, call, flags }
    }

    /// The trace's id.
    pub fn trace(&self) -> u128 {
        self.trace
    }

    /// The caller's span, where there is a caller.
    pub fn parent(&self) -> Option<u64> {
        self.parent
    }

    /// The span of the request.
    pub fn request(&self) -> u64 {
        self.request
    }

    /// The span of the call that serves the request: what a backend is told as its parent.
    pub fn call(&self) -> u64 {
        self.call
    }

    /// Whether the spans are recorded.
    pub fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// What the backend is told.
    pub fn outgoing(&self) -> TraceParent {
        TraceParent { trace: self.trace, span: self.call, flags: self.flags }
    }
}

/// Whether an id with random low bits falls on this share of all ids: the same for each process
/// that sees it.
pub fn falls_on(id: u128, share: f64) -> bool {
    let random = id & ((1 << RANDOM_BITS) - 1);
    let random = u32::try_from(random).expect("all others are masked");
    f64::from(random) < share * (f64::from(u32::MAX) + 1.0)
}

/// An id for a further span of a trace.
pub fn new_span() -> u64 {
    new_spans().0
}

/// Random, as samplers of other services expect of its low bits (level 2, section 3.2.2.3).
fn new_trace() -> u128 {
    Uuid::new_v4().as_u128()
}

/// Two ids, neither of them zero: each half of a random UUID has bits of its version or variant.
fn new_spans() -> (u64, u64) {
    Uuid::new_v4().as_u64_pair()
}

/// As many of a number's low digits as there is room for.
fn write_hexadecimal(room: &mut [u8], mut number: u128) {
    for digit in room.iter_mut().rev() {
        *digit = b"0123456789abcdef"[usize::try_from(number & 0xf).expect("less than sixteen")];
        number >>= 4;
    }
}

/// Lower-case digits only (section 3.2.2).
fn hexadecimal(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |number, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

    fn parse(text: &str) -> Option<TraceParent> {
        TraceParent::parse(text.as_bytes())
    }

    #[test]
    fn what_is_sound_is_read_and_the_rest_is_not() {
        let sound = format!("00-{TRACE}-b7ad6b7169203331-01");
        assert_eq!(parse(&sound).unwrap().header(), sound);
        let later = format!("cc-{TRACE}-b7ad6b7169203331-03-what-comes");
        assert_eq!(parse(&later).unwrap().header(), format!("00-{TRACE}-b7ad6b7169203331-03"));
        for broken in [
            String::new(),
            "00-0-0-0".into(),
            format!("{sound}-more"),
            format!("ff-{TRACE}-b7ad6b7169203331-01"),
            format!("cc-{TRACE}-b7ad6b7169203331-01more"),
            format!("00-{}-b7ad6b7169203331-01", "0".repeat(32)),
            format!("00-{TRACE}-0000000000000000-01"),
            format!("00-{}-b7ad6b7169203331-01", TRACE.to_uppercase()),
            format!("00_{TRACE}_b7ad6b7169203331_01"),
            format!("00-{TRACE}-b7ad6b7169203331-0x"),
        ] {
            assert_eq!(parse(&broken), None, "{broken}");
        }
    }

    #[test]
    fn a_caller_decides_and_without_one_the_share_does() {
        let mut headers = HeaderMap::new();
        let begun = Position::of(&headers, 1.0);
        assert!(begun.is_sampled() && begun.parent().is_none());
        assert!(!Position::of(&headers, 0.0).is_sampled());
        let caller = parse(&format!("00-{TRACE}-b7ad6b7169203331-00")).unwrap();
        headers.insert(TRACEPARENT, caller.header());
        let position = Position::of(&headers, 1.0);
        assert!(!position.is_sampled());
        assert_eq!((position.trace(), position.parent()), (caller.trace, Some(caller.span)));
        assert_eq!(position.outgoing().span, position.call());
        assert_ne!(position.call(), position.request());
        headers.append(TRACEPARENT, caller.header());
        assert_ne!(Position::of(&headers, 1.0).trace(), caller.trace, "two callers are none");
    }

    #[test]
    fn a_share_of_new_traces_is_that_share() {
        for id in [new_trace as fn() -> u128, || Uuid::now_v7().as_u128()] {
            let hits = (0..20_000).filter(|_| falls_on(id(), 0.1)).count();
            assert!((1_600..2_400).contains(&hits), "{hits}");
            assert!((0..1_000).all(|_| falls_on(id(), 1.0) && !falls_on(id(), 0.0)));
        }
    }
}
