//! Innkeeper: a tenant-routing sidecar. Every request is resolved to its tenant, then forwarded
//! to a backend or run as a query in that tenant's PostgreSQL schema.
//!
//! The map, ground floor first; a module imports only from the floors below its own
//! (`docs/architecture.md`, kept true by `tests/tidy.rs`).

// Floor 0: names, decisions, proofs, errors.
pub mod address;
pub mod admitted;
pub mod body;
pub mod client_certificate;
pub mod decision;
pub mod error;
pub mod fairness;
pub mod files;
pub mod handler;
pub mod hop;
pub mod log_filter;
pub mod request_id;
pub mod server_names;
pub mod telemetry;
pub mod tenant;
pub mod trace;
pub mod underway;
pub mod upgrade;

// Floor 1: the policy, as written and as resolved.
pub mod policy;

// Floor 2: siblings that do not know each other.
pub mod directory;
pub mod forward;
pub mod identity;
pub mod otlp;
pub mod plugin;
pub mod sql;
pub mod surroundings;
pub mod ticket;

// Floor 3: a policy with everything attached, ready to serve.
pub mod snapshot;

// Floor 4: the walk, the reload, the operator's view.
pub mod admin;
pub mod gateway;
pub mod reload;

// Floor 5: the process.
pub mod cli;
pub mod server;
pub mod sidecar;
