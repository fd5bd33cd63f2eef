//! Which requests are recorded.

use std::time::Duration;

/// Whether a request's record is written to the log.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum AccessLog {
    /// One record a request.
    #[default]
    On,
    /// None.
    Off,
    /// A share of them, and those that an operator looks for.
    Sampled(LogSampling),
}

/// Which requests are recorded where not all are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LogSampling {
    /// The share of ordinary requests.
    pub share: f64,
    /// Whether every refusal and every 5xx is recorded. Default: yes.
    pub every_error: bool,
    /// From this time on a request is slow, and recorded. Default 1 s.
    pub slow: Duration,
}

impl LogSampling {
    /// A request takes this long only where something is worth a look.
    pub const DEFAULT_SLOW: Duration = Duration::from_secs(1);
}
