//! Commands for plugin authors.

pub mod build;
mod componentize;
mod toolchain;
