//! A plugin as the policy describes it.

use std::collections::BTreeMap;
use std::fmt;
use std::num::{NonZeroU32, NonZeroU64};
use std::path::PathBuf;
use std::time::Duration;

use ed25519_dalek::VerifyingKey;

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
    /// Who must have signed the file, if anybody.
    pub signature: Option<Signature>,
    /// What `configure` is given, as JSON text.
    pub config: String,
    /// What the plugin may look up in `kv`.
    pub kv: BTreeMap<String, String>,
    /// What it may import.
    pub capabilities: Capabilities,
    /// What one call may use.
    pub limits: PluginLimits,
    /// How instances are kept.
    pub instances: Instances,
    /// How long a reused instance is kept, and how many there are.
    pub reuse: Reuse,
    /// What a request gets when the plugin fails.
    pub on_failure: OnFailure,
    /// When a plugin that keeps failing is no longer asked.
    pub breaker: Breaker,
    /// A candidate that is tried on live traffic.
    pub shadow: Option<Shadow>,
}

impl Plugin {
    /// A plugin with every default.
    pub fn new(name: impl Into<Name>, path: impl Into<PathBuf>) -> Self {
        Self {
            name: name.into(),
            path: path.into(),
            sha256: None,
            signature: None,
            config: "{}".to_owned(),
            kv: BTreeMap::new(),
            capabilities: Capabilities::default(),
            limits: PluginLimits::default(),
            instances: Instances::default(),
            reuse: Reuse::default(),
            on_failure: OnFailure::default(),
            breaker: Breaker::default(),
            shadow: None,
        }
    }
}

impl fmt::Debug for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The configuration and the table may hold keys, and stay out of logs.
        f.debug_struct("Plugin")
            .field("name", &self.name)
            .field("path", &self.path)
            .field("limits", &self.limits)
            .field("instances", &self.instances)
            .field("on_failure", &self.on_failure)
            .finish_non_exhaustive()
    }
}

/// Whose signature a plugin's file must carry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// Ed25519 public keys (RFC 8032); one of them must have signed.
    pub keys: Vec<VerifyingKey>,
    /// The file with the signature: 64 bytes, raw or in base64.
    pub path: PathBuf,
}

/// Something that a plugin may import.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Capability {
    /// `innkeeper:policy/directory`: whether a tenant exists, and its schema.
    Directory,
    /// `innkeeper:policy/log`.
    Log,
    /// `innkeeper:policy/kv`: the table that the policy gives the plugin.
    Kv,
    /// The verified claims of a request's token.
    Claims,
    /// The harmless part of WASI: clocks, randomness, output to the log.
    Wasi,
}

impl Capability {
    /// Every capability.
    pub const ALL: [Self; 5] = [Self::Directory, Self::Log, Self::Kv, Self::Claims, Self::Wasi];

    /// The word for it in the policy.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Directory => "directory",
            Self::Log => "log",
            Self::Kv => "kv",
            Self::Claims => "claims",
            Self::Wasi => "wasi",
        }
    }
}

/// What a plugin may import. By default all that there is: none of it reaches a file, a network or
/// another tenant's rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities(pub Vec<Capability>);

impl Default for Capabilities {
    fn default() -> Self {
        Self(Capability::ALL.to_vec())
    }
}

impl Capabilities {
    /// Whether one of them is granted.
    pub fn grant(&self, capability: Capability) -> bool {
        self.0.contains(&capability)
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

/// How instances are kept under `instances: reused`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reuse {
    /// Instances at most. Default 32.
    pub size: NonZeroU32,
    /// Calls after which one is replaced, so that what it leaks stays bounded. Default 10,000.
    pub uses: NonZeroU32,
}

impl Default for Reuse {
    fn default() -> Self {
        const DEFAULT: Reuse = Reuse {
            size: NonZeroU32::new(32).expect("it is not 0"),
            uses: NonZeroU32::new(10_000).expect("it is not 0"),
        };
        DEFAULT
    }
}

/// What a request gets when its plugin fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnFailure {
    /// `plugin-failed`, 503.
    #[default]
    Deny,
    /// What the next resolver says.
    Next,
    /// What the version that served before this one says.
    Previous,
}

/// When a plugin that keeps failing is no longer asked, and when it is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Breaker {
    /// Failures in a row that open it; `None` where it never opens. Default 10.
    pub failures: Option<NonZeroU32>,
    /// How long it stays open at first; twice as long after each failed trial. Default 1 s.
    pub backoff: Duration,
    /// The longest that it stays open. Default 1 min.
    pub max_backoff: Duration,
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            failures: NonZeroU32::new(10),
            backoff: Duration::from_secs(1),
            max_backoff: Duration::from_secs(60),
        }
    }
}

/// A candidate version that decides beside the active one, without effect.
#[derive(Debug, Clone, PartialEq)]
pub struct Shadow {
    /// The candidate's file.
    pub path: PathBuf,
    /// The SHA-256 that it must have, if pinned.
    pub sha256: Option<[u8; 32]>,
    /// The part of the requests that it is asked about, above 0 and at most 1. Default 1.
    pub sample: f64,
    /// Agreements without a difference after which it becomes the active version by itself.
    pub promote_after: Option<NonZeroU64>,
    /// Whether the first difference ends the trial.
    pub drop_on_difference: bool,
}
