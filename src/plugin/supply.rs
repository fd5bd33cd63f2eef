//! Where a call's instance comes from: made for it, or kept from an earlier one.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout_at;

use super::engine::PluginHost;
use super::failure::{FailureClass, PluginFailure};
use super::instance::{Blueprint, Instance};
use super::lane::Pace;
use super::live::Life;
use super::log::PluginLog;
use super::state::{Asked, TimeLimit};
use crate::decision::Decision;
use crate::policy::{self, Instances};

/// Instances of one version that wait for a request although each request gets an instance as new: as
/// many as may be in use at once by calls that are quick, on a large machine.
const MOST_RENEWED: usize = 16;

/// What instances are made from.
#[derive(Clone)]
pub(super) struct Parts {
    pub(super) blueprint: Blueprint,
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

/// The instances of one plugin version.
pub(super) struct Supply {
    pub(super) host: Arc<PluginHost>,
    pub(super) settings: Arc<policy::Plugin>,
    pub(super) parts: Parts,
    pub(super) pace: Arc<Pace>,
    log: Arc<PluginLog>,
    /// A permit for each instance that may be in use at once, where they are reused.
    turns: Arc<Semaphore>,
    /// Instances that wait for their next request: reused ones, or made as new again.
    idle: Mutex<Vec<Instance>>,
    _life: Arc<Life>,
}

/// Room for one call.
pub(super) enum Room {
    /// Slots of the pool for an instance of its own.
    Fresh(OwnedSemaphorePermit),
    /// An instance as new, which has such slots already.
    Renewed(Instance),
    /// A turn with one of the kept instances.
    Kept(OwnedSemaphorePermit, Instance),
    /// A turn, and slots for an instance that will be kept.
    ToKeep(OwnedSemaphorePermit, OwnedSemaphorePermit),
}

impl Supply {
    pub(super) fn new(
        host: Arc<PluginHost>,
        settings: Arc<policy::Plugin>,
        log: Arc<PluginLog>,
        pace: Arc<Pace>,
        parts: Parts,
        ready: Vec<Instance>,
    ) -> Self {
        let turns = Arc::new(Semaphore::new(settings.reuse.size.get() as usize));
        let idle = Mutex::new(ready);
        Self { _life: host.lives.begin(), host, settings, parts, pace, log, turns, idle }
    }

    /// The same version with its instances kept in another way.
    pub(super) fn kept(&self, instances: Instances) -> Self {
        let settings = policy::Plugin { instances, ..policy::Plugin::clone(&self.settings) };
        let (host, log, pace) = (Arc::clone(&self.host), Arc::clone(&self.log), Arc::clone(&self.pace));
        Self::new(host, Arc::new(settings), log, pace, self.parts.clone(), Vec::new())
    }

    /// Room for a call, now or as soon as another one ends.
    pub(super) async fn room(&self, limit: TimeLimit) -> Result<Room, PluginFailure> {
        if self.settings.instances == Instances::PerRequest {
            let renewed = self.idle().pop();
            return match renewed {
                Some(instance) => Ok(Room::Renewed(instance)),
                None => self.slots(limit).await.map(Room::Fresh),
            };
        }
        let turn = self.permits(&self.turns, 1, limit).await?;
        let idle = self.idle().pop();
        match idle {
            Some(instance) => Ok(Room::Kept(turn, instance)),
            None => Ok(Room::ToKeep(turn, self.slots(limit).await?)),
        }
    }

    /// Has an instance answer one question.
    pub(super) async fn answer(
        self: Arc<Self>,
        room: Room,
        asked: Asked,
        limit: TimeLimit,
    ) -> Result<Decision, PluginFailure> {
        let _ticking = self.host.epochs.ticking();
        let (mut instance, _turn) = match room {
            Room::Fresh(slots) => (self.make(slots, limit).await?, None),
            Room::Renewed(instance) => (instance, None),
            Room::Kept(turn, instance) => (instance, Some(turn)),
            Room::ToKeep(turn, slots) => (self.make(slots, limit).await?, Some(turn)),
        };
        let answer = instance.resolve(asked, limit).await;
        // Whatever state a failure left behind is not for the next request.
        if answer.is_ok() && instance.uses < self.settings.reuse.uses.get() {
            match self.settings.instances {
                Instances::Reused => self.idle().push(instance),
                Instances::PerRequest => self.renew(instance),
            }
        }
        answer
    }

    /// Keeps an instance for another request, if it can be made as new.
    fn renew(&self, mut instance: Instance) {
        // What only waits must not take the pool from calls, of this plugin or of another.
        let is_roomy = self.host.slots.available_permits() > self.host.settings.instances as usize / 2;
        if is_roomy && self.idle().len() < MOST_RENEWED && instance.renew() {
            self.idle().push(instance);
        }
    }

    async fn make(&self, slots: OwnedSemaphorePermit, limit: TimeLimit) -> Result<Instance, PluginFailure> {
        let mut instance =
            Instance::make(&self.parts.blueprint, &self.settings, &self.log, &self.pace, limit, slots)
                .await?;
        if !self.parts.configured {
            instance.configure(&self.settings.config).await.map_err(|failure| match failure.class {
                FailureClass::Guest => PluginFailure::new(FailureClass::Configure, failure.message),
                _ => failure,
            })?;
        }
        Ok(instance)
    }

    async fn slots(&self, limit: TimeLimit) -> Result<OwnedSemaphorePermit, PluginFailure> {
        self.permits(&self.host.slots, self.parts.slots, limit).await
    }

    async fn permits(
        &self,
        semaphore: &Arc<Semaphore>,
        count: u32,
        limit: TimeLimit,
    ) -> Result<OwnedSemaphorePermit, PluginFailure> {
        if let Ok(permits) = Arc::clone(semaphore).try_acquire_many_owned(count) {
            return Ok(permits);
        }
        let waited = timeout_at(limit.deadline.into(), Arc::clone(semaphore).acquire_many_owned(count)).await;
        match waited {
            Ok(permits) => Ok(permits.expect("the semaphore is never closed")),
            Err(_) => Err(self.no_capacity()),
        }
    }

    fn no_capacity(&self) -> PluginFailure {
        let message = format!("no instance became free within {:?}", self.time());
        PluginFailure::new(FailureClass::Capacity, message)
    }

    /// Wall time of one call.
    pub(super) fn time(&self) -> Duration {
        self.settings.limits.time
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Instance>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
