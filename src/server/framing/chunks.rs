//! A chunked body, read strictly (RFC 9112, section 7.1).

use super::is_token;
use crate::server::reason::Reason;

/// Most hexadecimal digits of a chunk's size: what fits 60 bits, so that nothing overflows.
const CHUNK_DIGITS: u8 = 15;
/// Most bytes of all of a body's chunk extensions, which nobody uses.
const CHUNK_EXTENSION_BYTES: u16 = 1024;
/// Most bytes of trailers.
const TRAILER_BYTES: u16 = 8 << 10;

#[derive(Debug)]
pub(super) struct ChunkScan {
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

impl ChunkScan {
    pub(super) fn new() -> Self {
        Self { at: ChunkPhase::Size { digits: 0, value: 0 }, extension_bytes: 0, trailer_bytes: 0 }
    }

    /// Reads on: how many bytes were read, and whether the body's end is among them; or where and
    /// why it is broken.
    pub(super) fn advance(&mut self, bytes: &[u8]) -> Result<(usize, bool), (usize, Reason)> {
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
