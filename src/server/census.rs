//! Counts the HTTP/2 frames that cost work and bring nothing on, so that a client cannot keep us
//! busy with them: PING, SETTINGS, PRIORITY, RST_STREAM, WINDOW_UPDATE and empty DATA floods
//! (CVE-2019-9512, -9513, -9514, -9515, -9518, CVE-2023-44487).
//!
//! The HTTP library holds their memory down; the work is held down here.

use std::time::Duration;

use tokio::time::Instant;

/// Length of a frame's header (RFC 9113, section 4.1).
const HEADER_BYTES: usize = 9;
/// Idle frames that a connection may send at once.
const BURST: u32 = 4_000;
/// Idle frames that it may send each second without anything happening: far beyond any keep-alive.
const PER_SECOND: u32 = 100;
/// Idle frames that a request brings along: settings, priorities, window updates, a reset.
const PER_REQUEST: u32 = 8;
/// Bytes that we send for each WINDOW_UPDATE that a client may answer with, of which there can be
/// two, for the stream and the connection.
const BYTES_PER_FRAME: usize = 512;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;

/// More idle frames than anybody has a use for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a flood of HTTP/2 control frames")]
pub struct Flood;

/// What a connection may still send.
#[derive(Debug)]
pub struct Census {
    header: [u8; HEADER_BYTES],
    /// How much of the header has come.
    filled: usize,
    /// Payload that is still to come.
    payload: usize,
    credit: u32,
    /// When credit was last given for time. Read only when a connection has run out of it.
    since: Instant,
}

impl Census {
    /// The census of a connection behind its preface.
    pub fn new() -> Self {
        Self { header: [0; HEADER_BYTES], filled: 0, payload: 0, credit: BURST, since: Instant::now() }
    }

    /// Notes bytes that we sent, which the client may acknowledge.
    pub fn sent(&mut self, bytes: usize) {
        self.earn(u32::try_from(bytes / BYTES_PER_FRAME).unwrap_or(u32::MAX));
    }

    /// Counts what a client sent, in whatever pieces it comes.
    ///
    /// # Errors
    /// [`Flood`]: the connection is to end.
    pub fn count(&mut self, mut bytes: &[u8]) -> Result<(), Flood> {
        while !bytes.is_empty() {
            if self.payload > 0 {
                let passed = self.payload.min(bytes.len());
                self.payload -= passed;
                bytes = &bytes[passed..];
                continue;
            }
            let taken = (HEADER_BYTES - self.filled).min(bytes.len());
            self.header[self.filled..self.filled + taken].copy_from_slice(&bytes[..taken]);
            self.filled += taken;
            bytes = &bytes[taken..];
            if self.filled == HEADER_BYTES {
                self.filled = 0;
                self.frame()?;
            }
        }
        Ok(())
    }

    fn frame(&mut self) -> Result<(), Flood> {
        let [high, middle, low, kind, ..] = self.header;
        self.payload = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        match kind {
            HEADERS => self.earn(PER_REQUEST),
            // As many as the head's limit allows, which the HTTP library sees to.
            CONTINUATION => {}
            DATA if self.payload > 0 => {}
            _ => self.spend()?,
        }
        Ok(())
    }

    fn spend(&mut self) -> Result<(), Flood> {
        if self.credit == 0 {
            let elapsed = self.since.elapsed();
            let whole = u32::try_from(elapsed.as_secs()).unwrap_or(u32::MAX);
            self.earn(whole.saturating_mul(PER_SECOND));
            self.since += Duration::from_secs(whole.into());
        }
        self.credit = self.credit.checked_sub(1).ok_or(Flood)?;
        Ok(())
    }

    fn earn(&mut self, credit: u32) {
        self.credit = self.credit.saturating_add(credit).min(BURST);
    }
}

impl Default for Census {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PING: [u8; 17] = [0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
    const REQUEST: [u8; 10] = [0, 0, 1, 1, 5, 0, 0, 0, 1, 0x82];
    const SMALL_DATA: [u8; 10] = [0, 0, 1, 0, 0, 0, 0, 0, 1, b'x'];

    fn count(census: &mut Census, frame: &[u8], times: u32) -> Result<(), Flood> {
        (0..times).try_for_each(|_| census.count(frame))
    }

    /// A census whose clock stands still.
    fn stopped() -> Census {
        Census { since: Instant::now() + Duration::from_hours(1), ..Census::new() }
    }

    #[test]
    fn idle_frames_run_out_and_come_back_with_time() {
        let mut census = stopped();
        assert_eq!(count(&mut census, &PING, BURST), Ok(()));
        assert_eq!(count(&mut census, &PING, 1), Err(Flood));
        census.since = Instant::now() - Duration::from_secs(2);
        assert_eq!(count(&mut census, &PING, 2 * PER_SECOND), Ok(()));
    }

    #[test]
    fn whoever_asks_and_reads_may_go_on_for_ever() {
        let mut census = stopped();
        for _ in 0..BURST {
            count(&mut census, &REQUEST, 1).unwrap();
            count(&mut census, &PING, PER_REQUEST).unwrap();
            census.sent(64 << 10);
            count(&mut census, &PING, 128).unwrap();
            count(&mut census, &SMALL_DATA, 10).unwrap();
        }
    }

    #[test]
    fn frames_are_counted_alike_however_they_are_split() {
        let stream = [PING.as_slice(), &REQUEST, &SMALL_DATA].concat();
        let mut whole = stopped();
        whole.count(&stream).unwrap();
        for cut in 0..stream.len() {
            let mut split = stopped();
            split.count(&stream[..cut]).unwrap();
            split.count(&stream[cut..]).unwrap();
            assert_eq!((split.credit, split.payload), (whole.credit, whole.payload));
        }
    }
}
