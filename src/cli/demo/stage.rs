//! Everything that the demo runs, in one process: PostgreSQL, the old application, the sidecar.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use super::DemoError;
use super::cluster::PrivatePostgres;
use super::files::{Files, Surroundings};
use super::legacy::Legacy;
use super::seed::{DATABASE, LOGIN, seed};
use crate::address::ListenAddress;
use crate::server::Workers;
use crate::sidecar::{Logs, Settings, Sidecar};

/// The demo, running. All of it ends when this is dropped.
pub(super) struct Stage {
    /// The gateway's address.
    pub(super) gateway: SocketAddr,
    /// The admin listener's address.
    pub(super) admin: ListenAddress,
    /// Its policy and plugin.
    pub(super) files: Files,
    /// The old application.
    pub(super) legacy: Legacy,
    /// The server with the tenants' rows.
    pub(super) postgres: PrivatePostgres,
    sidecar: Sidecar,
    _temporary: Option<tempfile::TempDir>,
}

/// What may be chosen.
#[derive(Debug)]
pub(super) struct Choices {
    /// The gateway's port; 0 picks a free one.
    pub(super) port: u16,
    /// The admin listener's port; 0 picks a free one.
    pub(super) admin_port: u16,
    /// Where policy and plugin are put and left, in place of a temporary directory.
    pub(super) keep: Option<PathBuf>,
    /// Whether requests are recorded.
    pub(super) access_log: bool,
}

impl Stage {
    /// Starts everything.
    pub(super) async fn start(choices: Choices, access_log: Logs) -> Result<Self, DemoError> {
        let postgres = PrivatePostgres::start().await?;
        seed(&postgres).await.map_err(DemoError::Database)?;
        let legacy = Legacy::start().await.map_err(DemoError::Legacy)?;
        let (temporary, directory) = match choices.keep {
            Some(directory) => (None, directory),
            None => {
                let temporary =
                    tempfile::Builder::new().prefix("innkeeper-demo-").tempdir().map_err(DemoError::Files)?;
                let directory = temporary.path().to_owned();
                (Some(temporary), directory)
            }
        };
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, choices.port));
        let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, choices.admin_port));
        let surroundings = Surroundings {
            listen: listen.to_string(),
            admin: admin.to_string(),
            database: postgres.url(DATABASE, LOGIN),
            legacy: format!("http://{}", legacy.address()),
            access_log: choices.access_log,
        };
        let files = Files::create(&directory, surroundings).map_err(DemoError::Files)?;
        let workers = Workers::default_count();
        let settings =
            Settings { policy: files.policy(), listen: Vec::new(), admin: None, cache: None, workers };
        let sidecar = Sidecar::start(settings, access_log).await?;
        let gateway = *sidecar.addresses.first().expect("the demo's policy has one listener");
        let admin = sidecar.admin_address.clone();
        Ok(Self { gateway, admin, files, legacy, postgres, sidecar, _temporary: temporary })
    }

    /// Lets requests under way end, then stops everything.
    pub(super) async fn stop(self) -> Result<(), DemoError> {
        let Self { sidecar, mut postgres, .. } = self;
        sidecar.drain().await;
        Ok(postgres.stop().await?)
    }
}
