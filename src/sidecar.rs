//! A whole sidecar in one value: what `serve` runs, and what another program can embed.

mod sockets;
mod terms;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::address::ListenAddress;
use crate::admin::Admin;
use crate::gateway::{AccessLog, Gateway};
use crate::log_filter::LogFilter;
use crate::plugin::{HostSettings, PluginHost};
use crate::policy;
use crate::reload::{ReloadError, Reloader, Trigger, Watcher};
use crate::server::{self, Drained, Listener, Workers};
use crate::snapshot::Builder;
use crate::telemetry::Metrics;
use crate::underway::Underway;

use sockets::{Binder, SocketPath};
use terms::Terms;

pub use sockets::Inherited;

/// What a sidecar is started with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The policy's main file.
    pub policy: PathBuf,
    /// Addresses of the gateway; empty means those of the policy. Port 0 picks a free one. The first
    /// takes the place of the policy's first, with its TLS and all, and so on; what is more takes the
    /// settings of the policy's last.
    pub listen: Vec<ListenAddress>,
    /// Address of the admin listener, in place of the policy's.
    pub admin: Option<ListenAddress>,
    /// A directory of our own where compiled plugins are kept for the next start, if any.
    pub cache: Option<PathBuf>,
    /// Threads that serve connections, each with a runtime of its own; [`Workers::default_count`] is what
    /// a process of our own has. With none, the runtime that the sidecar is started on serves them.
    pub workers: usize,
}

/// Where a sidecar's logs go.
pub struct Logs {
    /// The log of access records.
    pub access: AccessLog,
    /// The filter of everything else, where operators may change it.
    pub filter: Option<Arc<LogFilter>>,
}

impl From<AccessLog> for Logs {
    fn from(access: AccessLog) -> Self {
        Self { access, filter: None }
    }
}

/// Why a sidecar did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The policy cannot serve.
    #[error("the policy cannot serve:\n{0}")]
    Policy(#[from] ReloadError),
    /// The plugin host cannot run on this machine.
    #[error("the plugin host cannot start: {0}")]
    PluginHost(String),
    /// The system has no more threads for us.
    #[error("cannot start the threads that serve connections: {0}")]
    Workers(#[source] io::Error),
    /// An address cannot be bound.
    #[error("cannot listen on {address}: {error}")]
    Bind {
        /// The address.
        address: ListenAddress,
        /// Why not.
        error: io::Error,
    },
    /// A socket was given to us that the policy does not know.
    #[error(
        "a socket at {0} was handed over (LISTEN_FDS) and nothing listens there: add it to `server.listen`"
    )]
    Unclaimed(ListenAddress),
}

/// A running sidecar: the gateway, the admin listener and the watcher. All end when it is dropped.
pub struct Sidecar {
    /// TCP addresses of the gateway, as the system gave them.
    pub addresses: Vec<SocketAddr>,
    /// Address of the admin listener, as the system gave it.
    pub admin_address: ListenAddress,
    /// Reloads by hand.
    pub reloader: Arc<Reloader>,
    /// What an operator sees.
    pub metrics: Arc<Metrics>,
    /// The threads that serve connections.
    pub workers: Arc<Workers>,
    trigger: Trigger,
    admin: Arc<Admin>,
    shutdown: CancellationToken,
    admin_shutdown: CancellationToken,
    server: AbortOnDropHandle<Drained>,
    admin_server: AbortOnDropHandle<()>,
    watcher: AbortOnDropHandle<()>,
    _promoter: AbortOnDropHandle<()>,
    _terms: AbortOnDropHandle<()>,
    reuse_port: bool,
    _paths: Vec<SocketPath>,
}

impl Sidecar {
    /// Loads the policy, binds every listener and starts to serve.
    ///
    /// # Errors
    /// What is wrong with the policy, or the address that cannot be bound.
    pub async fn start(settings: Settings, logs: impl Into<Logs>) -> Result<Self, StartError> {
        Self::start_on(Inherited::default(), settings, logs).await
    }

    /// The same on sockets that were given to this process, where their addresses are the policy's.
    ///
    /// # Errors
    /// What is wrong with the policy, the address that cannot be bound, or the socket that the policy
    /// does not know.
    pub async fn start_on(
        inherited: Inherited,
        settings: Settings,
        logs: impl Into<Logs>,
    ) -> Result<Self, StartError> {
        let Logs { access, filter } = logs.into();
        let metrics = Metrics::new();
        let host = PluginHost::new(HostSettings { cache: settings.cache, ..HostSettings::default() })
            .map_err(|error| StartError::PluginHost(error.to_string()))?;
        let builder = Builder::new(host, Arc::clone(&metrics));
        let reloader = Reloader::start(&settings.policy, builder, Arc::clone(&metrics)).await?;
        let snapshot = reloader.store().load();
        let server = &snapshot.policy().server;

        let mut binder = Binder::new(inherited, server.reuse_port);
        let mut terms = Terms::default();
        let mut listeners = Vec::new();
        for (wanted, index) in wanted(&settings.listen, &server.listen) {
            let listener = binder.gateway(&wanted)?;
            tracing::info!(address = %listener.address(), tls = wanted.tls.is_some(), "the gateway listens");
            terms.add(&server.listen, index, listener.terms());
            listeners.push(listener);
        }
        let tcp = |listener: &Listener| match listener.address() {
            ListenAddress::Tcp(address) => Some(*address),
            ListenAddress::Unix(_) => None,
        };
        let addresses = listeners.iter().filter_map(tcp).collect();
        let (admin_listener, admin_address) =
            binder.admin(settings.admin.unwrap_or_else(|| server.admin.clone()))?;
        let paths = binder.finish()?;
        let terms = terms.follow(Arc::clone(reloader.store()), Arc::clone(&metrics));

        let (watcher, trigger) = Watcher::new(Arc::clone(&reloader));
        let underway = Arc::new(Underway::default());
        let admin = Admin::new(
            Arc::clone(&reloader),
            Arc::clone(&metrics),
            trigger.clone(),
            Arc::clone(&underway),
            filter,
        );
        let gateway =
            Arc::new(Gateway::new(Arc::clone(reloader.store()), Arc::clone(&metrics), access, underway));
        let workers = Arc::new(Workers::start(settings.workers).map_err(StartError::Workers)?);
        let (shutdown, admin_shutdown) = (CancellationToken::new(), CancellationToken::new());
        let serving = server::serve(
            listeners,
            server_settings(server),
            gateway,
            Arc::clone(&metrics),
            Arc::clone(&workers),
            shutdown.clone(),
        );
        let sidecar = Self {
            server: spawn(serving),
            admin_server: spawn(Arc::clone(&admin).serve(admin_listener, admin_shutdown.clone())),
            watcher: spawn(watcher.run()),
            _promoter: spawn(Arc::clone(&reloader).promote_earned()),
            _terms: spawn(terms),
            reuse_port: server.reuse_port,
            _paths: paths,
            addresses,
            admin_address,
            reloader,
            metrics,
            workers,
            trigger,
            admin,
            shutdown,
            admin_shutdown,
        };
        tracing::info!(address = %sidecar.admin_address, "the admin listener listens");
        Ok(sidecar)
    }

    /// The way to have the policy's files looked at now.
    pub fn trigger(&self) -> Trigger {
        self.trigger.clone()
    }

    /// Stops accepting, finishes what is under way within the policy's drain time, and tells how
    /// many requests were cut off.
    pub async fn drain(self) -> Drained {
        self.admin.set_draining();
        if self.reuse_port {
            // A successor has the same address: whoever asks there must reach it, and it alone.
            self.admin_shutdown.cancel();
        }
        self.shutdown.cancel();
        let drained = self.server.await.expect("the server task neither panics nor is aborted");
        self.watcher.abort();
        // Else the admin listener outlives the gateway: a drain is when operators look.
        self.admin_shutdown.cancel();
        let _ = self.admin_server.await;
        if let Some(traces) = self.reloader.store().load().traces() {
            traces.flush().await;
        }
        drained
    }
}

fn spawn<T: Send + 'static>(task: impl Future<Output = T> + Send + 'static) -> AbortOnDropHandle<T> {
    AbortOnDropHandle::new(tokio::spawn(task))
}

fn server_settings(settings: &policy::Server) -> server::ServerSettings {
    server::ServerSettings { limits: settings.limits.clone(), timeouts: settings.timeouts.clone() }
}

/// Where to listen, each with the index of the policy's listener whose settings hold there.
fn wanted(instead: &[ListenAddress], of_policy: &[policy::Listener]) -> Vec<(policy::Listener, usize)> {
    if instead.is_empty() {
        return of_policy.iter().cloned().zip(0..).collect();
    }
    let last = of_policy.len() - 1;
    let at = |(address, index): (&ListenAddress, usize)| {
        let index = index.min(last);
        (policy::Listener { address: address.clone(), ..of_policy[index].clone() }, index)
    };
    instead.iter().zip(0..).map(at).collect()
}
