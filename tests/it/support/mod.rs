//! What tests of several areas stand on.

pub mod backend;
pub mod gateway;
