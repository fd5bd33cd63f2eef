//! Customers' own mapping rules as WebAssembly components: loaded, held to their limits, asked.
//!
//! A plugin may hang, trap, exhaust memory or lie. Whatever it does ends here, in a
//! [`PluginFailure`] with a class, and nothing of it reaches the next call.

mod bindings;
mod cache;
mod compile;
mod engine;
mod epoch;
mod failure;
mod instance;
mod lane;
mod load;
mod load_error;
mod loaded;
mod log;
mod recent;
mod signature;
mod snapshot;
mod state;
mod supply;
mod verdict;
mod wasi;
mod world;

pub use engine::{HostError, HostSettings, PluginHost};
pub use failure::{FailureClass, PluginFailure};
pub use load_error::{LoadError, LoadErrorClass};
pub use loaded::LoadedPlugin;
