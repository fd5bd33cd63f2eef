//! What tests stand on.

pub(crate) mod backend;
pub(crate) mod edge;
pub(crate) mod gateway;
pub(crate) mod raw_client;
pub(crate) mod raw_upstream;
