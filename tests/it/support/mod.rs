//! What tests of several areas stand on.

pub mod backend;
pub mod edge;
pub mod gateway;
pub mod issuer;
pub mod postgres;
pub mod process;
pub mod raw_client;
pub mod raw_upstream;
pub mod tenant_fixture;
pub mod tls;
pub mod toll;
