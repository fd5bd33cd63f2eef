//! What the pool opens and keeps: a kind of connection, and the server that it leads to.

use std::future::Future;
use std::str::FromStr as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sqlx::Error;
use sqlx::postgres::PgConnectOptions;

use crate::error::Refusal;
use crate::policy;
use crate::sql::{OpenError, text};
use crate::tenant::RoleName;

/// A kind of connection. Dropped, it closes its socket.
pub(in crate::sql) trait Session: Send + Sized + 'static {
    /// Connects and logs in, as `login` or as the URL's user.
    fn open(
        server: &Server,
        login: Option<&RoleName>,
    ) -> impl Future<Output = Result<Self, NotOpened>> + Send;
}

/// Why there is no connection.
pub(in crate::sql) struct NotOpened {
    /// What the request is told that waited for it.
    pub(in crate::sql) refusal: Refusal,
    /// Whether it may soon be different: the server starts, or has no connection to give.
    pub(in crate::sql) passes: bool,
}

/// A server, and how one logs in there.
pub(in crate::sql) struct Server {
    settings: Arc<policy::Database>,
    options: PgConnectOptions,
    /// Whether it can watch a client's connection while a query runs: PostgreSQL 14 on, not on
    /// every system. True until the server says otherwise.
    watches_clients: AtomicBool,
}

impl Server {
    /// # Errors
    /// The URL cannot be read.
    pub(in crate::sql) fn new(settings: Arc<policy::Database>) -> Result<Self, OpenError> {
        let options = PgConnectOptions::from_str(settings.url.reveal())
            .map_err(|error| OpenError {
                database: policy::Name::clone(&settings.name),
                // The error's text may quote the URL, and with it the password.
                reason: match error {
                    Error::Configuration(_) => "it is not a valid URL".to_owned(),
                    other => other.to_string(),
                },
            })?
            .options(text::session_settings(&settings));
        Ok(Self { settings, options, watches_clients: AtomicBool::new(true) })
    }

    /// What the policy says of it.
    pub(in crate::sql) fn settings(&self) -> &Arc<policy::Database> {
        &self.settings
    }

    /// How to connect as the URL's user. `watches` has the server look, while it runs a statement,
    /// whether we are still there.
    pub(in crate::sql) fn options(&self, watches: bool) -> PgConnectOptions {
        let options = self.options.clone();
        if watches { options.options([text::WATCHES_CLIENT]) } else { options }
    }

    /// Whether it can watch a client's connection while a statement runs, as far as we know.
    pub(in crate::sql) fn watches_clients(&self) -> bool {
        self.watches_clients.load(Ordering::Relaxed)
    }

    /// The server said that it cannot watch its clients.
    pub(in crate::sql) fn cannot_watch_clients(&self) {
        self.watches_clients.store(false, Ordering::Relaxed);
    }

    /// What a tenant's role logs in with. The URL's own password is not for it: where the policy
    /// gives none, a server that asks for one gets an empty one and refuses.
    pub(in crate::sql) fn password(&self, role: &RoleName) -> String {
        self.settings.login.password(role).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Login, Secret};

    fn password(login: Login, role: &str) -> String {
        let url = Secret::new("postgres://gateway:its-own@localhost/main".into());
        let settings = policy::Database { login, ..policy::Database::new("main", url) };
        Server::new(Arc::new(settings)).unwrap().password(&role.parse().unwrap())
    }

    #[test]
    fn a_role_has_the_password_that_the_policy_gives_it_and_never_the_urls() {
        assert_eq!(password(Login::WithoutPassword, "acme"), "");
        assert_eq!(password(Login::Password(Secret::new("shared".into())), "acme"), "shared");
        let derived = |role| password(Login::Derived(Secret::new("key".into())), role);
        // The test vector that every description of HMAC-SHA-256 has.
        assert_eq!(
            derived("The quick brown fox jumps over the lazy dog"),
            "97yD9DBThCSxMpjmqm-xQ-9NWaFJRhdZl0edvC0aPNg"
        );
        assert_ne!(derived("acme"), derived("globex"));
    }
}
