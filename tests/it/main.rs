//! Tests from where a user stands: real sockets, real PostgreSQL, real WebAssembly.

#![allow(unreachable_pub, reason = "a test binary has no outside")]

mod guests;
mod plugins;
mod reload;
mod support;
mod walk;
