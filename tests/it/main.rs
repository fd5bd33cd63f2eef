//! Innkeeper against real sockets, real PostgreSQL and real WASM: one binary, one module an area.

mod cluster;
mod directory;
mod sql;
mod support;
mod torture;
