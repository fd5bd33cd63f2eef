//! What one instance may touch: the request, the directory, its log, and its memory limit.

use std::sync::Arc;
use std::time::{Duration, Instant};

use wasmtime::ResourceLimiter;
use wasmtime::component::{HasSelf, Linker, Resource, ResourceTable};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use super::bindings::Policy;
use super::bindings::innkeeper::policy::{directory, kv, log, types};
use super::flat::Exchange;
use super::lane::Pace;
use super::log::PluginLog;
use super::trace::{Part, Trace};
use super::wasi;
use crate::decision::{DirectoryUnavailable, FindTenant, RequestHead};
use crate::policy;
use crate::tenant::TenantId;

/// Handles that one instance may hold. They live in our memory, not in the plugin's.
const MAX_RESOURCES: usize = 1024;

/// Look-ups in the directory during one call. An honest plugin makes one or two; each may cost the
/// database a query.
const MAX_LOOK_UPS: u32 = 16;

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
    #[error("it called directory.find more than {MAX_LOOK_UPS} times for one request")]
    TooManyLookUps,
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
    settings: Arc<policy::Plugin>,
    log: Arc<PluginLog>,
    resources: ResourceTable,
    /// Made when the guest first asks for it; most never do, and it costs a random generator.
    wasi: Option<WasiCtx>,
}

/// What belongs to the call under way, and to no other.
pub(super) struct Call {
    pub(super) limit: TimeLimit,
    pub(super) asked: Option<Asked>,
    /// Processor time at which the clock found the guest running first.
    pub(super) found_running: Option<Duration>,
    look_ups: u32,
}

impl Call {
    pub(super) fn new(limit: TimeLimit, asked: Option<Asked>) -> Self {
        Self { limit, asked, found_running: None, look_ups: 0 }
    }
}

/// When a call must have ended, and the limit that this follows from.
#[derive(Debug, Clone, Copy)]
pub(super) struct TimeLimit {
    pub(super) deadline: Instant,
    pub(super) time: Duration,
}

impl TimeLimit {
    pub(super) fn starting_now(time: Duration) -> Self {
        Self::starting(Instant::now(), time)
    }

    pub(super) fn starting(at: Instant, time: Duration) -> Self {
        Self { deadline: at + time, time }
    }
}

/// What a call of `resolve` is about.
pub(super) struct Asked {
    pub(super) head: Arc<RequestHead>,
    pub(super) directory: Arc<dyn FindTenant>,
    /// Gathers what is read, for a recording or a test; live calls mostly have none.
    pub(super) trace: Option<Arc<Trace>>,
}

impl State {
    pub(super) fn new(
        settings: &Arc<policy::Plugin>,
        log: &Arc<PluginLog>,
        pace: &Arc<Pace>,
        limit: TimeLimit,
    ) -> Self {
        let mut resources = ResourceTable::new();
        resources.set_max_capacity(MAX_RESOURCES);
        Self {
            memory: MemoryLimit::new(settings.limits.memory),
            call: Call::new(limit, None),
            pace: Arc::clone(pace),
            exchange: Exchange::default(),
            settings: Arc::clone(settings),
            log: Arc::clone(log),
            resources,
            wasi: None,
        }
    }

    /// Whether the guest holds anything that lives outside its own memory.
    pub(super) fn holds_handles(&self) -> bool {
        !self.resources.is_empty()
    }

    /// All values of a header in one text.
    pub(super) fn joined_header(&self, name: &str) -> wasmtime::Result<Option<String>> {
        Ok(joined_header(self.read(|| Part::Header(name.to_ascii_lowercase()))?, name))
    }

    /// The request, of which the guest is about to be told `part`.
    fn read(&self, part: impl FnOnce() -> Part) -> wasmtime::Result<&RequestHead> {
        let asked = self.call.asked.as_ref().ok_or_else(|| wasmtime::Error::msg("there is no request"))?;
        if let Some(trace) = &asked.trace {
            trace.read(part());
        }
        Ok(&asked.head)
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
        Ok(self.read(|| Part::Method)?.method.as_str().into())
    }

    fn scheme(&mut self, _: Resource<RequestView>) -> wasmtime::Result<String> {
        Ok(self.read(|| Part::Scheme)?.scheme.into())
    }

    fn authority(&mut self, _: Resource<RequestView>) -> wasmtime::Result<String> {
        Ok(self.read(|| Part::Authority)?.authority.clone())
    }

    fn path(&mut self, _: Resource<RequestView>) -> wasmtime::Result<String> {
        Ok(self.read(|| Part::Path)?.uri.path().into())
    }

    fn query(&mut self, _: Resource<RequestView>) -> wasmtime::Result<Option<String>> {
        Ok(self.read(|| Part::Query)?.uri.query().map(Into::into))
    }

    fn header(&mut self, _: Resource<RequestView>, name: String) -> wasmtime::Result<Option<String>> {
        self.joined_header(&name)
    }

    fn headers(&mut self, _: Resource<RequestView>) -> wasmtime::Result<Vec<(String, String)>> {
        let headers = &self.read(|| Part::AllHeaders)?.headers;
        Ok(headers.iter().map(|(name, value)| (name.as_str().into(), text(value))).collect())
    }

    fn peer(&mut self, _: Resource<RequestView>) -> wasmtime::Result<String> {
        Ok(self.read(|| Part::Peer)?.peer.to_string())
    }

    /// Whether there are claims is not for a plugin to know that was not granted them.
    fn claims(&mut self, _: Resource<RequestView>) -> wasmtime::Result<Option<String>> {
        if !self.settings.capabilities.grant(policy::Capability::Claims) {
            return Ok(None);
        }
        Ok(self.read(|| Part::Claims)?.claims.as_deref().map(Into::into))
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
    let bytes = value.as_bytes();
    // Nearly every value is text, which is told faster than what is not is replaced.
    std::str::from_utf8(bytes).map_or_else(|_| String::from_utf8_lossy(bytes).into_owned(), str::to_owned)
}

impl directory::Host for State {
    async fn find(&mut self, key: String) -> wasmtime::Result<Option<(String, String)>> {
        let Some(asked) = &self.call.asked else {
            return Err(HostStop::DirectoryInConfigure.into());
        };
        self.call.look_ups += 1;
        if self.call.look_ups > MAX_LOOK_UPS {
            return Err(HostStop::TooManyLookUps.into());
        }
        // What cannot be a tenant's id surely is none.
        let Ok(id) = key.parse::<TenantId>() else { return Ok(None) };
        let (directory, trace) = (Arc::clone(&asked.directory), asked.trace.clone());
        let found = directory.find(&id).await.map_err(HostStop::DirectoryUnavailable)?;
        if let Some(trace) = trace {
            trace.found(&id, found.as_ref().map(|tenant| &tenant.schema));
        }
        Ok(found.map(|tenant| (tenant.id.as_str().into(), tenant.schema.as_str().into())))
    }
}

impl kv::Host for State {
    fn get(&mut self, key: String) -> wasmtime::Result<Option<String>> {
        if let Some(trace) = self.call.asked.as_ref().and_then(|asked| asked.trace.as_ref()) {
            trace.read(Part::Entry(key.clone()));
        }
        Ok(self.settings.kv.get(&key).cloned())
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
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, used: 0, exceeded: None }
    }

    /// What the memories have together, bytes.
    pub(super) fn used(&self) -> usize {
        self.used
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
