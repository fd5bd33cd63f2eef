//! What tests stand on.

pub mod backend;
pub mod gateway;
pub(crate) mod postgres;
pub(crate) mod tenant_fixture;
