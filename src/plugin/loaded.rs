//! A plugin that is ready to be asked, and the walk of one question.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime};

use tokio::time::timeout_at;

use super::breaker::{Breaker, BreakerState};
use super::failure::{FailureClass, PluginFailure};
use super::instance::Blueprint;
use super::state::{Asked, TimeLimit};
use super::supply::{MemoryUse, Supply};
use super::tally::Tally;
use super::trace::Trace;
use crate::decision::{Decision, FindTenant, RequestHead};
use crate::policy::{self, Instances};

/// One version of a plugin, linked and configured. Dropping it frees its code and instances once
/// the last call under way has ended.
pub struct LoadedPlugin {
    version: Arc<str>,
    supply: Arc<Supply>,
    breaker: Breaker,
    tally: Arc<Tally>,
    loaded_at: SystemTime,
}

/// What a live request gets of a plugin.
#[derive(Debug)]
pub struct Answer {
    /// The decision, or why there is none.
    pub decided: Result<Decision, PluginFailure>,
    /// When it was over.
    pub ended: Instant,
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

impl LoadedPlugin {
    pub(super) fn new(version: Arc<str>, supply: Supply) -> Self {
        let breaker = Breaker::new(supply.settings.breaker, Instant::now());
        let (tally, loaded_at) = (Arc::default(), SystemTime::now());
        Self { version, supply: Arc::new(supply), breaker, tally, loaded_at }
    }

    /// Its name in the policy.
    pub fn name(&self) -> &Arc<str> {
        &self.supply.settings.name
    }

    /// The SHA-256 of its file in lower-case hex: what the operator knows this version by.
    pub fn version(&self) -> &Arc<str> {
        &self.version
    }

    /// Its part of the policy.
    pub fn settings(&self) -> &Arc<policy::Plugin> {
        &self.supply.settings
    }

    /// Whether fresh instances start from the memory that `configure` left behind.
    pub fn starts_configured(&self) -> bool {
        self.supply.parts.configured
    }

    /// Whether it runs as one core module.
    pub fn is_flat(&self) -> bool {
        matches!(self.supply.parts.blueprint, Blueprint::Flat(_))
    }

    /// Whether one instance is made as new for each request, in place of another one.
    pub fn is_renewed(&self) -> bool {
        self.settings().instances == Instances::PerRequest
            && matches!(&self.supply.parts.blueprint, Blueprint::Flat(flat) if flat.is_renewable())
    }

    /// Why `configure` runs again for each fresh instance, where copying its memory was tried in vain.
    pub fn not_copied(&self) -> Option<&str> {
        self.supply.parts.not_copied.as_deref()
    }

    /// What the first instance took of memory.
    pub fn memory(&self) -> MemoryUse {
        self.supply.parts.memory
    }

    /// The same version with its instances kept in another way, to compare what calls cost.
    #[must_use]
    pub fn kept(&self, instances: Instances) -> Self {
        Self::new(Arc::clone(&self.version), self.supply.kept(instances))
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
        let (decided, ended) = match self.breaker.enter(started) {
            Ok(pass) => {
                let decided = self.decide(Asked { head: Arc::clone(head), directory, trace }, started).await;
                let ended = Instant::now();
                pass.settle(decided.as_ref().err().map(|failure| failure.class), ended);
                (decided, ended)
            }
            Err(failure) => (Err(failure), started),
        };
        let took = ended - started;
        self.tally.count(&decided, took);
        Answer { decided, ended, took }
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
        self.decide(Asked { head: Arc::clone(head), directory, trace: None }, Instant::now()).await
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
        self.decide(Asked { head: Arc::clone(head), directory, trace: Some(trace) }, Instant::now()).await
    }

    async fn decide(&self, asked: Asked, started: Instant) -> Result<Decision, PluginFailure> {
        let supply = &self.supply;
        let limit = TimeLimit::starting(started, supply.time());
        let room = supply.room(limit).await?;
        let call = Box::pin(Arc::clone(supply).answer(room, asked, limit));
        let mut driven = pin!(supply.host.lane.drive(&supply.pace, limit.deadline, call));
        // Most calls are over at once, and need no timer.
        let driven = match poll_fn(|context| Poll::Ready(driven.as_mut().poll(context))).await {
            Poll::Ready(driven) => Ok(driven),
            Poll::Pending => timeout_at(limit.deadline.into(), driven).await,
        };
        match driven {
            Ok(Ok(answer)) => answer,
            Ok(Err(panicked)) => Err(PluginFailure::new(FailureClass::Trap, panicked)),
            Err(_) => Err(PluginFailure::deadline(supply.time())),
        }
    }
}

impl fmt::Debug for LoadedPlugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoadedPlugin")
            .field("name", &self.supply.settings.name)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}
