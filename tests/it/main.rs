//! Tests from where a user stands: real sockets, real PostgreSQL, real WebAssembly.

mod guests;
mod plugins;
mod reload;
mod support;
mod walk;
