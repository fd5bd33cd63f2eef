//! One instance of a plugin: made, configured, asked, thrown away.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::OwnedSemaphorePermit;
use wasmtime::component::Resource;
use wasmtime::{Engine, Store, UpdateDeadline};

use super::bindings::{Policy, PolicyPre};
use super::failure::{FailureClass, PluginFailure};
use super::flat::{FlatInstance, FlatPre};
use super::lane::Pace;
use super::log::PluginLog;
use super::state::{Asked, Call, HostStop, State, TimeLimit};
use super::supply::MemoryUse;
use super::verdict;
use crate::decision::Decision;
use crate::policy;

/// What one call may move between the plugin and us, bytes: a decision has a few hundred, all
/// headers of a large request 64 KiB.
pub(super) const MAX_TRANSFER_BYTES: usize = 1 << 20;

/// Ticks of the clock until a guest is interrupted for the first time. A tick may come the moment
/// after a call has started; the second one comes a millisecond later at least.
const FIRST_TICKS: u64 = 2;

/// What instances of a plugin are made from.
#[derive(Clone)]
pub(super) enum Blueprint {
    /// A component as its author's tools made it.
    Component(PolicyPre<State>),
    /// One core module, made of a component of the usual shape.
    Flat(FlatPre),
}

impl Blueprint {
    fn engine(&self) -> &Engine {
        match self {
            Self::Component(pre) => pre.engine(),
            Self::Flat(pre) => pre.engine(),
        }
    }

    async fn instantiate(&self, store: &mut Store<State>) -> wasmtime::Result<Guest> {
        match self {
            Self::Component(pre) => pre.instantiate_async(store).await.map(Guest::Component),
            Self::Flat(pre) => pre.instantiate(store).await.map(Guest::Flat),
        }
    }
}

enum Guest {
    Component(Policy),
    Flat(FlatInstance),
}

/// A plugin's instance with the slot that it occupies.
pub(super) struct Instance {
    store: Store<State>,
    guest: Guest,
    pub(super) uses: u32,
    memory_at_start: usize,
    _slots: OwnedSemaphorePermit,
}

impl Instance {
    /// Makes an instance that has not been configured.
    pub(super) async fn make(
        blueprint: &Blueprint,
        settings: &Arc<policy::Plugin>,
        log: &Arc<PluginLog>,
        pace: &Arc<Pace>,
        limit: TimeLimit,
        slots: OwnedSemaphorePermit,
    ) -> Result<Self, PluginFailure> {
        let mut store = make_store(blueprint.engine(), settings, log, pace, limit);
        match blueprint.instantiate(&mut store).await {
            Ok(guest) => {
                let memory_at_start = store.data().memory.used();
                Ok(Self { store, guest, uses: 0, memory_at_start, _slots: slots })
            }
            Err(error) => Err(PluginFailure::classify(&error, store.data())),
        }
    }

    /// Hands the plugin its configuration.
    pub(super) async fn configure(&mut self, config: &str) -> Result<(), PluginFailure> {
        let answered = match &self.guest {
            Guest::Component(policy) => policy.call_configure(&mut self.store, config).await,
            Guest::Flat(flat) => flat.configure(&mut self.store, config).await,
        };
        match answered {
            Ok(Ok(())) => Ok(()),
            Ok(Err(message)) => Err(PluginFailure::new(FailureClass::Guest, message)),
            Err(error) => Err(PluginFailure::classify(&error, self.store.data())),
        }
    }

    /// Makes it as new again after a call that succeeded, where that can be done: the next request finds
    /// nothing of this one.
    pub(super) fn renew(&mut self) -> bool {
        match &self.guest {
            Guest::Component(_) => false,
            Guest::Flat(flat) => flat.renew(&mut self.store),
        }
    }

    /// What it takes of memory by now.
    pub(super) fn memory(&self) -> MemoryUse {
        MemoryUse { at_start: self.memory_at_start, configured: self.store.data().memory.used() }
    }

    /// Asks the plugin about a request.
    pub(super) async fn resolve(
        &mut self,
        asked: Asked,
        limit: TimeLimit,
    ) -> Result<Decision, PluginFailure> {
        self.uses += 1;
        let state = self.store.data_mut();
        state.call = Call::new(limit, Some(asked));
        state.memory.forget_refusal();
        self.store.set_epoch_deadline(FIRST_TICKS);
        let answered = match &self.guest {
            Guest::Component(policy) => policy.call_resolve(&mut self.store, Resource::new_borrow(0)).await,
            Guest::Flat(flat) => flat.resolve(&mut self.store).await,
        };
        self.store.data_mut().call.asked = None;
        match answered {
            Ok(Ok(decision)) => verdict::check(decision),
            Ok(Err(message)) => Err(PluginFailure::new(FailureClass::Guest, message)),
            Err(error) => Err(PluginFailure::classify(&error, self.store.data())),
        }
    }
}

/// A store whose guest is interrupted by the clock: a slow one lets other tasks run, and it ends at
/// its deadline.
pub(super) fn make_store(
    engine: &Engine,
    settings: &Arc<policy::Plugin>,
    log: &Arc<PluginLog>,
    pace: &Arc<Pace>,
    limit: TimeLimit,
) -> Store<State> {
    let mut store = Store::new(engine, State::new(settings, log, pace, limit));
    store.limiter(|state| &mut state.memory);
    store.set_hostcall_fuel(MAX_TRANSFER_BYTES);
    store.set_epoch_deadline(FIRST_TICKS);
    store.epoch_deadline_callback(|mut context| {
        let State { call, pace, .. } = context.data_mut();
        if Instant::now() >= call.limit.deadline {
            pace.overran();
            return Err(HostStop::Deadline(call.limit.time).into());
        }
        Ok(if pace.interrupted(&mut call.found_running) {
            UpdateDeadline::Yield(1)
        } else {
            UpdateDeadline::Continue(1)
        })
    });
    store
}
