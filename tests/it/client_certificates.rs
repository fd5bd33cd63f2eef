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
        Self::with_lists(clients, rule, keys, None).await
    }

    /// The same, with a list of certificates that `clients` has revoked.
    async fn with_lists(clients: &Authority, rule: &str, keys: &str, list: Option<String>) -> Self {
        let crl = if list.is_some() { "crl: revoked.pem, " } else { "" };
        let (backend, authority) = (Backend::start().await, Authority::new("servers"));
        let Pair { certificate, key } = authority.server(&["app.example.com"]);
        let policy = format!(
            "
version: 1
server:
  listen:
    - address: 127.0.0.1:0
      tls: {{ certificates: [ {{ certificate: cert.pem, key: key.pem }} ], client_certificate: {{ ca: clients.pem, {crl}require: false }} }}
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
            .file("clients.pem", clients.pem())
            .file("revoked.pem", list.unwrap_or_default());
        let gateway = files.try_start_at(Vec::new()).await.unwrap_or_else(|error| panic!("{error}"));
        Self { gateway, authority, _backend: backend }
    }

    /// The answer to who shows this certificate, or none.
    async fn ask(&self, identity: Option<&Pair>) -> String {
        self.try_to_ask(identity).await.unwrap()
    }

    async fn try_to_ask(&self, identity: Option<&Pair>) -> std::io::Result<String> {
        let client = self.authority.believer();
        let client = match identity {
            Some(identity) => client.presenting(identity),
            None => client,
        };
        client.get(self.gateway.address(), "app.example.com").await
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

#[tokio::test]
async fn whoever_was_revoked_is_turned_away() {
    let clients = Authority::new("clients");
    let (acme, revoked) = (clients.client("acme"), clients.client("acme"));
    let list = clients.revoking(&[&revoked], 2100);
    let scene = Scene::with_lists(&clients, "common_name", "", Some(list)).await;
    assert!(scene.ask(Some(&acme)).await.contains("\"x-tenant-id\":[\"acme\"]"));
    assert!(scene.try_to_ask(Some(&revoked)).await.is_err());
    assert!(scene.ask(None).await.contains("tenant-missing"));

    // The next list is in force for connections that follow, and ends those that there are.
    scene.gateway.replace_file("revoked.pem", clients.revoking(&[&revoked, &acme], 2100));
    scene.gateway.until_generation(2).await;
    assert!(scene.try_to_ask(Some(&acme)).await.is_err());
}

#[tokio::test]
async fn nobody_is_let_in_by_a_list_that_says_nothing_of_them() {
    let (clients, others) = (Authority::new("clients"), Authority::new("others"));
    let acme = clients.client("acme");
    for list in [clients.revoking(&[], 2021), others.revoking(&[], 2100)] {
        let scene = Scene::with_lists(&clients, "common_name", "", Some(list)).await;
        assert!(scene.try_to_ask(Some(&acme)).await.is_err());
        assert!(scene.ask(None).await.contains("tenant-missing"));
    }
}

#[test]
fn lists_that_cannot_be_used_are_found_in_the_policy() {
    let authority = Authority::new("clients");
    let Pair { certificate, key } = authority.server(&["app.example.com"]);
    let broken = "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n";
    for (list, message) in [
        (authority.revoking(&[], 2021), "is out of date"),
        (authority.pem(), "has no list of revoked certificates in it"),
        (broken.to_owned(), "is broken"),
        ("nonsense".to_owned(), "-----BEGIN X509 CRL-----"),
    ] {
        let found = Desk::with(
            "version: 1\nserver: { listen: { address: 127.0.0.1:0, tls: { certificates: \
             [ { certificate: cert.pem, key: key.pem } ], client_certificate: { ca: clients.pem, crl: revoked.pem } } } }\n\
             upstreams: { app: { endpoints: [ http://127.0.0.1:1 ] } }\n\
             tenants: { list: [ { id: acme, schema: acme } ] }\n\
             routes: [ { name: app, tenant: { client_certificate: common_name }, forward: app } ]\n",
        )
        .file("cert.pem", &certificate)
        .file("key.pem", &key)
        .file("clients.pem", &authority.pem())
        .file("revoked.pem", &list)
        .diagnostics();
        assert!(found.contains(message), "{found}");
        assert!(found.contains("revoked.pem"), "{found}");
    }
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
