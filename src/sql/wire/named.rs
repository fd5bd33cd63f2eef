//! A connection for named queries: what opens the transaction, narrows it, runs the statement and ends
//! a read goes out in one write, and every statement is prepared once.

use bytes::BytesMut;
use postgres_protocol::message::backend::Message;
use postgres_protocol::message::frontend;
use sqlx::SqlStr;

use super::prepared::{Found, Prepared};
use super::result::Row;
use super::transaction::unexpected;
use super::{StartError, Status, WireConnection, WireError};
use crate::sql::pool::{NotOpened, Server, Session};
use crate::sql::value::Value;
use crate::tenant::RoleName;

/// What is sent at once. PostgreSQL runs the parts one after the other; after an error it skips to the
/// end, so that none of them can run outside of what the parts before it set.
pub(in crate::sql) struct Exchange<'a> {
    /// What opens the transaction and narrows it.
    pub(in crate::sql) opening: &'a [SqlStr],
    pub(in crate::sql) statement: &'a SqlStr,
    /// What is bound to the statement.
    pub(in crate::sql) values: &'a [Value],
    /// Tells tenants apart: each has prepared statements of its own, as far as there is room.
    pub(in crate::sql) tenant: u64,
    /// Columns of the statement's rows.
    pub(in crate::sql) columns: usize,
    /// What ends the transaction, where nobody has to look at the rows before.
    pub(in crate::sql) ending: &'a [SqlStr],
}

/// A connection, and the statements that are prepared on it.
pub(in crate::sql) struct NamedConnection {
    wire: WireConnection,
    prepared: Prepared,
}

impl Session for NamedConnection {
    async fn open(server: &Server, login: Option<&RoleName>) -> Result<Self, NotOpened> {
        let mut opened = WireConnection::log_in(server, login, server.watches_clients()).await;
        if opened.as_ref().is_err_and(WireError::is_unknown_setting) {
            server.cannot_watch_clients();
            opened = WireConnection::log_in(server, login, false).await;
        }
        let wire = opened.map_err(|error| error.not_opened(login))?;
        Ok(Self { wire, prepared: Prepared::new() })
    }
}

impl NamedConnection {
    /// Sends an exchange, and waits until its transaction is known to be open and narrowed.
    pub(in crate::sql) async fn start(&mut self, exchange: &Exchange<'_>) -> Result<(), StartError> {
        self.put(exchange).map_err(|error| StartError::Failed(error.into()))?;
        self.wire.columns = exchange.columns;
        self.wire.flush().await.map_err(StartError::NotOpened)?;
        for _ in exchange.opening {
            self.complete().await.map_err(StartError::NotOpened)?;
        }
        Ok(())
    }

    /// The next row of the statement; `None` once the exchange is over. Cancelling it loses nothing.
    pub(in crate::sql) async fn next(&mut self) -> Result<Option<Row>, WireError> {
        loop {
            match self.answer().await? {
                Message::DataRow(body) => return Row::read(body, self.wire.columns).map(Some),
                Message::ReadyForQuery(_) => return Ok(None),
                Message::CommandComplete(_) => {}
                _ => return Err(unexpected()),
            }
        }
    }

    /// Runs a simple message of ours. The error comes with how many of its commands were completed.
    pub(in crate::sql) async fn run(&mut self, message: &str) -> Result<(), (usize, WireError)> {
        self.wire.run(message).await.map(drop).map_err(|(tags, error)| (tags.len(), error))
    }

    /// Asks for a sign of life.
    pub(in crate::sql) async fn ping(&mut self) -> Result<(), WireError> {
        frontend::sync(&mut self.wire.unsent);
        self.wire.flush().await?;
        self.next().await.map(drop)
    }

    /// Whether no transaction is open, as the server said last.
    pub(in crate::sql) fn is_idle(&self) -> bool {
        self.wire.status() == Some(Status::Idle)
    }

    /// Whether a whole message has been received and not yet read.
    pub(in crate::sql) fn has_message(&self) -> bool {
        self.wire.has_message()
    }

    fn put(&mut self, exchange: &Exchange<'_>) -> std::io::Result<()> {
        self.wire.unsent.clear();
        // First of all: what follows an error is skipped.
        while let Some(evicted) = self.prepared.make_room(exchange.statement, exchange.tenant) {
            frontend::close(b'S', &evicted, &mut self.wire.unsent)?;
        }
        for text in exchange.opening {
            self.put_unnamed(text)?;
        }
        let Found { name, is_new } = self.prepared.find(exchange.statement, exchange.tenant);
        if is_new {
            let types = exchange.values.iter().map(Value::type_oid);
            frontend::parse(&name, exchange.statement.as_str(), types, &mut self.wire.unsent)?;
        }
        put_run(&name, exchange.values, &mut self.wire.unsent)?;
        for text in exchange.ending {
            self.put_unnamed(text)?;
        }
        frontend::sync(&mut self.wire.unsent);
        Ok(())
    }

    /// For what runs with the session's own rights, before and after the tenant's: a statement with a
    /// name could have been put in another's place by a tenant's function (`DEALLOCATE`, `PREPARE`).
    fn put_unnamed(&mut self, text: &SqlStr) -> std::io::Result<()> {
        self.prepared.pass_by();
        frontend::parse("", text.as_str(), [], &mut self.wire.unsent)?;
        put_run("", &[], &mut self.wire.unsent)
    }

    /// Reads to the end of one part, which has no rows that anyone wants.
    async fn complete(&mut self) -> Result<(), WireError> {
        loop {
            match self.answer().await? {
                Message::DataRow(_) => {}
                Message::CommandComplete(_) => return Ok(()),
                _ => return Err(unexpected()),
            }
        }
    }

    /// The next message that is not about what is prepared.
    async fn answer(&mut self) -> Result<Message, WireError> {
        loop {
            match self.wire.answer().await {
                Ok(Message::ParseComplete) => self.prepared.confirm(),
                Ok(Message::BindComplete | Message::CloseComplete) => {}
                Ok(message) => return Ok(message),
                Err(error) => {
                    self.prepared.give_up();
                    return Err(error);
                }
            }
        }
    }
}

/// Binds a prepared statement and runs it. Values are in PostgreSQL's binary format, results in its text
/// format.
fn put_run(name: &str, values: &[Value], buffer: &mut BytesMut) -> std::io::Result<()> {
    const BINARY: i16 = 1;
    let put = |value: &Value, buffer: &mut BytesMut| Ok(value.put(buffer));
    frontend::bind("", name, [BINARY], values, put, [], buffer).map_err(|error| match error {
        frontend::BindError::Conversion(error) => std::io::Error::other(error),
        frontend::BindError::Serialization(error) => error,
    })?;
    frontend::execute("", 0, buffer)
}
