//! Configured once, copied for each request: the memory that `configure` left behind becomes the
//! memory that fresh instances start with.

use std::future::pending;
use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::time::timeout;
use wasmtime::Store;
use wasmtime::component::{ComponentNamedList, Instance, Lift, WasmList};
use wasmtime_wizer::{ComponentInstanceState, Wizer};

use super::bindings::Policy;
use super::compile::Keep;
use super::engine::PluginHost;
use super::flat::FlatPre;
use super::instance::{Blueprint, Instance as Made, make_store};
use super::load_error::LoadError;
use super::log::PluginLog;
use super::state::{MemoryLimit, State, TimeLimit};
use crate::policy;

/// The largest file that is worth it, bytes. It is compiled twice more, which takes a small plugin
/// a tenth of a second and a Python runtime a minute; those are meant to be reused anyway.
const MAX_FILE_BYTES: usize = 4 << 20;

/// Room beyond the plugin's own limit: reading a memory out grows it by one page.
const EXTRA_BYTES: usize = 1 << 20;

/// Makes a component that starts configured, or says why it cannot be made.
///
/// Only what lives in the plugin's memory and globals can be copied. A plugin that holds a handle
/// after `configure`, for example of an open stream, is configured again for each instance.
pub(super) async fn configured(
    host: &Arc<PluginHost>,
    settings: &Arc<policy::Plugin>,
    log: &Arc<PluginLog>,
    wasm: &Arc<[u8]>,
    slots: u32,
) -> Result<Blueprint, String> {
    if wasm.len() > MAX_FILE_BYTES {
        return Err(format!("the file has more than {MAX_FILE_BYTES} bytes"));
    }
    let time = host.settings.configure_time;
    let (host, settings, log) = (Arc::clone(host), Arc::clone(settings), Arc::clone(log));
    let wasm = Arc::clone(wasm);
    // A task of its own: what the rewriting does not foresee in a hostile file may panic, and must
    // end there.
    let loader = Arc::clone(&host);
    let copying = loader.loading.spawn(Box::pin(async move {
        let slots = timeout(time, Arc::clone(&host.slots).acquire_many_owned(slots))
            .await
            .map_err(|_| "no instance became free")?
            .expect("the semaphore is never closed");
        let _ticking = host.epochs.ticking();
        let copied = copy_configured(&host, &settings, &log, &wasm).await?;
        let copied: Arc<[u8]> = copied.into();
        let make = if host.settings.renew { FlatPre::renewable } else { FlatPre::new };
        let blueprint = match host.flatten(&copied, &settings, make).await {
            Some(flat) => Blueprint::Flat(flat),
            None => {
                let show = |error: LoadError| error.to_string();
                let copy = host.compile(copied, Keep::Nowhere).await.map_err(show)?;
                Blueprint::Component(host.link(&copy, &settings.capabilities).map_err(show)?)
            }
        };
        let (limit, pace) = (TimeLimit::starting_now(time), Arc::default());
        let started = timeout(time, Made::make(&blueprint, &settings, &log, &pace, limit, slots)).await;
        started.map_err(|_| "the copy does not start")?.map_err(|failure| failure.to_string())?;
        Ok(blueprint)
    }));
    copying.await.unwrap_or_else(Err)
}

async fn copy_configured(
    host: &Arc<PluginHost>,
    settings: &Arc<policy::Plugin>,
    log: &Arc<PluginLog>,
    wasm: &[u8],
) -> Result<Vec<u8>, String> {
    let show = |error: wasmtime::Error| format!("{error:#}");
    let time = host.settings.configure_time;
    let wizer = Wizer::new();
    let (context, instrumented) = wizer.instrument_component(wasm).map_err(show)?;
    let component =
        host.compile(instrumented.into(), Keep::OnDisk).await.map_err(|error| error.to_string())?;
    let memory = (settings.limits.memory + EXTRA_BYTES).min(host.settings.memory_max);
    let limit = TimeLimit::starting_now(time);
    let mut store = make_store(&host.engine, settings, log, &Arc::default(), limit);
    store.data_mut().memory = MemoryLimit::new(memory);
    let work = async {
        let instance = host.linker.instantiate_async(&mut store, &component).await.map_err(show)?;
        let policy = Policy::new(&mut store, &instance).map_err(show)?;
        policy.call_configure(&mut store, &settings.config).await.map_err(show)??;
        if store.data().holds_handles() {
            return Err("it holds handles after configure".to_owned());
        }
        // All memory moves through calls now: at most what the plugin's limit lets it have.
        store.set_hostcall_fuel(memory);
        let (failed, failure) = oneshot::channel();
        let mut reader = Reader { store: &mut store, instance, failed: Some(failed) };
        tokio::select! {
            copied = wizer.snapshot_component(&context, &mut reader) => copied.map_err(show),
            Ok(error) = failure => Err(show(error)),
        }
    };
    timeout(time, work).await.map_err(|_| "it took too long")?
}

/// Reads memories and globals out of an instrumented instance.
struct Reader<'a> {
    store: &'a mut Store<State>,
    instance: Instance,
    /// Where the first failure is told, such as time that ran out.
    failed: Option<oneshot::Sender<wasmtime::Error>>,
}

impl Reader<'_> {
    async fn read<R>(&mut self, instance: &str, function: &str) -> R
    where
        R: Lift + Send + Sync + 'static,
        (R,): ComponentNamedList + Lift,
    {
        const EXPORTED: &str = "the instrumented component exports its readers";
        let (_, instance) = self.instance.get_export(&mut *self.store, None, instance).expect(EXPORTED);
        let (_, index) =
            self.instance.get_export(&mut *self.store, Some(&instance), function).expect(EXPORTED);
        let reader = self.instance.get_typed_func::<(), (R,)>(&mut *self.store, index).expect(EXPORTED);
        match reader.call_async(&mut *self.store, ()).await {
            Ok((read,)) => read,
            Err(error) => {
                // Whoever asks for the memory cannot be told of a failure. Whoever waits for the copy
                // is, and drops this.
                if let Some(failed) = self.failed.take() {
                    let _ = failed.send(error);
                }
                pending().await
            }
        }
    }
}

impl ComponentInstanceState for Reader<'_> {
    async fn call_func_ret_list_u8(
        &mut self,
        instance: &str,
        func: &str,
        contents: impl FnOnce(&[u8]) + Send,
    ) {
        let list: WasmList<u8> = self.read(instance, func).await;
        contents(list.as_le_slice(&*self.store));
    }

    async fn call_func_ret_s32(&mut self, instance: &str, func: &str) -> i32 {
        self.read(instance, func).await
    }

    async fn call_func_ret_s64(&mut self, instance: &str, func: &str) -> i64 {
        self.read(instance, func).await
    }

    async fn call_func_ret_f32(&mut self, instance: &str, func: &str) -> u32 {
        self.read::<f32>(instance, func).await.to_bits()
    }

    async fn call_func_ret_f64(&mut self, instance: &str, func: &str) -> u64 {
        self.read::<f64>(instance, func).await.to_bits()
    }
}
