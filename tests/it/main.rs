//! Innkeeper against real sockets, real PostgreSQL and real WASM: one binary, one module an area.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, and so may what it calls")]

mod cluster;
mod directory;
mod sql;
mod support;
mod torture;
