//! Where a server listens and how it is spoken to: TCP or a Unix socket, in clear or over TLS.

use std::path::{Path, PathBuf};

use sqlx::ConnectOptions as _;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

use super::WireError;
use super::tls::{self, Trust};
use crate::policy::Secret;

/// A stream of bytes to the server.
pub(super) trait Transport: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Transport for T {}

/// The way to a server, as a database's URL describes it.
pub(super) struct Address {
    place: Place,
    encryption: Encryption,
    database: Option<String>,
    options: Option<String>,
}

/// Who logs in.
pub(super) struct Credentials {
    pub(super) user: String,
    pub(super) password: Option<Secret>,
}

enum Place {
    Tcp { host: String, port: u16 },
    Socket(PathBuf),
}

/// Whether the way to the server must be encrypted, and who the server must prove to be.
enum Encryption {
    Never,
    /// Where the server offers it.
    Offered(Trust),
    Required(Trust),
}

/// A stream to the server, and whether nobody between can read it.
pub(super) struct Reached {
    pub(super) stream: Box<dyn Transport>,
    pub(super) private: bool,
}

impl Address {
    /// Reads what sqlx read of the URL, the environment and the password file, so that both kinds
    /// of connection go to the same place; and who logs in there unless a tenant's role does.
    pub(super) fn read(options: &PgConnectOptions) -> (Self, Credentials) {
        let place = match options.get_socket() {
            Some(directory) => Place::in_directory(directory, options.get_port()),
            None if options.get_host().starts_with('/') => {
                Place::in_directory(Path::new(options.get_host()), options.get_port())
            }
            None => Place::Tcp { host: options.get_host().to_owned(), port: options.get_port() },
        };
        // sqlx shows some of its options in a URL alone. Names that a URL could not hold are
        // replaced first: only the password and the files are read back.
        let shown = options.clone().username("innkeeper").host("localhost").to_url_lossy();
        let parameter =
            |wanted: &str| shown.query_pairs().find(|(name, _)| name == wanted).map(|(_, value)| value);
        let file = |wanted: &str| {
            parameter(wanted).map(|path| PathBuf::from(path.strip_prefix("file: ").unwrap_or(&path)))
        };
        let password = shown.password().map(|password| {
            Secret::new(percent_encoding::percent_decode_str(password).decode_utf8_lossy().into_owned())
        });
        let trust = |verifies: tls::Verifies| Trust {
            verifies,
            root: file("sslrootcert"),
            identity: file("sslcert").zip(file("sslkey")),
        };
        let encryption = match options.get_ssl_mode() {
            PgSslMode::Disable | PgSslMode::Allow => Encryption::Never,
            PgSslMode::Prefer => Encryption::Offered(trust(tls::Verifies::Nothing)),
            // A root certificate that is given is there to be used, as libpq sees it.
            PgSslMode::Require if parameter("sslrootcert").is_some() => {
                Encryption::Required(trust(tls::Verifies::Issuer))
            }
            PgSslMode::Require => Encryption::Required(trust(tls::Verifies::Nothing)),
            PgSslMode::VerifyCa => Encryption::Required(trust(tls::Verifies::Issuer)),
            PgSslMode::VerifyFull => Encryption::Required(trust(tls::Verifies::IssuerAndHost)),
        };
        let address = Self {
            place,
            encryption,
            database: options.get_database().map(str::to_owned),
            options: options.get_options().map(str::to_owned),
        };
        (address, Credentials { user: options.get_username().to_owned(), password })
    }

    /// What the startup message asks for besides a user. The text formats are those that clients
    /// parse, whatever the server's or the role's own settings are.
    pub(super) fn startup_parameters(&self) -> Vec<(&str, &str)> {
        let mut parameters = vec![
            ("application_name", "innkeeper"),
            ("client_encoding", "UTF8"),
            ("DateStyle", "ISO, MDY"),
            ("IntervalStyle", "postgres"),
            ("TimeZone", "UTC"),
            ("bytea_output", "hex"),
            // Every digit that tells one float from the next.
            ("extra_float_digits", "1"),
        ];
        parameters.extend(self.database.as_deref().map(|database| ("database", database)));
        parameters.extend(self.options.as_deref().map(|options| ("options", options)));
        parameters
    }

    /// Connects, and encrypts the connection where that is asked for.
    pub(super) async fn reach(&self) -> Result<Reached, WireError> {
        let (host, port) = match &self.place {
            Place::Socket(path) => {
                let stream = UnixStream::connect(path).await?;
                return Ok(Reached { stream: Box::new(stream), private: true });
            }
            Place::Tcp { host, port } => (host.trim_start_matches('[').trim_end_matches(']'), *port),
        };
        let mut stream = TcpStream::connect((host, port)).await?;
        // Messages are written whole, and each waits for its answer.
        stream.set_nodelay(true)?;
        let (trust, required) = match &self.encryption {
            Encryption::Never => return Ok(Reached { stream: Box::new(stream), private: false }),
            Encryption::Offered(trust) => (trust, false),
            Encryption::Required(trust) => (trust, true),
        };
        if !offers_tls(&mut stream).await? {
            if required {
                return Err(WireError::Protocol("the server does not offer the TLS that `sslmode` asks for"));
            }
            return Ok(Reached { stream: Box::new(stream), private: false });
        }
        let stream = tls::encrypt(stream, host, trust).await?;
        Ok(Reached { stream: Box::new(stream), private: true })
    }
}

impl Place {
    fn in_directory(directory: &Path, port: u16) -> Self {
        Self::Socket(directory.join(format!(".s.PGSQL.{port}")))
    }
}

async fn offers_tls(stream: &mut TcpStream) -> Result<bool, WireError> {
    let mut request = bytes::BytesMut::new();
    postgres_protocol::message::frontend::ssl_request(&mut request);
    stream.write_all(&request).await?;
    // One byte and no more: whatever stood behind it in clear would be taken for the server's
    // word later (CVE-2021-23222).
    match stream.read_u8().await? {
        b'S' => Ok(true),
        b'N' => Ok(false),
        _ => Err(WireError::Protocol("the server answered a request for TLS with something else")),
    }
}
