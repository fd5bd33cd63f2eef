//! Connections that speak PostgreSQL's protocol: for clients' statements, whose types only the server
//! knows, and for named queries, which it has prepared.

mod address;
mod fault;
mod named;
mod prepared;
mod result;
mod startup;
mod tls;
mod transaction;

use std::sync::Arc;

use bytes::BytesMut;
use postgres_protocol::message::backend::{Header, Message};
use postgres_protocol::message::frontend;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

pub(super) use fault::WireError;
pub(super) use named::{Exchange, NamedConnection};
pub use result::{Column, ResultSet, Row, Tag};
pub(super) use transaction::{Finished, StartError, Statement, Step};

use super::pool::{NotOpened, Server, Session};
use crate::policy::Secret;
use crate::tenant::RoleName;
use address::{Address, Credentials, Transport};

/// The largest message that is read. PostgreSQL's own limit for a value is 1 GiB; a message is
/// held whole in memory, so that the limit here is what one row may cost.
const LARGEST_MESSAGE: usize = 64 << 20;

/// What is read from the socket at once.
const READ_AT_ONCE: usize = 16 << 10;

/// What a connection keeps of a buffer between exchanges.
const KEPT_BUFFER: usize = 64 << 10;

/// A connection. Dropped while the server still works for it, it has the server cancel that work:
/// a closed socket alone is noticed when the server writes next, which may be never.
pub(super) struct WireConnection {
    stream: Box<dyn Transport>,
    received: BytesMut,
    unsent: BytesMut,
    address: Arc<Address>,
    key: Option<CancelKey>,
    /// What the server said when it had answered all that was sent; `None` while it works.
    status: Option<Status>,
    /// Columns of the statement that is running.
    columns: usize,
    /// Whether an assertion runs behind it.
    asserts: bool,
}

/// What a cancel request must show.
#[derive(Clone, Copy)]
struct CancelKey {
    process: i32,
    secret: i32,
}

/// The transaction that a session is in, as the server says after each exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    /// None.
    Idle,
    /// One that goes on.
    InTransaction,
    /// One that can only be rolled back.
    Failed,
}

impl Session for WireConnection {
    async fn open(server: &Server, login: Option<&RoleName>) -> Result<Self, NotOpened> {
        Self::log_in(server, login, false).await.map_err(|error| error.not_opened(login))
    }
}

impl WireConnection {
    /// Connects to a server and logs in. `watches` has the server look, while it runs a statement,
    /// whether we are still there.
    async fn log_in(server: &Server, login: Option<&RoleName>, watches: bool) -> Result<Self, WireError> {
        let (address, own) = Address::read(&server.options(watches));
        let credentials = match login {
            None => own,
            Some(role) => Credentials {
                user: role.as_str().to_owned(),
                password: Some(Secret::new(server.password(role))),
            },
        };
        Self::connect(Arc::new(address), &credentials).await
    }

    async fn connect(address: Arc<Address>, credentials: &Credentials) -> Result<Self, WireError> {
        let reached = address.reach().await?;
        let mut connection = Self {
            stream: reached.stream,
            received: BytesMut::with_capacity(READ_AT_ONCE),
            unsent: BytesMut::new(),
            address,
            key: None,
            status: None,
            columns: 0,
            asserts: false,
        };
        startup::log_in(&mut connection, credentials, reached.private).await?;
        Ok(connection)
    }

    /// The transaction that the session is in; `None` while the server works.
    pub(super) fn status(&self) -> Option<Status> {
        self.status
    }

    /// Whether a whole message has been received and not yet read.
    pub(super) fn has_message(&self) -> bool {
        matches!(Header::parse(&self.received), Ok(Some(header))
            if usize::try_from(header.len()).is_ok_and(|length| self.received.len() > length))
    }

    /// Sends what was put together in `unsent`.
    async fn flush(&mut self) -> Result<(), WireError> {
        self.status = None;
        self.stream.write_all(&self.unsent).await?;
        self.stream.flush().await?;
        self.unsent.clear();
        keep_small(&mut self.unsent);
        Ok(())
    }

    /// The next message that means anything here. Cancelling it loses nothing.
    async fn receive(&mut self) -> Result<Message, WireError> {
        loop {
            if let Some(header) = Header::parse(&self.received)?
                && usize::try_from(header.len()).is_ok_and(|length| length > LARGEST_MESSAGE)
            {
                return Err(WireError::MessageTooLarge);
            }
            match Message::parse(&mut self.received)? {
                Some(
                    Message::NoticeResponse(_)
                    | Message::ParameterStatus(_)
                    | Message::NotificationResponse(_),
                ) => {}
                Some(Message::ReadyForQuery(body)) => {
                    self.status = Some(Status::of(body.status())?);
                    keep_small(&mut self.received);
                    return Ok(Message::ReadyForQuery(body));
                }
                Some(message) => return Ok(message),
                None => {
                    self.received.reserve(READ_AT_ONCE);
                    if self.stream.read_buf(&mut self.received).await? == 0 {
                        return Err(WireError::Closed);
                    }
                }
            }
        }
    }
}

impl Status {
    fn of(byte: u8) -> Result<Self, WireError> {
        match byte {
            b'I' => Ok(Self::Idle),
            b'T' => Ok(Self::InTransaction),
            b'E' => Ok(Self::Failed),
            _ => Err(WireError::Protocol("the server named a transaction status that does not exist")),
        }
    }
}

/// Gives back what a large message took: a connection that idles is to cost little.
fn keep_small(buffer: &mut BytesMut) {
    if buffer.is_empty() && buffer.capacity() > KEPT_BUFFER {
        *buffer = BytesMut::new();
    }
}

impl Drop for WireConnection {
    fn drop(&mut self) {
        let Some(key) = self.key.filter(|_| self.status.is_none()) else { return };
        let address = Arc::clone(&self.address);
        // Without a runtime the process is at its end, and its sockets tell the server.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if let Err(error) = cancel(&address, key).await {
                    tracing::debug!(%error, "a cancel request did not reach the server");
                }
            });
        }
    }
}

/// Asks the server to end what the session works on, over a connection of its own, as the protocol
/// has it. The session is being closed: nothing that it does later can be hit.
async fn cancel(address: &Address, key: CancelKey) -> Result<(), WireError> {
    let mut stream = address.reach().await?.stream;
    let mut message = BytesMut::new();
    frontend::cancel_request(key.process, key.secret, &mut message);
    stream.write_all(&message).await?;
    stream.flush().await?;
    // The server closes once it has passed the request on.
    let _ = stream.read_u8().await;
    Ok(())
}
