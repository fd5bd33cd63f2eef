//! The walk: one request from its first step to its response, and the one place where an error
//! becomes a response.

mod abandoned;
mod access;
mod access_log;
mod forward;
mod ndjson;
mod problem;
mod query;
pub mod sanitise;
mod sql;

use std::sync::Arc;

use http::Response;

use crate::body::Body;
use crate::decision::RequestHead;
use crate::error::Refusal;
use crate::handler::{Connection, Handler, Inbound};
use crate::policy;
use crate::snapshot::{Snapshot, SnapshotStore, Target};
use crate::telemetry::Metrics;

use access::Record;
pub use access_log::{AccessLog, Format as LogFormat};

/// Takes requests for as long as the process runs.
pub struct Gateway {
    snapshots: Arc<SnapshotStore>,
    metrics: Arc<Metrics>,
    access_log: AccessLog,
}

impl Gateway {
    /// A gateway that serves whatever snapshot is in force.
    pub fn new(snapshots: Arc<SnapshotStore>, metrics: Arc<Metrics>, access_log: AccessLog) -> Self {
        Self { snapshots, metrics, access_log }
    }

    /// A request's whole life. A request that is dropped at any step leaves nothing behind.
    async fn walk(
        &self,
        inbound: Inbound,
        connection: &Connection,
        snapshot: &Snapshot,
        record: &mut Record,
        sql_client: &mut Option<sql::Client>,
    ) -> Result<Response<Body>, Refusal> {
        inbound.verdict?;
        let (parts, body) = inbound.request.into_parts();
        let authority = sanitise::inspect(&parts)?;
        let head = Arc::new(RequestHead {
            method: parts.method,
            scheme: connection.scheme,
            authority: authority.written,
            host: authority.host,
            uri: parts.uri,
            headers: parts.headers,
            peer: connection.peer,
            local: connection.local,
            // No route verifies tokens yet.
            claims: None,
        });

        let matched = snapshot.route(&head)?;
        record.matched(&matched);
        if let Target::Sql(target) = matched.target() {
            let client = sql_client.insert(sql::Client::of(&target.endpoint, &head));
            // A browser's question comes without a tenant.
            if let Some(answer) = client.preflight(&head) {
                return Ok(answer);
            }
            client.admit()?;
        }
        let caller = matched.admit(&head, record.trail()).await?;
        record.admitted(&caller, &self.metrics);

        match matched.target() {
            Target::Query(query) => {
                let run = query::run(query, &matched, &caller, snapshot, &head, body, record.request_id());
                abandoned::with_client(connection, run).await
            }
            Target::Sql(target) => {
                let run = sql::run(target, &caller, snapshot, &head, body, record.request_id());
                abandoned::with_client(connection, run).await
            }
            Target::Forward(target) => {
                forward::run(target, &caller, snapshot, head, body, record.request_id()).await
            }
        }
    }
}

impl Handler for Gateway {
    /// Answers a request. It cannot fail: a refusal is an answer too.
    async fn handle(&self, inbound: Inbound, connection: &Connection) -> Response<Body> {
        let snapshot = self.snapshots.load();
        let mut record = Record::open(&inbound, connection, snapshot.generation());
        record.set_recorded(snapshot.policy().server.access_log == policy::AccessLog::On);
        let mut sql_client = None;
        let outcome = self.walk(inbound, connection, &snapshot, &mut record, &mut sql_client).await;
        let mut response = match outcome {
            Ok(response) => response,
            Err(refusal) => {
                let response = match &sql_client {
                    Some(client) => client.refuse(&refusal, record.request_id()),
                    None => problem::response(&refusal, record.request_id()),
                };
                record.refused(refusal);
                response
            }
        };
        if let Some(client) = &sql_client {
            client.allow(&mut response);
        }
        record.close(response, &self.metrics, &self.access_log)
    }

    fn refuse(&self, refusal: &Refusal) -> Response<Body> {
        problem::response(refusal, &access::new_request_id())
    }
}
