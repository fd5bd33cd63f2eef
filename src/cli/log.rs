//! Where logs go: diagnostics to standard error, access records to standard output.

use std::io::{self, IsTerminal};

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

impl Log {
    /// Starts the log of this process, and gives the log of access records.
    ///
    /// # Errors
    /// A filter that cannot be read.
    pub fn start(&self) -> Result<AccessLog, String> {
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
        Ok(AccessLog::new(self.format, io::stdout()))
    }
}
