//! The connections of one database: shared fairly between tenants, kept warm, bounded in number.

mod affinity;
mod session;
mod shelf;
mod turnstile;

use std::any::{Any, TypeId};
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::task::AbortOnDropHandle;

pub(super) use session::{NotOpened, Server, Session};

use super::{Scope, failure};
use crate::error::Refusal;
use crate::policy::{Name, PoolSettings};
use crate::telemetry::{DatabaseLabel, Metrics};
use crate::tenant::RoleName;
use affinity::{Mark, Marks, Sought};
use shelf::{Fit, Idle, Shelf};
use turnstile::{Full, Holder, Limits, Ticket, Turnstile};

/// How long the first new attempt to connect waits, where the server is starting or full. Each
/// further one waits twice as long as the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(400);

/// How often idle connections are looked through, unless they may idle for a shorter time.
const SWEEP_INTERVAL: Duration = Duration::from_secs(15);

/// A pool. `max_connections` bounds everything that is open: what is in use, what idles, and what
/// is being opened, of every kind.
///
/// A request first gets a permit, which there are as many of as connections, in turn with other
/// tenants' requests; then the idle connection that suits it best, or a new one. Where that would
/// be one too many, the longest unused connection is closed for it.
pub(super) struct Pool {
    inner: Arc<Inner>,
    _sweeper: AbortOnDropHandle<()>,
}

/// A connection for one request. Dropped in any way but [`Leased::settle`], it is closed.
pub(super) struct Leased<C: Session> {
    session: Option<Box<C>>,
    opened: Instant,
    idled: bool,
    fit: Fit,
    mark: Mark,
    permit: Permit,
}

/// How a pool is used at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolStatus {
    /// Connections that requests have, or are opening.
    pub in_use: usize,
    /// Connections that nobody uses.
    pub idle: usize,
    /// Requests that wait for their turn.
    pub waiting: usize,
}

struct Inner {
    server: Server,
    metrics: Arc<Metrics>,
    label: DatabaseLabel,
    state: Mutex<State>,
}

struct State {
    turnstile: Turnstile<oneshot::Sender<()>>,
    shelf: Shelf<AnySession>,
    marks: Marks,
}

/// A connection of whichever kind: its [`Fit`] says which.
type AnySession = Box<dyn Any + Send>;
type AnyIdle = Idle<AnySession>;

impl Pool {
    /// Makes a pool in which nothing is connected yet. Must be called inside a tokio runtime.
    pub(super) fn new(server: Server, metrics: Arc<Metrics>) -> Self {
        let settings = &server.settings().pool;
        let limits = Limits { held: settings.tenant_connections, waiting: settings.tenant_queue as usize };
        let turnstile = Turnstile::new(settings.max_connections, limits);
        let label = DatabaseLabel { database: Name::clone(&server.settings().name) };
        let state = Mutex::new(State { turnstile, shelf: Shelf::new(), marks: Marks::default() });
        let inner = Arc::new(Inner { server, metrics, label, state });
        let sweeper = tokio::spawn(sweep(Arc::clone(&inner)));
        Self { inner, _sweeper: AbortOnDropHandle::new(sweeper) }
    }

    /// A connection that logged in as the scope asks for, for whom the scope belongs to.
    ///
    /// # Errors
    /// `tenant-limited` at once where too many of the tenant's requests wait already,
    /// `database-unavailable` where there is no connection within `acquire_timeout`.
    pub(super) async fn take<C: Session>(&self, scope: &Scope) -> Result<Leased<C>, Refusal> {
        self.take_as(scope.tenant().cloned(), scope.connections(), scope.login()).await
    }

    /// A connection of the URL's user, for nobody's statements.
    pub(super) async fn take_own<C: Session>(&self) -> Result<Leased<C>, Refusal> {
        self.take_as(None, None, None).await
    }

    /// What is in use, idles and waits now.
    pub(super) fn status(&self) -> PoolStatus {
        let state = self.inner.state();
        let in_use = self.inner.settings().max_connections - state.turnstile.free();
        PoolStatus { in_use: in_use as usize, idle: state.shelf.len(), waiting: state.turnstile.waiting() }
    }

    async fn take_as<C: Session>(
        &self,
        holder: Holder,
        most: Option<u32>,
        login: Option<&RoleName>,
    ) -> Result<Leased<C>, Refusal> {
        let since = Instant::now();
        let taken = self.inner.take(holder, most, login, since + self.inner.settings().acquire_timeout).await;
        let waited = self.inner.metrics.pool_wait.get_or_create(&self.inner.label);
        waited.observe(since.elapsed().as_secs_f64());
        taken
    }
}

impl<C: Session> Leased<C> {
    /// The name of the database that it leads to.
    pub(super) fn database(&self) -> &Name {
        &self.permit.inner.label.database
    }

    /// Whether it was there before, and so may have died since.
    pub(super) fn idled(&self) -> bool {
        self.idled
    }

    /// Gives the connection back: its transaction is over and its session is clean.
    pub(super) fn settle(mut self) {
        let session = self.session.take().expect("only `settle` takes it, and it takes the lease too");
        let now = Instant::now();
        if now.duration_since(self.opened) < self.permit.inner.settings().max_lifetime {
            self.permit.kept = Some(Idle {
                session,
                fit: self.fit.clone(),
                mark: self.mark,
                last: self.permit.holder.clone(),
                opened: self.opened,
                since: now,
            });
        }
    }
}

impl<C: Session> Deref for Leased<C> {
    type Target = C;

    fn deref(&self) -> &C {
        self.session.as_ref().expect("only `settle` takes it, and it takes the lease too")
    }
}

impl<C: Session> DerefMut for Leased<C> {
    fn deref_mut(&mut self) -> &mut C {
        self.session.as_mut().expect("only `settle` takes it, and it takes the lease too")
    }
}

impl<C: Session> Drop for Leased<C> {
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            // Closed here and now, without a farewell that would have to wait for the server,
            // which notices within its check interval. The permit is given back behind it.
            drop(session);
            let inner = &self.permit.inner;
            inner.metrics.connections_discarded.get_or_create(&inner.label).inc();
        }
    }
}

impl Inner {
    async fn take<C: Session>(
        self: &Arc<Self>,
        holder: Holder,
        most: Option<u32>,
        login: Option<&RoleName>,
        deadline: Instant,
    ) -> Result<Leased<C>, Refusal> {
        let permit = self.permit(holder, most, deadline).await?;
        let fit = Fit { kind: TypeId::of::<C>(), login: login.cloned() };
        let (found, evicted) = self.state().find(&fit, &permit.holder);
        // A socket is closed outside the lock.
        drop(evicted);
        let idled = found.is_some();
        let (session, opened, mark) = match found {
            Some(idle) => {
                let session = idle.session.downcast::<C>().expect("what fits is of that kind");
                (session, idle.opened, idle.mark)
            }
            None => {
                let session = Box::new(self.open(login, deadline).await?);
                (session, Instant::now(), self.state().marks.next())
            }
        };
        Ok(Leased { session: Some(session), opened, idled, fit, mark, permit })
    }

    /// The right to one connection, once it is the holder's turn.
    async fn permit(
        self: &Arc<Self>,
        holder: Holder,
        most: Option<u32>,
        deadline: Instant,
    ) -> Result<Permit, Refusal> {
        let (mut permit, turn) = {
            let mut state = self.state();
            let (waiting, turn) = if state.turnstile.pass(&holder, most) {
                (None, None)
            } else {
                let (sender, turn) = oneshot::channel();
                let ticket = state
                    .turnstile
                    .wait(&holder, sender)
                    .map_err(|Full| failure::tenant_limited(self.settings().tenant_queue))?;
                (Some(ticket), Some(turn))
            };
            (Permit { inner: Arc::clone(self), holder, waiting, kept: None }, turn)
        };
        if let Some(turn) = turn {
            timeout_at(deadline, turn)
                .await
                .map_err(|_| self.crowded(most))?
                .expect("the turnstile keeps what it was given until it is that one's turn");
            permit.waiting = None;
        }
        Ok(permit)
    }

    async fn open<C: Session>(&self, login: Option<&RoleName>, deadline: Instant) -> Result<C, Refusal> {
        let mut pause = FIRST_PAUSE;
        loop {
            let not_opened = match timeout_at(deadline, C::open(&self.server, login)).await {
                Ok(Ok(session)) => return Ok(session),
                Ok(Err(not_opened)) => not_opened,
                Err(_) => return Err(failure::no_answer()),
            };
            if !not_opened.passes || timeout_at(deadline, sleep(pause)).await.is_err() {
                return Err(not_opened.refusal);
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// The refusal of a request that waited in vain, with what it waited for.
    fn crowded(&self, most: Option<u32>) -> Refusal {
        let settings = self.settings();
        if self.state().turnstile.free() == 0 {
            failure::pool_busy(settings.max_connections)
        } else {
            failure::tenant_busy(most.unwrap_or(settings.tenant_connections))
        }
    }

    fn settings(&self) -> &PoolSettings {
        &self.server.settings().pool
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The idle connection that suits best, or what must be closed before another one is opened.
    fn find(&mut self, fit: &Fit, holder: &Holder) -> (Option<AnyIdle>, Option<AnyIdle>) {
        let found = self.shelf.take(fit, holder);
        // Whoever has a permit has a connection, or is about to: what idles fits in the rest.
        let crowded = found.is_none() && self.shelf.len() > self.turnstile.free() as usize;
        let evicted = if crowded { self.shelf.evict() } else { None };
        (found, evicted)
    }
}

/// The right to one connection, or to a place in the line for it. Dropped at any moment, it gives
/// back what it stands for.
struct Permit {
    inner: Arc<Inner>,
    holder: Holder,
    waiting: Option<Ticket>,
    /// A connection that goes on the shelf with the permit, so that the two are never counted both.
    kept: Option<AnyIdle>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let next = {
            let mut state = self.inner.state();
            if self.waiting.is_some_and(|ticket| state.turnstile.give_up(&self.holder, ticket)) {
                return;
            }
            let mark = self.kept.as_ref().map(|idle| idle.mark);
            if let Some(idle) = self.kept.take() {
                state.shelf.put(idle);
            }
            let suits = |holder: &Holder| mark.map_or(0, |mark| mark.suits(Sought::by(holder)));
            state.turnstile.leave(&self.holder, suits)
        };
        if let Some(next) = next {
            // Whoever has gone in this moment finds that its turn has come, and gives it back too.
            let _ = next.send(());
        }
    }
}

/// Closes connections that idled or lived for too long, for as long as the pool lives.
async fn sweep(pool: Arc<Inner>) {
    let PoolSettings { idle_timeout, max_lifetime, .. } = *pool.settings();
    let pause = SWEEP_INTERVAL.min(idle_timeout / 2).min(max_lifetime / 2).max(FIRST_PAUSE);
    loop {
        let over = pool.state().shelf.expired(Instant::now(), idle_timeout, max_lifetime);
        drop(over);
        sleep(pause).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};

    use proptest::prelude::*;

    use super::*;
    use crate::error::Code;
    use crate::policy::{Database, Secret};

    static OPEN: AtomicI64 = AtomicI64::new(0);
    static MOST: AtomicI64 = AtomicI64::new(0);

    /// A connection to nowhere that takes a while to open, and is counted while it is there.
    struct Counted;

    impl Session for Counted {
        async fn open(_: &Server, _: Option<&RoleName>) -> Result<Self, NotOpened> {
            tokio::task::yield_now().await;
            MOST.fetch_max(OPEN.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
            let opened = Self;
            tokio::task::yield_now().await;
            Ok(opened)
        }
    }

    impl Drop for Counted {
        fn drop(&mut self) {
            OPEN.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn pool(settings: PoolSettings) -> Pool {
        let url = Secret::new("postgres://nowhere/main".into());
        let settings = Database { pool: settings, ..Database::new("main", url) };
        Pool::new(Server::new(Arc::new(settings)).unwrap(), Metrics::new())
    }

    fn holder(tenant: usize) -> Holder {
        Some(format!("tenant-{tenant}").parse().unwrap())
    }

    /// One request: of which tenant, which kind of login, after how many of its awaits it is
    /// cancelled, and whether its connection is fit to be kept.
    type Request = (usize, bool, Option<usize>, bool);

    async fn request(pool: &Pool, (tenant, logs_in, patience, settles): Request) {
        let role = logs_in.then(|| format!("role_{tenant}").parse().unwrap());
        let work = async {
            let leased = pool.take_as::<Counted>(holder(tenant), None, role.as_ref()).await.unwrap();
            tokio::task::yield_now().await;
            if settles {
                leased.settle();
            }
        };
        let impatience = async {
            match patience {
                Some(awaits) => {
                    for _ in 0..awaits {
                        tokio::task::yield_now().await;
                    }
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! { () = work => {}, () = impatience => {} }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]
        #[test]
        fn requests_may_be_cancelled_anywhere_and_no_connection_is_lost_or_too_many(
            requests in prop::collection::vec((0..4_usize, any::<bool>(), prop::option::of(0..12_usize), any::<bool>()), 1..60),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            OPEN.store(0, Ordering::Relaxed);
            MOST.store(0, Ordering::Relaxed);
            runtime.block_on(async {
                let settings = PoolSettings { max_connections: 3, tenant_connections: 2, ..PoolSettings::default() };
                let pool = pool(PoolSettings { acquire_timeout: Duration::from_secs(600), ..settings });
                futures_util::future::join_all(requests.into_iter().map(|one| request(&pool, one))).await;
                let state = pool.inner.state();
                assert_eq!(state.turnstile.free(), 3);
                assert_eq!(i64::try_from(state.shelf.len()).unwrap(), OPEN.load(Ordering::Relaxed));
                assert!(MOST.load(Ordering::Relaxed) <= 3, "{MOST:?} were open at once");
            });
        }
    }

    #[tokio::test]
    async fn a_tenant_with_too_many_requests_is_told_so_at_once_and_others_are_served() {
        let settings = PoolSettings {
            max_connections: 2,
            tenant_connections: 1,
            tenant_queue: 1,
            ..PoolSettings::default()
        };
        let pool = pool(PoolSettings { acquire_timeout: Duration::from_millis(20), ..settings });
        let held = pool.take_as::<Held>(holder(0), None, None).await.unwrap();
        assert_eq!(pool.status(), PoolStatus { in_use: 1, idle: 0, waiting: 0 });
        let (second, third) = tokio::join!(
            pool.take_as::<Held>(holder(0), None, None),
            pool.take_as::<Held>(holder(0), None, None)
        );
        let (second, third) = (second.err().unwrap(), third.err().unwrap());
        assert_eq!((third.code(), third.status().as_u16()), (Code::TenantLimited, 429), "{third}");
        assert_eq!(second.code(), Code::DatabaseUnavailable);
        assert!(second.cause().unwrap().contains("per_tenant"), "{second}");
        assert!(second.retry_after_hint().is_some() && third.retry_after_hint().is_some());
        let other = pool.take_as::<Held>(holder(1), None, None).await.unwrap();
        let crowded = pool.take_as::<Held>(holder(2), None, None).await.err().unwrap();
        assert!(crowded.cause().unwrap().contains("max_connections"), "{crowded}");
        drop((held, other));
        assert!(pool.take_as::<Held>(holder(2), None, None).await.is_ok());
    }

    /// A connection that nobody counts.
    struct Held;

    impl Session for Held {
        async fn open(_: &Server, _: Option<&RoleName>) -> Result<Self, NotOpened> {
            Ok(Self)
        }
    }
}
