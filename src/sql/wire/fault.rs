//! What can go wrong on a connection, and what PostgreSQL says of an error.

use std::fmt;
use std::io;

use fallible_iterator::FallibleIterator as _;
use http::StatusCode;
use postgres_protocol::message::backend::ErrorResponseBody;
use serde_json::{Map, Value};

use crate::error::{Blame, Code, Refusal};
use crate::sql::failure;
use crate::sql::pool::NotOpened;
use crate::tenant::RoleName;

/// Why an exchange with the server failed. After all but [`WireError::Database`] the connection is
/// of no more use.
#[derive(Debug, thiserror::Error)]
pub(in crate::sql) enum WireError {
    /// The socket failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The server closed the connection.
    #[error("the server closed the connection")]
    Closed,
    /// TLS could not be set up.
    #[error("{0}")]
    Tls(String),
    /// The server said what it must not say.
    #[error("{0}")]
    Protocol(&'static str),
    /// The server sent more at once than anyone can want.
    #[error("one row or message of the answer is larger than {} MiB", super::LARGEST_MESSAGE >> 20)]
    MessageTooLarge,
    /// The server refused.
    #[error("{0}")]
    Database(#[from] Box<DatabaseError>),
}

/// An error as PostgreSQL reports it, every field of it (manual, chapter 55.8).
#[derive(Debug)]
pub(in crate::sql) struct DatabaseError(Vec<(u8, String)>);

/// The fields as Neon's driver names them. What is missing is null.
const FIELDS: [(&str, u8); 17] = [
    ("message", b'M'),
    ("code", b'C'),
    ("severity", b'S'),
    ("detail", b'D'),
    ("hint", b'H'),
    ("position", b'P'),
    ("internalPosition", b'p'),
    ("internalQuery", b'q'),
    ("where", b'W'),
    ("schema", b's'),
    ("table", b't'),
    ("column", b'c'),
    ("dataType", b'd'),
    ("constraint", b'n'),
    ("file", b'F'),
    ("line", b'L'),
    ("routine", b'R'),
];

impl WireError {
    /// Whether the connection is gone, or must go because of what it answered.
    pub(in crate::sql) fn is_lost(&self) -> bool {
        match self {
            Self::Database(error) => error.ends_session(),
            _ => true,
        }
    }

    /// The SQLSTATE, where it is the server that refused.
    pub(in crate::sql) fn state(&self) -> Option<&str> {
        match self {
            Self::Database(error) => Some(error.state()),
            _ => None,
        }
    }

    /// Whether the server does not know a setting, or cannot do what it says on its system.
    pub(super) fn is_unknown_setting(&self) -> bool {
        matches!(self.state(), Some("42704" | "22023"))
    }

    /// Why there is no connection, logged in as `login` or as the URL's user.
    pub(super) fn not_opened(&self, login: Option<&RoleName>) -> NotOpened {
        let refused = matches!(self, Self::Io(error) if error.kind() == io::ErrorKind::ConnectionRefused);
        failure::not_opened(self.state(), refused, &self.to_string(), login)
    }

    /// The refusal where PostgreSQL would not let the scope be set. No statement has run.
    pub(in crate::sql) fn not_scoped(&self) -> Refusal {
        if self.is_lost() {
            return gone().because(format!("beginning a transaction: {self}"));
        }
        Refusal::new(
            Code::InternalError,
            "this tenant's place in the database is not set up; ask whoever runs the service",
        )
        .blamed_on(Blame::Policy)
        .because(format!("setting the scope: {self}"))
    }

    /// The refusal where a statement failed. The client wrote the statement, and is told all that
    /// PostgreSQL says of it.
    pub(in crate::sql) fn failed(&self) -> Refusal {
        match self {
            Self::Database(error) if !error.ends_session() => error.refusal(),
            Self::MessageTooLarge => {
                Refusal::new(Code::QueryFailed, "one row of the answer is too large; select less of it")
                    .with_status(StatusCode::INSUFFICIENT_STORAGE)
                    .because(self)
            }
            _ => gone().because(self),
        }
    }
}

fn gone() -> Refusal {
    failure::unavailable("the database went away; send the request again shortly")
}

impl DatabaseError {
    pub(super) fn read(body: &ErrorResponseBody) -> io::Result<Box<Self>> {
        let fields = body
            .fields()
            .map(|field| Ok((field.type_(), String::from_utf8_lossy(field.value_bytes()).into_owned())));
        Ok(Box::new(Self(fields.collect()?)))
    }

    /// The SQLSTATE.
    pub(in crate::sql) fn state(&self) -> &str {
        self.field(b'C').unwrap_or_default()
    }

    /// What it says.
    pub(in crate::sql) fn message(&self) -> &str {
        self.field(b'M').unwrap_or_default()
    }

    /// Whether it comes from inside of a function, and not from what was sent.
    pub(in crate::sql) fn is_raised_inside(&self) -> bool {
        self.field(b'W').is_some()
    }

    /// Everything that PostgreSQL said, for the operator alone.
    pub(in crate::sql) fn in_full(&self) -> String {
        let mut text = self.to_string();
        for (name, field) in [
            ("detail", b'D'),
            ("hint", b'H'),
            ("where", b'W'),
            ("schema", b's'),
            ("table", b't'),
            ("column", b'c'),
            ("constraint", b'n'),
        ] {
            text.extend(self.field(field).into_iter().flat_map(|value| ["; ", name, ": ", value]));
        }
        text
    }

    /// Whether the session is over, or the server: nothing that the statement did.
    fn ends_session(&self) -> bool {
        // Not translated, unlike `S`.
        matches!(self.field(b'V'), Some("FATAL" | "PANIC"))
    }

    fn refusal(&self) -> Refusal {
        let blamed = failure::by_sqlstate(self.state(), true);
        let code = match blamed.code() {
            Code::QueryTimeout => Code::QueryTimeout,
            _ => Code::QueryFailed,
        };
        let mut members = Map::new();
        for (name, field) in FIELDS {
            members.insert(name.to_owned(), self.field(field).map_or(Value::Null, Value::from));
        }
        let blame = if code == Code::QueryTimeout { Blame::Database } else { Blame::Client };
        // The one status whose body the driver reads.
        Refusal::new(code, self.message().to_owned())
            .with_status(StatusCode::BAD_REQUEST)
            .blamed_on(blame)
            .with_members(members)
            .because(format!("{} (SQLSTATE {})", self.message(), self.state()))
    }

    fn field(&self, wanted: u8) -> Option<&str> {
        self.0.iter().find(|(field, _)| *field == wanted).map(|(_, value)| value.as_str())
    }
}

impl fmt::Display for DatabaseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (SQLSTATE {})", self.message(), self.state())
    }
}

impl std::error::Error for DatabaseError {}
