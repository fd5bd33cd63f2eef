//! Where the gateway listens, and how it speaks there.

use super::Tls;
use crate::address::{ListenAddress, PeerRange};

/// Who may connect to a Unix socket where nothing else is said: its owner and its group.
pub(super) const DEFAULT_MODE: u32 = 0o660;

/// One listener of the gateway.
#[derive(Debug, Clone, PartialEq)]
pub struct Listener {
    /// Where it is. A change needs a restart.
    pub address: ListenAddress,
    /// Permissions of a Unix socket. A change needs a restart.
    pub mode: u32,
    /// TLS, or plain HTTP.
    pub tls: Option<Tls>,
    /// Who announces its clients by the PROXY protocol, and must.
    pub proxy_protocol: Vec<PeerRange>,
}

impl Listener {
    /// Plain HTTP for everyone who reaches `address`.
    pub fn plain(address: ListenAddress) -> Self {
        Self { address, mode: DEFAULT_MODE, tls: None, proxy_protocol: Vec::new() }
    }
}
