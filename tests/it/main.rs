//! Tests from where a user stands: real sockets, real PostgreSQL, real WebAssembly. One binary, one
//! module an area.

#![allow(unreachable_pub, reason = "a test binary has no outside")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, and so may what it calls")]

mod api_keys;
mod authors;
mod backend_trust;
mod client_certificates;
mod clients;
mod cluster;
mod demo;
mod directory;
mod doctor;
mod edge_faults;
mod edge_framing;
mod edge_http2;
mod edge_server;
mod edge_upgrade;
mod edge_upstream;
mod flat;
mod flood_memory;
mod framing_cases;
mod grpc;
mod guard;
mod guests;
mod h2_conformance;
mod h2_floods;
mod header_trust;
mod hostile_plugins;
mod jwt;
mod languages;
mod limits;
mod listen_idle;
mod listen_proxy;
mod listen_restart;
mod listen_tls;
mod operations;
mod operations_end;
mod operations_live;
mod operations_traces;
mod overrides;
mod plugins;
mod policy;
mod policy_hostile;
mod query_route;
mod readme;
mod reload;
mod rewrite;
mod sql;
mod sql_target;
mod support;
mod tickets;
mod torture;
mod torture_gateway;
mod torture_sql;
mod trial;
mod trial_traffic;
mod trust;
mod trusted_hops;
mod upstreams;
mod upstreams_tls;
mod versions;
mod walk;
mod websocket;
mod workers;
