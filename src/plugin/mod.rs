//! Customers' own mapping rules as WebAssembly components: loaded, held to their limits, asked.
//!
//! A plugin may hang, trap, exhaust memory or lie. Whatever it does ends here, in a
//! [`PluginFailure`] with a class, and nothing of it reaches the next call.

mod bindings;
mod engine;
mod epoch;
mod failure;
mod instance;
mod load;
mod loaded;
mod log;
mod recent;
mod replay;
mod snapshot;
mod state;
mod trace;
mod verdict;
mod wasi;

pub use engine::{HostError, HostSettings, PluginHost};
pub use failure::{FailureClass, PluginFailure};
pub use load::{LoadError, LoadErrorClass};
pub use loaded::LoadedPlugin;
pub use replay::Replayed;
pub use trace::{Part, Reads, Trace};
