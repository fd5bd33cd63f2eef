//! A plugin that is ready to be asked, and the walk of one question.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout_at;

use super::bindings::PolicyPre;
use super::breaker::{Breaker, BreakerState};
use super::engine::PluginHost;
use super::failure::{FailureClass, PluginFailure};
use super::instance::Instance;
use super::live::Life;
use super::load::version_of;
use super::log::PluginLog;
use super::state::{Asked, State, TimeLimit};
use super::tally::Tally;
use super::trace::Trace;
use crate::decision::{Decision, FindTenant, RequestHead};
use crate::policy::{self, Instances};

/// One version of a plugin, linked and configured. Dropping it frees its code and instances once
/// the last call under way has ended.
pub struct LoadedPlugin {
    host: Arc<PluginHost>,
    settings: Arc<policy::Plugin>,
    version: Arc<str>,
    log: Arc<PluginLog>,
    parts: Parts,
    reused: Reused,
    breaker: Breaker,
    tally: Arc<Tally>,
    loaded_at: SystemTime,
    _life: Arc<Life>,
}

/// What a live request gets of a plugin.
#[derive(Debug)]
pub struct Answer {
    /// The decision, or why there is none.
    pub decided: Result<Decision, PluginFailure>,
    /// How long it took.
    pub took: Duration,
}

impl Answer {
    /// How it ended, in one word: `place`, `next`, `deny`, or the class of the failure.
    pub fn outcome(&self) -> &'static str {
        match &self.decided {
            Ok(Decision::Place(_)) => "place",
            Ok(Decision::Next) => "next",
            Ok(Decision::Deny(_)) => "deny",
            Err(failure) => failure.class.as_str(),
        }
    }
}

/// What instances are made from.
#[derive(Clone)]
pub(super) struct Parts {
    pub(super) pre: PolicyPre<State>,
    /// Whether a fresh instance is configured as it starts.
    pub(super) configured: bool,
    /// Slots of the pool that an instance takes.
    pub(super) slots: u32,
    /// What an instance took when it was tried.
    pub(super) memory: MemoryUse,
    /// Why the configured memory is not copied, where that was tried.
    pub(super) not_copied: Option<Arc<str>>,
}

/// Linear memory of one instance, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryUse {
    /// As it starts.
    pub at_start: usize,
    /// Once it is configured.
    pub configured: usize,
}

/// Instances that wait for their next request.
struct Reused {
    /// A permit for each instance that may be in use at once.
    turns: Semaphore,
    idle: Mutex<Vec<Instance>>,
}

impl LoadedPlugin {
    pub(super) fn new(
        host: Arc<PluginHost>,
        settings: Arc<policy::Plugin>,
        version: Arc<str>,
        log: Arc<PluginLog>,
        parts: Parts,
        ready: Vec<Instance>,
    ) -> Self {
        let turns = Semaphore::new(settings.reuse.size.get() as usize);
        let reused = Reused { turns, idle: Mutex::new(ready) };
        let breaker = Breaker::new(settings.breaker, Instant::now());
        Self {
            _life: host.lives.begin(),
            host,
            settings,
            version,
            log,
            parts,
            reused,
            breaker,
            tally: Arc::default(),
            loaded_at: SystemTime::now(),
        }
    }

    /// Its name in the policy.
    pub fn name(&self) -> &Arc<str> {
        &self.settings.name
    }

    /// The SHA-256 of its file in lower-case hex: what the operator knows this version by.
    pub fn version(&self) -> &Arc<str> {
        &self.version
    }

    /// Its part of the policy.
    pub fn settings(&self) -> &Arc<policy::Plugin> {
        &self.settings
    }

    /// Whether fresh instances start from the memory that `configure` left behind.
    pub fn starts_configured(&self) -> bool {
        self.parts.configured
    }

    /// Why `configure` runs again for each fresh instance, where copying its memory was tried in vain.
    pub fn not_copied(&self) -> Option<&str> {
        self.parts.not_copied.as_deref()
    }

    /// What the first instance took of memory.
    pub fn memory(&self) -> MemoryUse {
        self.parts.memory
    }

    /// The same version with its instances kept in another way, to compare what calls cost.
    #[must_use]
    pub fn kept(&self, instances: Instances) -> Self {
        let settings = policy::Plugin { instances, ..policy::Plugin::clone(&self.settings) };
        let (host, version, log) = (Arc::clone(&self.host), Arc::clone(&self.version), Arc::clone(&self.log));
        Self::new(host, Arc::new(settings), version, log, self.parts.clone(), Vec::new())
    }

    /// Whether this is what loading `wasm` under `settings` would make, so that a reload can keep it.
    pub fn serves(&self, settings: &policy::Plugin, wasm: &[u8]) -> bool {
        *self.settings == *settings && *self.version == *version_of(wasm)
    }

    /// When it was loaded.
    pub fn loaded_at(&self) -> SystemTime {
        self.loaded_at
    }

    /// How its calls on behalf of live requests went.
    pub fn tally(&self) -> &Arc<Tally> {
        &self.tally
    }

    /// Whether it failed so often that it is not asked for a while.
    pub fn breaker(&self) -> BreakerState {
        self.breaker.state(Instant::now())
    }

    /// [`LoadedPlugin::resolve`] on behalf of a live request: behind the breaker, and counted. A
    /// `trace`, where there is one, gets what the plugin reads.
    pub async fn ask(
        &self,
        head: &Arc<RequestHead>,
        directory: Arc<dyn FindTenant>,
        trace: Option<Arc<Trace>>,
    ) -> Answer {
        let started = Instant::now();
        let (decided, took) = match self.breaker.enter(started) {
            Ok(pass) => {
                let decided = self.decide(Asked { head: Arc::clone(head), directory, trace }).await;
                let ended = Instant::now();
                pass.settle(decided.as_ref().err().map(|failure| failure.class), ended);
                (decided, ended - started)
            }
            Err(failure) => (Err(failure), Duration::ZERO),
        };
        self.tally.count(&decided, took);
        Answer { decided, took }
    }

    /// Asks the plugin whom a request belongs to. It answers, or fails, within its time limit, host
    /// calls included. Dropping the future throws the instance away.
    ///
    /// # Errors
    /// Whatever keeps it from a valid decision, with a class.
    pub async fn resolve(
        &self,
        head: &Arc<RequestHead>,
        directory: Arc<dyn FindTenant>,
    ) -> Result<Decision, PluginFailure> {
        self.decide(Asked { head: Arc::clone(head), directory, trace: None }).await
    }

    /// [`LoadedPlugin::resolve`], with everything that the plugin reads noted in `trace`.
    ///
    /// # Errors
    /// As [`LoadedPlugin::resolve`].
    pub async fn resolve_traced(
        &self,
        head: &Arc<RequestHead>,
        directory: Arc<dyn FindTenant>,
        trace: Arc<Trace>,
    ) -> Result<Decision, PluginFailure> {
        self.decide(Asked { head: Arc::clone(head), directory, trace: Some(trace) }).await
    }

    async fn decide(&self, asked: Asked) -> Result<Decision, PluginFailure> {
        let limit = TimeLimit::starting_now(self.time());
        let _ticking = self.host.epochs.ticking();
        match self.settings.instances {
            Instances::PerRequest => self.resolve_fresh(asked, limit).await,
            Instances::Reused => self.resolve_reused(asked, limit).await,
        }
    }

    async fn resolve_fresh(&self, asked: Asked, limit: TimeLimit) -> Result<Decision, PluginFailure> {
        let slots = self.slots(limit).await?;
        let answer = async {
            let mut instance = self.make(slots, limit).await?;
            instance.resolve(asked, limit).await
        };
        timeout_at(limit.deadline.into(), answer)
            .await
            .unwrap_or_else(|_| Err(PluginFailure::deadline(self.time())))
    }

    async fn resolve_reused(&self, asked: Asked, limit: TimeLimit) -> Result<Decision, PluginFailure> {
        let Ok(turn) = timeout_at(limit.deadline.into(), self.reused.turns.acquire()).await else {
            return Err(self.no_capacity());
        };
        let _turn = turn.expect("the semaphore is never closed");
        let idle = self.idle().pop();
        let mut instance = match idle {
            Some(instance) => instance,
            None => self.make_reused(limit).await?,
        };
        let answer = instance.resolve(asked, limit);
        let answer = timeout_at(limit.deadline.into(), answer).await;
        let answer = answer.unwrap_or_else(|_| Err(PluginFailure::deadline(self.time())));
        // Whatever state a failure left behind is not for the next request.
        if answer.is_ok() && instance.uses < self.settings.reuse.uses.get() {
            self.idle().push(instance);
        }
        answer
    }

    async fn make_reused(&self, limit: TimeLimit) -> Result<Instance, PluginFailure> {
        let slots = self.slots(limit).await?;
        let made = timeout_at(limit.deadline.into(), self.make(slots, limit)).await;
        made.unwrap_or_else(|_| Err(PluginFailure::deadline(self.time())))
    }

    async fn make(&self, slots: OwnedSemaphorePermit, limit: TimeLimit) -> Result<Instance, PluginFailure> {
        let mut instance = Instance::make(&self.parts.pre, &self.settings, &self.log, limit, slots).await?;
        if !self.parts.configured {
            instance.configure(&self.settings.config).await.map_err(|failure| match failure.class {
                FailureClass::Guest => PluginFailure::new(FailureClass::Configure, failure.message),
                _ => failure,
            })?;
        }
        Ok(instance)
    }

    /// Room for one instance, now or as soon as another one ends.
    async fn slots(&self, limit: TimeLimit) -> Result<OwnedSemaphorePermit, PluginFailure> {
        let slots = &self.host.slots;
        if let Ok(room) = Arc::clone(slots).try_acquire_many_owned(self.parts.slots) {
            return Ok(room);
        }
        match timeout_at(limit.deadline.into(), Arc::clone(slots).acquire_many_owned(self.parts.slots)).await
        {
            Ok(room) => Ok(room.expect("the semaphore is never closed")),
            Err(_) => Err(self.no_capacity()),
        }
    }

    fn no_capacity(&self) -> PluginFailure {
        let message = format!("no instance became free within {:?}", self.time());
        PluginFailure::new(FailureClass::Capacity, message)
    }

    fn time(&self) -> Duration {
        self.settings.limits.time
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Instance>> {
        self.reused.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for LoadedPlugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoadedPlugin")
            .field("name", &self.settings.name)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}
