//! Customers' own mapping rules as WebAssembly components: loaded, held to their limits, asked.
//!
//! A plugin may hang, trap, exhaust memory or lie. Whatever it does ends here, in a
//! [`PluginFailure`] with a class, and nothing of it reaches the next call.

mod bindings;
mod engine;
mod epoch;
mod failure;
mod flat;
mod instance;
mod lane;
mod load;
mod loaded;
mod log;
mod recent;
mod snapshot;
mod state;
mod supply;
mod verdict;
mod wasi;

pub use engine::{HostError, HostSettings, PluginHost};
pub use failure::{FailureClass, PluginFailure};
pub use load::{LoadError, LoadErrorClass};
pub use loaded::LoadedPlugin;
