//! Where access records go: into a buffer that a thread of its own writes out, so that a slow
//! terminal or disk stalls no request.

use std::io::Write;
use std::mem;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Records that wait to be written, bytes. Past it lines are dropped, not requests.
const MOST_WAITING: usize = 8 << 20;

/// How long the writer lets lines gather. Waking it for each line costs more than the whole rest
/// of the record (`docs/performance.md`), and nobody reads a log faster than this.
const GATHERING: Duration = Duration::from_millis(20);

/// How records are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Format {
    /// One line of words, for people.
    #[default]
    Text,
    /// One JSON object a line, for machines.
    Json,
}

/// The way to the log. What is buffered is written when the last clone is dropped.
#[derive(Clone)]
pub struct AccessLog(Arc<Inner>);

struct Inner {
    format: Format,
    buffer: Arc<Buffer>,
    writer: Option<JoinHandle<()>>,
}

struct Buffer {
    waiting: Mutex<Waiting>,
    filled: Condvar,
}

#[derive(Default)]
struct Waiting {
    lines: Vec<u8>,
    dropped: u64,
    closed: bool,
}

impl AccessLog {
    /// A log that writes to `destination` from a thread of its own.
    pub fn new(format: Format, destination: impl Write + Send + 'static) -> Self {
        let buffer = Arc::new(Buffer { waiting: Mutex::default(), filled: Condvar::new() });
        let for_writer = Arc::clone(&buffer);
        let writer = std::thread::Builder::new()
            .name("access-log".into())
            .spawn(move || for_writer.write_out(destination))
            .expect("the system gives a process its threads");
        Self(Arc::new(Inner { format, buffer, writer: Some(writer) }))
    }

    /// How records are written.
    pub(super) fn format(&self) -> Format {
        self.0.format
    }

    /// Takes a line, with its end; `false` where there was no room for it.
    pub(super) fn push(&self, line: &[u8]) -> bool {
        let buffer = &self.0.buffer;
        let mut waiting = buffer.lock();
        if waiting.lines.len() + line.len() > MOST_WAITING {
            waiting.dropped += 1;
            return false;
        }
        let first = waiting.lines.is_empty();
        waiting.lines.extend_from_slice(line);
        drop(waiting);
        if first {
            buffer.filled.notify_one();
        }
        true
    }
}

impl Buffer {
    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_out(&self, mut destination: impl Write) {
        let mut lines = Vec::new();
        loop {
            let mut waiting = self.lock();
            while waiting.lines.is_empty() && !waiting.closed {
                waiting = self.filled.wait(waiting).unwrap_or_else(PoisonError::into_inner);
            }
            let closed = waiting.closed;
            mem::swap(&mut lines, &mut waiting.lines);
            let dropped = mem::take(&mut waiting.dropped);
            drop(waiting);
            // A reader that has gone, such as a closed pipe, is no reason to stop serving.
            let _ = destination.write_all(&lines).and_then(|()| destination.flush());
            if dropped > 0 {
                tracing::warn!(dropped, "access records came faster than they could be written");
            }
            lines.clear();
            if closed {
                return;
            }
            self.gather();
        }
    }

    /// Lets lines gather, unless the log is closed meanwhile.
    fn gather(&self) {
        let waiting = self.lock();
        let gathered = self.filled.wait_timeout_while(waiting, GATHERING, |waiting| !waiting.closed);
        drop(gathered);
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.buffer.lock().closed = true;
        self.buffer.filled.notify_one();
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn every_line_is_written_before_the_log_is_gone() {
        let page = Page::default();
        let log = AccessLog::new(Format::Json, page.clone());
        let clones: Vec<_> = (0..4)
            .map(|writer| {
                let log = log.clone();
                std::thread::spawn(move || {
                    for number in 0..100 {
                        log.push(format!("{writer}-{number}\n").as_bytes());
                    }
                })
            })
            .collect();
        clones.into_iter().for_each(|thread| thread.join().unwrap());
        drop(log);
        let text = String::from_utf8(page.0.lock().unwrap().clone()).unwrap();
        let mut lines: Vec<&str> = text.lines().collect();
        lines.sort_unstable();
        lines.dedup();
        assert_eq!(lines.len(), 400);
    }

    #[test]
    fn lines_beyond_the_buffer_are_dropped_and_nothing_waits() {
        let waiting = Waiting { lines: vec![b'x'; MOST_WAITING], ..Waiting::default() };
        let buffer = Arc::new(Buffer { waiting: Mutex::new(waiting), filled: Condvar::new() });
        let log =
            AccessLog(Arc::new(Inner { format: Format::Text, buffer: Arc::clone(&buffer), writer: None }));
        assert!(!log.push(b"one more\n"));
        assert_eq!(buffer.lock().dropped, 1);
        assert_eq!(buffer.lock().lines.len(), MOST_WAITING);
    }
}
