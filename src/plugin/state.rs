//! What one instance may touch: the request, the directory, its log, and its memory limit.

use std::sync::Arc;
use std::time::{Duration, Instant};

use wasmtime::ResourceLimiter;
use wasmtime::component::{HasSelf, Linker, Resource, ResourceTable};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use super::bindings::Policy;
use super::bindings::innkeeper::policy::{directory, log, types};
use super::flat::Exchange;
use super::lane::Pace;
use super::log::PluginLog;
use super::wasi;
use crate::decision::{DirectoryUnavailable, FindTenant, RequestHead};
use crate::tenant::TenantId;

/// Handles that one instance may hold. They live in our memory, not in the plugin's.
const MAX_RESOURCES: usize = 1024;

/// Entries of one table of function references, and tables, memories and core modules of one
/// component. Python's runtime, the largest known, has 38 core modules.
const MAX_TABLE_ELEMENTS: usize = 100_000;
const MAX_PARTS: usize = 100;

/// Why we stopped a guest.
#[derive(Debug, thiserror::Error)]
pub(super) enum HostStop {
    #[error("it ran longer than {0:?}")]
    Deadline(Duration),
    #[error("directory.find: {0}")]
    DirectoryUnavailable(DirectoryUnavailable),
    #[error("directory.find cannot be called in configure: there is no request yet")]
    DirectoryInConfigure,
}

/// The request that the guest's handle stands for. The handle carries nothing: an instance serves
/// one request at a time, and that one is in its [`State`].
#[expect(unreachable_pub, reason = "the generated bindings name it in public items")]
pub struct RequestView;

/// What the store of one instance holds.
pub(super) struct State {
    pub(super) memory: MemoryLimit,
    pub(super) call: Call,
    pub(super) pace: Arc<Pace>,
    /// Only an instance that runs flat has anything in it.
    pub(super) exchange: Exchange,
    log: Arc<PluginLog>,
    resources: ResourceTable,
    /// Made when the guest first asks for it; most never do, and it costs a random generator.
    wasi: Option<WasiCtx>,
}

/// What belongs to the call under way, and to no other.
pub(super) struct Call {
    pub(super) limit: TimeLimit,
    pub(super) asked: Option<Asked>,
}

/// When a call must have ended, and the limit that this follows from.
#[derive(Debug, Clone, Copy)]
pub(super) struct TimeLimit {
    pub(super) deadline: Instant,
    pub(super) time: Duration,
}

impl TimeLimit {
    pub(super) fn starting_now(time: Duration) -> Self {
        Self { deadline: Instant::now() + time, time }
    }
}

/// What a call of `resolve` is about.
pub(super) struct Asked {
    pub(super) head: Arc<RequestHead>,
    pub(super) directory: Arc<dyn FindTenant>,
}

impl State {
    pub(super) fn new(log: &Arc<PluginLog>, pace: &Arc<Pace>, memory_bytes: usize, call: Call) -> Self {
        let mut resources = ResourceTable::new();
        resources.set_max_capacity(MAX_RESOURCES);
        let (log, pace) = (Arc::clone(log), Arc::clone(pace));
        let (memory, exchange) = (MemoryLimit::new(memory_bytes), Exchange::default());
        Self { memory, call, pace, exchange, log, resources, wasi: None }
    }

    /// Whether the guest holds anything that lives outside its own memory.
    pub(super) fn holds_handles(&self) -> bool {
        !self.resources.is_empty()
    }

    /// All values of a header in one text.
    pub(super) fn joined_header(&self, name: &str) -> wasmtime::Result<Option<String>> {
        Ok(joined_header(self.head()?, name))
    }

    fn head(&self) -> wasmtime::Result<&RequestHead> {
        match &self.call.asked {
            Some(asked) => Ok(&asked.head),
            None => Err(wasmtime::Error::msg("there is no request")),
        }
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let ctx = self.wasi.get_or_insert_with(|| wasi::context(&self.log));
        WasiCtxView { ctx, table: &mut self.resources }
    }
}

/// Adds everything that a plugin may import.
pub(super) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    wasi::add_to_linker(linker)?;
    Policy::add_to_linker::<_, HasSelf<_>>(linker, |state| state)
}

impl types::Host for State {}

impl types::HostRequest for State {
    fn method(&mut self, _: Resource<RequestView>) -> wasmtime::Result<String> {
        Ok(self.head()?.method.as_str().into())
    }

    fn scheme(&mut self, _: Resource<RequestView>) -> wasmtime::Result<String> {
        Ok(self.head()?.scheme.into())
    }

    fn authority(&mut self, _: Resource<RequestView>) -> wasmtime::Result<String> {
        Ok(self.head()?.authority.clone())
    }

    fn path(&mut self, _: Resource<RequestView>) -> wasmtime::Result<String> {
        Ok(self.head()?.uri.path().into())
    }

    fn query(&mut self, _: Resource<RequestView>) -> wasmtime::Result<Option<String>> {
        Ok(self.head()?.uri.query().map(Into::into))
    }

    fn header(&mut self, _: Resource<RequestView>, name: String) -> wasmtime::Result<Option<String>> {
        self.joined_header(&name)
    }

    fn headers(&mut self, _: Resource<RequestView>) -> wasmtime::Result<Vec<(String, String)>> {
        let headers = &self.head()?.headers;
        Ok(headers.iter().map(|(name, value)| (name.as_str().into(), text(value))).collect())
    }

    fn peer(&mut self, _: Resource<RequestView>) -> wasmtime::Result<String> {
        Ok(self.head()?.peer.to_string())
    }

    /// No route verifies tokens yet.
    fn claims(&mut self, _: Resource<RequestView>) -> wasmtime::Result<Option<String>> {
        Ok(None)
    }

    fn drop(&mut self, _: Resource<RequestView>) -> wasmtime::Result<()> {
        Ok(())
    }
}

/// All values of a header in one text (RFC 9110, section 5.3): a plugin that compares it with a
/// known value cannot be fooled by a second one.
fn joined_header(head: &RequestHead, name: &str) -> Option<String> {
    let mut values = head.headers.get_all(name).iter();
    let mut joined = text(values.next()?);
    let separator = if name.eq_ignore_ascii_case("cookie") { "; " } else { ", " };
    for value in values {
        joined.push_str(separator);
        joined.push_str(&text(value));
    }
    Some(joined)
}

fn text(value: &http::HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

impl directory::Host for State {
    async fn find(&mut self, key: String) -> wasmtime::Result<Option<(String, String)>> {
        let Some(asked) = &self.call.asked else {
            return Err(HostStop::DirectoryInConfigure.into());
        };
        // What cannot be a tenant's id surely is none.
        let Ok(id) = key.parse::<TenantId>() else { return Ok(None) };
        let directory = Arc::clone(&asked.directory);
        let found = directory.find(&id).await.map_err(HostStop::DirectoryUnavailable)?;
        Ok(found.map(|tenant| (tenant.id.as_str().into(), tenant.schema.as_str().into())))
    }
}

impl log::Host for State {
    fn write(&mut self, level: String, message: String) -> wasmtime::Result<()> {
        self.log.write(&level, &message);
        Ok(())
    }
}

/// Holds all memories of an instance together to one limit.
pub(super) struct MemoryLimit {
    limit: usize,
    used: usize,
    exceeded: Option<String>,
}

impl MemoryLimit {
    fn new(limit: usize) -> Self {
        Self { limit, used: 0, exceeded: None }
    }

    /// What the instance was refused. It sees a failed growth, as the standard has it; most then
    /// abort, and the abort alone would hide the cause.
    pub(super) fn exceeded(&self) -> Option<&str> {
        self.exceeded.as_deref()
    }

    /// A refusal that the instance coped with does not explain a later failure.
    pub(super) fn forget_refusal(&mut self) {
        self.exceeded = None;
    }
}

impl ResourceLimiter for MemoryLimit {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let wanted = self.used.saturating_add(desired.saturating_sub(current));
        if wanted > self.limit {
            self.exceeded =
                Some(format!("it asked for {wanted} bytes of memory, its limit is {}", self.limit));
            return Ok(false);
        }
        self.used = wanted;
        Ok(true)
    }

    fn table_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        if desired > MAX_TABLE_ELEMENTS {
            self.exceeded = Some(format!(
                "it asked for a table of {desired} elements, the limit is {MAX_TABLE_ELEMENTS}"
            ));
            return Ok(false);
        }
        Ok(true)
    }

    fn instances(&self) -> usize {
        MAX_PARTS
    }

    fn tables(&self) -> usize {
        MAX_PARTS
    }

    fn memories(&self) -> usize {
        MAX_PARTS
    }
}
