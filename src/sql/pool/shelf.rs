//! Idle connections, and which of them suits whom best.

use std::any::TypeId;
use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::affinity::{Mark, Sought};
use super::turnstile::Holder;
use crate::tenant::RoleName;

/// Idle connections of one database, the longest unused first.
///
/// It is searched from end to end: a pool has tens of connections, and they lie side by side.
pub(super) struct Shelf<S> {
    idle: VecDeque<Idle<S>>,
}

/// What a connection must be to be of use at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fit {
    /// The type of the connection.
    pub(super) kind: TypeId,
    /// Whom it logged in as, where that is not the URL's user.
    pub(super) login: Option<RoleName>,
}

/// A connection that nobody uses.
#[derive(Debug, PartialEq)]
pub(super) struct Idle<S> {
    pub(super) session: S,
    pub(super) fit: Fit,
    pub(super) mark: Mark,
    /// Who used it last: that tenant's statements are prepared on it, and their plans are warm.
    pub(super) last: Holder,
    pub(super) opened: Instant,
    pub(super) since: Instant,
}

impl<S> Shelf<S> {
    pub(super) fn new() -> Self {
        Self { idle: VecDeque::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.idle.len()
    }

    pub(super) fn put(&mut self, idle: Idle<S>) {
        self.idle.push_back(idle);
    }

    /// Takes the connection that the holder used last, or else, of those that fit, the one that suits
    /// it best.
    pub(super) fn take(&mut self, fit: &Fit, holder: &Holder) -> Option<Idle<S>> {
        let own = self.idle.iter().rposition(|idle| idle.fit == *fit && idle.last == *holder);
        let best = || {
            let sought = Sought::by(holder);
            let fitting = self.idle.iter().enumerate().filter(|(_, idle)| idle.fit == *fit);
            fitting.max_by_key(|(_, idle)| idle.mark.suits(sought)).map(|(at, _)| at)
        };
        let at = own.or_else(best)?;
        self.idle.remove(at)
    }

    /// Takes the longest unused connection, whosever it is, to make room for another.
    pub(super) fn evict(&mut self) -> Option<Idle<S>> {
        self.idle.pop_front()
    }

    /// Takes the connections that idled or lived for too long.
    pub(super) fn expired(
        &mut self,
        now: Instant,
        idle_timeout: Duration,
        max_lifetime: Duration,
    ) -> Vec<Idle<S>> {
        let over = |idle: &Idle<S>| {
            now.duration_since(idle.since) >= idle_timeout || now.duration_since(idle.opened) >= max_lifetime
        };
        let (over, kept) = self.idle.drain(..).partition(over);
        self.idle = kept;
        Vec::from(over)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::pool::affinity::Marks;

    const MINUTE: Duration = Duration::from_secs(60);

    fn holder(name: &str) -> Holder {
        Some(name.parse().unwrap())
    }

    fn own() -> Fit {
        Fit { kind: TypeId::of::<u8>(), login: None }
    }

    fn shelf(tenants: &[(u8, &str, Fit)]) -> Shelf<u8> {
        let (mut shelf, mut marks, now) = (Shelf::new(), Marks::default(), Instant::now());
        for (session, tenant, fit) in tenants {
            let (fit, mark, last) = (fit.clone(), marks.next(), holder(tenant));
            shelf.put(Idle { session: *session, fit, mark, last, opened: now, since: now });
        }
        shelf
    }

    fn taken(shelf: &mut Shelf<u8>, fit: &Fit, tenant: &str) -> Option<u8> {
        shelf.take(fit, &holder(tenant)).map(|idle| idle.session)
    }

    #[test]
    fn a_tenant_gets_what_it_used_last() {
        let mut shelf = shelf(&[(1, "a", own()), (2, "b", own()), (3, "a", own()), (4, "c", own())]);
        assert_eq!(taken(&mut shelf, &own(), "a"), Some(3));
        assert_eq!(taken(&mut shelf, &own(), "c"), Some(4));
        assert_eq!(taken(&mut shelf, &own(), "a"), Some(1));
        assert_eq!(taken(&mut shelf, &own(), "c"), Some(2));
        assert_eq!(taken(&mut shelf, &own(), "c"), None);
    }

    #[test]
    fn a_tenant_comes_back_to_the_same_one_after_others_have_used_it() {
        let mut shelf = shelf(&[(1, "a", own()), (2, "a", own()), (3, "a", own()), (4, "a", own())]);
        for tenant in ["b", "c", "d", "e"] {
            let mut homes = Vec::new();
            for last in ["x", "y", "z"] {
                let idle = shelf.take(&own(), &holder(tenant)).unwrap();
                homes.push(idle.session);
                shelf.put(Idle { last: holder(last), ..idle });
            }
            assert!(homes.windows(2).all(|pair| pair[0] == pair[1]), "{tenant}: {homes:?}");
        }
    }

    #[test]
    fn a_connection_of_another_login_or_kind_fits_nobody_else() {
        let as_role = |role: &str| Fit { login: Some(role.parse().unwrap()), ..own() };
        let other_kind = Fit { kind: TypeId::of::<u16>(), login: None };
        let mut shelf = shelf(&[(1, "a", own()), (2, "a", as_role("a_role")), (3, "a", other_kind.clone())]);
        assert_eq!(taken(&mut shelf, &as_role("b_role"), "a"), None);
        assert_eq!(taken(&mut shelf, &as_role("a_role"), "b"), Some(2));
        assert_eq!(taken(&mut shelf, &other_kind, "b"), Some(3));
        assert_eq!(shelf.evict().map(|idle| idle.session), Some(1));
    }

    #[test]
    fn what_idled_or_lived_too_long_is_taken_down() {
        let (mut shelf, mut marks, start) = (Shelf::new(), Marks::default(), Instant::now());
        for (session, opened, since) in [(1, 0, 1), (2, 0, 9), (3, 8, 9)] {
            let (opened, since) = (start + opened * MINUTE, start + since * MINUTE);
            shelf.put(Idle { session, fit: own(), mark: marks.next(), last: None, opened, since });
        }
        let over = |shelf: &mut Shelf<u8>, now, idle, life| -> Vec<u8> {
            shelf
                .expired(start + now * MINUTE, idle * MINUTE, life * MINUTE)
                .iter()
                .map(|idle| idle.session)
                .collect()
        };
        assert_eq!(over(&mut shelf, 10, 5, 30), [1]);
        assert_eq!(over(&mut shelf, 10, 5, 10), [2]);
        assert_eq!((over(&mut shelf, 10, 5, 10), shelf.len()), (vec![], 1));
    }
}
