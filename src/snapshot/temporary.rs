//! Overrides that an operator gives for a while: they live in memory, beside whatever policy is in
//! force, and end by themselves.

use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::SystemTime;

use super::Snapshot;
use super::build::Builder;
use super::overrides::Overrides;
use crate::policy::{Diagnostics, Name, Override, Policy};

impl Builder {
    /// Builds the snapshot that follows `current` with one override more, which goes before those
    /// that are there. Nothing else changes.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn add_override(
        &self,
        current: &Snapshot,
        text: &str,
    ) -> Result<(Name, Snapshot), Diagnostics> {
        let mut temporary = self.temporary();
        let number = (1..).find(|number| {
            let id = default_id(*number);
            !current.overrides().iter().any(|one| *one.rule().id == *id)
        });
        let id = default_id(number.expect("there are more numbers than overrides"));
        let rule = Override::parse(text, &id, current.policy())?;
        let id = Name::clone(&rule.id);
        // The same id again is the same override, said better.
        temporary.retain(|one| one.id != id);
        temporary.insert(0, rule);
        Ok((id, with(current, &temporary)))
    }

    /// Builds the snapshot that follows `current` without one of them; `None` where there is none
    /// of that id.
    pub(crate) fn end_override(&self, current: &Snapshot, id: &str) -> Option<Snapshot> {
        let mut temporary = self.temporary();
        let before = temporary.len();
        temporary.retain(|one| *one.id != *id);
        (temporary.len() < before).then(|| with(current, &temporary))
    }

    /// Those that can hold beside `policy`. One whose upstream has left the policy is dropped, and
    /// so is one that has ended.
    pub(super) fn temporary_for(&self, policy: &Policy) -> Vec<Override> {
        let now = SystemTime::now();
        let known = |one: &Override| one.upstreams().iter().all(|name| policy.upstreams.contains_key(name));
        self.temporary().iter().filter(|one| one.holds_at(now) && known(one)).cloned().collect()
    }

    fn temporary(&self) -> MutexGuard<'_, Vec<Override>> {
        self.temporary.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn with(current: &Snapshot, temporary: &[Override]) -> Snapshot {
    let lasting = &current.policy().overrides;
    let overrides = Overrides::new(temporary, lasting, Some(current.overrides()));
    current.next(current.plugins.clone(), Arc::new(overrides))
}

fn default_id(number: u32) -> String {
    format!("temporary-{number}")
}
