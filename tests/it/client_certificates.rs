//! Client certificates name tenants: by a name in them, or by their fingerprint.

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use sha2::{Digest, Sha256};

use crate::policy::Desk;
use crate::support::backend::Backend;
use crate::support::gateway::{Harness, TestGateway};
use crate::support::tls::{Authority, Pair};

struct Scene {
    gateway: TestGateway,
    authority: Authority,
    _backend: Backend,
}

impl Scene {
    /// A gateway that may be shown certificates of `clients`, and reads the tenant as `rule` says.
    async fn start(clients: &Authority, rule: &str, keys: &str) -> Self {
        let (backend, authority) = (Backend::start().await, Authority::new("servers"));
        let Pair { certificate, key } = authority.server(&["app.example.com"]);
        let policy = format!(
            "
version: 1
server:
  listen:
    - address: 127.0.0.1:0
      tls: {{ certificates: [ {{ certificate: cert.pem, key: key.pem }} ], client_certificate: {{ ca: clients.pem, require: false }} }}
keys: {{ {keys} }}
tenants: {{ list: [ {{ id: acme, schema: acme }}, {{ id: 'spiffe://example.com/acme', schema: whole }} ] }}
upstreams: {{ app: {{ endpoints: [ 'http://{}' ] }} }}
routes: [ {{ name: app, tenant: {{ client_certificate: {rule} }}, forward: app }} ]
",
            backend.address
        );
        let files = Harness::new()
            .policy(&policy)
            .file("cert.pem", certificate)
            .file("key.pem", key)
            .file("clients.pem", clients.pem());
        let gateway = files.try_start_at(Vec::new()).await.unwrap_or_else(|error| panic!("{error}"));
        Self { gateway, authority, _backend: backend }
    }

    /// The answer to who shows this certificate, or none.
    async fn ask(&self, identity: Option<&Pair>) -> String {
        let client = self.authority.believer();
        let client = match identity {
            Some(identity) => client.presenting(identity),
            None => client,
        };
        client.get(self.gateway.address(), "app.example.com").await.unwrap()
    }
}

#[tokio::test]
async fn a_name_in_it_is_the_tenant() {
    let clients = Authority::new("clients");
    let (acme, stranger) = (clients.client("acme"), clients.client("stranger"));
    for (rule, tenant) in [
        ("common_name", "acme"),
        ("uri", "spiffe://example.com/acme"),
        ("{ uri: 'spiffe://example.com/{tenant}' }", "acme"),
    ] {
        let scene = Scene::start(&clients, rule, "").await;
        let answer = scene.ask(Some(&acme)).await;
        assert!(answer.contains(&format!("\"x-tenant-id\":[\"{tenant}\"]")), "{rule}: {answer}");
        assert!(scene.ask(Some(&stranger)).await.contains("tenant-unknown"), "{rule}");
        assert!(scene.ask(None).await.contains("tenant-missing"), "{rule}");
    }
    let scene = Scene::start(&clients, "{ dns: '{tenant}.clients.example' }", "").await;
    assert!(scene.ask(Some(&acme)).await.contains("tenant-missing"));
}

#[tokio::test]
async fn a_table_knows_it_by_its_fingerprint() {
    let clients = Authority::new("clients");
    let (acme, stranger) = (clients.client("acme"), clients.client("stranger"));
    let der = CertificateDer::from_pem_slice(acme.certificate.as_bytes()).unwrap();
    let fingerprint: String = Sha256::digest(&der).iter().map(|byte| format!("{byte:02x}")).collect();
    let keys = format!("partners: [ {{ sha256: {fingerprint}, tenant: acme }} ]");
    let scene = Scene::start(&clients, "{ fingerprint: partners }", &keys).await;
    let answer = scene.ask(Some(&acme)).await;
    assert!(answer.contains("\"x-tenant-id\":[\"acme\"]"), "{answer}");
    assert!(scene.ask(Some(&stranger)).await.contains("token-invalid"));
}

#[test]
fn rules_that_name_nobody_are_found_in_the_policy() {
    for (rule, message) in [
        ("subject", "expected `common_name`, `dns`, `uri`, `email`"),
        ("{}", "does not say what of the certificate names the tenant"),
        ("{ dns: clients.example }", "does not say where the tenant stands"),
        ("{ dns: '{tenant}.{tenant}' }", "may stand only once"),
        ("{ dns: '{tenant}.a', uri: '{tenant}' }", "in one way"),
        ("{ fingerprint: nobody }", "unknown keys `nobody`"),
    ] {
        let policy = format!(
            "version: 1\nupstreams: {{ app: {{ endpoints: [ http://127.0.0.1:1 ] }} }}\n\
             tenants: {{ list: [ {{ id: acme, schema: acme }} ] }}\n\
             routes: [ {{ name: app, tenant: {{ client_certificate: {rule} }}, forward: app }} ]\n"
        );
        let found = Desk::with(&policy).diagnostics();
        assert!(found.contains(message), "{rule}: {found}");
    }
}
