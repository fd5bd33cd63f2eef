//! Where logs go: diagnostics to standard error, access records to standard output.

use std::io::{self, IsTerminal};
use std::sync::Arc;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::reload::Handle;

use crate::gateway::{AccessLog, LogFormat};
use crate::log_filter::{self, LogFilter};
use crate::sidecar::Logs;

/// What the command line says of logging.
#[derive(Debug, Clone)]
pub struct Log {
    /// What is logged.
    pub filter: String,
    /// How.
    pub format: LogFormat,
}

/// Reads `--log`, also for commands that log nothing: whoever sets it for all of them in the environment hears
/// of a mistake from the first.
///
/// # Errors
/// The part of the filter that cannot be read.
pub(super) fn filter(text: &str) -> Result<String, String> {
    log_filter::read(text).map(|_| text.to_owned())
}

impl Log {
    /// Starts the log of this process.
    ///
    /// # Errors
    /// A filter that cannot be read.
    pub fn start(&self) -> Result<Logs, String> {
        let filter = log_filter::read(&self.filter).map_err(|error| format!("--log {error}"))?;
        let builder = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_ansi(io::stderr().is_terminal())
            .with_writer(io::stderr);
        // A second start in one process (tests, the demo) keeps the first one's subscriber.
        let (started, filter) = match self.format {
            LogFormat::Json => {
                let builder = builder.json().flatten_event(true).with_filter_reloading();
                let filter = self.reloading(builder.reload_handle());
                (builder.try_init(), filter)
            }
            LogFormat::Text => {
                let builder = builder.with_filter_reloading();
                let filter = self.reloading(builder.reload_handle());
                (builder.try_init(), filter)
            }
        };
        let access = AccessLog::new(self.format, io::stdout());
        Ok(Logs { access, filter: started.is_ok().then_some(filter) })
    }

    fn reloading<S: 'static>(&self, handle: Handle<EnvFilter, S>) -> Arc<LogFilter> {
        LogFilter::new(self.filter.clone(), move |filter| {
            handle.reload(filter).map_err(|error| error.to_string())
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use crate::cli::Cli;

    #[test]
    fn no_command_takes_what_is_no_filter() {
        for command in ["schema", "demo"] {
            let error = Cli::try_parse_from(["innkeeper", command, "--log", "info,bogus=x"]).unwrap_err();
            let error = error.to_string();
            assert!(error.contains("'--log <FILTER>': `bogus=x` is no log filter"), "{error}");
        }
        Cli::try_parse_from(["innkeeper", "--log", "warn, innkeeper=debug", "schema"]).unwrap();
    }
}
