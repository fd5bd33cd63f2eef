//! `innkeeper doctor`: attacks the databases of a policy as their own tenants would, and tells what
//! holds, what leaks, and the SQL that mends it. Nothing stays of what it tries.

mod attacks;
mod examination;
mod finding;
mod grants;
mod roles;
mod server;
mod subject;
mod visit;

use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr as _;
use std::sync::Arc;

use sqlx::postgres::PgConnectOptions;

use super::{OutputFormat, fail, print, progress};
use crate::policy::{Database, Name, Policy, Target};
use crate::surroundings::ProcessSurroundings;
use crate::tenant::TenantId;
use finding::{Examined, Report};

/// What the process ends with where something could not be looked at.
const COULD_NOT_LOOK: u8 = 2;

/// Attack a policy's databases as their own tenants would, and tell what leaks.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The policy.
    #[arg(long, short, env = "INNKEEPER_POLICY", value_name = "FILE")]
    policy: PathBuf,
    /// The database to look at; all where tenants live if none is named.
    #[arg(long, value_name = "NAME")]
    database: Option<String>,
    /// A tenant to take for attacker and victim, twice or more; a few of the directory's otherwise.
    #[arg(long = "tenant", value_name = "ID")]
    tenants: Vec<TenantId>,
    /// How to print it.
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    format: OutputFormat,
}

/// Looks; the exit status is 0 where everything holds, 1 where something leaks, and 2 where it
/// could not look.
pub async fn run(args: Args) -> ExitCode {
    let report = match examine(&args).await {
        Ok(report) => report,
        Err(error) => {
            fail(error);
            return ExitCode::from(COULD_NOT_LOOK);
        }
    };
    match args.format {
        OutputFormat::Human => print(&report.to_string()),
        OutputFormat::Json => print(&report.to_json()),
    }
    match (report.leaks(), report.is_partial()) {
        (true, _) => ExitCode::FAILURE,
        (false, true) => ExitCode::from(COULD_NOT_LOOK),
        (false, false) => ExitCode::SUCCESS,
    }
}

async fn examine(args: &Args) -> Result<Report, String> {
    let (policy, _) = Policy::parse(&args.policy, &ProcessSurroundings).map_err(|error| error.to_string())?;
    let mut report = Report { databases: Vec::new() };
    for database in chosen(&policy, args.database.as_deref())? {
        progress(format_args!("looking at the database `{}`", database.name));
        report.databases.push(look_at(&policy, database, &args.tenants).await);
    }
    Ok(report)
}

fn chosen<'p>(policy: &'p Policy, name: Option<&str>) -> Result<Vec<&'p Arc<Database>>, String> {
    let Some(name) = name else {
        let databases = subject::databases_of_tenants(policy);
        if databases.is_empty() {
            return Err(
                "no tenant of this policy has a database: no route runs statements for tenants".into()
            );
        }
        return Ok(databases);
    };
    let known = || policy.databases.keys().map(AsRef::as_ref).collect::<Vec<&str>>().join("`, `");
    let found = policy.databases.get(name);
    Ok(vec![found.ok_or_else(|| format!("the policy has no database `{name}`; it has `{}`", known()))?])
}

async fn look_at(policy: &Policy, database: &Database, tenants: &[TenantId]) -> Examined {
    match subject::roll(policy, database, tenants).await {
        Ok(roll) => {
            let wanted = wanted_connections(policy, database);
            examination::examine(database, roll, wanted, takes_foreign_statements(policy, database)).await
        }
        Err(error) => Examined {
            database: Name::clone(&database.name),
            isolation: database.isolation,
            server: None,
            tenants: Vec::new(),
            findings: Vec::new(),
            unseen: vec![error],
        },
    }
}

/// Connections that the pools of this policy may open at the server of `database`.
fn wanted_connections(policy: &Policy, database: &Database) -> i64 {
    let server = |one: &Database| {
        let options = PgConnectOptions::from_str(one.url.reveal()).ok()?;
        Some((options.get_host().to_owned(), options.get_socket().cloned(), options.get_port()))
    };
    let here = server(database);
    let there = policy.databases.values().filter(|other| server(other) == here);
    there.map(|other| i64::from(other.pool.max_connections)).sum()
}

fn takes_foreign_statements(policy: &Policy, database: &Database) -> bool {
    policy.routes.iter().any(
        |route| matches!(&route.target, Target::Sql(endpoint) if endpoint.database.name == database.name),
    )
}
