//! From a file's bytes to a plugin that is linked, configured and ready to be asked.

use std::fmt::Write as _;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use tokio::time::timeout;
use wasmtime::component::Component;

use super::bindings::PolicyPre;
use super::compile::Keep;
use super::engine::PluginHost;
use super::failure::{FailureClass, PluginFailure};
use super::instance::Instance;
use super::lane::Pace;
use super::load_error::{LoadError, LoadErrorClass};
use super::loaded::LoadedPlugin;
use super::log::PluginLog;
use super::recent::Key;
use super::snapshot;
use super::state::{State, TimeLimit};
use super::supply::{Parts, Supply};
use super::world::check_world;
use crate::policy::{self, Capabilities};

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
            Some(parts) => self.prepare(parts.pre, &settings, &log, &pace, None).await?,
            None => {
                let component = self.compile(Arc::clone(&wasm), Keep::OnDisk).await?;
                let pre = self.link(&component, &settings.capabilities)?;
                self.prepare(pre, &settings, &log, &pace, Some(&wasm)).await?
            }
        };
        self.recent.remember(key, &parts, wasm.len());
        Ok(LoadedPlugin::new(version, Supply::new(Arc::clone(self), settings, log, pace, parts, ready)))
    }

    /// Configures an instance to see that it can be. With `instances: reused` the first request
    /// gets it; else its memory is copied from `wasm`, where that is given and can be.
    async fn prepare(
        self: &Arc<Self>,
        pre: PolicyPre<State>,
        settings: &Arc<policy::Plugin>,
        log: &Arc<PluginLog>,
        pace: &Arc<Pace>,
        wasm: Option<&Arc<[u8]>>,
    ) -> Result<(Parts, Vec<Instance>), LoadError> {
        let slots = self.slots_for(&pre)?;
        let tried = self.try_configure(&pre, settings, log, pace, slots).await?;
        let memory = tried.memory();
        let parts = |pre, configured| Parts { pre, configured, slots, memory, not_copied: None };
        if settings.instances == policy::Instances::Reused {
            return Ok((parts(pre, false), vec![tried]));
        }
        drop(tried);
        let mut not_copied = None;
        if let Some(wasm) = wasm.filter(|_| self.settings.snapshot) {
            match snapshot::configured(self, settings, log, wasm, slots).await {
                Ok(pre) => return Ok((parts(pre, true), Vec::new())),
                Err(why) => {
                    tracing::debug!(
                        target: "innkeeper::plugin", plugin = &*settings.name,
                        "configure runs again for each instance: {why}"
                    );
                    not_copied = Some(why.into());
                }
            }
        }
        Ok((Parts { not_copied, ..parts(pre, false) }, Vec::new()))
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
    fn slots_for(&self, pre: &PolicyPre<State>) -> Result<u32, LoadError> {
        let needs = pre.instance_pre().component().resources_required();
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
        pre: &PolicyPre<State>,
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
        let (host, pre, settings) = (Arc::clone(self), pre.clone(), Arc::clone(settings));
        let (log, pace) = (Arc::clone(log), Arc::clone(pace));
        let configured = self.lane.spawn(Box::pin(async move {
            let _ticking = host.epochs.ticking();
            let mut instance = Instance::make(&pre, &settings, &log, &pace, limit, slots).await?;
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
