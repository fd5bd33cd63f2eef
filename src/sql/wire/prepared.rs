//! Which texts a connection has prepared, for whom, and under which names.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hasher as _};
use std::sync::Arc;

use sqlx::SqlStr;

/// Statements that are kept prepared on each connection. Each costs the server some twenty kilobytes a
/// connection; one that fell out is parsed again.
const CAPACITY: usize = 512;

/// What a connection has prepared.
///
/// A text is prepared several times, once for each tenant as long as there is room. PostgreSQL reads a
/// prepared statement again, from its names on, wherever the search path is another one than last time
/// (`plancache.c`, `RevalidateCachedQuery`), and so one would do for all of them. But that reading, and
/// the planning behind it, takes longer than running a short statement: a tenant that has one to itself
/// is spared it. Where there is no more room, a tenant takes over the statement of another one.
pub(super) struct Prepared {
    texts: HashMap<SqlStr, OfText>,
    count: usize,
    /// Sent to be prepared and not yet confirmed, in that order; `None` for what got no name.
    unconfirmed: VecDeque<Option<(SqlStr, u64)>>,
    /// Counts what was asked for.
    asked: u64,
}

/// A text's statements, and the place of each tenant's among them.
#[derive(Default)]
struct OfText {
    statements: Vec<Statement>,
    places: HashMap<u64, usize>,
}

struct Statement {
    name: Arc<str>,
    tenant: u64,
}

/// How a text is to be bound.
pub(super) struct Found {
    pub(super) name: Arc<str>,
    /// Whether it must be prepared first.
    pub(super) is_new: bool,
}

impl Prepared {
    pub(super) fn new() -> Self {
        Self { texts: HashMap::new(), count: 0, unconfirmed: VecDeque::new(), asked: 0 }
    }

    /// What must be closed before a text may be prepared that is not prepared yet, or less often than
    /// others are.
    pub(super) fn make_room(&mut self, text: &SqlStr, tenant: u64) -> Option<Arc<str>> {
        if self.count < CAPACITY {
            return None;
        }
        let of_text = self.texts.get(text.as_str());
        let texts = self.texts.len() + usize::from(of_text.is_none());
        let has_its_share = |of: &OfText| of.statements.len() >= CAPACITY / texts;
        if of_text.is_some_and(|of| of.places.contains_key(&tenant) || has_its_share(of)) {
            return None;
        }
        let (largest, of_largest) = self.texts.iter().max_by_key(|(_, of)| of.statements.len())?;
        let given_up = &of_largest.statements[of_largest.any(self.asked)];
        let (largest, tenant) = (largest.clone(), given_up.tenant);
        self.remove(&largest, tenant)
    }

    /// Finds a text as it is prepared for a tenant, takes over another tenant's where there is no room, or
    /// gives it a name that nothing else of this connection ever had.
    pub(super) fn find(&mut self, text: &SqlStr, tenant: u64) -> Found {
        self.asked += 1;
        let asked = self.asked;
        let is_full = self.count >= CAPACITY;
        let of_text = self.texts.entry(text.clone()).or_default();
        let place = match of_text.places.get(&tenant) {
            Some(place) => Some(*place),
            None if is_full && !of_text.statements.is_empty() => Some(of_text.take_over(asked, tenant)),
            None => None,
        };
        if let Some(place) = place {
            return Found { name: Arc::clone(&of_text.statements[place].name), is_new: false };
        }
        let name: Arc<str> = format!("innkeeper_{asked}").into();
        of_text.places.insert(tenant, of_text.statements.len());
        of_text.statements.push(Statement { name: Arc::clone(&name), tenant });
        self.count += 1;
        self.unconfirmed.push_back(Some((text.clone(), tenant)));
        Found { name, is_new: true }
    }

    fn remove(&mut self, text: &SqlStr, tenant: u64) -> Option<Arc<str>> {
        let of_text = self.texts.get_mut(text.as_str())?;
        let place = of_text.places.remove(&tenant)?;
        let removed = of_text.statements.swap_remove(place);
        if let Some(moved) = of_text.statements.get(place) {
            of_text.places.insert(moved.tenant, place);
        }
        if of_text.statements.is_empty() {
            self.texts.remove(text.as_str());
        }
        self.count -= 1;
        Some(removed.name)
    }

    /// Something is sent to be prepared without a name, which the next such text takes its place of.
    pub(super) fn pass_by(&mut self) {
        self.unconfirmed.push_back(None);
    }

    /// The server prepared the first text that it had not confirmed.
    pub(super) fn confirm(&mut self) {
        self.unconfirmed.pop_front();
    }

    /// The server goes no further: what it has not confirmed is not prepared.
    pub(super) fn give_up(&mut self) {
        for (text, tenant) in std::mem::take(&mut self.unconfirmed).into_iter().flatten() {
            self.remove(&text, tenant);
        }
    }
}

impl OfText {
    /// Gives a tenant the statement of another one.
    fn take_over(&mut self, dice: u64, tenant: u64) -> usize {
        let place = self.any(dice);
        let statement = &mut self.statements[place];
        self.places.remove(&statement.tenant);
        statement.tenant = tenant;
        self.places.insert(tenant, place);
        place
    }

    /// A statement at random. The one that was not asked for longest would be the wrong one where more
    /// tenants than there is room for come in turn: it would be the next to be asked for, each time.
    fn any(&self, dice: u64) -> usize {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(dice);
        let [a, b, ..] = hasher.finish().to_le_bytes();
        usize::from(u16::from_le_bytes([a, b])) % self.statements.len()
    }
}

#[cfg(test)]
mod tests {
    use sqlx::{AssertSqlSafe, SqlSafeStr as _};

    use super::*;

    fn text(number: usize) -> SqlStr {
        AssertSqlSafe(format!("SELECT {number}")).into_sql_str()
    }

    /// Asks for a text as a connection does: whether it had to be prepared, and what had to be closed.
    fn ask(prepared: &mut Prepared, number: usize, tenant: u64) -> (Found, usize) {
        let mut closed = 0;
        while prepared.make_room(&text(number), tenant).is_some() {
            closed += 1;
        }
        let found = prepared.find(&text(number), tenant);
        prepared.confirm();
        assert!(prepared.count <= CAPACITY);
        let places = |of: &OfText| of.places.iter().all(|(tenant, at)| of.statements[*at].tenant == *tenant);
        assert!(prepared.texts.values().all(|of| of.places.len() == of.statements.len() && places(of)));
        (found, closed)
    }

    #[test]
    fn each_tenant_has_a_statement_to_itself_as_long_as_there_is_room() {
        let mut prepared = Prepared::new();
        let tenants = 0..CAPACITY as u64;
        let names: Vec<_> = tenants.clone().map(|tenant| ask(&mut prepared, 0, tenant).0.name).collect();
        for (tenant, name) in tenants.zip(&names) {
            let (again, closed) = ask(&mut prepared, 0, tenant);
            assert_eq!((&again.name, again.is_new, closed), (name, false, 0));
        }
        let (one_more, closed) = ask(&mut prepared, 0, u64::MAX);
        assert!(names.contains(&one_more.name) && !one_more.is_new && closed == 0, "it is taken over");
    }

    #[test]
    fn most_of_a_few_too_many_tenants_that_come_in_turn_find_their_statement() {
        let mut prepared = Prepared::new();
        let tenants = CAPACITY as u64 * 5 / 4;
        let mut held = HashMap::new();
        let (mut found, mut asked) = (0, 0);
        for round in 0..20 {
            for tenant in 0..tenants {
                let name = ask(&mut prepared, 0, tenant).0.name;
                let is_own = held.insert(name, tenant) == Some(tenant);
                if round >= 10 {
                    (found, asked) = (found + usize::from(is_own), asked + 1);
                }
            }
        }
        assert!(found * 2 > asked, "{found} of {asked}");
    }

    #[test]
    fn a_new_text_takes_room_from_the_one_that_has_most_until_it_has_its_share() {
        let mut prepared = Prepared::new();
        let tenants = 0..CAPACITY as u64;
        tenants.clone().for_each(|tenant| drop(ask(&mut prepared, 0, tenant)));
        let made: Vec<_> = tenants.map(|tenant| ask(&mut prepared, 1, tenant)).collect();
        let new = made.iter().filter(|(found, _)| found.is_new).count();
        assert_eq!((new, made.iter().map(|(_, closed)| closed).sum()), (CAPACITY / 2, CAPACITY / 2));
        for number in 2..CAPACITY * 2 {
            assert!(ask(&mut prepared, number, 0).0.is_new);
        }
    }

    #[test]
    fn what_the_server_did_not_confirm_is_prepared_again_under_another_name() {
        let mut prepared = Prepared::new();
        prepared.pass_by();
        let (kept, lost) = (prepared.find(&text(0), 0), prepared.find(&text(1), 0));
        prepared.confirm();
        prepared.confirm();
        prepared.give_up();
        assert!(!prepared.find(&text(0), 0).is_new);
        let again = prepared.find(&text(1), 0);
        assert!(again.is_new && again.name != lost.name && again.name != kept.name);
    }
}
