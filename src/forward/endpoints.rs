//! The endpoints of an upstream, and how they change: a host name stands for all of its addresses,
//! which are looked up again and again.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use http::uri::Authority;
use rustls::pki_types::ServerName;
use tokio::sync::watch;
use tokio_rustls::TlsConnector;

use super::connect::{Address, Connector, Tls};
use super::endpoint::{Endpoint, Set};
use super::tls;
use crate::policy;

/// Looks host names up.
pub trait Resolve: Send + Sync {
    /// Every address that the name stands for now.
    fn resolve<'a>(&'a self, host: &'a str) -> Resolving<'a>;
}

/// Addresses on their way.
pub type Resolving<'a> = Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send + 'a>>;

/// Asks the system, as every program on the machine does.
pub struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve<'a>(&'a self, host: &'a str) -> Resolving<'a> {
        Box::pin(async move {
            let found = tokio::net::lookup_host((host, 0)).await?;
            Ok(found.map(|address| address.ip()).collect())
        })
    }
}

/// Why a host has no addresses, or none that are new.
#[derive(Debug, Clone)]
pub struct LookUpFailure {
    /// The host.
    pub host: Arc<str>,
    /// What its look-up ended in.
    pub reason: Arc<str>,
    /// When.
    pub at: SystemTime,
}

/// All endpoints of one upstream.
pub(super) struct Endpoints {
    settings: Arc<policy::Upstream>,
    connector: Option<TlsConnector>,
    current: Current,
    /// Of the host that was not found last, until it is found.
    failure: Mutex<Option<LookUpFailure>>,
}

enum Current {
    /// The policy names addresses only.
    Fixed(Set),
    /// The policy names hosts: none is known before the first answer.
    Looked(watch::Sender<Option<Set>>),
}

/// Where one of the policy's endpoints is, as far as is known.
struct Placed<'p> {
    endpoint: &'p policy::Endpoint,
    address: Address,
}

impl Endpoints {
    pub(super) fn new(settings: Arc<policy::Upstream>) -> Self {
        let encrypted = settings.endpoints.iter().any(policy::Endpoint::is_encrypted);
        let connector = encrypted.then(|| TlsConnector::from(Arc::new(tls::configuration(&settings))));
        let looked = settings.endpoints.iter().any(|endpoint| host_of(endpoint).is_some());
        let current =
            if looked { Current::Looked(watch::Sender::new(None)) } else { Current::Fixed([].into()) };
        let mut endpoints = Self { settings, connector, current, failure: Mutex::default() };
        if !looked {
            // Made once there is all that they are made with.
            endpoints.current = Current::Fixed(endpoints.set_of(&HashMap::new()));
        }
        endpoints
    }

    /// The endpoints now; waits for the first answer where their addresses must be looked up.
    pub(super) async fn get(&self) -> Set {
        match &self.current {
            Current::Fixed(set) => Arc::clone(set),
            Current::Looked(sender) => {
                let mut receiver = sender.subscribe();
                let known = receiver.wait_for(Option::is_some).await.expect("the sender is borrowed here");
                known.clone().expect("that is what was waited for")
            }
        }
    }

    /// The endpoints that are known now.
    pub(super) fn known(&self) -> Set {
        match &self.current {
            Current::Fixed(set) => Arc::clone(set),
            Current::Looked(sender) => sender.borrow().clone().unwrap_or_default(),
        }
    }

    /// Why a host was not found, where one was not the last time.
    pub(super) fn failure(&self) -> Option<LookUpFailure> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the policy names hosts, so that [`Self::look_up`] has something to do.
    pub(super) fn are_looked_up(&self) -> bool {
        matches!(self.current, Current::Looked(_))
    }

    /// Looks every host up, again and again. An answer that does not come, or is empty, leaves the
    /// last good one in force.
    pub(super) async fn look_up(self: Arc<Self>, resolver: Arc<dyn Resolve>) {
        let mut answers: HashMap<String, BTreeSet<IpAddr>> = HashMap::new();
        let hosts: BTreeSet<&str> = self.settings.endpoints.iter().filter_map(host_of).collect();
        loop {
            for host in &hosts {
                let name = &*self.settings.name;
                match resolver.resolve(host).await {
                    Ok(found) if !found.is_empty() => {
                        answers.insert((*host).to_owned(), found.into_iter().collect());
                        self.found(host);
                    }
                    Ok(_) => {
                        tracing::warn!(upstream = name, host, "the host has no address");
                        self.missed(host, "it has no address");
                    }
                    Err(error) => {
                        tracing::warn!(upstream = name, host, "the host cannot be looked up: {error}");
                        self.missed(host, &error.to_string());
                    }
                }
            }
            self.replace(&answers);
            tokio::time::sleep(self.settings.dns_refresh).await;
        }
    }

    fn found(&self, host: &str) {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.take_if(|failure| &*failure.host == host);
    }

    fn missed(&self, host: &str, reason: &str) {
        let failure = LookUpFailure { host: host.into(), reason: reason.into(), at: SystemTime::now() };
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure);
    }

    fn replace(&self, answers: &HashMap<String, BTreeSet<IpAddr>>) {
        let Current::Looked(sender) = &self.current else { return };
        let next = self.set_of(answers);
        if next.is_empty() {
            // Whoever waits for the first answer goes on waiting.
            return;
        }
        sender.send_if_modified(|current| {
            let same = current.as_ref().is_some_and(|current| {
                current.len() == next.len()
                    && current.iter().zip(&*next).all(|(old, new)| Arc::ptr_eq(old, new))
            });
            *current = Some(next);
            !same
        });
    }

    /// An endpoint for each address; those that there are already stay, with their connections.
    fn set_of(&self, answers: &HashMap<String, BTreeSet<IpAddr>>) -> Set {
        let before = self.known();
        let mut seen = HashSet::new();
        let placed = self.settings.endpoints.iter().flat_map(|endpoint| placed(endpoint, answers));
        let endpoints = placed.filter(|one| seen.insert(one.address.clone())).map(|one| {
            let kept = before.iter().find(|kept| {
                let connector = kept.pool.connector();
                connector.address == one.address && connector.authority == one.endpoint.authority()
            });
            kept.map_or_else(|| self.endpoint(&one), Arc::clone)
        });
        endpoints.collect()
    }

    fn endpoint(&self, placed: &Placed<'_>) -> Arc<Endpoint> {
        let Placed { endpoint, address } = placed;
        let authority = endpoint.authority();
        let label = match (address, host_of(endpoint)) {
            (Address::Path(_), _) => endpoint.to_string(),
            (Address::Socket(_), None) => authority.to_string(),
            (Address::Socket(address), Some(_)) => format!("{authority} ({})", address.ip()),
        };
        let tls = self.connector.clone().filter(|_| endpoint.is_encrypted()).map(|connector| {
            let name =
                self.settings.tls.server_name.clone().unwrap_or_else(|| bare_host(&authority).to_owned());
            let name = ServerName::try_from(name);
            Tls { connector, name: name.expect("the policy's parser has read the name, and the host") }
        });
        let (http2, most_streams) = (self.settings.http2, self.settings.max_requests);
        let connector = Connector { address: address.clone(), tls, http2, most_streams, authority };
        Endpoint::new(label, connector, &self.settings)
    }
}

fn placed<'p>(
    endpoint: &'p policy::Endpoint,
    answers: &HashMap<String, BTreeSet<IpAddr>>,
) -> Vec<Placed<'p>> {
    let at = |address| Placed { endpoint, address };
    if let Some(path) = endpoint.path() {
        return vec![at(Address::Path(path.to_owned()))];
    }
    let authority = endpoint.authority();
    let port = authority.port_u16().expect("the policy's parser gives each endpoint its port");
    let at_ip = |ip: IpAddr| at(Address::Socket(SocketAddr::new(ip, port)));
    match bare_host(&authority).parse() {
        Ok(ip) => vec![at_ip(ip)],
        Err(_) => {
            let found = answers.get(bare_host(&authority)).into_iter().flatten();
            found.map(|ip| at_ip(*ip)).collect()
        }
    }
}

/// The name that must be looked up, if the endpoint has one.
fn host_of(endpoint: &policy::Endpoint) -> Option<&str> {
    match endpoint {
        policy::Endpoint::Http(authority) | policy::Endpoint::Https(authority) => {
            Some(bare_host(authority)).filter(|host| host.parse::<IpAddr>().is_err())
        }
        policy::Endpoint::Unix(_) => None,
    }
}

/// The host without the brackets of an IPv6 address.
fn bare_host(authority: &Authority) -> &str {
    authority.host().trim_start_matches('[').trim_end_matches(']')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints(written: &[&str]) -> Endpoints {
        let written = written.iter().map(|authority| policy::Endpoint::Http(authority.parse().unwrap()));
        Endpoints::new(Arc::new(policy::Upstream::new("app".into(), written.collect())))
    }

    fn answer(host: &str, addresses: &[&str]) -> HashMap<String, BTreeSet<IpAddr>> {
        HashMap::from([(host.to_owned(), addresses.iter().map(|address| address.parse().unwrap()).collect())])
    }

    fn labels(set: &Set) -> Vec<String> {
        set.iter().map(|endpoint| endpoint.label.to_string()).collect()
    }

    #[tokio::test]
    async fn an_address_is_an_endpoint_and_a_name_is_as_many_as_it_has_addresses() {
        assert_eq!(labels(&endpoints(&["127.0.0.1:1", "[::1]:2"]).get().await), ["127.0.0.1:1", "[::1]:2"]);
        let named = endpoints(&["app.test:1", "10.0.0.9:1"]);
        assert!(named.are_looked_up() && named.known().is_empty());
        named.replace(&answer("app.test", &["10.0.0.2", "10.0.0.1", "10.0.0.9"]));
        let labels = labels(&named.get().await);
        assert_eq!(labels, ["app.test:1 (10.0.0.1)", "app.test:1 (10.0.0.2)", "app.test:1 (10.0.0.9)"]);
    }

    #[tokio::test]
    async fn an_address_that_stays_keeps_its_connections() {
        let named = endpoints(&["app.test:1"]);
        named.replace(&answer("app.test", &["10.0.0.1", "10.0.0.2"]));
        let first = named.get().await;
        named.replace(&answer("app.test", &["10.0.0.2", "10.0.0.3"]));
        let second = named.get().await;
        assert!(Arc::ptr_eq(&first[1], &second[0]));
        assert_eq!(second.len(), 2);
    }
}
