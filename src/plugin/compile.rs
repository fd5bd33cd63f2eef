//! From a component's bytes to code: aside, and from the disk where it was compiled before.

use std::io;
use std::sync::Arc;

use tokio::task::JoinError;
use wasmtime::Engine;
use wasmtime::component::Component;

use super::bounds;
use super::cache::CodeCache;
use super::engine::PluginHost;
use super::lane::{Yielding, lower_priority};
use super::load_error::{LoadError, LoadErrorClass};

/// Where code is kept for the next start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keep {
    /// In the cache, if there is one: it was made from the plugin's file alone.
    OnDisk,
    /// Nowhere: it holds the plugin's configuration, which may hold keys.
    Nowhere,
}

/// What came of the cache, for the log. Trouble with it never keeps a plugin from being loaded.
enum Cached {
    Unused,
    Found,
    Kept,
    /// What was there is not to be trusted, and was replaced.
    Replaced(io::Error),
    NotKept(io::Error),
}

impl PluginHost {
    /// Compiles aside: it takes a tenth of a second for a small plugin, half a minute for
    /// a whole Python.
    pub(super) async fn compile(&self, wasm: Arc<[u8]>, keep: Keep) -> Result<Component, LoadError> {
        let engine = self.engine.clone();
        let cache = self.cache.clone().filter(|_| keep == Keep::OnDisk);
        let work = move || {
            bounds::check(&wasm)?;
            find_or_compile(&engine, cache.as_deref(), &wasm).map_err(|error| refused(&error))
        };
        let (component, cached) = self.aside(work).await.map_err(|panicked| {
            LoadError::new(LoadErrorClass::CompileFailed, format!("the compiler failed: {panicked}"))
        })??;
        report(&cached);
        Ok(component)
    }

    /// Does long work beside the workers, where no request waits for it. A panic ends there.
    #[expect(clippy::disallowed_methods, reason = "compiling or checking a file cannot be cancelled")]
    pub(super) async fn aside<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, JoinError> {
        tokio::task::spawn_blocking(move || match compilers() {
            // Threads of its own: what takes minutes must not keep what comes after it waiting.
            Ok(compilers) => compilers.install(work),
            Err(error) => {
                tracing::warn!(target: "innkeeper::plugin", %error, "no threads to compile on: one does it all");
                work()
            }
        })
        .await
    }
}

/// Threads beside the workers: a large runtime would take all cores for half a minute.
fn compilers() -> Result<rayon::ThreadPool, rayon::ThreadPoolBuildError> {
    rayon::ThreadPoolBuilder::new()
        .thread_name(|_| "plugin-compiler".into())
        // The first thread is never starved, however many cores are busy.
        .start_handler(|index| lower_priority(if index == 0 { Yielding::Not } else { Yielding::Little }))
        .build()
}

fn refused(error: &wasmtime::Error) -> LoadError {
    let message = format!("{error:#}");
    // The pool refuses what could never be instantiated.
    let class = if message.contains("exceeds the ") {
        LoadErrorClass::TooLarge
    } else {
        LoadErrorClass::CompileFailed
    };
    LoadError::new(class, message)
}

fn find_or_compile(
    engine: &Engine,
    cache: Option<&CodeCache>,
    wasm: &[u8],
) -> wasmtime::Result<(Component, Cached)> {
    let Some(cache) = cache else { return Ok((Component::new(engine, wasm)?, Cached::Unused)) };
    let distrusted = match cache.find(wasm) {
        Ok(Some(component)) => return Ok((component, Cached::Found)),
        Ok(None) => None,
        Err(error) => Some(error),
    };
    let component = Component::new(engine, wasm)?;
    let cached = match cache.keep(wasm, &component) {
        Ok(()) => distrusted.map_or(Cached::Kept, Cached::Replaced),
        Err(error) => Cached::NotKept(error),
    };
    Ok((component, cached))
}

fn report(cached: &Cached) {
    match cached {
        Cached::Unused => {}
        Cached::Found => tracing::debug!(target: "innkeeper::plugin", "compiled code was in the cache"),
        Cached::Kept => tracing::debug!(target: "innkeeper::plugin", "compiled code was added to the cache"),
        Cached::Replaced(error) => tracing::warn!(
            target: "innkeeper::plugin", %error,
            "compiled code in the cache was not trusted: the plugin was compiled again"
        ),
        Cached::NotKept(error) => tracing::warn!(
            target: "innkeeper::plugin", %error,
            "compiled code cannot be kept: the next start compiles the plugin again"
        ),
    }
}
