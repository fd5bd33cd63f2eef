//! Connections to one endpoint: made when needed, kept for a while, never shared by two requests
//! at a time unless they speak HTTP/2, and never more than its limit. Each worker keeps to those that
//! it made, as long as there may be more.

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use futures_util::future::Either;
use http::uri::Authority;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1};
use tokio::runtime::{Handle, Id};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::connect::{ConnectError, Connector, Sender, Shared};
use super::outgoing::Outgoing;
use crate::policy;

/// The connections to one endpoint.
pub(super) struct Pool {
    connector: Connector,
    settings: Arc<policy::Upstream>,
    idle: Mutex<Idle>,
    /// One for each request that may be under way now.
    slots: Arc<Semaphore>,
    most: usize,
    /// One for each connection that one request has to itself, where requests may share others: which
    /// of both it is, the handshake tells.
    unshared: Option<Arc<Semaphore>>,
    waiting: AtomicUsize,
    open: Arc<AtomicUsize>,
}

#[derive(Default)]
struct Idle {
    /// The one used last is at the end and is used next, so that a lull lets the rest expire.
    http1: Vec<Kept>,
    /// One for each runtime that asked.
    http2: Vec<(Id, Shared)>,
    reaped: bool,
}

struct Kept {
    sender: http1::SendRequest<Outgoing>,
    /// The runtime that drives it: one of another thread would have to be woken for each request.
    home: Id,
    since: Instant,
}

/// A connection for one request.
pub(super) struct Lease {
    sender: Sender,
    home: Id,
    pool: Arc<Pool>,
    reused: bool,
    _slot: OwnedSemaphorePermit,
    _unshared: Option<OwnedSemaphorePermit>,
    place: Option<OwnedSemaphorePermit>,
}

impl Pool {
    pub(super) fn new(connector: Connector, settings: Arc<policy::Upstream>) -> Arc<Self> {
        // Requests share an HTTP/2 connection: what limits them is the upstream's own limit.
        let negotiated = !settings.http2 && connector.tls.is_some() && settings.tls.negotiates;
        let connections = settings.max_connections.min(Semaphore::MAX_PERMITS);
        let requests = settings.max_requests.min(Semaphore::MAX_PERMITS);
        let most = if settings.http2 || negotiated { requests } else { connections };
        Arc::new(Self {
            connector,
            settings,
            idle: Mutex::default(),
            slots: Arc::new(Semaphore::new(most)),
            most,
            unshared: negotiated.then(|| Arc::new(Semaphore::new(connections))),
            waiting: AtomicUsize::new(0),
            open: Arc::default(),
        })
    }

    /// How connections are made.
    pub(super) fn connector(&self) -> &Connector {
        &self.connector
    }

    /// Requests that use a connection now.
    pub(super) fn in_flight(&self) -> usize {
        self.most - self.slots.available_permits()
    }

    /// Requests that wait for one.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Connections that are open, unused ones included.
    pub(super) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// A kept connection if there is one and `fresh` does not forbid it, else a new one.
    pub(super) async fn lease(self: &Arc<Self>, fresh: bool) -> Result<Lease, ConnectError> {
        let slot = self.permit(&self.slots).await?;
        let unshared = match &self.unshared {
            Some(places) => Some(self.permit(places).await?),
            None => None,
        };
        let here = Handle::current().id();
        if !fresh {
            while let Some((mut sender, home)) = self.take(here) {
                // Its last response is complete, so that it is ready as soon as its task has run.
                if sender.ready().await.is_ok() {
                    return Ok(self.lend(sender, home, true, slot, unshared));
                }
            }
        }
        let limit = self.settings.connect_timeout;
        // Boxed, because most requests need no new connection and all would carry it with them.
        let connecting = tokio::time::timeout(limit, Box::pin(self.connector.connect(&self.open)));
        let sender = connecting.await.map_err(|_| ConnectError::Timeout(limit))??;
        if let Sender::Http2(shared) = &sender {
            self.idle().share(here, shared);
        }
        Ok(self.lend(sender, here, false, slot, unshared))
    }

    fn lend(
        self: &Arc<Self>,
        sender: Sender,
        home: Id,
        reused: bool,
        slot: OwnedSemaphorePermit,
        unshared: Option<OwnedSemaphorePermit>,
    ) -> Lease {
        // The others that wait for a connection can share this one.
        let unshared = unshared.filter(|_| matches!(sender, Sender::Http1(_)));
        Lease { sender, home, pool: Arc::clone(self), reused, _slot: slot, _unshared: unshared, place: None }
    }

    async fn permit(&self, permits: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, ConnectError> {
        if let Ok(permit) = Arc::clone(permits).try_acquire_owned() {
            return Ok(permit);
        }
        let _waiting = Waiting::among(&self.waiting, self.settings.max_pending)?;
        let freed = Arc::clone(permits).acquire_owned();
        match tokio::time::timeout(self.settings.connect_timeout, freed).await {
            Ok(permit) => Ok(permit.expect("nobody closes the permits")),
            Err(_) => Err(ConnectError::Busy("none came free in time")),
        }
    }

    /// A kept connection that the runtime `here` drives, or any one where there may be no more.
    fn take(&self, here: Id) -> Option<(Sender, Id)> {
        let is_full = self.open() >= self.settings.max_connections;
        let mut idle = self.idle();
        while let Some(kept) = idle.pop(here, is_full) {
            if !kept.sender.is_closed() && kept.since.elapsed() < self.settings.pool_idle_timeout {
                return Some((Sender::Http1(kept.sender), kept.home));
            }
        }
        idle.shared(here).map(|shared| (Sender::Http2(shared), here))
    }

    fn keep(self: &Arc<Self>, sender: http1::SendRequest<Outgoing>, home: Id) {
        let mut idle = self.idle();
        if idle.http1.len() >= self.settings.pool_max_idle || sender.is_closed() {
            return;
        }
        idle.http1.push(Kept { sender, home, since: Instant::now() });
        if !idle.reaped {
            idle.reaped = true;
            tokio::spawn(reap(Arc::downgrade(self), self.settings.pool_idle_timeout));
        }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Idle {
    fn pop(&mut self, here: Id, or_elsewhere: bool) -> Option<Kept> {
        match self.http1.iter().rposition(|kept| kept.home == here) {
            Some(at) => Some(self.http1.remove(at)),
            None if or_elsewhere => self.http1.pop(),
            None => None,
        }
    }

    fn shared(&mut self, here: Id) -> Option<Shared> {
        // Taken out if dead, so that the next request finds none rather than this one.
        self.http2.retain(|(_, shared)| !shared.requests.is_closed());
        self.http2.iter().find(|(home, _)| *home == here).map(|(_, shared)| shared.clone())
    }

    /// Keeps a connection for all. Of two that were made at once, the later one serves its one request.
    fn share(&mut self, here: Id, shared: &Shared) {
        if !self.http2.iter().any(|(home, _)| *home == here) {
            self.http2.push((here, shared.clone()));
        }
    }
}

/// Closes connections that nobody used for too long. Ends when none is left, or with the pool.
async fn reap(pool: Weak<Pool>, limit: Duration) {
    loop {
        tokio::time::sleep(limit.max(Duration::from_millis(10))).await;
        let Some(pool) = pool.upgrade() else { return };
        let mut idle = pool.idle();
        idle.http1.retain(|kept| !kept.sender.is_closed() && kept.since.elapsed() < limit);
        if idle.http1.is_empty() {
            idle.reaped = false;
            return;
        }
    }
}

impl Lease {
    /// Whether the connection has served a request before.
    pub(super) fn is_reused(&self) -> bool {
        self.reused
    }

    /// Whether the connection speaks HTTP/2.
    pub(super) fn is_http2(&self) -> bool {
        matches!(self.sender, Sender::Http2(_))
    }

    /// Whether the endpoint offers extended CONNECT (RFC 8441, section 3). Its settings say so, which may
    /// still be on their way over a new connection.
    pub(super) async fn offers_connect(&self) -> bool {
        let Sender::Http2(shared) = &self.sender else { return false };
        shared.offers_connect.clone().wait_for(|offers| *offers).await.is_ok()
    }

    /// Whether the connection is encrypted.
    pub(super) fn is_encrypted(&self) -> bool {
        self.pool.connector.tls.is_some()
    }

    /// What the endpoint goes by in a request that names no host.
    pub(super) fn authority(&self) -> &Authority {
        &self.pool.connector.authority
    }

    /// Keeps a request's place among those of its upstream until the exchange is over.
    pub(super) fn hold(&mut self, place: OwnedSemaphorePermit) {
        self.place = Some(place);
    }

    /// Sends a request. The error has the request in it if none of it was sent.
    pub(super) fn send(
        &mut self,
        request: Request<Outgoing>,
    ) -> impl Future<Output = Result<Response<Incoming>, TrySendError<Request<Outgoing>>>> {
        match &mut self.sender {
            Sender::Http1(sender) => Either::Left(sender.try_send_request(request)),
            Sender::Http2(shared) => Either::Right(shared.requests.try_send_request(request)),
        }
    }

    /// Keeps the connection for another request. Only for a request whose body was sent whole and
    /// whose response was read whole: a lease that is merely dropped closes its connection.
    pub(super) fn give_back(self) {
        if let Sender::Http1(sender) = self.sender {
            self.pool.keep(sender, self.home);
        }
    }
}

/// A request in the queue for a connection, for as long as it waits.
struct Waiting<'p>(&'p AtomicUsize);

impl<'p> Waiting<'p> {
    fn among(waiting: &'p AtomicUsize, most: usize) -> Result<Self, ConnectError> {
        let queued = Self(waiting);
        if waiting.fetch_add(1, Ordering::Relaxed) >= most {
            return Err(ConnectError::Busy("and as many requests wait as may"));
        }
        Ok(queued)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
