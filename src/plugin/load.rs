//! From a file's bytes to a plugin that is linked, configured and ready to be asked.

use std::fmt::Write as _;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use tokio::time::timeout;
use wasmtime::component::Component;
use wasmtime::{Engine, Linker};

use super::bindings::PolicyPre;
use super::compile::Keep;
use super::engine::PluginHost;
use super::failure::{FailureClass, PluginFailure};
use super::flat::FlatPre;
use super::instance::{Blueprint, Instance};
use super::lane::Pace;
use super::load_error::{LoadError, LoadErrorClass};
use super::loaded::LoadedPlugin;
use super::log::PluginLog;
use super::recent::Key;
use super::snapshot;
use super::state::{State, TimeLimit};
use super::supply::{Parts, Supply};
use super::world::check_world;
use crate::policy::{self, Capabilities, Instances};

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
        let wasm: Arc<[u8]> = wasm.into();
        if let Some(trusted) = &settings.signature {
            self.signatures.check(self, trusted, &version, &wasm).await?;
        }
        let log = Arc::new(PluginLog::new(Arc::clone(&settings.name), Arc::clone(&version)));
        let pace = Arc::default();
        let key = Key::new(&version, &settings);
        let (parts, ready) = match self.recent.find(&key) {
            Some(parts) if parts.configured => (parts, Vec::new()),
            Some(parts) => self.try_parts(parts.blueprint, &settings, &log, &pace).await?,
            None => {
                let component = self.compile(Arc::clone(&wasm), Keep::OnDisk).await?;
                let component = Blueprint::Component(self.link(&component, &settings.capabilities)?);
                let tried = self.try_parts(component, &settings, &log, &pace).await?;
                self.improve(tried, &wasm, &settings, &log, &pace).await
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
        let parts = Parts { blueprint, configured: false, slots, memory: tried.memory(), not_copied: None };
        let ready = match settings.instances {
            Instances::Reused => vec![tried],
            Instances::PerRequest => Vec::new(),
        };
        Ok((parts, ready))
    }

    /// Makes faster parts of a component that works: its memory copied, where instances are fresh,
    /// and its modules made one. What cannot be made faster stays as it is.
    async fn improve(
        self: &Arc<Self>,
        (mut parts, ready): (Parts, Vec<Instance>),
        wasm: &Arc<[u8]>,
        settings: &Arc<policy::Plugin>,
        log: &Arc<PluginLog>,
        pace: &Arc<Pace>,
    ) -> (Parts, Vec<Instance>) {
        let plugin = &*settings.name;
        if settings.instances == Instances::PerRequest && self.settings.snapshot {
            match snapshot::configured(self, settings, log, wasm, parts.slots).await {
                Ok(blueprint) => return (Parts { blueprint, configured: true, ..parts }, Vec::new()),
                Err(why) => {
                    tracing::debug!(
                        target: "innkeeper::plugin", plugin, "configure runs again for each instance: {why}"
                    );
                    parts.not_copied = Some(why.into());
                }
            }
        }
        let Some(flat) = self.flatten(wasm, settings, FlatPre::new).await else { return (parts, ready) };
        // It holds a slot, which may be the only one.
        drop(ready);
        match self.try_parts(Blueprint::Flat(flat), settings, log, pace).await {
            Ok((flat, ready)) => (Parts { not_copied: parts.not_copied, ..flat }, ready),
            Err(why) => {
                tracing::debug!(target: "innkeeper::plugin", plugin, "it is not run flat: {why}");
                (parts, Vec::new())
            }
        }
    }

    /// Makes one core module of a component that has been checked, where its shape is the usual one.
    /// Its code is not kept for the next start: it may hold the plugin's configuration.
    pub(super) async fn flatten(
        self: &Arc<Self>,
        wasm: &Arc<[u8]>,
        settings: &policy::Plugin,
        make: fn(&Linker<State>, &Engine, &[u8]) -> wasmtime::Result<FlatPre>,
    ) -> Option<FlatPre> {
        if !self.settings.flatten {
            return None;
        }
        let (host, wasm) = (Arc::clone(self), Arc::clone(wasm));
        let why = match self.aside(move || make(&host.flat_linker, &host.engine, &wasm)).await {
            Ok(Ok(flat)) => return Some(flat),
            Ok(Err(error)) => format!("{error:#}"),
            Err(panicked) => panicked.to_string(),
        };
        let plugin = &*settings.name;
        tracing::debug!(target: "innkeeper::plugin", plugin, "it is not run flat: {why}");
        None
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

    /// Links a component after a check that it has our world and imports what is granted.
    pub(super) fn link(
        &self,
        component: &Component,
        granted: &Capabilities,
    ) -> Result<PolicyPre<State>, LoadError> {
        check_world(component, granted)?;
        let wrong = |error: wasmtime::Error| LoadError::new(LoadErrorClass::WrongWorld, format!("{error:#}"));
        let pre = self.linker.instantiate_pre(component).map_err(wrong)?;
        PolicyPre::new(pre).map_err(wrong)
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
        let configured = self.loading.spawn(Box::pin(async move {
            let _ticking = host.epochs.ticking();
            let mut instance = Instance::make(&blueprint, &settings, &log, &pace, limit, slots).await?;
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

/// What the operator knows a file by: its SHA-256 in lower-case hex.
pub fn version_of(wasm: &[u8]) -> String {
    hex(&Sha256::digest(wasm))
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}
