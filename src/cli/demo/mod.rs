//! `innkeeper demo`: real parts on one machine, and a way to see them work.

pub mod cluster;
