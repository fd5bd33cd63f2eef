//! Tests from where a user stands: real sockets, real PostgreSQL, real WebAssembly.

#![allow(clippy::unwrap_used, reason = "what helpers unwrap fails the test that called them")]

mod edge_framing;
mod edge_http2;
mod edge_server;
mod edge_upstream;
mod framing_cases;
mod guests;
mod plugins;
mod reload;
mod support;
mod walk;
