//! One transaction of a client's statements: opened and narrowed, one statement a message, its
//! scope asserted before the commit.

use postgres_protocol::IsNull;
use postgres_protocol::message::backend::Message;
use postgres_protocol::message::frontend;
use sqlx::SqlStr;

use super::fault::DatabaseError;
use super::result::{Column, Row, Tag};
use super::{Status, WireConnection, WireError};
use crate::sql::whereabouts;

/// A statement with its values, as text or NULL. The server finds out what types they have.
pub(in crate::sql) struct Statement<'a> {
    pub(in crate::sql) text: &'a str,
    pub(in crate::sql) parameters: &'a [Option<String>],
}

/// What comes next of a running statement.
pub(in crate::sql) enum Step {
    /// A row.
    Row(Row),
    /// The statement is done.
    Finished(Finished),
}

/// How a statement ended.
pub(in crate::sql) struct Finished {
    pub(in crate::sql) tag: Tag,
    /// What the assertion behind the statement answered, where there was one.
    pub(in crate::sql) asserted: Option<Row>,
}

/// Why a statement did not begin.
pub(in crate::sql) enum StartError {
    /// The transaction was not opened, and the statement did not run.
    NotOpened(WireError),
    /// The statement failed.
    Failed(WireError),
}

impl WireConnection {
    /// Sends a statement and waits until the server knows its columns.
    ///
    /// What opens the transaction goes out in the same write, and `assertion` behind the statement.
    /// All of it is one exchange of the extended protocol: after an error the server skips to its
    /// end, so that the statement cannot run where opening failed. A simple message could not be
    /// pipelined like this: if its BEGIN failed, what follows would run outside of any scope.
    ///
    /// The extended protocol takes exactly one statement a message, whatever the text holds.
    pub(in crate::sql) async fn start(
        &mut self,
        opening: &[SqlStr],
        statement: &Statement<'_>,
        assertion: Option<&SqlStr>,
    ) -> Result<Vec<Column>, StartError> {
        self.put_exchange(opening, statement, assertion).map_err(|error| StartError::Failed(error.into()))?;
        self.flush().await.map_err(StartError::NotOpened)?;
        for _ in opening {
            self.confirm().await.map_err(StartError::NotOpened)?;
        }
        self.asserts = assertion.is_some();
        let columns = self.describe().await.map_err(StartError::Failed)?;
        self.columns = columns.len();
        Ok(columns)
    }

    /// What comes next of the statement that was started.
    pub(in crate::sql) async fn step(&mut self) -> Result<Step, WireError> {
        match self.answer().await? {
            Message::DataRow(body) => Ok(Step::Row(Row::read(body, self.columns)?)),
            Message::CommandComplete(body) => {
                let tag = Tag::new(body.tag()?);
                let asserted = if self.asserts { self.confirm().await? } else { None };
                self.end_exchange().await?;
                Ok(Step::Finished(Finished { tag, asserted }))
            }
            _ => Err(unexpected()),
        }
    }

    /// Runs a simple message of ours that returns nothing of interest; the tags of what completed.
    /// The error is the first that the server found.
    pub(in crate::sql) async fn run(&mut self, message: &str) -> Result<Vec<Tag>, (Vec<Tag>, WireError)> {
        let mut tags = Vec::new();
        match self.run_into(message, &mut tags).await {
            Ok(()) => Ok(tags),
            Err(error) => Err((tags, error)),
        }
    }

    async fn run_into(&mut self, message: &str, tags: &mut Vec<Tag>) -> Result<(), WireError> {
        frontend::query(message, &mut self.unsent)?;
        self.flush().await?;
        loop {
            match self.answer().await? {
                Message::CommandComplete(body) => tags.push(Tag::new(body.tag()?)),
                Message::RowDescription(_) | Message::DataRow(_) => {}
                Message::ReadyForQuery(_) => return Ok(()),
                _ => return Err(unexpected()),
            }
        }
    }

    fn put_exchange(
        &mut self,
        opening: &[SqlStr],
        statement: &Statement<'_>,
        assertion: Option<&SqlStr>,
    ) -> std::io::Result<()> {
        self.unsent.clear();
        for text in opening {
            self.put(text.as_str(), &[], false)?;
        }
        self.put(statement.text, statement.parameters, true)?;
        if let Some(assertion) = assertion {
            self.put(assertion.as_str(), &[], false)?;
        }
        frontend::sync(&mut self.unsent);
        Ok(())
    }

    fn put(&mut self, text: &str, parameters: &[Option<String>], described: bool) -> std::io::Result<()> {
        let buffer = &mut self.unsent;
        // Without a name: nothing that is prepared outlives the next statement.
        frontend::parse("", text, [], buffer)?;
        let bound = frontend::bind(
            "",
            "",
            [],
            parameters,
            |parameter, buffer| match parameter {
                Some(text) => {
                    buffer.extend_from_slice(text.as_bytes());
                    Ok(IsNull::No)
                }
                None => Ok(IsNull::Yes),
            },
            [],
            buffer,
        );
        bound.map_err(|error| match error {
            frontend::BindError::Conversion(error) => std::io::Error::other(error),
            frontend::BindError::Serialization(error) => error,
        })?;
        if described {
            frontend::describe(b'P', "", buffer)?;
        }
        frontend::execute("", 0, buffer)
    }

    /// Reads the answer to a statement of ours; the row that it returned, if any.
    async fn confirm(&mut self) -> Result<Option<Row>, WireError> {
        let mut row = None;
        loop {
            match self.answer().await? {
                Message::ParseComplete | Message::BindComplete => {}
                Message::DataRow(body) => row = Some(Row::read(body, whereabouts::COUNT)?),
                Message::CommandComplete(_) => return Ok(row),
                _ => return Err(unexpected()),
            }
        }
    }

    async fn describe(&mut self) -> Result<Vec<Column>, WireError> {
        loop {
            match self.answer().await? {
                Message::ParseComplete | Message::BindComplete => {}
                Message::RowDescription(body) => return Ok(Column::read(&body)?),
                Message::NoData => return Ok(Vec::new()),
                _ => return Err(unexpected()),
            }
        }
    }

    async fn end_exchange(&mut self) -> Result<(), WireError> {
        match self.receive().await? {
            Message::ReadyForQuery(_) => Ok(()),
            _ => Err(unexpected()),
        }
    }

    /// The next message. After an error of the server the exchange is read to its end first.
    pub(super) async fn answer(&mut self) -> Result<Message, WireError> {
        let error = match self.receive().await? {
            Message::ErrorResponse(body) => WireError::from(DatabaseError::read(&body)?),
            Message::CopyInResponse(_) | Message::CopyOutResponse(_) => {
                return Err(WireError::Protocol("the statement copies, which has no place in an answer"));
            }
            message => return Ok(message),
        };
        while !error.is_lost() && self.status().is_none() {
            self.receive().await?;
        }
        Err(error)
    }

    /// Whether a transaction goes on in which a statement just ran.
    pub(in crate::sql) fn in_transaction(&self) -> bool {
        self.status() == Some(Status::InTransaction)
    }

    /// Whether a transaction failed and waits for its rollback.
    pub(in crate::sql) fn in_failed_transaction(&self) -> bool {
        self.status() == Some(Status::Failed)
    }
}

pub(super) fn unexpected() -> WireError {
    WireError::Protocol("the server answered what the protocol has no place for")
}
