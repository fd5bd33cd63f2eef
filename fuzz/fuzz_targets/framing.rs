//! Request framing: verdicts must not depend on how the bytes are split, nor let more pass than came.
#![no_main]

use innkeeper::server::framing::{HeadLimits, Scanner, Step};
use libfuzzer_sys::fuzz_target;

const LIMITS: HeadLimits = HeadLimits { bytes: 4096, fields: 20 };

/// What was let pass, and where each verdict fell.
fn read(bytes: &[u8], step: usize) -> (usize, Vec<(usize, String)>) {
    let mut scanner = Scanner::new(LIMITS);
    let (mut held, mut sound, mut verdicts) = (Vec::new(), 0, Vec::new());
    for piece in bytes.chunks(step) {
        held.extend_from_slice(piece);
        loop {
            match scanner.advance(&held) {
                Step::Pass(0) => break,
                Step::Pass(passed) => {
                    sound += passed;
                    held.drain(..passed);
                }
                Step::Head(head) => {
                    verdicts.push((sound, format!("{:?}", head.framing)));
                    sound += head.length;
                    held.drain(..head.length);
                    // As if every wish to leave HTTP were refused.
                    scanner.resume();
                }
                Step::Refuse { at, reason, .. } => {
                    verdicts.push((sound + at, format!("{reason:?}")));
                    return (sound + at, verdicts);
                }
            }
        }
    }
    (sound, verdicts)
}

fuzz_target!(|bytes: &[u8]| {
    let whole = read(bytes, bytes.len().max(1));
    assert!(whole.0 <= bytes.len());
    assert_eq!(read(bytes, 1), whole);
    assert_eq!(read(bytes, 7), whole);
});
