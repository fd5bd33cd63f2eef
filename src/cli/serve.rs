//! `innkeeper serve`: starts a sidecar, and drains it when told to stop.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::value_parser;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};

use super::log::Log;
use super::{fail, systemd};
use crate::address::ListenAddress;
use crate::reload::Reloader;
use crate::server::Workers;
use crate::sidecar::{Inherited, Settings, Sidecar};

/// Serve a policy, and reload it whenever its files change.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The policy to serve.
    #[arg(long, short, env = "INNKEEPER_POLICY", value_name = "FILE")]
    policy: PathBuf,
    /// Listen here instead of where the policy says, as `127.0.0.1:8080` or `unix:/run/innkeeper.sock`;
    /// repeatable, port 0 picks a free one. The first takes the place of the policy's first listener,
    /// with its TLS and all, and so on.
    #[arg(long, value_name = "ADDRESS")]
    listen: Vec<ListenAddress>,
    /// Put the admin listener here instead of where the policy says; `unix:/path` is for the own user only.
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<ListenAddress>,
    /// Keep compiled plugins here, a directory of our own, so that the next start need not compile
    /// them. Default: `innkeeper` in the user's cache directory, or what systemd gives the service.
    #[arg(long, env = "INNKEEPER_CACHE_DIR", value_name = "DIR")]
    cache_dir: Option<PathBuf>,
    /// Keep no compiled plugins, whatever else says where.
    #[arg(long)]
    no_cache: bool,
    /// Threads that serve connections; a connection stays with one of them. Default: as many as the
    /// process may use processors.
    #[arg(long, env = "INNKEEPER_WORKERS", value_name = "N", value_parser = value_parser!(u16).range(1..=1024))]
    workers: Option<u16>,
}

/// Serves until SIGTERM or SIGINT, then drains.
pub async fn run(args: Args, log: &Log) -> ExitCode {
    let access_log = match log.start() {
        Ok(started) => started,
        Err(error) => return fail(error),
    };
    raise_descriptor_limit();
    let cache = if args.no_cache {
        None
    } else {
        args.cache_dir.or_else(|| default_cache(|name| std::env::var_os(name)))
    };
    let workers = args.workers.map_or_else(Workers::default_count, usize::from);
    let settings = Settings { policy: args.policy, listen: args.listen, admin: args.admin, cache, workers };
    let inherited = match Inherited::take() {
        Ok(inherited) => inherited,
        Err(error) => return fail(format!("cannot use a socket that was handed over (LISTEN_FDS): {error}")),
    };
    let sidecar = match Sidecar::start_on(inherited, settings, access_log).await {
        Ok(sidecar) => sidecar,
        Err(error) => return fail(error),
    };
    let hangups = tokio::spawn(reload_on_hangup(Arc::clone(&sidecar.reloader)));
    let alive = tokio::spawn(systemd::keep_alive(Arc::clone(&sidecar.workers)));
    systemd::tell_ready();
    stop_signal().await;
    systemd::tell_stopping();
    tracing::info!("draining: a second signal ends at once");
    let drained = tokio::select! {
        drained = sidecar.drain() => drained,
        () = stop_signal() => return ExitCode::FAILURE,
    };
    hangups.abort();
    alive.abort();
    if drained.cut_off > 0 {
        tracing::warn!(cut_off = drained.cut_off, "the drain ran out of time and cut off requests");
        return ExitCode::FAILURE;
    }
    tracing::info!("drained");
    ExitCode::SUCCESS
}

/// Lets the process open as many descriptors as the system allows it: shells give programs a
/// thousand unless they ask, and a client that is forwarded takes two.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::debug!(%error, "the limit of open descriptors stays where it was");
    }
}

/// Where this machine wants caches: what systemd made for the service (`CacheDirectory=`), else the
/// user's.
fn default_cache(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let directory = |name| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    directory("CACHE_DIRECTORY")
        .or_else(|| Some(directory("XDG_CACHE_HOME")?.join("innkeeper")))
        .or_else(|| Some(directory("HOME")?.join(".cache/innkeeper")))
}

/// Returns when the process is told to stop.
pub(crate) async fn stop_signal() {
    let terminate = signal(SignalKind::terminate());
    let interrupt = signal(SignalKind::interrupt());
    let (Ok(mut terminate), Ok(mut interrupt)) = (terminate, interrupt) else {
        tracing::warn!("cannot listen for signals: this process stops only when killed");
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

async fn reload_on_hangup(reloader: Arc<Reloader>) {
    let Ok(mut hangups) = signal(SignalKind::hangup()) else { return };
    while hangups.recv().await.is_some() {
        systemd::tell_reloading();
        // What became of it is in the log and on the admin listener.
        let _ = reloader.reload().await;
        systemd::tell_ready();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_is_where_the_machine_wants_caches() {
        let found = |variables: &[(&str, &str)]| {
            let value =
                |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value);
            default_cache(|name| value(name).map(OsString::from)).map(|path| path.display().to_string())
        };
        let home = ("HOME", "/home/ann");
        assert_eq!(found(&[home]).as_deref(), Some("/home/ann/.cache/innkeeper"));
        assert_eq!(found(&[home, ("XDG_CACHE_HOME", "/fast")]).as_deref(), Some("/fast/innkeeper"));
        let service = ("CACHE_DIRECTORY", "/var/cache/gate");
        assert_eq!(found(&[home, ("XDG_CACHE_HOME", "/fast"), service]).as_deref(), Some("/var/cache/gate"));
        assert_eq!(
            found(&[home, ("XDG_CACHE_HOME", "not/absolute")]).as_deref(),
            Some("/home/ann/.cache/innkeeper")
        );
        assert_eq!(found(&[]), None);
    }
}
