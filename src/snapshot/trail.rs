//! What happened on the way to a tenant: which plugin versions were asked, and what each resolver
//! said.

use super::active::PluginCall;

/// Gathered while a request is resolved; written to the record whatever becomes of it.
#[derive(Debug, Default)]
pub struct Trail {
    /// The plugin versions that were asked, in order.
    pub calls: Vec<PluginCall>,
    purpose: Purpose,
}

/// One resolver's word, for `explain`.
#[derive(Debug, Clone)]
pub struct Step {
    /// The resolver, as the policy writes it.
    pub resolver: String,
    /// What it said.
    pub said: String,
}

#[derive(Debug, Default)]
enum Purpose {
    #[default]
    Live,
    Explain(Vec<Step>),
    Rehearsal,
}

impl Trail {
    /// For a request that is explained: with what each resolver said, which costs texts.
    pub fn explaining() -> Self {
        Self { calls: Vec::new(), purpose: Purpose::Explain(Vec::new()) }
    }

    /// For a test of the policy: nothing is counted.
    pub(super) fn rehearsing() -> Self {
        Self { calls: Vec::new(), purpose: Purpose::Rehearsal }
    }

    /// What each resolver said.
    pub fn into_steps(self) -> Vec<Step> {
        match self.purpose {
            Purpose::Explain(steps) => steps,
            Purpose::Live | Purpose::Rehearsal => Vec::new(),
        }
    }

    pub(super) fn is_rehearsal(&self) -> bool {
        matches!(self.purpose, Purpose::Rehearsal)
    }

    /// Whether it is of a request that somebody waits for.
    pub(super) fn is_live(&self) -> bool {
        matches!(self.purpose, Purpose::Live)
    }

    pub(super) fn step(&mut self, step: impl FnOnce() -> Step) {
        if let Purpose::Explain(steps) = &mut self.purpose {
            steps.push(step());
        }
    }
}
