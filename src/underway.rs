//! Requests under way: what each is doing and for how long, told to whoever asks while it lasts, and
//! ended where an operator wants it.

use std::collections::HashMap;
use std::fmt;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;

use futures_util::task::AtomicWaker;
use http::{Method, Uri};
use rustc_hash::FxBuildHasher;

use crate::address::Peer;
use crate::request_id::RequestId;
use crate::tenant::TenantId;

/// As many parts of the list as keep workers from waiting for each other.
const SHARDS: usize = 16;

/// All requests under way in one process.
#[derive(Default)]
pub struct Underway {
    shards: [Mutex<HashMap<u64, Arc<Progress>, FxBuildHasher>>; SHARDS],
    begun: AtomicU64,
}

/// One request, as far as it has come.
#[derive(Debug)]
pub struct Progress {
    /// The id that client, backend and log share.
    pub id: RequestId,
    /// When its head was read.
    pub started: Instant,
    /// Its method.
    pub method: Method,
    /// Its target as it came, query included.
    pub uri: Uri,
    known: Mutex<Known>,
    phase: AtomicU8,
    received: AtomicU64,
    sent: AtomicU64,
    is_ended: AtomicBool,
    /// Whoever works on it: one task at a time.
    worker: AtomicWaker,
}

/// Whose request it is, as far as that is known.
#[derive(Debug, Clone)]
pub struct Known {
    /// Who sent it: the other end of its connection, or whom a trusted hop says was before that.
    pub peer: Peer,
    /// The route that took it.
    pub route: Option<Arc<str>>,
    /// The tenant that it was admitted for.
    pub tenant: Option<TenantId>,
}

/// What a request is waiting for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Its tenant is being found and admitted.
    Resolving,
    /// An upstream has it, and has not begun to answer.
    Upstream,
    /// A database has it.
    Database,
    /// Its answer is on the way to the client.
    Streaming,
    /// It has left HTTP: both ends say what they like.
    Tunnel,
}

impl Phase {
    const ALL: [Self; 5] = [Self::Resolving, Self::Upstream, Self::Database, Self::Streaming, Self::Tunnel];

    /// The phase in one word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Resolving => "resolving",
            Self::Upstream => "upstream",
            Self::Database => "database",
            Self::Streaming => "streaming",
            Self::Tunnel => "tunnel",
        }
    }
}

/// A request's place in the list, which it leaves when this is dropped.
pub struct Place {
    underway: Arc<Underway>,
    key: u64,
    progress: Arc<Progress>,
}

impl Underway {
    /// Adds a request.
    pub fn enter(self: &Arc<Self>, progress: Progress) -> Place {
        let progress = Arc::new(progress);
        let key = self.begun.fetch_add(1, Ordering::Relaxed);
        self.shard(key).insert(key, Arc::clone(&progress));
        Place { underway: Arc::clone(self), key, progress }
    }

    /// The request with this id, if it is under way.
    pub fn find(&self, id: &str) -> Option<Arc<Progress>> {
        let in_shard =
            |shard| self.shard(shard).values().find(|progress| progress.id.as_str() == id).map(Arc::clone);
        (0..SHARDS as u64).find_map(in_shard)
    }

    /// Every request under way, the oldest first.
    pub fn list(&self) -> Vec<Arc<Progress>> {
        let mut all: Vec<Arc<Progress>> = Vec::new();
        for shard in 0..SHARDS as u64 {
            all.extend(self.shard(shard).values().cloned());
        }
        all.sort_unstable_by_key(|progress| progress.started);
        all
    }

    fn shard(&self, key: u64) -> MutexGuard<'_, HashMap<u64, Arc<Progress>, FxBuildHasher>> {
        let index = usize::try_from(key % SHARDS as u64).expect("less than the number of shards");
        self.shards[index].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Progress {
    /// A request that begins now.
    pub fn begin(id: RequestId, peer: Peer, method: Method, uri: Uri) -> Self {
        Self {
            id,
            started: Instant::now(),
            method,
            uri,
            known: Mutex::new(Known { peer, route: None, tenant: None }),
            phase: AtomicU8::new(Phase::Resolving as u8),
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            is_ended: AtomicBool::new(false),
            worker: AtomicWaker::new(),
        }
    }

    /// Whose it is.
    pub fn known(&self) -> Known {
        self.lock().clone()
    }

    /// What it is waiting for.
    pub fn phase(&self) -> Phase {
        Phase::ALL[usize::from(self.phase.load(Ordering::Relaxed))]
    }

    /// Bytes of its body that were read so far.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Bytes of its answer that were sent so far.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Notes who sent it, where a trusted hop tells.
    pub fn set_peer(&self, peer: Peer) {
        self.lock().peer = peer;
    }

    /// Notes the route.
    pub fn set_route(&self, route: Arc<str>) {
        self.lock().route = Some(route);
    }

    /// Notes the tenant.
    pub fn set_tenant(&self, tenant: TenantId) {
        self.lock().tenant = Some(tenant);
    }

    /// Notes what it is waiting for from now on.
    pub fn set_phase(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    /// Counts bytes of its body.
    pub fn receive(&self, bytes: u64) {
        self.received.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts bytes of its answer.
    pub fn send(&self, bytes: u64) {
        self.sent.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Has it end: whoever works on it lets go of it.
    pub fn end(&self) {
        self.is_ended.store(true, Ordering::Release);
        self.worker.wake();
    }

    /// Ready when it is to end. Until then the task that asked last is woken for it.
    pub fn poll_ended(&self, cx: &Context<'_>) -> Poll<()> {
        self.worker.register(cx.waker());
        if self.is_ended.load(Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// What is told of the request, to share.
    pub fn progress(&self) -> &Arc<Progress> {
        &self.progress
    }
}

impl Deref for Place {
    type Target = Progress;

    fn deref(&self) -> &Progress {
        &self.progress
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.underway.shard(self.key).remove(&self.key);
    }
}

impl fmt::Debug for Underway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Underway").field("requests", &self.list().len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin() -> Progress {
        let peer = Peer::Ip(([192, 0, 2, 1], 1).into());
        Progress::begin(RequestId::fresh(), peer, Method::GET, Uri::from_static("/a?b"))
    }

    #[test]
    fn a_request_is_listed_until_it_is_over() {
        let underway = Arc::new(Underway::default());
        let places: Vec<Place> = (0..40).map(|_| underway.enter(begin())).collect();
        let listed = underway.list();
        assert_eq!(listed.len(), 40);
        assert_eq!(listed[0].id, places[0].id, "the oldest comes first");
        drop(places);
        assert!(underway.list().is_empty());
    }

    #[test]
    fn what_it_does_is_told_while_it_does_it() {
        let underway = Arc::new(Underway::default());
        let place = underway.enter(begin());
        assert_eq!(underway.list()[0].phase(), Phase::Resolving);
        for phase in Phase::ALL {
            place.set_phase(phase);
            assert_eq!(underway.list()[0].phase(), phase);
        }
        place.set_route("app".into());
        place.set_tenant("acme".parse().unwrap());
        let known = underway.list()[0].known();
        assert_eq!((known.route.as_deref(), known.tenant.unwrap().as_str()), (Some("app"), "acme"));
        let noted = Context::from_waker(std::task::Waker::noop());
        assert!(place.poll_ended(&noted).is_pending());
        underway.find(place.id.as_str()).unwrap().end();
        assert!(place.poll_ended(&noted).is_ready() && underway.find("2").is_none());
        place.send(3);
        place.send(4);
        place.receive(1);
        assert_eq!((underway.list()[0].sent(), underway.list()[0].received()), (7, 1));
    }
}
