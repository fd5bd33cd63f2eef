//! Why a plugin was not loaded: a class for machines, a text that says what to do.

use std::fmt;

use super::log::printable;

/// The longest text of a load error, bytes: part of it may come from the plugin.
const MAX_MESSAGE_BYTES: usize = 1024;

/// What kind of failure kept a plugin from being loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LoadErrorClass {
    /// The file is not a WebAssembly component.
    NotAComponent,
    /// Its SHA-256 is not the one that the policy pins.
    PinMismatch,
    /// No key that the policy trusts has signed the file.
    SignatureInvalid,
    /// The file, the memory that it starts with, or the number of its parts is larger than allowed.
    TooLarge,
    /// It is damaged, or uses what we do not support.
    CompileFailed,
    /// It imports something that plugins may not use.
    ImportNotGranted,
    /// It does not have the functions that a policy plugin must have.
    WrongWorld,
    /// Its `configure` refused the policy's `config`, trapped, or did not return.
    ConfigureFailed,
    /// No instance became free to try it.
    Capacity,
}

impl LoadErrorClass {
    /// The class as logs and the admin listener show it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotAComponent => "not-a-component",
            Self::PinMismatch => "pin-mismatch",
            Self::SignatureInvalid => "signature-invalid",
            Self::TooLarge => "too-large",
            Self::CompileFailed => "compile-failed",
            Self::ImportNotGranted => "import-not-granted",
            Self::WrongWorld => "wrong-world",
            Self::ConfigureFailed => "configure-failed",
            Self::Capacity => "capacity",
        }
    }
}

/// Why a plugin was not loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadError {
    /// The kind.
    pub class: LoadErrorClass,
    /// What is wrong, and what to do.
    pub message: String,
}

impl LoadError {
    pub(super) fn new(class: LoadErrorClass, message: impl AsRef<str>) -> Self {
        Self { class, message: printable(message.as_ref(), MAX_MESSAGE_BYTES).into_owned() }
    }

    /// Loading it ended by a panic, which is in the log.
    pub fn interrupted() -> Self {
        Self::new(LoadErrorClass::CompileFailed, "loading it failed: look for a panic in the log")
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.class.as_str(), self.message)
    }
}

impl std::error::Error for LoadError {}
