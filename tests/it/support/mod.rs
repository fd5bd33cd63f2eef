//! What several tests share.

pub(crate) mod edge;
pub(crate) mod raw_client;
pub(crate) mod raw_upstream;
