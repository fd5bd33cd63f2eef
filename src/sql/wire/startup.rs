//! Logs in: the startup message, and whichever proof the server asks for.

use std::sync::Arc;

use bytes::BytesMut;
use fallible_iterator::FallibleIterator as _;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use postgres_protocol::message::backend::{AuthenticationSaslBody, Message};
use postgres_protocol::message::frontend;

use super::address::Credentials;
use super::fault::DatabaseError;
use super::{CancelKey, WireConnection, WireError};
use crate::policy::Secret;

/// Logs in on a fresh connection. `private` says that nobody between can read it.
pub(super) async fn log_in(
    connection: &mut WireConnection,
    credentials: &Credentials,
    private: bool,
) -> Result<(), WireError> {
    let address = Arc::clone(&connection.address);
    let mut parameters = address.startup_parameters();
    parameters.push(("user", &credentials.user));
    frontend::startup_message(parameters, &mut connection.unsent)?;
    connection.flush().await?;
    loop {
        match connection.receive().await? {
            Message::AuthenticationOk => {}
            Message::AuthenticationCleartextPassword => {
                if !private {
                    return Err(WireError::Protocol(
                        "the server asks for a password in clear over a connection that others may read: use TLS, \
                         or `scram-sha-256` in `pg_hba.conf`",
                    ));
                }
                let password = password_of(credentials)?.reveal().as_bytes();
                send(connection, |buffer| frontend::password_message(password, buffer)).await?;
            }
            Message::AuthenticationMd5Password(body) => {
                let password = password_of(credentials)?.reveal().as_bytes();
                let hash = md5_hash(credentials.user.as_bytes(), password, body.salt());
                send(connection, |buffer| frontend::password_message(hash.as_bytes(), buffer)).await?;
            }
            Message::AuthenticationSasl(body) => {
                scram(connection, &body, password_of(credentials)?).await?;
            }
            Message::BackendKeyData(body) => {
                connection.key = Some(CancelKey { process: body.process_id(), secret: body.secret_key() });
            }
            Message::ReadyForQuery(_) => return Ok(()),
            Message::ErrorResponse(body) => return Err(DatabaseError::read(&body)?.into()),
            _ => {
                return Err(WireError::Protocol(
                    "the server asks for a kind of login that is not known here",
                ));
            }
        }
    }
}

/// Proves that both sides know the password, without sending it (RFC 5802).
async fn scram(
    connection: &mut WireConnection,
    offered: &AuthenticationSaslBody,
    password: &Secret,
) -> Result<(), WireError> {
    if !offered.mechanisms().any(|mechanism| Ok(mechanism == SCRAM_SHA_256))? {
        return Err(WireError::Protocol("the server offers no SCRAM-SHA-256"));
    }
    let mut scram = ScramSha256::new(password.reveal().as_bytes(), ChannelBinding::unsupported());
    let first = scram.message().to_vec();
    send(connection, |buffer| frontend::sasl_initial_response(SCRAM_SHA_256, &first, buffer)).await?;
    match connection.receive().await? {
        Message::AuthenticationSaslContinue(body) => scram.update(body.data())?,
        Message::ErrorResponse(body) => return Err(DatabaseError::read(&body)?.into()),
        _ => return Err(WireError::Protocol("the server broke off its login")),
    }
    let proof = scram.message().to_vec();
    send(connection, |buffer| frontend::sasl_response(&proof, buffer)).await?;
    match connection.receive().await? {
        // The server's own proof: one that does not know the password is no server of ours.
        Message::AuthenticationSaslFinal(body) => Ok(scram.finish(body.data())?),
        Message::ErrorResponse(body) => Err(DatabaseError::read(&body)?.into()),
        _ => Err(WireError::Protocol("the server broke off its login")),
    }
}

fn password_of(credentials: &Credentials) -> Result<&Secret, WireError> {
    credentials
        .password
        .as_ref()
        .ok_or(WireError::Protocol("the server asks for a password, and there is none"))
}

async fn send(
    connection: &mut WireConnection,
    write: impl FnOnce(&mut BytesMut) -> std::io::Result<()>,
) -> Result<(), WireError> {
    write(&mut connection.unsent)?;
    connection.flush().await
}
