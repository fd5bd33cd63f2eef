//! Listeners as written: an address alone, or with all that holds there.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator};

use crate::address::{ListenAddress, PeerRange};
use crate::policy::TlsVersion;
use crate::policy::attached::FileName;
use crate::policy::decode::{Decode, Located, NonEmpty, OneOrMany, Required, record};
use crate::policy::diagnostic::Report;
use crate::policy::leaf::FileMode;
use crate::policy::yaml::{Node, Value};

record! {
    /// A listener of the gateway.
    ListenerSettings is "a listener";
    /// Where it is: `0.0.0.0:8443`, or `unix:/run/innkeeper.sock`.
    address: Required<Located<ListenAddress>>,
    /// Who may connect to a Unix socket, as `chmod` takes it. Default `"0660"`.
    mode: Option<Located<FileMode>>,
    /// Speaks TLS; without it, plain HTTP.
    tls: Option<Tls>,
    /// Who speaks for its clients by the PROXY protocol. Default: nobody.
    proxy_protocol: Option<ProxyProtocol>,
}

/// A listener: an address, or a map with its settings.
#[derive(Debug, Clone)]
pub(crate) struct Listener(pub ListenerSettings);

impl Listener {
    /// Every file that it names, where the name could be read.
    pub(crate) fn files(&self) -> impl Iterator<Item = FileName<'_>> {
        let tls = self.0.tls.iter();
        let pairs = tls.clone().filter_map(|tls| tls.certificates.get()).flat_map(|pairs| &pairs.0);
        let pairs = pairs.flat_map(|pair| [pair.certificate.get(), pair.key.get()]);
        let clients = tls.filter_map(|tls| tls.client_certificate.as_ref());
        let revoked = clients.clone().filter_map(|one| one.crl.as_ref()).flat_map(|lists| &lists.0);
        let authorities = clients.map(|one| one.ca.get());
        pairs.chain(authorities).flatten().chain(revoked).map(FileName::from)
    }
}

impl Decode for Listener {
    fn decode(node: &Node, report: &mut Report) -> Option<Self> {
        if matches!(node.value, Value::Map(_)) {
            return ListenerSettings::decode(node, report).map(Self);
        }
        Some(Self(ListenerSettings {
            address: Required(Some(Located::decode(node, report)?)),
            mode: None,
            tls: None,
            proxy_protocol: None,
            place: node.place,
            sound: true,
        }))
    }
}

impl JsonSchema for Listener {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Listener".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let alone = generator.subschema_for::<Located<ListenAddress>>();
        let with_settings = generator.subschema_for::<ListenerSettings>();
        schemars::json_schema!({ "anyOf": [alone, with_settings] })
    }
}

record! {
    /// TLS at a listener. Changes are in force for new connections, without a restart.
    Tls is "`tls`";
    /// Certificates with their keys. The client's SNI picks one by the names in it; the first serves
    /// clients that name nothing, or something else.
    certificates: Required<NonEmpty<Certificate>>,
    /// Whom clients prove to be. Default: they are not asked.
    client_certificate: Option<ClientAuthority>,
    /// The oldest version that is spoken: `"1.2"` (default) or `"1.3"`.
    min_version: Option<Located<TlsVersion>>,
}

record! {
    /// A certificate and its key.
    Certificate is "a certificate";
    /// The file with the certificate and those that vouch for it, PEM, its own first.
    certificate: Required<Located<String>>,
    /// The file with its private key, PEM.
    key: Required<Located<String>>,
}

record! {
    /// Whom clients prove to be.
    ClientAuthority is "`client_certificate`";
    /// The file with the authorities that vouch for clients, PEM.
    ca: Required<Located<String>>,
    /// The files with the authorities' lists of revoked certificates, PEM. Where there are some, each
    /// authority must have one that is in date. Default: none, and nothing is revoked.
    crl: Option<OneOrMany<Located<String>>>,
    /// Whether a client without a certificate is turned away. Default true.
    require: Option<Located<bool>>,
}

record! {
    /// The PROXY protocol, versions 1 and 2.
    ProxyProtocol is "`proxy_protocol`";
    /// The load balancers: addresses, networks, or `unix`. They must announce their client; nobody
    /// else may.
    from: Required<NonEmpty<Located<PeerRange>>>,
}
