//! How a plugin call fails: a class for machines, a text for the operator.

use std::fmt;
use std::time::Duration;

use wasmtime::{PoolConcurrencyLimitError, Trap, WasmBacktrace};
use wasmtime_wasi::I32Exit;

use super::log::printable;
use super::state::{HostStop, State};

/// The longest text of a failure, bytes: it lands in a log line and may come from the plugin.
const MAX_MESSAGE_BYTES: usize = 512;

/// What kind of failure a plugin call ended in. The list is closed: it labels metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailureClass {
    /// It ran, or waited, longer than its time limit.
    Deadline,
    /// It asked for more memory than its limit.
    Memory,
    /// It trapped: a panic, an abort, a division by zero.
    Trap,
    /// It recursed too deeply.
    StackOverflow,
    /// What it answered is not a valid decision.
    BadResult,
    /// It could not be configured again for a fresh instance.
    Configure,
    /// It answered with an error text of its own.
    Guest,
    /// It asked the directory, which cannot be read. Not the plugin's fault.
    DirectoryUnavailable,
    /// No instance became free within its time limit. Not the plugin's fault alone.
    Capacity,
    /// It failed so often that it was not even asked.
    BreakerOpen,
}

impl FailureClass {
    /// Every class, in the order of their declaration.
    pub const ALL: [Self; 10] = [
        Self::Deadline,
        Self::Memory,
        Self::Trap,
        Self::StackOverflow,
        Self::BadResult,
        Self::Configure,
        Self::Guest,
        Self::DirectoryUnavailable,
        Self::Capacity,
        Self::BreakerOpen,
    ];

    /// The class as metrics and logs show it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deadline => "deadline",
            Self::Memory => "memory",
            Self::Trap => "trap",
            Self::StackOverflow => "stack-overflow",
            Self::BadResult => "bad-result",
            Self::Configure => "configure",
            Self::Guest => "guest",
            Self::DirectoryUnavailable => "directory-unavailable",
            Self::Capacity => "capacity",
            Self::BreakerOpen => "breaker-open",
        }
    }

    /// Whether the plugin ran and did what it should not have.
    pub fn is_plugins_fault(self) -> bool {
        !matches!(self, Self::DirectoryUnavailable | Self::Capacity | Self::BreakerOpen)
    }
}

/// Why a plugin gave no decision. For the operator only: the text may come from the plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginFailure {
    /// The kind.
    pub class: FailureClass,
    /// What happened.
    pub message: String,
}

impl PluginFailure {
    pub(super) fn new(class: FailureClass, message: impl AsRef<str>) -> Self {
        Self { class, message: printable(message.as_ref(), MAX_MESSAGE_BYTES).into_owned() }
    }

    pub(super) fn deadline(time: Duration) -> Self {
        Self::new(FailureClass::Deadline, format!("it ran longer than {time:?}"))
    }

    /// Finds out what stopped a call: us, the guest, or what it handed over.
    pub(super) fn classify(error: &wasmtime::Error, state: &State) -> Self {
        if let Some(stop) = error.downcast_ref::<HostStop>() {
            let class = match stop {
                HostStop::Deadline(_) => FailureClass::Deadline,
                HostStop::DirectoryUnavailable(_) => FailureClass::DirectoryUnavailable,
                HostStop::DirectoryInConfigure | HostStop::TooManyLookUps => FailureClass::Trap,
            };
            return Self::new(class, stop.to_string());
        }
        if let Some(limit) = state.memory.exceeded() {
            return Self::new(FailureClass::Memory, limit);
        }
        if let Some(I32Exit(code)) = error.downcast_ref::<I32Exit>() {
            return Self::new(FailureClass::Trap, format!("it called exit with code {code}"));
        }
        if error.downcast_ref::<PoolConcurrencyLimitError>().is_some() {
            return Self::new(FailureClass::Capacity, format!("no room for another instance: {error:#}"));
        }
        match error.downcast_ref::<Trap>() {
            Some(Trap::StackOverflow) => Self::new(FailureClass::StackOverflow, "it recursed too deeply"),
            Some(trap) => Self::new(FailureClass::Trap, trap.to_string()),
            None => Self::new(FailureClass::BadResult, without_backtrace(error)),
        }
    }
}

/// What went wrong, without where: a stripped plugin has addresses in place of names.
fn without_backtrace(error: &wasmtime::Error) -> String {
    let layers = usize::from(error.downcast_ref::<WasmBacktrace>().is_some());
    error.chain().skip(layers).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

impl fmt::Display for PluginFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.class.as_str(), self.message)
    }
}

impl std::error::Error for PluginFailure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_class_stands_at_its_own_place() {
        for (place, class) in FailureClass::ALL.into_iter().enumerate() {
            assert_eq!(class as usize, place, "{}", class.as_str());
        }
    }
}
