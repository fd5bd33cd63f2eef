//! A plugin that is ready to be asked, and the walk of one question.

use std::fmt;
use std::sync::Arc;

use tokio::time::timeout_at;

use super::failure::{FailureClass, PluginFailure};
use super::instance::Blueprint;
use super::load::version_of;
use super::state::{Asked, TimeLimit};
use super::supply::Supply;
use crate::decision::{Decision, FindTenant, RequestHead};
use crate::policy;

/// One version of a plugin, linked and configured. Dropping it frees its code and instances once
/// the last call under way has ended.
pub struct LoadedPlugin {
    version: Arc<str>,
    supply: Arc<Supply>,
}

impl LoadedPlugin {
    pub(super) fn new(version: Arc<str>, supply: Supply) -> Self {
        Self { version, supply: Arc::new(supply) }
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

    /// Whether this is what loading `wasm` under `settings` would make, so that a reload can keep it.
    pub fn serves(&self, settings: &policy::Plugin, wasm: &[u8]) -> bool {
        *self.supply.settings == *settings && *self.version == *version_of(wasm)
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
        let supply = &self.supply;
        let limit = TimeLimit::starting_now(supply.time());
        let room = supply.room(limit).await?;
        let asked = Asked { head: Arc::clone(head), directory };
        let call = Box::pin(Arc::clone(supply).answer(room, asked, limit));
        match timeout_at(limit.deadline.into(), supply.host.lane.drive(&supply.pace, call)).await {
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
