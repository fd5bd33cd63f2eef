//! The integration tests, in one binary.

mod edge_framing;
mod edge_http2;
mod edge_server;
mod edge_upstream;
mod framing_cases;
mod support;
