//! Innkeeper: a tenant-routing sidecar. Every request is resolved to its tenant, then forwarded
//! to a backend or run as a query in that tenant's PostgreSQL schema.
//!
//! The map, ground floor first; a module imports only from the floors below its own
//! (`docs/architecture.md`, kept true by `tests/tidy.rs`).

// Floor 0: names, decisions, proofs, errors.
pub mod admitted;
pub mod body;
pub mod decision;
pub mod error;
pub mod handler;
pub mod telemetry;
pub mod tenant;

// Floor 1: the policy, as written and as resolved.
pub mod policy;

// Floor 2: targets, plugins and directories; siblings.
pub mod forward;

// Floor 4: the walk.
pub mod gateway;

// Floor 5: bind, accept, drain.
pub mod server;
