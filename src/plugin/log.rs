//! What plugins write: attributed, rate limited, cut to a length, free of control characters.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// Lines a second that a plugin may log in the long run.
const LINES_PER_SECOND: f64 = 50.0;
/// Lines that it may log at once after a silence.
const BURST: f64 = 100.0;
/// The longest line, bytes.
const MAX_LINE_BYTES: usize = 2048;

/// The log of one plugin version, shared by all its instances.
pub(super) struct PluginLog {
    plugin: Arc<str>,
    version: Arc<str>,
    bucket: Mutex<Bucket>,
}

struct Bucket {
    tokens: f64,
    filled: Instant,
    dropped: u64,
}

/// What a line may do.
#[derive(Debug, PartialEq)]
enum Admission {
    Write { dropped_before: u64 },
    Drop,
}

impl Bucket {
    fn take(&mut self, now: Instant) -> Admission {
        let passed = now.saturating_duration_since(self.filled).as_secs_f64();
        self.filled = now;
        self.tokens = (self.tokens + passed * LINES_PER_SECOND).min(BURST);
        if self.tokens < 1.0 {
            self.dropped += 1;
            return Admission::Drop;
        }
        self.tokens -= 1.0;
        Admission::Write { dropped_before: std::mem::take(&mut self.dropped) }
    }
}

impl PluginLog {
    pub(super) fn new(plugin: Arc<str>, version: Arc<str>) -> Self {
        let bucket = Bucket { tokens: BURST, filled: Instant::now(), dropped: 0 };
        Self { plugin, version, bucket: Mutex::new(bucket) }
    }

    /// Writes a line, or counts it as dropped.
    pub(super) fn write(&self, level: &str, message: &str) {
        let admission = self.bucket.lock().unwrap_or_else(PoisonError::into_inner).take(Instant::now());
        let Admission::Write { dropped_before } = admission else { return };
        let (plugin, version) = (&*self.plugin, &*self.version);
        if dropped_before > 0 {
            tracing::warn!(
                target: "innkeeper::plugin", plugin, version, dropped = dropped_before,
                "the plugin logs too much: lines were dropped"
            );
        }
        let message = printable(message, MAX_LINE_BYTES);
        match level {
            "error" => tracing::error!(target: "innkeeper::plugin", plugin, version, "{message}"),
            "warn" => tracing::warn!(target: "innkeeper::plugin", plugin, version, "{message}"),
            "debug" => tracing::debug!(target: "innkeeper::plugin", plugin, version, "{message}"),
            "trace" => tracing::trace!(target: "innkeeper::plugin", plugin, version, "{message}"),
            _ => tracing::info!(target: "innkeeper::plugin", plugin, version, "{message}"),
        }
    }
}

/// `text` cut to `max` bytes, with control characters replaced: a plugin must not be able to forge
/// a line or move an operator's cursor.
pub(super) fn printable(text: &str, max: usize) -> Cow<'_, str> {
    let cut = text.floor_char_boundary(max);
    let text = &text[..cut];
    if !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    // The sign for what was there is three bytes long.
    let mut text = text.replace(char::is_control, "\u{fffd}");
    text.truncate(text.floor_char_boundary(max));
    Cow::Owned(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_flood_is_cut_and_counted_and_a_silence_forgives() {
        let start = Instant::now();
        let mut bucket = Bucket { tokens: BURST, filled: start, dropped: 0 };
        let written = (0..1000).filter(|_| bucket.take(start) != Admission::Drop).count();
        assert_eq!(written, 100);
        let later = start + Duration::from_secs(1);
        assert_eq!(bucket.take(later), Admission::Write { dropped_before: 900 });
        assert_eq!(bucket.take(later), Admission::Write { dropped_before: 0 });
    }

    #[test]
    fn lines_cannot_be_forged() {
        assert_eq!(printable("a\nERROR b\x1b[2J", 100), "a\u{fffd}ERROR b\u{fffd}[2J");
        assert_eq!(printable("ää", 3), "ä");
        assert_eq!(printable("\0\0\0\0", 4), "\u{fffd}");
    }
}
