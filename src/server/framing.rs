//! Where one HTTP/1 request ends and the next begins: read strictly, before the HTTP library does,
//! because that one quietly repairs what two readers could read differently.
//!
//! Pure: bytes in, verdicts out, the same ones however the bytes are split.

mod chunks;
mod head;

use std::ops::Range;

use self::chunks::ChunkScan;
use self::head::HeadScan;
use super::reason::Reason;

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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// How many bytes it is long.
    pub length: usize,
    /// How the end of the body is found.
    pub framing: Framing,
    /// Whether it asks to leave HTTP (RFC 9110, section 7.8). What follows is then of no protocol
    /// that is known yet: nothing is let pass until [`Scanner::resume`]. A request with a body
    /// cannot ask: whether its body belongs to the old protocol or the new one would be a guess.
    pub asks_to_switch: bool,
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
    Undecided,
    Over,
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

    /// Whether it waits to hear what protocol follows.
    pub fn is_undecided(&self) -> bool {
        matches!(self.phase, Phase::Undecided)
    }

    /// Goes on with the next request: the protocol stayed what it was.
    pub fn resume(&mut self) {
        if self.is_undecided() {
            self.phase = Phase::Head(HeadScan::default());
        }
    }

    /// Looks at bytes that follow those that it let pass.
    pub fn advance(&mut self, unread: &[u8]) -> Step {
        match &mut self.phase {
            Phase::Head(scan) => match scan.advance(unread, self.limits) {
                Ok(None) => Step::Pass(0),
                Ok(Some(head)) => {
                    self.phase = match head.framing {
                        _ if head.asks_to_switch => Phase::Undecided,
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
            Phase::Undecided | Phase::Over => Step::Pass(0),
        }
    }
}

/// `tchar` of RFC 9110, section 5.6.2.
fn is_token(byte: u8) -> bool {
    const TOKEN: [bool; 256] = {
        let mut table = [false; 256];
        let mut byte = 0_u8;
        while byte < 128 {
            table[byte as usize] = byte.is_ascii_alphanumeric();
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: HeadLimits = HeadLimits { bytes: 300, fields: 6 };

    type Verdicts = Vec<(usize, Result<Framing, Reason>)>;

    /// What comes of bytes that arrive in pieces: what was let pass, and each verdict with where
    /// it fell.
    fn read(pieces: &[&[u8]]) -> (usize, Verdicts) {
        let mut scanner = Scanner::new(LIMITS);
        let (mut held, mut sound, mut verdicts) = (Vec::new(), 0, Vec::new());
        'pieces: for piece in pieces {
            held.extend_from_slice(piece);
            while !held.is_empty() {
                match scanner.advance(&held) {
                    Step::Pass(0) => break,
                    Step::Pass(passed) => {
                        sound += passed;
                        held.drain(..passed);
                    }
                    Step::Head(head) => {
                        verdicts.push((sound, Ok(head.framing)));
                        // As if every answer were another one than 101.
                        scanner.resume();
                        sound += head.length;
                        held.drain(..head.length);
                    }
                    Step::Refuse { at, reason, .. } => {
                        sound += at;
                        verdicts.push((sound, Err(reason)));
                        break 'pieces;
                    }
                }
            }
        }
        (sound, verdicts)
    }

    fn fragments() -> impl Strategy<Value = Vec<u8>> {
        let known = prop::sample::select(vec![
            "GET / HTTP/1.1\r\n",
            "POST /a?b HTTP/1.1\r\n",
            "GET / HTTP/1.0\r\n",
            "Host: a\r\n",
            "\r\n",
            "\n",
            "\r",
            " ",
            ":",
            "Content-Length: 3\r\n",
            "Content-Length: 0\r\n",
            "Transfer-Encoding: chunked\r\n",
            "abc",
            "3\r\n",
            "0\r\n",
            "0\r\n\r\n",
            "X: y\r\n",
            "Upgrade: x\r\n",
            "X: y\r\n z\r\n",
            "\0",
            ";x=y",
            "f",
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n",
        ]);
        let known = known.prop_map(|text| text.as_bytes().to_vec());
        let random = prop::collection::vec(any::<u8>(), 1..4);
        let long = (1_usize..200).prop_map(|length| vec![b'x'; length]);
        prop::collection::vec(prop_oneof![20 => known, 1 => random, 1 => long], 0..20)
            .prop_map(|all| all.concat())
    }

    proptest! {
        #[test]
        fn verdicts_do_not_depend_on_how_bytes_are_split(bytes in fragments(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12)) {
            let whole = read(&[&bytes]);
            let single: Vec<&[u8]> = bytes.chunks(1).collect();
            prop_assert_eq!(&read(&single), &whole);
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.sort_unstable();
            let mut pieces = Vec::new();
            let mut from = 0;
            for cut in cuts.into_iter().chain([bytes.len()]) {
                pieces.push(&bytes[from..cut]);
                from = cut;
            }
            prop_assert_eq!(&read(&pieces), &whole);
        }

        #[test]
        fn what_was_let_pass_never_grows_beyond_what_came(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            prop_assert!(read(&[&bytes]).0 <= bytes.len());
        }
    }

    #[test]
    fn a_sound_head_is_one_step() {
        let head = b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n";
        let mut scanner = Scanner::new(LIMITS);
        let step = scanner.advance(&[head.as_slice(), b"abcGET"].concat());
        let framing = Framing::Length(3);
        assert_eq!(step, Step::Head(Head { length: head.len(), framing, asks_to_switch: false }));
        assert_eq!(scanner.advance(b"abcGET"), Step::Pass(3));
        assert_eq!(scanner.advance(b"GET"), Step::Pass(0));
    }

    #[test]
    fn nothing_passes_behind_a_request_to_switch_until_it_is_decided() {
        let asks = |head: &[u8]| {
            let mut scanner = Scanner::new(LIMITS);
            let Step::Head(head) = scanner.advance(head) else { panic!("a sound head") };
            assert_eq!(head.asks_to_switch, scanner.is_undecided());
            scanner.is_undecided().then_some(scanner)
        };
        let mut scanner = asks(b"GET / HTTP/1.1\r\nHost: a\r\nUPGRADE: x\r\n\r\n").expect("it asks");
        assert_eq!(scanner.advance(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"), Step::Pass(0));
        scanner.resume();
        assert!(matches!(scanner.advance(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"), Step::Head(_)));
        assert!(asks(b"GET / HTTP/1.0\r\nUpgrade: x\r\n\r\n").is_none());
        assert!(asks(b"PUT / HTTP/1.1\r\nHost: a\r\nUpgrade: x\r\nContent-Length: 1\r\n\r\n").is_none());
    }

    #[test]
    fn a_refusal_names_the_request_as_far_as_it_was_sound() {
        let bytes = b"\r\nPUT /a/b HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n";
        let Step::Refuse { reason: Reason::Length, head: Some(line), .. } =
            Scanner::new(LIMITS).advance(bytes)
        else {
            panic!("a bad length was let pass");
        };
        assert_eq!((&bytes[line.method], &bytes[line.target]), (b"PUT".as_slice(), b"/a/b".as_slice()));
    }
}
