//! The directory: tenants as a list or a table, and the rules that keep two of them apart.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use indexmap::IndexMap;

use super::{Scope, or};
use crate::policy::decode::Located;
use crate::policy::diagnostic::Report;
use crate::policy::document::{Table, TenantEntry, TenantLimits, Tenants};
use crate::policy::leaf::DurationOrZero;
use crate::policy::word::StateWord;
use crate::policy::{Database, DefaultLimits, DirectorySource, Name, TableDirectory, WrittenLimits};
use crate::tenant::{Limits, MAX_IDENTIFIER_BYTES, Tenant, TenantState};

/// What clients of a held tenant are told to wait where the policy does not say.
const DEFAULT_RETRY_AFTER: Duration = Duration::from_secs(5);

pub(super) fn resolve(
    written: &Tenants,
    entries: Vec<TenantEntry>,
    scope: &Scope,
    queried: &BTreeSet<Name>,
    report: &mut Report,
) -> Option<DirectorySource> {
    let limits = default_limits(written, report);
    match (&written.list, &written.file, &written.table) {
        (Some(_), None, None) | (None, Some(_), None) => Some(list(entries, &limits, scope, queried, report)),
        (None, None, Some(table)) => self::table(table, limits, scope, queried, report),
        (None, None, None) if !written.sound => None,
        (None, None, None) => {
            report
                .error(written.place, "`tenants` names no source")
                .help("write one of `list: [ … ]`, `file: tenants.yaml` and `table: { … }`");
            None
        }
        _ => {
            report
                .error(written.place, "`tenants` must name exactly one source")
                .help("keep one of `list`, `file` and `table`");
            None
        }
    }
}

/// The limits of all tenants.
fn default_limits(written: &Tenants, report: &mut Report) -> DefaultLimits {
    let Some(limits) = &written.limits else { return DefaultLimits::default() };
    let defaults = DefaultLimits::new(WrittenLimits::from(limits));
    if let Some(idle) = defaults.idle_key().filter(|_| limits.sound) {
        report.error(limits.place, idle.to_string()).help(format!("add `{}`", idle.needs));
    }
    defaults
}

/// What holds for one tenant.
fn limits(own: Option<&TenantLimits>, defaults: &DefaultLimits, report: &mut Report) -> Option<Arc<Limits>> {
    let written = own.map(WrittenLimits::from);
    let held = defaults.with(written.as_ref());
    if let (Err(idle), Some(own)) = (&held, own.filter(|own| own.sound)) {
        report.error(own.place, idle.to_string()).help(format!("add `{}`", idle.needs));
    }
    held.ok()?
}

fn list(
    entries: Vec<TenantEntry>,
    defaults: &DefaultLimits,
    scope: &Scope,
    queried: &BTreeSet<Name>,
    report: &mut Report,
) -> DirectorySource {
    let neighbours = Neighbours { queried };
    let mut by_schema: HashMap<String, Vec<TenantEntry>> = HashMap::new();
    let mut ids = HashMap::new();
    let mut tenants = IndexMap::new();
    for entry in entries {
        if let Some(id) = entry.id.get() {
            if let Some(first) = ids.get(&id.value) {
                report
                    .error(id.place, format!("two tenants have the id `{}`", id.shown()))
                    .also(*first, "the first one")
                    .help("give each tenant its own id");
            } else {
                ids.insert(id.value.clone(), id.place);
            }
        }
        let tenant = tenant(&entry, defaults, scope, queried, report);
        if let Some(schema) = entry.schema.get() {
            let same = by_schema.entry(schema.value.as_str().to_owned()).or_default();
            if let Some(other) = same.iter().find(|other| neighbours.meet(other, &entry)) {
                let other_schema = other.schema.get().expect("only entries with a schema are kept");
                report
                    .error(
                        schema.place,
                        format!(
                            "two tenants have the schema `{}`: each would see the other's rows",
                            schema.shown()
                        ),
                    )
                    .also(other_schema.place, format!("{} has it too", name_of(other)))
                    .help("give each tenant a schema of its own");
            }
            check_not_shared(&entry, schema.value.as_str(), scope, report);
            same.push(entry);
        }
        if let Some(tenant) = tenant {
            tenants.insert(tenant.id.clone(), Arc::new(tenant));
        }
    }
    DirectorySource::List(tenants)
}

/// Knows which tenants may meet in one database.
struct Neighbours<'a> {
    queried: &'a BTreeSet<Name>,
}

impl Neighbours<'_> {
    fn meet(&self, one: &TenantEntry, other: &TenantEntry) -> bool {
        let database = |entry: &TenantEntry| entry.database.as_ref().map(|name| name.value.clone());
        match (database(one), database(other)) {
            (None, None) => true,
            (Some(one), Some(other)) => one == other,
            // A tenant without a database of its own goes wherever a query goes.
            (Some(named), None) | (None, Some(named)) => self.queried.contains(named.as_str()),
        }
    }
}

fn name_of(entry: &TenantEntry) -> String {
    entry.id.get().map_or_else(|| "a tenant".into(), |id| format!("the tenant `{}`", id.shown()))
}

/// A tenant's schema among the shared ones would be on every other tenant's search path.
fn check_not_shared(entry: &TenantEntry, schema: &str, scope: &Scope, report: &mut Report) {
    let Some(written) = entry.schema.get() else { return };
    for database in scope.databases.known.values().flatten() {
        let lives_there =
            entry.database.as_ref().is_none_or(|named| named.value.as_str() == database.name.as_ref());
        if lives_there && database.shared_schemas.iter().any(|shared| shared.as_str() == schema) {
            report
                .error(
                    written.place,
                    format!(
                        "the schema `{}` is in `shared_schemas` of the database `{}`: every tenant would see it",
                        written.shown(),
                        database.name
                    ),
                )
                .help("take it out of `shared_schemas`");
        }
    }
}

fn tenant(
    entry: &TenantEntry,
    defaults: &DefaultLimits,
    scope: &Scope,
    queried: &BTreeSet<Name>,
    report: &mut Report,
) -> Option<Tenant> {
    let database = match &entry.database {
        Some(name) => scope.databases.find(name, report).map(|database| Arc::clone(&database.name)),
        None => None,
    };
    for database in databases_of(entry.database.as_ref(), scope, queried) {
        check_isolation(entry, &database, report);
    }
    let asks_for_role = entry.isolation.as_ref().filter(|level| level.value.needs_role());
    if let (Some(level), None) = (asks_for_role, &entry.role) {
        report
            .error(
                level.place,
                format!("{} asks for `isolation: {}`, but has no `role`", name_of(entry), level.value),
            )
            .help("name the PostgreSQL role that its statements run as: `role: acme_role`");
    }
    let word = entry.state.as_ref().map_or(StateWord::Active, |state| state.value);
    if let Some(wait) = &entry.retry_after
        && word != StateWord::Held
    {
        report.error(wait.place, "`retry_after` belongs to a tenant with `state: held`").help("remove it");
    }
    let limits = limits(entry.limits.as_ref(), defaults, report);
    Some(Tenant {
        id: entry.id.get()?.value.clone(),
        schema: entry.schema.get()?.value.clone(),
        role: entry.role.as_ref().map(|role| role.value.clone()),
        database,
        state: match word {
            StateWord::Active => TenantState::Active,
            StateWord::Suspended => TenantState::Suspended,
            StateWord::Held => {
                TenantState::Held { retry_after: or(entry.retry_after.as_ref(), DEFAULT_RETRY_AFTER) }
            }
        },
        isolation: entry.isolation.as_ref().map(|level| level.value),
        limits,
    })
}

/// The databases that a tenant's queries may run in: its own, or else whichever a query names.
fn databases_of(
    named: Option<&Located<String>>,
    scope: &Scope,
    queried: &BTreeSet<Name>,
) -> Vec<Arc<Database>> {
    let known = &scope.databases.known;
    match named {
        Some(name) => known.get(name.value.as_str()).into_iter().flatten().cloned().collect(),
        None if queried.is_empty() && known.len() == 1 => known.values().flatten().cloned().collect(),
        None => queried.iter().filter_map(|name| known.get(name)?.clone()).collect(),
    }
}

fn check_isolation(entry: &TenantEntry, database: &Database, report: &mut Report) {
    if !database.isolation.needs_role() {
        return;
    }
    if let Some(level) = &entry.isolation
        && level.value < database.isolation
    {
        report
            .error(
                level.place,
                format!(
                    "a tenant's isolation can only be stronger than its database's: `{}` has `{}`",
                    database.name, database.isolation
                ),
            )
            .help("remove `isolation` here");
    } else if entry.isolation.is_none() && entry.role.is_none() && entry.sound {
        let place = entry.id.get().map_or(entry.place, |id| id.place);
        report
            .error(
                place,
                format!(
                    "{} has no `role`, which `isolation: {}` of the database `{}` asks for",
                    name_of(entry),
                    database.isolation,
                    database.name
                ),
            )
            .help("name the PostgreSQL role that its statements run as: `role: acme_role`");
    }
}

fn table(
    written: &Table,
    default_limits: DefaultLimits,
    scope: &Scope,
    queried: &BTreeSet<Name>,
    report: &mut Report,
) -> Option<DirectorySource> {
    let columns = [
        &written.id,
        &written.schema,
        &written.role,
        &written.database_column,
        &written.state,
        &written.isolation,
        &written.limits,
    ];
    for column in columns.into_iter().flatten() {
        let name = &column.value;
        if name.is_empty() || name.len() > MAX_IDENTIFIER_BYTES || name.chars().any(char::is_control) {
            report.error(
                column.place,
                format!("a column's name is 1 to {MAX_IDENTIFIER_BYTES} bytes without control characters, got `{}`", column.shown()),
            );
        }
    }
    let databases = match &written.database_column {
        Some(_) => scope.databases.known.keys().cloned().collect(),
        None => Vec::new(),
    };
    if written.role.is_none() {
        let candidates =
            if databases.is_empty() { databases_of(None, scope, queried) } else { databases_of_all(scope) };
        for database in candidates.iter().filter(|database| database.isolation.needs_role()) {
            report
                .error(
                    written.place,
                    format!(
                        "`isolation: {}` of the database `{}` needs a role for each tenant",
                        database.isolation, database.name
                    ),
                )
                .help("name the column with the role: `role: role_name`");
        }
    }
    let database = written.database.get().and_then(|name| scope.databases.find(name, report));
    let column = |given: &Option<Located<String>>| given.as_ref().map(|column| column.value.clone());
    let wait =
        |given: &Option<Located<DurationOrZero>>, default| or(given.as_ref(), DurationOrZero(default)).0;
    Some(DirectorySource::Table(TableDirectory {
        database: database?,
        table: written.name.get()?.value.clone(),
        id: column(&written.id).unwrap_or_else(|| "id".into()),
        schema: column(&written.schema).unwrap_or_else(|| "schema".into()),
        role: column(&written.role),
        database_column: column(&written.database_column),
        databases,
        state: column(&written.state),
        isolation: column(&written.isolation),
        limits: column(&written.limits),
        default_limits,
        cache: wait(&written.cache, Duration::from_secs(60)),
        negative_cache: wait(&written.negative_cache, Duration::from_secs(5)),
        stale_if_error: wait(&written.stale_if_error, Duration::ZERO),
        max_entries: or(written.max_entries.as_ref(), 100_000),
    }))
}

fn databases_of_all(scope: &Scope) -> Vec<Arc<Database>> {
    scope.databases.known.values().flatten().cloned().collect()
}
