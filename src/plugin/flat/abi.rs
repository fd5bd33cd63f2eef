//! What the guest hands over, read from its memory by the canonical ABI's rules: places aligned and
//! within bounds, texts that are UTF-8, cases that exist, and not too much of it.
//!
//! The layouts follow from `wit/policy.wit` by the Component Model's `CanonicalABI.md`: a text is a
//! pointer and a length of four bytes each; fields follow each other; the payload of a variant
//! starts four bytes after its discriminant, because all our payloads are aligned to four.

use super::super::bindings::innkeeper::policy::types as wire;
use super::super::instance::MAX_TRANSFER_BYTES;

/// A rule of the canonical ABI that the guest broke.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(in crate::plugin) struct Breach(pub(super) &'static str);

/// Bytes of `result<decision, string>`.
const DECISION_BYTES: usize = 48;
/// Bytes of `result<_, string>`.
const CONFIGURED_BYTES: usize = 12;
/// Bytes of a pair of texts.
const PAIR_BYTES: usize = 16;

/// Reads what one call hands over.
pub(super) struct Reader<'a> {
    memory: &'a [u8],
    /// Bytes that may still be copied.
    room: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(memory: &'a [u8]) -> Self {
        Self { memory, room: MAX_TRANSFER_BYTES }
    }

    /// A `string` parameter.
    pub(super) fn text(&mut self, place: u32, length: u32) -> Result<&'a str, Breach> {
        let bytes = slice(self.memory, place, length as usize, "a text lies outside of the memory")?;
        self.spend(bytes.len())?;
        std::str::from_utf8(bytes).map_err(|_| Breach("a text is not UTF-8"))
    }

    /// What `configure` answered.
    pub(super) fn configured(&mut self, place: u32) -> Result<Result<(), String>, Breach> {
        let answer = self.answer::<CONFIGURED_BYTES>(place)?;
        match answer[0] {
            0 => Ok(Ok(())),
            1 => Ok(Err(self.text_at(answer, 4)?)),
            _ => Err(Breach("a result has no such case")),
        }
    }

    /// What `resolve` answered.
    pub(super) fn decision(&mut self, place: u32) -> Result<Result<wire::Decision, String>, Breach> {
        let answer = self.answer::<DECISION_BYTES>(place)?;
        let payload = &answer[8..];
        match (answer[0], answer[4]) {
            (0, 0) => Ok(Ok(wire::Decision::Place(self.placement(payload)?))),
            (0, 1) => Ok(Ok(wire::Decision::Next)),
            (0, 2) => Ok(Ok(wire::Decision::Deny(self.denial(payload)?))),
            (0, _) => Err(Breach("a decision has no such case")),
            (1, _) => Ok(Err(self.text_at(answer, 4)?)),
            _ => Err(Breach("a result has no such case")),
        }
    }

    fn placement(&mut self, record: &[u8]) -> Result<wire::Placement, Breach> {
        Ok(wire::Placement {
            tenant: self.text_at(record, 0)?,
            headers: self.pairs(word(record, 8), word(record, 12))?,
            upstream: self.maybe_text_at(record, 16)?,
            reason: self.maybe_text_at(record, 28)?,
        })
    }

    fn denial(&mut self, record: &[u8]) -> Result<wire::Denial, Breach> {
        Ok(wire::Denial {
            status: u16::from_le_bytes([record[0], record[1]]),
            code: self.text_at(record, 4)?,
            message: self.text_at(record, 12)?,
        })
    }

    fn pairs(&mut self, place: u32, count: u32) -> Result<Vec<(String, String)>, Breach> {
        let outside = "a list lies outside of the memory";
        let bytes = (count as usize).checked_mul(PAIR_BYTES).ok_or(Breach(outside))?;
        let bytes = slice(self.memory, place, bytes, outside)?;
        // Before anything is allocated: a list is larger on our side.
        self.spend((count as usize).saturating_mul(size_of::<(String, String)>()))?;
        if !place.is_multiple_of(4) {
            return Err(Breach("a list is not aligned"));
        }
        let pairs = bytes.chunks_exact(PAIR_BYTES);
        pairs.map(|pair| Ok((self.text_at(pair, 0)?, self.text_at(pair, 8)?))).collect()
    }

    fn maybe_text_at(&mut self, record: &[u8], offset: usize) -> Result<Option<String>, Breach> {
        match record[offset] {
            0 => Ok(None),
            1 => Ok(Some(self.text_at(record, offset + 4)?)),
            _ => Err(Breach("an option has no such case")),
        }
    }

    fn text_at(&mut self, record: &[u8], offset: usize) -> Result<String, Breach> {
        Ok(self.text(word(record, offset), word(record, offset + 4))?.into())
    }

    fn answer<const BYTES: usize>(&self, place: u32) -> Result<&'a [u8], Breach> {
        if !place.is_multiple_of(4) {
            return Err(Breach("the answer is not aligned"));
        }
        slice(self.memory, place, BYTES, "the answer lies outside of the memory")
    }

    fn spend(&mut self, bytes: usize) -> Result<(), Breach> {
        self.room = self.room.checked_sub(bytes).ok_or(Breach("it hands over more than 1 MiB"))?;
        Ok(())
    }
}

/// Checks that an answer of ours fits where the guest wants it.
pub(super) fn check_place(memory: &[u8], place: u32, bytes: usize) -> Result<(), Breach> {
    if !place.is_multiple_of(4) {
        return Err(Breach("the place for an answer is not aligned"));
    }
    slice(memory, place, bytes, "the place for an answer lies outside of the memory").map(|_| ())
}

/// Copies a text to where the guest's `realloc` made room for it.
pub(super) fn put(memory: &mut [u8], place: u32, text: &str) -> Result<(), Breach> {
    let room = memory.get_mut(place as usize..).and_then(|rest| rest.get_mut(..text.len()));
    room.ok_or(Breach("what `realloc` answered lies outside of the memory"))?
        .copy_from_slice(text.as_bytes());
    Ok(())
}

fn slice<'a>(
    memory: &'a [u8],
    place: u32,
    bytes: usize,
    otherwise: &'static str,
) -> Result<&'a [u8], Breach> {
    memory.get(place as usize..).and_then(|rest| rest.get(..bytes)).ok_or(Breach(otherwise))
}

fn word(record: &[u8], offset: usize) -> u32 {
    let bytes = record[offset..].first_chunk().expect("records are sliced to their whole size");
    u32::from_le_bytes(*bytes)
}
