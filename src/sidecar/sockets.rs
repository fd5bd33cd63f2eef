//! Sockets for the addresses of a policy: those that the service manager holds for us, else our own.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use listenfd::ListenFd;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpSocket, UnixListener};

use super::StartError;
use crate::address::ListenAddress;
use crate::admin::AdminListener;
use crate::policy;
use crate::server::{Listener, Successor};

/// Connections that the kernel holds for us while we are busy. It cuts this to its own limit
/// (`net.core.somaxconn`).
const BACKLOG: u32 = 1024;

/// Who may connect to the admin listener's Unix socket: only who runs this process, as it has no
/// password.
const ADMIN_MODE: u32 = 0o600;

/// Listening sockets that were given to this process (`LISTEN_FDS`, as systemd does it).
#[derive(Debug, Default)]
pub struct Inherited {
    tcp: Vec<(SocketAddr, std::net::TcpListener)>,
    unix: Vec<(PathBuf, std::os::unix::net::UnixListener)>,
}

impl Inherited {
    /// Takes what was given to this process; a second call finds nothing.
    ///
    /// # Errors
    /// Where one of them is no stream socket of TCP or Unix.
    pub fn take() -> io::Result<Self> {
        let mut given = ListenFd::from_env();
        let mut inherited = Self::default();
        for index in 0..given.len() {
            if let Ok(Some(socket)) = given.take_tcp_listener(index) {
                socket.set_nonblocking(true)?;
                inherited.tcp.push((socket.local_addr()?, socket));
            } else if let Some(socket) = given.take_unix_listener(index)? {
                socket.set_nonblocking(true)?;
                let path = socket.local_addr()?.as_pathname().map(Path::to_owned).unwrap_or_default();
                inherited.unix.push((path, socket));
            }
        }
        Ok(inherited)
    }

    /// The socket at `address`, if it was given.
    fn tcp(&mut self, address: SocketAddr) -> Option<io::Result<TcpListener>> {
        let index = self.tcp.iter().position(|(known, _)| *known == address)?;
        Some(TcpListener::from_std(self.tcp.remove(index).1))
    }

    fn unix(&mut self, path: &Path) -> Option<io::Result<UnixListener>> {
        let index = self.unix.iter().position(|(known, _)| known == path)?;
        Some(UnixListener::from_std(self.unix.remove(index).1))
    }

    /// The address of one that nobody asked for.
    fn unclaimed(&self) -> Option<ListenAddress> {
        let tcp = self.tcp.first().map(|(address, _)| (*address).into());
        tcp.or_else(|| self.unix.first().map(|(path, _)| ListenAddress::Unix(path.as_path().into())))
    }
}

/// Binds addresses, each as its policy wants it.
pub(super) struct Binder {
    inherited: Inherited,
    reuse_port: bool,
    paths: Vec<SocketPath>,
}

impl Binder {
    pub(super) fn new(inherited: Inherited, reuse_port: bool) -> Self {
        Self { inherited, reuse_port, paths: Vec::new() }
    }

    /// A listener of the gateway.
    pub(super) fn gateway(&mut self, policy: &policy::Listener) -> Result<Listener, StartError> {
        let bound = match &policy.address {
            ListenAddress::Tcp(address) => {
                self.tcp(*address).and_then(|(socket, successor)| Listener::tcp(socket, policy, successor))
            }
            ListenAddress::Unix(path) => self
                .unix(path, policy.mode)
                .map(|(socket, successor)| Listener::unix(socket, policy, successor)),
        };
        bound.map_err(|error| StartError::Bind { address: policy.address.clone(), error })
    }

    /// The admin listener, and its address as the system gave it.
    pub(super) fn admin(
        &mut self,
        address: ListenAddress,
    ) -> Result<(AdminListener, ListenAddress), StartError> {
        let bound = match &address {
            ListenAddress::Tcp(tcp) => self.tcp(*tcp).and_then(|(socket, _)| {
                let bound = socket.local_addr()?.into();
                Ok((AdminListener::Tcp(socket), bound))
            }),
            ListenAddress::Unix(path) => {
                self.unix(path, ADMIN_MODE).map(|(socket, _)| (AdminListener::Unix(socket), address.clone()))
            }
        };
        bound.map_err(|error| StartError::Bind { address, error })
    }

    /// What is to be removed at the end. A socket that was given and that nothing listens on would
    /// take connections that nobody answers.
    pub(super) fn finish(self) -> Result<Vec<SocketPath>, StartError> {
        match self.inherited.unclaimed() {
            Some(address) => Err(StartError::Unclaimed(address)),
            None => Ok(self.paths),
        }
    }

    fn tcp(&mut self, address: SocketAddr) -> io::Result<(TcpListener, Successor)> {
        if let Some(given) = self.inherited.tcp(address) {
            return Ok((given?, Successor::SameSocket));
        }
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        if self.reuse_port {
            socket.set_reuseport(true)?;
        }
        socket.bind(address)?;
        let successor = if self.reuse_port { Successor::OwnSocket } else { Successor::None };
        Ok((socket.listen(BACKLOG)?, successor))
    }

    fn unix(&mut self, path: &Path, mode: u32) -> io::Result<(UnixListener, Successor)> {
        if let Some(given) = self.inherited.unix(path) {
            return Ok((given?, Successor::SameSocket));
        }
        self.make_way(path)?;
        // Bound beside its place and moved there when it can be used: at no time is there a path
        // without a listener, or one that the wrong people may connect to.
        let mut beside = path.as_os_str().to_owned();
        beside.push(format!(".{}", std::process::id()));
        let beside = PathBuf::from(beside);
        let _ = std::fs::remove_file(&beside);
        let socket = UnixListener::bind(&beside)?;
        SockRef::from(&socket).listen(i32::try_from(BACKLOG).expect("a small number"))?;
        let moved = std::fs::set_permissions(&beside, std::fs::Permissions::from_mode(mode))
            .and_then(|()| std::fs::rename(&beside, path));
        if let Err(error) = moved {
            let _ = std::fs::remove_file(&beside);
            return Err(error);
        }
        self.paths.push(SocketPath::of(path)?);
        let successor = if self.reuse_port { Successor::OwnSocket } else { Successor::None };
        Ok((socket, successor))
    }

    /// Refuses to take what is in the way, unless nobody needs it any more, or may be followed.
    fn make_way(&self, path: &Path) -> io::Result<()> {
        let Ok(there) = std::fs::symlink_metadata(path) else { return Ok(()) };
        if !there.file_type().is_socket() {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a file that is no socket"));
        }
        if !self.reuse_port && std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens there"));
        }
        Ok(())
    }
}

/// The path of a socket that we bound. Removed on drop, unless it is a successor's by then.
#[derive(Debug)]
pub(super) struct SocketPath {
    path: PathBuf,
    file: (u64, u64),
}

impl SocketPath {
    fn of(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), file: identity(path)? })
    }
}

impl Drop for SocketPath {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|there| there == self.file) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// What tells a file from another that took its path.
fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = std::fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}
