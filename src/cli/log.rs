//! Where logs go: diagnostics to standard error, access records to standard output.

use std::io::{self, BufWriter, IsTerminal};

use tracing_appender::non_blocking::WorkerGuard;
use tracing_subscriber::EnvFilter;

use crate::gateway::{AccessLog, LogFormat};

/// What the command line says of logging.
#[derive(Debug, Clone)]
pub struct Log {
    /// What is logged.
    pub filter: String,
    /// How.
    pub format: LogFormat,
}

/// Keeps the writers alive; what they still hold is written when it is dropped.
pub struct Guards {
    _access: WorkerGuard,
}

impl Log {
    /// Starts the log of this process, and gives the sink of access records.
    ///
    /// # Errors
    /// A filter that cannot be read.
    pub fn start(&self) -> Result<(AccessLog, Guards), String> {
        let filter = EnvFilter::try_new(&self.filter)
            .map_err(|error| format!("--log {:?} is no log filter: {error}", self.filter))?;
        let builder = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_ansi(io::stderr().is_terminal())
            .with_writer(io::stderr);
        // A second start in one process (tests, the demo) keeps the first one's subscriber.
        let _ = match self.format {
            LogFormat::Json => builder.json().flatten_event(true).try_init(),
            LogFormat::Text => builder.try_init(),
        };
        let (sink, guard) = tracing_appender::non_blocking(BufWriter::new(io::stdout()));
        Ok((AccessLog::new(self.format, sink), Guards { _access: guard }))
    }
}
