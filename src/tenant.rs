//! Who a request belongs to: tenants, and the names that are proof of having been checked.

mod limits;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

pub use limits::{Limits, Quota};

/// The longest identifier that PostgreSQL keeps, in bytes (`NAMEDATALEN - 1`, manual chapter
/// 4.1.1). A longer one would be cut silently, and two tenants could fall into one schema.
pub const MAX_IDENTIFIER_BYTES: usize = 63;

/// The longest tenant id, in bytes: long enough for a UUID behind a prefix, short enough for a
/// header, a log line and a cache key.
pub const MAX_TENANT_ID_BYTES: usize = 128;

/// Why a text is not the name it was offered as. The text names the rule that it broke.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidName(String);

/// A tenant's id: 1 to 128 visible ASCII characters, so that it fits a header unescaped.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TenantId(Arc<str>);

impl TenantId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TenantId {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        if text.is_empty() {
            return Err(InvalidName("tenant id must not be empty".into()));
        }
        if text.len() > MAX_TENANT_ID_BYTES {
            return Err(InvalidName(format!(
                "tenant id must be at most {MAX_TENANT_ID_BYTES} bytes, got {}",
                text.len()
            )));
        }
        if let Some(strange) = text.chars().find(|c| !c.is_ascii_graphic()) {
            return Err(InvalidName(format!(
                "tenant id must be visible ASCII characters without spaces, got {strange:?}"
            )));
        }
        Ok(Self(text.into()))
    }
}

/// An identifier that PostgreSQL accepts once quoted (manual chapter 4.1.1): not empty, at most
/// 63 bytes, free of control characters.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Identifier(Arc<str>);

impl Identifier {
    fn parse(what: &str, text: &str) -> Result<Self, InvalidName> {
        if text.is_empty() {
            return Err(InvalidName(format!("{what} must not be empty")));
        }
        if text.len() > MAX_IDENTIFIER_BYTES {
            return Err(InvalidName(format!(
                "{what} must be at most {MAX_IDENTIFIER_BYTES} bytes, got {} in `{text}`",
                text.len()
            )));
        }
        // A header carries the schema to backends and a log line names it: neither may be split.
        if text.chars().any(char::is_control) {
            return Err(InvalidName(format!("{what} must not contain control characters, got {text:?}")));
        }
        let folded = text.to_ascii_lowercase();
        if folded.starts_with("pg_") {
            return Err(InvalidName(format!(
                "{what} must not start with `pg_`, which PostgreSQL keeps for itself, got `{text}`"
            )));
        }
        Ok(Self(text.into()))
    }

    /// Double quotes around, double quotes inside doubled: the whole of PostgreSQL's rule.
    fn quote(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"")?;
        for (index, part) in self.0.split('"').enumerate() {
            if index > 0 {
                f.write_str("\"\"")?;
            }
            f.write_str(part)?;
        }
        f.write_str("\"")
    }
}

/// A schema's name that was checked, and that reaches SQL only quoted.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SchemaName(Identifier);

impl SchemaName {
    /// The name as PostgreSQL's catalogue stores it. Not for SQL: see [`SchemaName::quoted`].
    pub fn as_str(&self) -> &str {
        &self.0.0
    }

    /// The name as a quoted SQL identifier; the only form in which it may enter a statement.
    pub fn quoted(&self) -> Quoted<'_> {
        Quoted(&self.0)
    }

    /// Whether this is the schema that every tenant shares.
    pub fn is_public(&self) -> bool {
        self.as_str() == "public"
    }
}

impl FromStr for SchemaName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let identifier = Identifier::parse("schema name", text)?;
        if text.eq_ignore_ascii_case("information_schema") {
            return Err(InvalidName(
                "schema name must not be `information_schema`, PostgreSQL's catalogue".into(),
            ));
        }
        // Quoted or not: a search path has no way to name such a schema.
        if text == "$user" {
            return Err(InvalidName(
                "schema name must not be `$user`, which a search path reads as the schema of the current role".into(),
            ));
        }
        Ok(Self(identifier))
    }
}

/// A role's name that was checked, and that reaches SQL only quoted.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RoleName(Identifier);

impl RoleName {
    /// The name as PostgreSQL's catalogue stores it. Not for SQL: see [`RoleName::quoted`].
    pub fn as_str(&self) -> &str {
        &self.0.0
    }

    /// The name as a quoted SQL identifier.
    pub fn quoted(&self) -> Quoted<'_> {
        Quoted(&self.0)
    }
}

impl FromStr for RoleName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let identifier = Identifier::parse("role name", text)?;
        // `SET ROLE "none"` gives the login role back, quoted or not (manual, SET ROLE).
        if text == "none" || text == "public" {
            return Err(InvalidName(format!(
                "role name must not be `{text}`, which is no role to PostgreSQL"
            )));
        }
        Ok(Self(identifier))
    }
}

/// An identifier that displays as PostgreSQL reads it back: quoted, whatever it contains.
pub struct Quoted<'a>(&'a Identifier);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.quote(f)
    }
}

/// A tenant's own schema: any [`SchemaName`] but `public`, which belongs to all tenants and is
/// therefore nobody's home.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TenantSchema(SchemaName);

impl TenantSchema {
    /// The checked name inside.
    pub fn name(&self) -> &SchemaName {
        &self.0
    }

    /// The name as PostgreSQL's catalogue stores it.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl FromStr for TenantSchema {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let schema: SchemaName = text.parse()?;
        if schema.is_public() {
            return Err(InvalidName(
                "a tenant's schema must not be `public`: every tenant would share it".into(),
            ));
        }
        Ok(Self(schema))
    }
}

/// How strong the wall between tenants is inside PostgreSQL (`docs/isolation.md`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Isolation {
    /// `SET LOCAL search_path` alone: holds for statements that the operator wrote.
    Schema,
    /// The same and `SET LOCAL ROLE`: PostgreSQL's grants hold the wall too.
    Role,
    /// A connection that logged in as the tenant's role: nothing in SQL can leave it.
    Login,
}

impl Isolation {
    /// Whether a tenant needs a role of its own at this level.
    pub fn needs_role(self) -> bool {
        self > Self::Schema
    }
}

impl fmt::Display for Isolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Schema => "schema",
            Self::Role => "role",
            Self::Login => "login",
        })
    }
}

/// Whether a tenant is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TenantState {
    /// Requests are served.
    #[default]
    Active,
    /// Requests are refused until someone reactivates the tenant.
    Suspended,
    /// Requests are refused for a moment, for example while the tenant moves.
    Held {
        /// What the client is told to wait before it tries again.
        retry_after: Duration,
    },
}

/// A customer of the application that we stand in front of, as its directory describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    /// Its id, as resolvers name it and backends are told it.
    pub id: TenantId,
    /// Its own schema.
    pub schema: TenantSchema,
    /// The role that its statements run as, where isolation asks for one.
    pub role: Option<RoleName>,
    /// The database that it lives in, where it is not the one that the query names.
    pub database: Option<Arc<str>>,
    /// Whether it is served.
    pub state: TenantState,
    /// A stronger isolation level than its database's, if set.
    pub isolation: Option<Isolation>,
    /// What it may take; `None` for as much as there is.
    pub limits: Option<Arc<Limits>>,
}

macro_rules! show_as_text {
    ($($name:ident),*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(self.as_str(), f)
            }
        }
    )*};
}
show_as_text!(TenantId, SchemaName, RoleName, TenantSchema);

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoting_doubles_quotes_and_nothing_else() {
        let schema: SchemaName = r#"we"ird.Näme; drop"#.parse().unwrap();
        assert_eq!(schema.quoted().to_string(), r#""we""ird.Näme; drop""#);
    }

    #[test]
    fn names_that_postgresql_keeps_are_refused() {
        for name in ["", "pg_temp", "PG_toast", "$user", "information_schema", "a\0b", "line\nbreak"] {
            assert!(name.parse::<SchemaName>().is_err(), "{name:?}");
        }
        assert!("x".repeat(64).parse::<SchemaName>().is_err());
        assert!("x".repeat(63).parse::<SchemaName>().is_ok());
        assert!("none".parse::<RoleName>().is_err());
    }

    #[test]
    fn public_is_nobodys_home() {
        assert!("public".parse::<SchemaName>().is_ok());
        assert!("public".parse::<TenantSchema>().is_err());
    }

    #[test]
    fn tenant_ids_fit_a_header() {
        assert!("acme-1".parse::<TenantId>().is_ok());
        for id in ["", "a b", "a\r\nX: y", "ä"] {
            assert!(id.parse::<TenantId>().is_err(), "{id:?}");
        }
    }
}
