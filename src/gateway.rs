//! The walk: one request from its head to its response.

pub mod sanitise;
