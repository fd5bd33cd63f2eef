//! Tests from where a user stands: real sockets, real PostgreSQL, real WebAssembly.

mod demo;
mod guests;
mod plugins;
mod reload;
mod support;
mod walk;
