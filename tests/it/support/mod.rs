//! What tests of several areas stand on.

pub mod backend;
pub mod gateway;
pub mod postgres;
pub mod tenant_fixture;
