//! From a file's bytes to a plugin that is linked, configured and ready to be asked.

use std::fmt::{self, Write as _};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use tokio::time::timeout;
use wasmtime::component::Component;
use wasmtime::component::types::ComponentItem;
use wasmtime::{Engine, Module};

use super::bindings::PolicyPre;
use super::engine::PluginHost;
use super::failure::{FailureClass, PluginFailure};
use super::flat::{FlatPre, flatten};
use super::instance::{Blueprint, Instance};
use super::lane::Pace;
use super::loaded::LoadedPlugin;
use super::log::{PluginLog, printable};
use super::recent::Key;
use super::snapshot;
use super::state::{State, TimeLimit};
use super::supply::{Parts, Supply};
use crate::policy;

/// The world that we serve.
const PACKAGE: &str = "innkeeper:policy";
/// Its version.
const VERSION: &str = "0.1.0";
/// What a plugin must export.
const EXPORTS: [&str; 2] = ["configure", "resolve"];

/// Interfaces that a plugin may import, without their version.
const GRANTED: [&str; 25] = [
    "innkeeper:policy/types",
    "innkeeper:policy/directory",
    "innkeeper:policy/log",
    "wasi:cli/environment",
    "wasi:cli/exit",
    "wasi:cli/stdin",
    "wasi:cli/stdout",
    "wasi:cli/stderr",
    "wasi:cli/terminal-input",
    "wasi:cli/terminal-output",
    "wasi:cli/terminal-stdin",
    "wasi:cli/terminal-stdout",
    "wasi:cli/terminal-stderr",
    "wasi:clocks/monotonic-clock",
    "wasi:clocks/wall-clock",
    "wasi:filesystem/preopens",
    "wasi:filesystem/types",
    "wasi:io/error",
    "wasi:io/poll",
    "wasi:io/streams",
    "wasi:random/insecure",
    "wasi:random/insecure-seed",
    "wasi:random/random",
    // Only types, shared by the interfaces above.
    "wasi:clocks/timezone",
    "wasi:clocks/types",
];

/// The longest text of a load error, bytes: part of it may come from the plugin.
const MAX_MESSAGE_BYTES: usize = 1024;

/// What kind of failure kept a plugin from being loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LoadErrorClass {
    /// The file is not a WebAssembly component.
    NotAComponent,
    /// Its SHA-256 is not the one that the policy pins.
    PinMismatch,
    /// The file, or the memory that it starts with, is larger than allowed.
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
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.class.as_str(), self.message)
    }
}

impl std::error::Error for LoadError {}

impl PluginHost {
    /// Checks, compiles and links a plugin, and configures it once to see that it can be.
    ///
    /// # Errors
    /// Anything that makes the file unfit to serve requests, with a class.
    pub async fn load(
        self: &Arc<Self>,
        settings: Arc<policy::Plugin>,
        wasm: &[u8],
    ) -> Result<LoadedPlugin, LoadError> {
        let version = self.check_file(&settings, wasm)?;
        let log = Arc::new(PluginLog::new(Arc::clone(&settings.name), Arc::clone(&version)));
        let pace = Arc::default();
        let key = Key::new(&version, &settings);
        let (parts, ready) = match self.recent.find(&key) {
            Some(parts) if parts.configured => (parts, Vec::new()),
            Some(parts) => self.try_parts(parts.blueprint, &settings, &log, &pace).await?,
            None => {
                let component = Blueprint::Component(self.link(wasm.into()).await?);
                let tried = self.try_parts(component, &settings, &log, &pace).await?;
                self.improve(tried, wasm, &settings, &log, &pace).await
            }
        };
        self.recent.remember(key, &parts, wasm.len());
        Ok(LoadedPlugin::new(version, Supply::new(Arc::clone(self), settings, log, pace, parts, ready)))
    }

    /// Configures an instance to see that it can be. With `instances: reused` the first request
    /// gets it.
    async fn try_parts(
        self: &Arc<Self>,
        blueprint: Blueprint,
        settings: &Arc<policy::Plugin>,
        log: &Arc<PluginLog>,
        pace: &Arc<Pace>,
    ) -> Result<(Parts, Vec<Instance>), LoadError> {
        let slots = self.slots_for(&blueprint)?;
        let tried = self.try_configure(&blueprint, settings, log, pace, slots).await?;
        let ready = match settings.instances {
            policy::Instances::Reused => vec![tried],
            policy::Instances::PerRequest => Vec::new(),
        };
        Ok((Parts { blueprint, configured: false, slots }, ready))
    }

    /// Makes faster parts of a component that works: its memory copied, where instances are fresh,
    /// and its modules made one. What cannot be made faster stays as it is.
    async fn improve(
        self: &Arc<Self>,
        (parts, ready): (Parts, Vec<Instance>),
        wasm: &[u8],
        settings: &Arc<policy::Plugin>,
        log: &Arc<PluginLog>,
        pace: &Arc<Pace>,
    ) -> (Parts, Vec<Instance>) {
        let name = &*settings.name;
        if settings.instances == policy::Instances::PerRequest && self.settings.snapshot {
            match snapshot::configured(self, settings, log, wasm, parts.slots).await {
                Ok(blueprint) => return (Parts { blueprint, configured: true, ..parts }, Vec::new()),
                Err(why) => tracing::debug!(
                    target: "innkeeper::plugin", plugin = name,
                    "configure runs again for each instance: {why}"
                ),
            }
        }
        let Some(flat) = self.flatten(wasm, settings).await else { return (parts, ready) };
        // It holds a slot, which may be the only one.
        drop(ready);
        match self.try_parts(Blueprint::Flat(flat), settings, log, pace).await {
            Ok(improved) => improved,
            Err(why) => {
                tracing::debug!(target: "innkeeper::plugin", plugin = name, "it is not run flat: {why}");
                (parts, Vec::new())
            }
        }
    }

    /// Makes one core module of a component that has been compiled as it is, where its shape is the
    /// usual one.
    pub(super) async fn flatten(self: &Arc<Self>, wasm: &[u8], settings: &policy::Plugin) -> Option<FlatPre> {
        if !self.settings.flatten {
            return None;
        }
        let flat = self.compile(wasm.into(), |engine, wasm| Module::new(engine, flatten(&wasm)?)).await;
        let linked = flat.map_err(|error| error.to_string()).and_then(|module| {
            FlatPre::new(&self.flat_linker, &module).map_err(|error| format!("{error:#}"))
        });
        let name = &*settings.name;
        linked
            .inspect_err(|why| {
                tracing::debug!(target: "innkeeper::plugin", plugin = name, "it is not run flat: {why}");
            })
            .ok()
    }

    fn check_file(&self, settings: &policy::Plugin, wasm: &[u8]) -> Result<Arc<str>, LoadError> {
        let most = self.settings.file_max;
        if wasm.len() > most {
            let message = format!("the file has {} bytes, at most {most} are allowed", wasm.len());
            return Err(LoadError::new(LoadErrorClass::TooLarge, message));
        }
        if settings.limits.memory > self.settings.memory_max {
            let message = format!(
                "limits.memory is {} bytes, this host allows at most {}",
                settings.limits.memory, self.settings.memory_max
            );
            return Err(LoadError::new(LoadErrorClass::TooLarge, message));
        }
        let digest: [u8; 32] = Sha256::digest(wasm).into();
        let version = hex(&digest);
        if let Some(pinned) = settings.sha256.filter(|pinned| *pinned != digest) {
            let message = format!("the policy pins sha256 {}, the file has {version}", hex(&pinned));
            return Err(LoadError::new(LoadErrorClass::PinMismatch, message));
        }
        check_kind(wasm)?;
        Ok(version.into())
    }

    /// Compiles and links a component, and checks that it has our world.
    pub(super) async fn link(self: &Arc<Self>, wasm: Arc<[u8]>) -> Result<PolicyPre<State>, LoadError> {
        let component = self.compile(wasm, Component::new).await?;
        check_world(&component)?;
        let wrong = |error: wasmtime::Error| LoadError::new(LoadErrorClass::WrongWorld, format!("{error:#}"));
        let pre = self.linker.instantiate_pre(&component).map_err(wrong)?;
        PolicyPre::new(pre).map_err(wrong)
    }

    /// Compiles off the workers: it takes a tenth of a second for a small plugin, half a minute for
    /// a whole Python.
    pub(super) async fn compile<T: Send + 'static>(
        self: &Arc<Self>,
        wasm: Arc<[u8]>,
        compile: fn(&Engine, Arc<[u8]>) -> wasmtime::Result<T>,
    ) -> Result<T, LoadError> {
        let (engine, compilers) = (self.engine.clone(), Arc::clone(&self.compilers));
        #[expect(clippy::disallowed_methods, reason = "compilation cannot be cancelled, and need not be")]
        let compiled =
            tokio::task::spawn_blocking(move || compilers.install(|| compile(&engine, wasm))).await;
        let failed = |message: String| LoadError::new(LoadErrorClass::CompileFailed, message);
        match compiled {
            Ok(Ok(compiled)) => Ok(compiled),
            Ok(Err(error)) => {
                let message = format!("{error:#}");
                // The pool refuses what could never be instantiated.
                let class = if message.contains("exceeds the limit") {
                    LoadErrorClass::TooLarge
                } else {
                    LoadErrorClass::CompileFailed
                };
                Err(LoadError::new(class, message))
            }
            Err(panicked) => Err(failed(format!("the compiler failed: {panicked}"))),
        }
    }

    /// How many of the pool's slots an instance takes.
    fn slots_for(&self, blueprint: &Blueprint) -> Result<u32, LoadError> {
        let needs = match blueprint {
            Blueprint::Component(pre) => pre.instance_pre().component().resources_required(),
            Blueprint::Flat(pre) => Some(pre.module().resources_required()),
        };
        let memories = needs.as_ref().map_or(1, |needs| needs.num_memories);
        let tables = needs.as_ref().map_or(0, |needs| needs.num_tables);
        let slots = memories.max(tables.div_ceil(super::engine::TABLES_PER_INSTANCE)).max(1);
        if slots > self.settings.instances {
            let message =
                format!("it needs {slots} slots of the pool, which has {}", self.settings.instances);
            return Err(LoadError::new(LoadErrorClass::TooLarge, message));
        }
        Ok(slots)
    }

    /// Configures one instance, so that a mistake in the policy is found before requests are.
    async fn try_configure(
        self: &Arc<Self>,
        blueprint: &Blueprint,
        settings: &Arc<policy::Plugin>,
        log: &Arc<PluginLog>,
        pace: &Arc<Pace>,
        slots: u32,
    ) -> Result<Instance, LoadError> {
        let time = self.settings.configure_time;
        let Ok(Ok(slots)) = timeout(time, Arc::clone(&self.slots).acquire_many_owned(slots)).await else {
            let message = format!("no instance became free within {time:?}");
            return Err(LoadError::new(LoadErrorClass::Capacity, message));
        };
        let limit = TimeLimit::starting_now(time);
        let (host, blueprint, settings) = (Arc::clone(self), blueprint.clone(), Arc::clone(settings));
        let (log, pace) = (Arc::clone(log), Arc::clone(pace));
        let configured = self.lane.spawn(Box::pin(async move {
            let _ticking = host.epochs.ticking();
            let mut instance = Instance::make(&blueprint, &log, &pace, &settings, limit, slots).await?;
            instance.configure(&settings.config).await.map(|()| instance)
        }));
        let failure = match timeout(time, configured).await {
            Ok(Ok(Ok(instance))) => return Ok(instance),
            Ok(Ok(Err(failure))) => failure,
            Ok(Err(panicked)) => PluginFailure::new(FailureClass::Trap, panicked),
            Err(_) => PluginFailure::deadline(time),
        };
        let message = match failure.class {
            FailureClass::Guest => failure.message,
            FailureClass::Deadline => format!("configure did not return within {time:?}"),
            _ => format!("configure failed: {failure}"),
        };
        Err(LoadError::new(LoadErrorClass::ConfigureFailed, message))
    }
}

/// Tells a component from a core module and from anything else by its first eight bytes.
fn check_kind(wasm: &[u8]) -> Result<(), LoadError> {
    let refused = |message: &str| Err(LoadError::new(LoadErrorClass::NotAComponent, message));
    match wasm {
        [0, b'a', b's', b'm', 0x0d, 0, 1, 0, ..] => Ok(()),
        [0, b'a', b's', b'm', 1, 0, 0, 0, ..] => refused(
            "this is a core module, not a component: build it with `innkeeper plugin build`, or turn it \
             into a component with `wasm-tools component new`",
        ),
        [0, b'a', b's', b'm', ..] => {
            refused("this version of the WebAssembly component format is not supported")
        }
        _ => refused(
            "this is not a WebAssembly file: a plugin is a component, built with `innkeeper plugin build`",
        ),
    }
}

/// Compares imports and exports with the world, to say in words what does not fit.
fn check_world(component: &Component) -> Result<(), LoadError> {
    let kind = component.component_type();
    let mut refused = String::new();
    for (name, import) in kind.imports(component.engine()) {
        // The world names the types of our interface; nothing can be called through them.
        if matches!(import.ty, ComponentItem::Type(_) | ComponentItem::Resource(_)) {
            continue;
        }
        let (interface, version) = name.split_once('@').unwrap_or((name, ""));
        if interface.starts_with(PACKAGE) && !compatible(version) {
            let message = format!("it was built for `{name}`, this host serves {PACKAGE}@{VERSION}");
            return Err(LoadError::new(LoadErrorClass::WrongWorld, message));
        }
        if !GRANTED.contains(&interface) {
            let _ = write!(refused, "{}`{name}`", if refused.is_empty() { "" } else { ", " });
        }
    }
    if !refused.is_empty() {
        let message = format!(
            "it imports {refused}; a plugin may import {PACKAGE} and the harmless part of WASI (clocks, \
             randomness, output), but no files, network or processes"
        );
        return Err(LoadError::new(LoadErrorClass::ImportNotGranted, message));
    }
    let missing: Vec<&str> = EXPORTS
        .into_iter()
        .filter(|wanted| {
            !kind
                .exports(component.engine())
                .any(|(name, export)| name == *wanted && matches!(export.ty, ComponentItem::ComponentFunc(_)))
        })
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let message = format!(
        "it does not export `{}`: a plugin is built for the world `policy` of {PACKAGE}@{VERSION}",
        missing.join("` and `")
    );
    Err(LoadError::new(LoadErrorClass::WrongWorld, message))
}

/// Below 1.0, a minor version is a contract of its own; a patch only adds words to it.
fn compatible(version: &str) -> bool {
    let minor = VERSION.rsplit_once('.').map_or(VERSION, |(minor, _)| minor);
    version.rsplit_once('.').is_some_and(|(theirs, _)| theirs == minor)
}

/// What the operator knows a file by.
pub(super) fn version_of(wasm: &[u8]) -> String {
    hex(&Sha256::digest(wasm))
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}
