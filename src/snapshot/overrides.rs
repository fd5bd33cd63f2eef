//! The overrides in force: which one a request meets, and what it makes of it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::matching;
use crate::decision::RequestHead;
use crate::policy::{Action, Name, Override, Part, Sample};
use crate::tenant::TenantId;

/// Requests that one override holds at once. Each keeps a client's connection.
const MOST_HELD: usize = 1000;

/// Copies under way at once for one override. Past it requests are not copied.
const MOST_COPIES: usize = 64;

/// Every override of a snapshot.
#[derive(Default)]
pub struct Overrides {
    all: Vec<Arc<InForce>>,
    by_tenant: HashMap<TenantId, Vec<Arc<InForce>>>,
    everyone: Vec<Arc<InForce>>,
    stand_ins: Vec<Arc<InForce>>,
}

/// An override with what it needs to work. It is the same one from one snapshot to the next for as
/// long as its rule is.
#[derive(Debug)]
pub struct InForce {
    rule: Override,
    temporary: bool,
    turn: AtomicUsize,
    /// Told when a snapshot without the override is in force.
    pub(super) gone: CancellationToken,
    pub(super) held: Arc<Semaphore>,
    copies: Arc<Semaphore>,
}

/// What overrides make of a request; nothing, mostly.
#[derive(Debug, Clone, Default)]
pub struct Ruling {
    placed: Option<Arc<InForce>>,
    upstream: Option<Name>,
    mirror: Option<Arc<InForce>>,
}

impl Overrides {
    /// Those of a policy after those that an operator gave for a while. What `previous` has too
    /// goes on.
    pub(super) fn new(temporary: &[Override], lasting: &[Override], previous: Option<&Self>) -> Self {
        let mut overrides = Self::default();
        let rules = temporary.iter().map(|rule| (rule, true)).chain(lasting.iter().map(|rule| (rule, false)));
        for (rule, temporary) in rules {
            let kept = previous.and_then(|previous| previous.same(rule, temporary));
            let one = kept.cloned().unwrap_or_else(|| Arc::new(InForce::new(rule.clone(), temporary)));
            match &rule.tenant {
                Some(tenant) => {
                    overrides.by_tenant.entry(tenant.clone()).or_default().push(Arc::clone(&one));
                }
                None => overrides.everyone.push(Arc::clone(&one)),
            }
            if rule.if_unresolved.is_some() {
                overrides.stand_ins.push(Arc::clone(&one));
            }
            overrides.all.push(one);
        }
        overrides
    }

    /// Every one of them, in the order in which they were given; those that have ended included.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<InForce>> {
        self.all.iter()
    }

    /// What becomes of a tenant's request: the first override of the tenant that takes it decides,
    /// else the first of everyone's. The clock is read only where there is something to decide.
    pub(super) fn rule(
        &self,
        tenant: &TenantId,
        head: &RequestHead,
        clock: impl Fn() -> SystemTime,
    ) -> Ruling {
        let mut ruling = Ruling::default();
        if self.all.is_empty() {
            return ruling;
        }
        let own = self.by_tenant.get(tenant).into_iter().flatten();
        let mut candidates = own.chain(&self.everyone).peekable();
        if candidates.peek().is_none() {
            return ruling;
        }
        let now = clock();
        for one in candidates.filter(|one| one.rule.holds_at(now)) {
            if let Action::Mirror { part, .. } = one.rule.action {
                if ruling.mirror.is_none() && one.turn_is_within(part) {
                    ruling.mirror = Some(Arc::clone(one));
                }
            } else if ruling.placed.is_none() && one.takes(tenant, head) {
                ruling.upstream = one.upstream_for(tenant);
                ruling.placed = Some(Arc::clone(one));
            }
        }
        ruling
    }

    /// The tenant whose request this is, by an operator's word, where the plugin that would know
    /// has failed.
    pub(super) fn stand_in(&self, head: &RequestHead, now: SystemTime) -> Option<&TenantId> {
        let says_so = |one: &&Arc<InForce>| {
            let rule = one.rule.if_unresolved.as_ref();
            one.rule.holds_at(now) && rule.is_some_and(|rule| matching::matches(rule, head).is_some())
        };
        let mut tenants = self.stand_ins.iter().filter(says_so).filter_map(|one| one.rule.tenant.as_ref());
        let tenant = tenants.next()?;
        // Two words that contradict each other are none.
        tenants.all(|other| other == tenant).then_some(tenant)
    }

    /// Those that `next` does not have.
    pub(super) fn gone_from<'a>(&'a self, next: &'a Self) -> impl Iterator<Item = &'a Arc<InForce>> {
        self.all.iter().filter(|one| !next.all.iter().any(|other| Arc::ptr_eq(one, other)))
    }

    fn same(&self, rule: &Override, temporary: bool) -> Option<&Arc<InForce>> {
        self.all.iter().find(|one| one.rule == *rule && one.temporary == temporary)
    }
}

impl InForce {
    fn new(rule: Override, temporary: bool) -> Self {
        Self {
            rule,
            temporary,
            turn: AtomicUsize::new(0),
            gone: CancellationToken::new(),
            held: Arc::new(Semaphore::new(MOST_HELD)),
            copies: Arc::new(Semaphore::new(MOST_COPIES)),
        }
    }

    /// What it says.
    pub fn rule(&self) -> &Override {
        &self.rule
    }

    /// Whether an operator gave it for a while, and the policy does not have it.
    pub fn is_temporary(&self) -> bool {
        self.temporary
    }

    /// Requests that it holds now.
    pub fn holding(&self) -> usize {
        MOST_HELD - self.held.available_permits()
    }

    /// Tells whoever waits for it to go that it has.
    pub(super) fn release(&self) {
        self.gone.cancel();
    }

    /// Where a copy goes, and the right to send it until it is dropped; `None` where too many are
    /// under way.
    pub fn copy(&self) -> Option<(&Name, tokio::sync::OwnedSemaphorePermit)> {
        let Action::Mirror { upstream, .. } = &self.rule.action else { return None };
        Some((upstream, Arc::clone(&self.copies).try_acquire_owned().ok()?))
    }

    fn takes(&self, tenant: &TenantId, head: &RequestHead) -> bool {
        match &self.rule.action {
            Action::Canary { sample: Sample::Header(name), .. } => head.headers.contains_key(name),
            Action::Canary { upstream, sample: Sample::Clients(part) } => {
                let client = head.peer.host();
                hash_of(&[upstream, tenant.as_str(), &client]) % Part::WHOLE.millionths() < part.millionths()
            }
            _ => true,
        }
    }

    fn upstream_for(&self, tenant: &TenantId) -> Option<Name> {
        match &self.rule.action {
            Action::Pin(upstream) | Action::Canary { upstream, .. } | Action::Quarantine(upstream) => {
                Some(Name::clone(upstream))
            }
            Action::Shard { upstreams, choose } => {
                // Rendezvous hashing: an upstream that is added or removed moves no tenant but those
                // that it wins or loses.
                let mut ranked: Vec<&Name> = upstreams.iter().collect();
                ranked.sort_by_cached_key(|upstream| hash_of(&[upstream, tenant.as_str()]));
                let turn = self.turn.fetch_add(1, Ordering::Relaxed) % choose.max(&1);
                ranked.get(turn).map(|upstream| Name::clone(upstream))
            }
            Action::Refuse | Action::Hold(_) | Action::Mirror { .. } => None,
        }
    }

    /// Spreads the part evenly: of ten requests in a row, 30% is three.
    fn turn_is_within(&self, part: Part) -> bool {
        let whole = Part::WHOLE.millionths();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) as u64 % whole;
        (turn + 1) * part.millionths() / whole > turn * part.millionths() / whole
    }
}

impl Ruling {
    /// The override that decided where the request goes, or whether.
    pub fn placed(&self) -> Option<&Arc<InForce>> {
        self.placed.as_ref()
    }

    /// The upstream that it goes to.
    pub fn upstream(&self) -> Option<&Name> {
        self.upstream.as_ref()
    }

    /// The override by which a copy goes elsewhere.
    pub fn mirror(&self) -> Option<&Arc<InForce>> {
        self.mirror.as_ref()
    }
}

/// The same on every machine and after every start.
fn hash_of(parts: &[&str]) -> u64 {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    let bytes = hash.finalize();
    u64::from_be_bytes(*bytes.first_chunk().expect("SHA-256 is longer than eight bytes"))
}

#[cfg(test)]
mod tests {
    use crate::address::Peer;
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::*;

    fn rule(tenant: Option<&str>, action: Action) -> Override {
        let tenant = tenant.map(|tenant| tenant.parse().unwrap());
        Override { id: "one".into(), tenant, action, if_unresolved: None, until: None, reason: None }
    }

    fn ruled(overrides: &Overrides, tenant: &str, head: &RequestHead) -> Option<String> {
        let ruling = overrides.rule(&tenant.parse().unwrap(), head, SystemTime::now);
        ruling.upstream().map(ToString::to_string)
    }

    fn from(client: [u8; 4]) -> RequestHead {
        RequestHead { peer: Peer::Ip((client, 1).into()), ..RequestHead::default() }
    }

    #[test]
    fn a_tenants_own_override_goes_before_everyones() {
        let everyone = rule(None, Action::Pin("all".into()));
        let own = rule(Some("acme"), Action::Pin("own".into()));
        let overrides = Overrides::new(&[], &[everyone, own], None);
        let head = RequestHead::default();
        assert_eq!(ruled(&overrides, "acme", &head).as_deref(), Some("own"));
        assert_eq!(ruled(&overrides, "globex", &head).as_deref(), Some("all"));
        assert_eq!(ruled(&Overrides::default(), "acme", &head), None);
    }

    #[test]
    fn an_override_ends_when_it_says() {
        let end = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        let pinned = Override { until: Some(end), ..rule(Some("acme"), Action::Pin("own".into())) };
        let overrides = Overrides::new(&[], &[pinned], None);
        let at = |now: SystemTime| {
            overrides.rule(&"acme".parse().unwrap(), &RequestHead::default(), || now).placed().is_some()
        };
        assert!(at(end - Duration::from_nanos(1)));
        assert!(!at(end));
    }

    #[test]
    fn a_canary_takes_its_part_of_the_clients_and_the_same_ones_again() {
        let sample = Sample::Clients(Part::of_hundred(20.0));
        let canary = rule(Some("acme"), Action::Canary { upstream: "new".into(), sample });
        let overrides = Overrides::new(&[], &[canary], None);
        let taken = |number: u16| {
            let [high, low] = number.to_be_bytes();
            ruled(&overrides, "acme", &from([10, 0, high, low])).is_some()
        };
        let first: Vec<bool> = (0..2000).map(taken).collect();
        assert_eq!(first, (0..2000).map(taken).collect::<Vec<_>>());
        let count = first.iter().filter(|taken| **taken).count();
        assert!((300..500).contains(&count), "{count} of 2000");
    }

    #[test]
    fn a_canary_by_header_takes_what_carries_it() {
        let sample = Sample::Header("x-canary".parse().unwrap());
        let canary = rule(None, Action::Canary { upstream: "new".into(), sample });
        let overrides = Overrides::new(&[], &[canary], None);
        let mut head = RequestHead::default();
        assert_eq!(ruled(&overrides, "acme", &head), None);
        head.headers.insert("x-canary", "1".parse().unwrap());
        assert_eq!(ruled(&overrides, "acme", &head).as_deref(), Some("new"));
    }

    #[test]
    fn a_tenant_keeps_its_few_upstreams_when_others_come_and_go() {
        let names = |count: usize| (0..count).map(|n| Name::from(format!("shard-{n}"))).collect::<Vec<_>>();
        let chosen = |count: usize, tenant: &str| -> BTreeMap<String, usize> {
            let shard = rule(None, Action::Shard { upstreams: names(count), choose: 2 });
            let overrides = Overrides::new(&[], &[shard], None);
            let mut seen = BTreeMap::new();
            for _ in 0..10 {
                *seen.entry(ruled(&overrides, tenant, &RequestHead::default()).unwrap()).or_default() += 1;
            }
            seen
        };
        let mut moved = 0;
        for tenant in ["acme", "globex", "initech", "umbrella", "hooli"] {
            let before = chosen(8, tenant);
            assert_eq!(before.values().collect::<Vec<_>>(), [&5, &5], "{tenant}");
            let after = chosen(9, tenant);
            assert!(before.keys().filter(|name| after.contains_key(*name)).count() >= 1);
            moved += usize::from(before != after);
        }
        assert!(moved < 5, "an upstream more does not move everyone");
    }

    #[test]
    fn a_mirror_takes_its_part_and_decides_nothing() {
        let mirror =
            rule(Some("acme"), Action::Mirror { upstream: "shadow".into(), part: Part::of_hundred(30.0) });
        let pinned = rule(Some("acme"), Action::Pin("own".into()));
        let overrides = Overrides::new(&[], &[mirror, pinned], None);
        let mut copied = 0;
        for _ in 0..100 {
            let ruling = overrides.rule(&"acme".parse().unwrap(), &RequestHead::default(), SystemTime::now);
            assert_eq!(ruling.upstream().map(AsRef::as_ref), Some("own"));
            copied += usize::from(ruling.mirror().is_some());
        }
        assert_eq!(copied, 30);
    }

    #[test]
    fn a_word_of_the_operator_stands_in_only_where_it_is_clear() {
        let stand_in = |tenant: &str, host: &str| Override {
            if_unresolved: Some(crate::policy::RouteMatch {
                listeners: vec![],
                hosts: vec![crate::policy::HostMatch::Exact(host.into())],
                path: crate::policy::PathMatch { segments: vec![], below: true },
                methods: vec![],
                headers: vec![],
            }),
            ..rule(Some(tenant), Action::Pin("own".into()))
        };
        let rules = [
            stand_in("acme", "acme.example.com"),
            stand_in("acme", "both.example.com"),
            stand_in("globex", "both.example.com"),
        ];
        let overrides = Overrides::new(&[], &rules, None);
        let says = |host: &str| {
            let head = RequestHead { host: host.into(), ..RequestHead::default() };
            overrides.stand_in(&head, SystemTime::now()).map(ToString::to_string)
        };
        assert_eq!(says("acme.example.com").as_deref(), Some("acme"));
        assert_eq!(says("both.example.com"), None);
        assert_eq!(says("other.example.com"), None);
    }

    #[test]
    fn what_does_not_change_goes_on_and_what_goes_is_told() {
        let (kept, ends) = (rule(Some("acme"), Action::Refuse), rule(Some("globex"), Action::Refuse));
        let before = Overrides::new(&[], &[kept.clone(), ends], None);
        let after = Overrides::new(&[], &[kept], Some(&before));
        let gone: Vec<_> = before.gone_from(&after).filter_map(|one| one.rule().tenant.as_ref()).collect();
        assert_eq!(gone, [&"globex".parse::<TenantId>().unwrap()]);
    }
}
