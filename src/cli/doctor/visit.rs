//! How the doctor comes into a database: once to read the catalogue, and once as each tenant, as
//! Innkeeper itself would. Whatever is tried is rolled back.

use std::str::FromStr as _;

use sqlx::error::DatabaseError;
use sqlx::postgres::{PgArguments, PgConnectOptions, PgRow};
use sqlx::query::Query;
use sqlx::{
    AssertSqlSafe, ConnectOptions as _, Connection as _, Error, Executor as _, PgConnection, Postgres,
};

use super::subject::Subject;
use crate::policy::Database;
use crate::tenant::Isolation;

/// How long one statement of ours may take, and how long it waits for a lock: an examination must
/// not be noticed by those who work in the database.
const LIMITS: &str = "SET LOCAL statement_timeout TO 5000; SET LOCAL lock_timeout TO 500; \
                      SET LOCAL idle_in_transaction_session_timeout TO 30000";

/// A reader of the catalogue, logged in as the URL says.
pub(super) struct Catalogue(PgConnection);

impl Catalogue {
    pub(super) async fn open(database: &Database) -> Result<Self, Error> {
        Ok(Self(options(database)?.connect().await?))
    }

    /// Reads, in a transaction of its own that cannot write.
    pub(super) async fn rows(
        &mut self,
        query: Query<'_, Postgres, PgArguments>,
    ) -> Result<Vec<PgRow>, Error> {
        let begin = AssertSqlSafe(format!("BEGIN READ ONLY; SET LOCAL search_path TO pg_catalog; {LIMITS}"));
        let mut transaction = self.0.begin_with(begin).await?;
        let rows = query.fetch_all(&mut *transaction).await?;
        transaction.rollback().await?;
        Ok(rows)
    }
}

/// A tenant that tries what it must not.
pub(super) struct Attacker {
    connection: PgConnection,
    begin: String,
}

/// What became of an attempt. That something is refused, and that it is not there at all, are two
/// things: only one of them is a wall.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Every step went through.
    Done,
    /// PostgreSQL refused a step for want of a privilege.
    Refused,
    /// A step named what does not exist, as seen from there.
    Absent,
    /// Something else, which proves nothing.
    Unclear(String),
}

impl Attacker {
    /// Comes in as Innkeeper does for this tenant at its level.
    pub(super) async fn enter(
        database: &Database,
        subject: &Subject,
        shared: impl Iterator<Item = String>,
    ) -> Result<Self, Error> {
        let mut options = options(database)?;
        let mut begin = "BEGIN; SET LOCAL search_path TO ".to_owned();
        for schema in std::iter::once(subject.schema.quoted().to_string()).chain(shared) {
            begin.push_str(&format!("{schema}, "));
        }
        begin.push_str("pg_temp; ");
        match (&subject.role, subject.level) {
            (Some(role), Isolation::Login) => {
                let password = database.login.password(role).unwrap_or_default();
                options = options.username(role.as_str()).password(&password);
            }
            (Some(role), _) => begin.push_str(&format!("SET LOCAL ROLE {}; ", role.quoted())),
            (None, _) => {}
        }
        begin.push_str(LIMITS);
        let mut attacker = Self { connection: options.connect().await?, begin };
        // The scope itself must stand before anything that was refused in it proves a thing.
        let entered = attacker.begin().await;
        attacker.leave().await?;
        entered.map(|()| attacker)
    }

    /// Takes the steps in one transaction, which is rolled back.
    pub(super) async fn attempt(&mut self, steps: &[String]) -> Outcome {
        let mut outcome = match self.begin().await {
            Ok(()) => Outcome::Done,
            Err(error) => return Outcome::Unclear(error.to_string()),
        };
        for step in steps {
            outcome = judge(self.connection.execute(sqlx::raw_sql(AssertSqlSafe(step.clone()))).await.err());
            if outcome != Outcome::Done {
                break;
            }
        }
        match self.leave().await {
            Ok(()) => outcome,
            Err(error) => Outcome::Unclear(error.to_string()),
        }
    }

    /// Whether it sees a row of the table that it may read: row security can hide them all.
    pub(super) async fn sees_a_row_of(&mut self, table: &str) -> Result<bool, Error> {
        self.begin().await?;
        let text = AssertSqlSafe(format!("SELECT FROM {table} LIMIT 1"));
        let row = self.connection.fetch_optional(sqlx::raw_sql(text)).await;
        self.leave().await?;
        Ok(row?.is_some())
    }

    /// Tries one way after the other until one goes through.
    pub(super) async fn attempt_any(&mut self, ways: impl IntoIterator<Item = Vec<String>>) -> Outcome {
        let mut outcome = Outcome::Refused;
        for way in ways {
            outcome = match (outcome, self.attempt(&way).await) {
                (_, Outcome::Done) => return Outcome::Done,
                (Outcome::Unclear(why), _) => Outcome::Unclear(why),
                (_, latest) => latest,
            };
        }
        outcome
    }

    async fn begin(&mut self) -> Result<(), Error> {
        self.connection.execute(sqlx::raw_sql(AssertSqlSafe(self.begin.clone()))).await.map(drop)
    }

    async fn leave(&mut self) -> Result<(), Error> {
        self.connection.execute(sqlx::raw_sql("ROLLBACK")).await.map(drop)
    }
}

fn options(database: &Database) -> Result<PgConnectOptions, Error> {
    let options = PgConnectOptions::from_str(database.url.reveal())?;
    Ok(options.application_name("innkeeper doctor").disable_statement_logging())
}

fn judge(error: Option<Error>) -> Outcome {
    let Some(error) = error else { return Outcome::Done };
    match error.as_database_error().and_then(DatabaseError::code).as_deref() {
        // insufficient_privilege, and what SET ROLE and its like say of a role that one may not be.
        Some("42501" | "0P000" | "0LP01") => Outcome::Refused,
        // undefined_table, undefined_column, undefined_object, undefined_function,
        // invalid_schema_name, invalid_parameter_value.
        Some("42P01" | "42703" | "42704" | "42883" | "3F000" | "22023") => Outcome::Absent,
        _ => Outcome::Unclear(error.to_string()),
    }
}
