//! Customers' own mapping rules as WebAssembly components: loaded, held to their limits, asked.
//!
//! A plugin may hang, trap, exhaust memory or lie. Whatever it does ends here, in a
//! [`PluginFailure`] with a class, and nothing of it reaches the next call.

mod bindings;
mod bounds;
mod breaker;
mod cache;
mod compile;
mod engine;
mod epoch;
mod failure;
mod flat;
mod instance;
mod lane;
mod live;
mod load;
mod load_error;
mod loaded;
mod log;
mod recent;
mod recording;
mod replay;
mod signature;
mod snapshot;
mod state;
mod supply;
mod tally;
mod trace;
mod trial;
mod verdict;
mod wasi;
mod world;

pub use breaker::BreakerState;
pub use engine::{HostError, HostSettings, PluginHost};
pub use failure::{FailureClass, PluginFailure};
pub use live::LiveVersions;
pub use load::version_of;
pub use load_error::{LoadError, LoadErrorClass};
pub use loaded::{Answer, LoadedPlugin};
pub use recording::{Keep, Recorder, Recording};
pub use replay::Replayed;
pub use supply::MemoryUse;
pub use tally::{LastFailure, Tally};
pub use trace::{Part, Reads, Trace};
pub use trial::{Disagreement, Score, Trial, TrialState, Watchers};
pub use world::{Access, access};
