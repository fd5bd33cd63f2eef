//! The walk: one request from its first step to its response, and the one place where an error
//! becomes a response.

mod abandoned;
mod access;
mod access_line;
mod access_log;
mod ended;
mod forward;
mod grpc;
mod json_line;
mod mirror;
mod ndjson;
mod origin;
mod problem;
mod query;
pub mod sanitise;
mod spans;
mod sql;
mod upgrade;

use std::pin::pin;
use std::sync::Arc;

use http::Response;

use crate::body::Body;
use crate::decision::RequestHead;
use crate::error::{Code, Refusal};
use crate::handler::{Connection, Handler, Inbound};
use crate::request_id::RequestId;
use crate::snapshot::{Snapshot, SnapshotStore, Stopped, Target};
use crate::telemetry::Metrics;
use crate::underway::Underway;
use crate::upgrade::Wish;

use access::{Around, Record};
pub use access_log::{AccessLog, Format as LogFormat};

/// Takes requests for as long as the process runs.
pub struct Gateway {
    snapshots: Arc<SnapshotStore>,
    metrics: Arc<Metrics>,
    access_log: AccessLog,
    underway: Arc<Underway>,
}

/// A request that can be read in one way only, and whose tenant is not known yet.
struct Arrival {
    head: Arc<RequestHead>,
    body: Body,
    wish: Option<Wish>,
}

impl Gateway {
    /// A gateway that serves whatever snapshot is in force.
    pub fn new(
        snapshots: Arc<SnapshotStore>,
        metrics: Arc<Metrics>,
        access_log: AccessLog,
        underway: Arc<Underway>,
    ) -> Self {
        Self { snapshots, metrics, access_log, underway }
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
        let wish = inbound.upgrade;
        let (parts, body) = inbound.request.into_parts();
        let authority = sanitise::inspect(&parts)?;
        connection.serves(&authority.host)?;
        let origin = origin::believe(&parts.headers, authority, connection, &snapshot.policy().server)?;
        record.came_from(origin.client);
        let head = Arc::new(RequestHead {
            method: parts.method,
            scheme: origin.scheme,
            authority: origin.authority.written,
            host: origin.authority.host,
            uri: parts.uri,
            headers: parts.headers,
            peer: origin.client,
            hops: origin.hops,
            local: connection.local.clone(),
            client_certificate: connection.client_certificate.clone(),
            // Those of its token are told to plugins, after it was verified.
            claims: None,
        });

        let arrival = Arrival { head, body, wish };
        self.serve(arrival, connection, snapshot, record, sql_client).await
    }

    /// What one snapshot makes of a request that can be read in one way only.
    async fn serve(
        &self,
        arrival: Arrival,
        connection: &Connection,
        snapshot: &Snapshot,
        record: &mut Record,
        sql_client: &mut Option<sql::Client>,
    ) -> Result<Response<Body>, Refusal> {
        let Arrival { head, body, wish } = arrival;
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
        let caller = match matched.admit(&head, record.trail()).await {
            Ok(caller) => caller,
            Err(Stopped::Refused(refusal)) => return Err(refusal),
            Err(Stopped::Held(hold)) => {
                hold.released(record.arrived()).await?;
                // The override is gone, and what is in force by now decides.
                let snapshot = self.snapshots.load();
                record.starts_anew(snapshot.generation());
                let arrival = Arrival { head, body, wish };
                return Box::pin(self.serve(arrival, connection, &snapshot, record, sql_client)).await;
            }
        };
        record.admitted(&caller);

        let switch = upgrade::grant(wish, matched.target())?;
        let body = caller.pace(body);
        let answered = match matched.target() {
            Target::Query(query) => {
                let request_id = record.request_id().as_str();
                let run = query::run(query, &matched, &caller, snapshot, &head, body, request_id);
                // On the heap, or the walk of a forwarded request would have room for it.
                abandoned::with_client(connection, Box::pin(run)).await
            }
            Target::Sql(target) => {
                let request_id = record.request_id().as_str();
                let run = sql::run(target, &caller, snapshot, &head, body, request_id);
                abandoned::with_client(connection, Box::pin(run)).await
            }
            Target::Forward(target) => {
                let outbound = forward::Outbound { head, body, switch };
                forward::run(target, &matched.captures, &caller, snapshot, outbound, record, &self.metrics)
                    .await
            }
        };
        match answered {
            Ok(response) => Ok(caller.answer(response)),
            Err(refusal) => {
                if refusal.code() == Code::TenantLimited {
                    Box::pin(matched.hold_back(&caller)).await;
                }
                Err(refusal)
            }
        }
    }
}

impl Handler for Gateway {
    /// Answers a request. It cannot fail: a refusal is an answer too.
    async fn handle(&self, mut inbound: Inbound, connection: &Connection) -> Response<Body> {
        let snapshot = self.snapshots.load();
        let around = Around { underway: &self.underway, metrics: &self.metrics, log: &self.access_log };
        let mut record = Record::open(&mut inbound, connection, &snapshot, around);
        let is_grpc = grpc::is_spoken(&inbound.request);
        let mut sql_client = None;
        let progress = Arc::clone(record.place.progress());
        // Pinned where it is made: it is large, and every request would pay for moving it.
        let outcome = ended::unless_ended(
            &progress,
            pin!(self.walk(inbound, connection, &snapshot, &mut record, &mut sql_client)),
        )
        .await;
        let mut response = match outcome {
            Ok(response) => response,
            Err(refusal) => {
                let response = match &sql_client {
                    Some(client) => client.refuse(&refusal, record.request_id().as_str()),
                    None if is_grpc => grpc::refuse(&refusal),
                    None => problem::response(&refusal, record.request_id().as_str()),
                };
                record.refused(refusal);
                response
            }
        };
        if let Some(client) = &sql_client {
            client.allow(&mut response);
        }
        record.close(response)
    }

    fn refuse(&self, refusal: &Refusal) -> Response<Body> {
        problem::response(refusal, RequestId::fresh().as_str())
    }
}
