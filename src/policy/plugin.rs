//! A plugin as the policy describes it.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::Name;

/// One WASM component and how it is run.
#[derive(Clone, PartialEq)]
pub struct Plugin {
    /// Its name in the policy.
    pub name: Name,
    /// The component's file, absolute or relative to the process.
    pub path: PathBuf,
    /// The SHA-256 that the file must have, if pinned.
    pub sha256: Option<[u8; 32]>,
    /// What `configure` is given, as JSON text.
    pub config: String,
    /// What one call may use.
    pub limits: PluginLimits,
    /// How instances are kept.
    pub instances: Instances,
    /// What a request gets when the plugin fails.
    pub on_failure: OnFailure,
}

impl fmt::Debug for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The configuration may hold keys, and stays out of logs.
        f.debug_struct("Plugin")
            .field("name", &self.name)
            .field("path", &self.path)
            .field("limits", &self.limits)
            .field("instances", &self.instances)
            .field("on_failure", &self.on_failure)
            .finish_non_exhaustive()
    }
}

/// What one plugin call may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginLimits {
    /// Wall time of one `resolve`. Default 50 ms.
    pub time: Duration,
    /// Linear memory of one instance, bytes. Default 16 MiB.
    pub memory: usize,
}

impl Default for PluginLimits {
    fn default() -> Self {
        Self { time: Duration::from_millis(50), memory: 16 << 20 }
    }
}

/// Whether what a request left in a plugin's memory can be seen by another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Instances {
    /// A fresh instance for each request: it cannot.
    #[default]
    PerRequest,
    /// Instances serve many requests: it can. For heavy runtimes.
    Reused,
}

/// What a request gets when its plugin fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnFailure {
    /// `plugin-failed`, 503.
    #[default]
    Deny,
    /// What the next resolver says.
    Next,
}
