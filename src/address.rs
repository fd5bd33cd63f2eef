//! The two ends of a connection: where a listener is, and who is on the other side.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use ipnet::IpNet;
use serde::{Serialize, Serializer};

/// What a Unix socket's path is written after.
const UNIX: &str = "unix:";

/// Where a listener is: `127.0.0.1:8080`, or `unix:/run/innkeeper.sock`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ListenAddress {
    /// A TCP address; port 0 until the system gave one.
    Tcp(SocketAddr),
    /// The path of a Unix socket.
    Unix(Arc<Path>),
}

impl ListenAddress {
    /// Whether the system picks the address anew at every start, so that nothing can name it.
    pub fn is_picked(&self) -> bool {
        matches!(self, Self::Tcp(address) if address.port() == 0)
    }

    /// Whether what came in at `local` came in at this listener, which may stand for every address
    /// of the machine (`0.0.0.0`, `::`). IPv4 may come in at an IPv6 listener.
    pub fn takes(&self, local: &Self) -> bool {
        match (self, local) {
            (Self::Tcp(listener), Self::Tcp(local)) => {
                listener.port() == local.port()
                    && (listener.ip().is_unspecified()
                        || listener.ip().to_canonical() == local.ip().to_canonical())
            }
            _ => self == local,
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "{UNIX}{}", path.display()),
        }
    }
}

impl From<SocketAddr> for ListenAddress {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

/// Why a text is not the address of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected an address and port such as `127.0.0.1:8080`, or a path such as `unix:/run/innkeeper.sock`"
)]
pub struct NotAnAddress;

impl FromStr for ListenAddress {
    type Err = NotAnAddress;

    fn from_str(text: &str) -> Result<Self, NotAnAddress> {
        match text.strip_prefix(UNIX) {
            // What a relative path means depends on who reads it.
            Some(path) if path.starts_with('/') => Ok(Self::Unix(Path::new(path).into())),
            Some(_) => Err(NotAnAddress),
            None => text.parse().map(Self::Tcp).map_err(|_| NotAnAddress),
        }
    }
}

/// Who is on the other side of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// A client with an address: that of the TCP connection, or what a trusted hop announced.
    Ip(SocketAddr),
    /// A process of this machine that came over a Unix socket, which has no address.
    Unix,
}

impl Peer {
    /// Its IP address, if it has one. IPv4 is IPv4, also where it came in at an IPv6 listener.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Ip(address) => Some(address.ip().to_canonical()),
            Self::Unix => None,
        }
    }

    /// The same as text; a client without an address is named as it is shown.
    pub fn host(&self) -> String {
        self.ip().map_or_else(|| self.to_string(), |ip| ip.to_string())
    }

    /// Appends what [`Peer`]'s `Display` says, as [`push_ip`] does.
    pub fn push_to(&self, text: &mut String) {
        match self {
            Self::Ip(SocketAddr::V4(address)) => {
                push_ip(text, IpAddr::V4(*address.ip()));
                text.push(':');
                text.push_str(itoa::Buffer::new().format(address.port()));
            }
            Self::Ip(SocketAddr::V6(_)) | Self::Unix => text.push_str(&self.to_string()),
        }
    }
}

/// Appends an address as its `Display` says it: every request's headers and record have one, and for
/// IPv4 the formatting machinery takes ten times as long as the digits.
pub fn push_ip(text: &mut String, ip: IpAddr) {
    match ip {
        IpAddr::V4(address) => {
            for (index, octet) in address.octets().into_iter().enumerate() {
                if index > 0 {
                    text.push('.');
                }
                text.push_str(itoa::Buffer::new().format(octet));
            }
        }
        IpAddr::V6(address) => text.push_str(&address.to_string()),
    }
}

/// Peers that are believed something: an address, a network, or whoever comes over a Unix socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerRange {
    /// A network, of one address or more.
    Network(IpNet),
    /// Processes of this machine that come over a Unix socket.
    Unix,
}

impl PeerRange {
    /// Whether `peer` is one of them.
    pub fn contains(&self, peer: &Peer) -> bool {
        match self {
            Self::Network(network) => peer.ip().is_some_and(|ip| network.contains(&ip)),
            Self::Unix => *peer == Peer::Unix,
        }
    }

    /// Whether every address is one of them.
    pub fn is_everyone(&self) -> bool {
        matches!(self, Self::Network(network) if network.prefix_len() == 0)
    }
}

impl FromStr for PeerRange {
    type Err = ipnet::AddrParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "unix" {
            return Ok(Self::Unix);
        }
        match text.parse::<IpAddr>() {
            Ok(address) => Ok(Self::Network(address.into())),
            Err(_) => text.parse().map(Self::Network),
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Unix => f.write_str("unix"),
        }
    }
}

impl FromStr for Peer {
    type Err = std::net::AddrParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "unix" { Ok(Self::Unix) } else { text.parse().map(Self::Ip) }
    }
}

impl From<SocketAddr> for Peer {
    fn from(address: SocketAddr) -> Self {
        Self::Ip(address)
    }
}

impl Serialize for Peer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_takes_what_came_in_there() {
        let takes = |listener: &str, local: &str| {
            let [listener, local] = [listener, local].map(|text| text.parse::<ListenAddress>().unwrap());
            listener.takes(&local)
        };
        assert!(takes("127.0.0.1:8081", "127.0.0.1:8081"));
        assert!(!takes("127.0.0.1:8081", "127.0.0.1:8080"));
        assert!(!takes("127.0.0.1:8081", "192.0.2.7:8081"));
        assert!(takes("0.0.0.0:8081", "192.0.2.7:8081"));
        assert!(takes("[::]:8081", "[::ffff:192.0.2.7]:8081"));
        assert!(takes("127.0.0.1:8081", "[::ffff:127.0.0.1]:8081"));
        assert!(takes("unix:/run/a.sock", "unix:/run/a.sock"));
        assert!(!takes("unix:/run/a.sock", "unix:/run/b.sock"));
        assert!(!takes("0.0.0.0:8081", "unix:/run/a.sock"));
    }

    #[test]
    fn addresses_are_read_as_they_are_written() {
        for text in ["127.0.0.1:8080", "[::1]:0", "unix:/run/innkeeper.sock"] {
            assert_eq!(text.parse::<ListenAddress>().unwrap().to_string(), text);
        }
        for text in ["unix:run/a.sock", "unix:", "localhost:80", "8080"] {
            assert_eq!(text.parse::<ListenAddress>(), Err(NotAnAddress));
        }
        let contains =
            |range: &str, peer: &str| range.parse::<PeerRange>().unwrap().contains(&peer.parse().unwrap());
        assert!(contains("10.0.0.0/8", "10.1.2.3:4") && contains("10.0.0.0/8", "[::ffff:10.1.2.3]:4"));
        assert!(contains("192.0.2.1", "192.0.2.1:9") && contains("unix", "unix"));
        assert!(!contains("192.0.2.1", "192.0.2.2:9") && !contains("0.0.0.0/0", "unix"));
        for text in ["192.0.2.1:9", "10.200.0.255:65535", "[::1]:0", "unix"] {
            let peer: Peer = text.parse().unwrap();
            let mut pushed = String::new();
            peer.push_to(&mut pushed);
            assert_eq!((peer.to_string().as_str(), pushed.as_str()), (text, text));
        }
    }
}
