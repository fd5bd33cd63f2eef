//! What a torture came to, and whether it was one.

use std::fmt::Display;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts what became of requests.
#[derive(Default)]
pub(crate) struct Toll {
    foreign: AtomicUsize,
    answers: AtomicUsize,
    refusals: AtomicUsize,
    cancelled: AtomicUsize,
}

impl Toll {
    /// An answer, with so many rows of other tenants.
    pub(crate) fn answered(&self, foreign: usize) {
        self.answers.fetch_add(1, Ordering::Relaxed);
        self.foreign.fetch_add(foreign, Ordering::Relaxed);
    }

    pub(crate) fn refused(&self) {
        self.refusals.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn cancelled(&self) {
        self.cancelled.fetch_add(1, Ordering::Relaxed);
    }

    /// Answers so far.
    pub(crate) fn answers(&self) -> usize {
        self.answers.load(Ordering::Relaxed)
    }

    /// Rows of other tenants so far.
    pub(crate) fn foreign(&self) -> usize {
        self.foreign.load(Ordering::Relaxed)
    }

    /// Fails where a row reached another tenant, and where too little happened to say that none can.
    pub(crate) fn judge(&self, what: impl Display, clients: usize, killed: usize) {
        let counts = [&self.answers, &self.refusals, &self.cancelled];
        let [answers, refusals, cancelled] = counts.map(|counter| counter.load(Ordering::Relaxed));
        #[expect(clippy::print_stdout, reason = "how hard the torture was, beside its verdict")]
        {
            println!(
                "{what}: {answers} answers, {refusals} refusals, {cancelled} cancelled, {killed} killed"
            );
        }
        assert_eq!(self.foreign(), 0, "rows reached another tenant");
        assert!(answers > clients && refusals > 0 && cancelled > 0 && killed > 0, "it was no torture");
    }
}
