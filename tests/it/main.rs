//! Tests from where a user stands: real sockets, real PostgreSQL, real WebAssembly.

mod guests;
mod plugins;
