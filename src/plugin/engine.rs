//! The one engine of a process: compiler settings, the pool of instances, the epoch clock.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use wasmtime::component::Linker;
use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

use super::cache::CodeCache;
use super::epoch::Epochs;
use super::flat;
use super::lane::SlowLane;
use super::live::{LiveVersions, Lives};
use super::recent::Recent;
use super::signature::Signatures;
use super::state::{self, State};

/// Core modules, and as many memories and tables, that one component may consist of. Python's
/// runtime, the largest known, has 38 core modules.
const MAX_PARTS_PER_COMPONENT: u32 = 64;

/// Tables that the pool holds for each instance: a small component has two.
pub(super) const TABLES_PER_INSTANCE: u32 = 4;

/// Elements that one table may have in the pool.
const MAX_TABLE_ELEMENTS: usize = 100_000;

/// What a host may use. The defaults suit a sidecar beside one application.
#[derive(Debug, Clone)]
pub struct HostSettings {
    /// Instances that may live at once, over all plugins. A call that finds none free waits, up to
    /// its own deadline. Address space is reserved for each, memory only once it is touched.
    pub instances: u32,
    /// The largest `limits.memory` that a plugin may be given, bytes.
    pub memory_max: usize,
    /// The largest plugin file, bytes. Python's runtime makes one of 18 MB.
    pub file_max: usize,
    /// Wall time of `configure`, and of making an instance before it.
    pub configure_time: Duration,
    /// Memory of a freed slot that is wiped in place for the next instance and not given back to
    /// the system, bytes. It saves that instance its page faults.
    pub keep_resident: usize,
    /// Whether fresh instances start from the memory that `configure` left behind, where the
    /// component allows that, in place of running it again.
    pub snapshot: bool,
    /// Whether a component of the usual shape is run as one core module.
    pub flatten: bool,
    /// Whether an instance is made as new for the next request, where all that it can change is known, in
    /// place of another one.
    pub renew: bool,
    /// A directory of our own where compiled code is kept for the next start, if any.
    pub cache: Option<PathBuf>,
}

impl Default for HostSettings {
    fn default() -> Self {
        Self {
            instances: 1000,
            memory_max: 256 << 20,
            file_max: 64 << 20,
            configure_time: Duration::from_secs(5),
            keep_resident: 1 << 20,
            snapshot: true,
            flatten: true,
            renew: true,
            cache: None,
        }
    }
}

/// Why there is no host.
#[derive(Debug, thiserror::Error)]
#[error("the plugin host cannot start: {0}")]
pub struct HostError(String);

/// Runs plugins. One for a process: it reserves address space and owns a ticking thread, which
/// ends when the host and all that it loaded are dropped.
pub struct PluginHost {
    pub(super) settings: HostSettings,
    pub(super) engine: Engine,
    pub(super) linker: Linker<State>,
    pub(super) flat_linker: wasmtime::Linker<State>,
    pub(super) epochs: Epochs,
    /// Where calls go that outstay their time.
    pub(super) lane: SlowLane,
    /// Where new plugins are configured.
    pub(super) loading: SlowLane,
    /// As many permits as the pool has memories.
    pub(super) slots: Arc<Semaphore>,
    pub(super) recent: Recent,
    pub(super) lives: Lives,
    pub(super) signatures: Signatures,
    pub(super) cache: Option<Arc<CodeCache>>,
}

impl PluginHost {
    /// Makes a host.
    ///
    /// # Errors
    /// When the system refuses the address space or the thread.
    pub fn new(settings: HostSettings) -> Result<Arc<Self>, HostError> {
        let engine = make_engine(&settings).map_err(|error| {
            HostError(format!("{error:#}; fewer `instances` or less `memory_max` need less address space"))
        })?;
        let mut linker = Linker::new(&engine);
        state::add_to_linker(&mut linker).expect("no two of our imports have the same name");
        let flat_linker = flat::linker(&engine).expect("no two of our imports have the same name");
        let threads = |error: std::io::Error| HostError(error.to_string());
        let epochs = Epochs::start(engine.clone()).map_err(threads)?;
        let lane = SlowLane::start().map_err(threads)?;
        let loading = SlowLane::for_loading().map_err(threads)?;
        let slots = Arc::new(Semaphore::new(settings.instances as usize));
        let cache = settings.cache.as_deref().and_then(|path| open_cache(path, &engine));
        Ok(Arc::new(Self {
            settings,
            engine,
            linker,
            flat_linker,
            epochs,
            lane,
            loading,
            slots,
            recent: Recent::default(),
            lives: Lives::default(),
            signatures: Signatures::default(),
            cache,
        }))
    }

    /// Versions of plugins that something still holds.
    pub fn live_versions(&self) -> LiveVersions {
        self.lives.count()
    }

    /// Instances that may still be made.
    pub fn free_instances(&self) -> usize {
        self.slots.available_permits()
    }
}

impl fmt::Debug for PluginHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PluginHost").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// A cache saves time at the next start; without one, plugins are compiled then.
fn open_cache(path: &Path, engine: &Engine) -> Option<Arc<CodeCache>> {
    match CodeCache::open(path, engine) {
        Ok(cache) => Some(Arc::new(cache)),
        Err(error) => {
            tracing::warn!(
                target: "innkeeper::plugin", %error, directory = %path.display(),
                "compiled plugins are not kept: their directory cannot be used"
            );
            None
        }
    }
}

fn make_engine(settings: &HostSettings) -> wasmtime::Result<Engine> {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(settings.instances)
        .total_core_instances(settings.instances.saturating_mul(MAX_PARTS_PER_COMPONENT))
        .total_memories(settings.instances)
        .total_tables(settings.instances.saturating_mul(TABLES_PER_INSTANCE))
        .total_stacks(settings.instances)
        .max_core_instances_per_component(MAX_PARTS_PER_COMPONENT)
        .max_memories_per_component(MAX_PARTS_PER_COMPONENT)
        .max_tables_per_component(MAX_PARTS_PER_COMPONENT)
        .max_memory_size(settings.memory_max)
        .table_elements(MAX_TABLE_ELEMENTS)
        .linear_memory_keep_resident(settings.keep_resident)
        .table_keep_resident(settings.keep_resident)
        .async_stack_keep_resident(0)
        // Wipes only the pages that were touched; where the kernel cannot, all of `keep_resident`.
        .pagemap_scan(Enabled::Auto);
    let mut config = Config::new();
    config
        .wasm_component_model(true)
        // We run one call at a time in a store; the bookkeeping for more costs half a microsecond
        // a call.
        .concurrency_support(false)
        .epoch_interruption(true)
        .memory_init_cow(true)
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    Engine::new(&config)
}
