//! Tests from where a user stands: real sockets, real PostgreSQL, real WebAssembly.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, and so may what it calls")]

mod cluster;
mod directory;
mod guests;
mod plugins;
mod reload;
mod sql;
mod support;
mod torture;
mod walk;
