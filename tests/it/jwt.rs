//! Tokens name tenants: those that are believed, those that are not, and keys that come and go.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

use crate::plugins::guest;
use crate::policy::Desk;
use crate::support::backend::Backend;
use crate::support::gateway::{Harness, PATIENCE, TestGateway};
use crate::support::issuer::{IssuerServer, SigningKey, key_set, now_and};

const ISSUER: &str = "https://idp.example/";

fn policy(backend: &Backend, keys: &str, routes: &str) -> String {
    format!(
        "
version: 1
upstreams: {{ app: {{ endpoints: [ 'http://{}' ] }} }}
tenants: {{ list: [ {{ id: acme, schema: acme }}, {{ id: globex, schema: globex }}, {{ id: '42', schema: t42 }} ] }}
keys:
  {keys}
routes:
{routes}",
        backend.address
    )
}

/// The usual keys: one issuer, one audience, a file.
const FILE: &str =
    "app: { jwks: jwks.json, issuer: 'https://idp.example/', audience: [ api, other ], leeway: 0s }";

const ROUTE: &str = "  - { name: app, tenant: { jwt: { claim: tenant, keys: app } }, forward: app }";

async fn start(keys: &[&SigningKey], routes: &str) -> (TestGateway, Backend) {
    let backend = Backend::start().await;
    let policy = policy(&backend, FILE, routes);
    (Harness::new().policy(&policy).file("jwks.json", key_set(keys)).start().await, backend)
}

/// Claims that are believed, with one of them changed; `null` takes it away.
fn claims(change: &Value) -> Value {
    let mut claims = json!({
        "iss": ISSUER, "aud": "api", "sub": "user-1", "tenant": "acme", "exp": now_and(3600),
    });
    for (name, value) in change.as_object().unwrap() {
        match value {
            Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
            value => claims[name] = value.clone(),
        }
    }
    claims
}

async fn ask(gateway: &TestGateway, token: &str) -> (u16, String) {
    let reply = gateway.get("/").header("authorization", &format!("Bearer {token}")).send().await;
    match reply.status() {
        200 => (200, reply.json()["headers"]["x-tenant-id"][0].as_str().unwrap().to_owned()),
        status => {
            if status == 401 {
                assert_eq!(reply.header("www-authenticate"), Some("Bearer error=\"invalid_token\""));
            }
            (status, reply.code())
        }
    }
}

fn invalid() -> (u16, String) {
    (401, "token-invalid".into())
}

fn served(tenant: &str) -> (u16, String) {
    (200, tenant.into())
}

#[tokio::test]
async fn every_kind_of_key_is_believed() {
    let keys = [SigningKey::ed25519("ed"), SigningKey::es256("ec"), SigningKey::rs256("rsa")];
    let (gateway, _backend) = start(&keys.each_ref(), ROUTE).await;
    for key in &keys {
        assert_eq!(ask(&gateway, &key.sign(&claims(&json!({})))).await, served("acme"), "{}", key.id);
    }
    let key = &keys[0];
    for (change, expected) in [
        (json!({ "tenant": "globex" }), served("globex")),
        (json!({ "tenant": 42 }), served("42")),
        (json!({ "aud": [ "else", "other" ] }), served("acme")),
        (json!({ "nbf": now_and(-5) }), served("acme")),
        (json!({ "tenant": "stranger" }), (404, "tenant-unknown".into())),
        (json!({ "tenant": null }), (400, "tenant-missing".into())),
        (json!({ "tenant": "" }), (400, "tenant-missing".into())),
    ] {
        assert_eq!(ask(&gateway, &key.sign(&claims(&change))).await, expected, "{change}");
    }
}

#[tokio::test]
async fn a_token_that_was_believed_ends_all_the_same() {
    let key = SigningKey::ed25519("ed");
    let (gateway, _backend) = start(&[&key], ROUTE).await;
    let token = key.sign(&claims(&json!({ "exp": now_and(3) })));
    // Late on a busy machine, it may be over when it is first seen.
    let first = ask(&gateway, &token).await;
    assert!([served("acme"), invalid()].contains(&first), "{first:?}");
    until_answer(&gateway, &token, invalid()).await;
}

#[tokio::test]
async fn what_a_token_must_say_is_checked() {
    let key = SigningKey::ed25519("ed");
    let (gateway, _backend) = start(&[&key], ROUTE).await;
    for change in [
        json!({ "exp": now_and(-2) }),
        json!({ "exp": null }),
        json!({ "exp": "tomorrow" }),
        json!({ "exp": -1 }),
        json!({ "nbf": now_and(3600) }),
        json!({ "nbf": "tomorrow" }),
        json!({ "aud": "else" }),
        json!({ "aud": [ "else" ] }),
        json!({ "aud": [] }),
        json!({ "aud": null }),
        json!({ "iss": "https://evil.example/" }),
        json!({ "iss": "https://idp.example" }),
        json!({ "iss": null }),
        json!({ "tenant": [ "acme" ] }),
        json!({ "tenant": { "id": "acme" } }),
        json!({ "tenant": true }),
    ] {
        assert_eq!(ask(&gateway, &key.sign(&claims(&change))).await, invalid(), "{change}");
    }
}

/// A token whose parts are as written, signed by the key.
fn raw(key: &SigningKey, header: &str, payload: &str) -> String {
    // Signed honestly over other parts: the signature must then not fit these.
    let signature = key.sign(&claims(&json!({}))).rsplit_once('.').unwrap().1.to_owned();
    format!("{}.{}.{signature}", BASE64.encode(header), BASE64.encode(payload))
}

#[tokio::test]
async fn forgeries_are_refused() {
    let (ours, rsa, theirs) =
        (SigningKey::ed25519("ed"), SigningKey::rs256("rsa"), SigningKey::ed25519("ed"));
    let (gateway, _backend) = start(&[&ours, &rsa], ROUTE).await;
    let good = claims(&json!({}));
    let payload = good.to_string();
    let sound = ours.sign(&good);
    let (signed, _) = sound.rsplit_once('.').unwrap();
    let set = key_set(&[&rsa]);
    let modulus = rsa.public()["n"].as_str().unwrap().to_owned();
    let hs256 = |secret: &[u8], kid: Option<&str>| {
        let header = Header { kid: kid.map(Into::into), ..Header::new(Algorithm::HS256) };
        encode(&header, &good, &EncodingKey::from_secret(secret)).unwrap()
    };
    let header = |change: &dyn Fn(&mut Header)| {
        let mut header = ours.header();
        change(&mut header);
        ours.sign_as(&header, &good)
    };
    let their_key = serde_json::from_value(theirs.public()).unwrap();
    let forgeries = [
        ("a key of the same name", theirs.sign(&good)),
        ("no signature", format!("{signed}.")),
        ("a signature cut short", sound[..sound.len() - 4].to_owned()),
        ("another payload", raw(&ours, r#"{"alg":"EdDSA","kid":"ed"}"#, &payload)),
        ("alg none", format!("{}.{}.", BASE64.encode(r#"{"alg":"none"}"#), BASE64.encode(&payload))),
        (
            "alg None",
            format!("{}.{}.", BASE64.encode(r#"{"alg":"None","kid":"ed"}"#), BASE64.encode(&payload)),
        ),
        ("no alg", format!("{}.{}.x", BASE64.encode(r#"{"kid":"ed"}"#), BASE64.encode(&payload))),
        ("HS256 with the modulus as secret", hs256(&BASE64.decode(&modulus).unwrap(), Some("rsa"))),
        ("HS256 with the key set as secret", hs256(set.as_bytes(), Some("rsa"))),
        ("HS256 with an empty secret", hs256(b"", None)),
        ("another algorithm's key", header(&|header| header.kid = Some("rsa".into()))),
        ("an unknown kid", header(&|header| header.kid = Some("new".into()))),
        ("a kid that is a path", header(&|header| header.kid = Some("../../dev/null".into()))),
        ("a kid that is SQL", header(&|header| header.kid = Some("' or 1=1 --".into()))),
        ("its own key", theirs.sign_as(&Header { jwk: Some(their_key), ..theirs.header() }, &good)),
        (
            "its own key set",
            theirs.sign_as(&Header { jku: Some("https://evil.example/".into()), ..theirs.header() }, &good),
        ),
        ("an extension", header(&|header| header.crit = Some(vec!["b64".into()]))),
        ("four parts", format!("{sound}.x")),
        ("two parts", signed.to_owned()),
        ("one part", "token".into()),
        ("nothing in its parts", "..".into()),
        ("padding", format!("{sound}=")),
        ("a longer one than anyone means", ours.sign(&claims(&json!({ "fill": "x".repeat(20_000) })))),
    ];
    for (what, token) in forgeries {
        assert_eq!(ask(&gateway, &token).await, invalid(), "{what}");
    }
    assert_eq!(ask(&gateway, &sound).await, served("acme"));
}

#[tokio::test]
async fn claims_that_stand_twice_are_refused() {
    // Signed by hand: no library writes such claims.
    let key = SigningKey::ed25519("ed");
    let (gateway, _backend) = start(&[&key], ROUTE).await;
    let exp = now_and(60);
    for twice in [
        format!(r#"{{"iss":"{ISSUER}","aud":"api","exp":{exp},"tenant":"acme","tenant":"globex"}}"#),
        format!(r#"{{"iss":"{ISSUER}","aud":"api","exp":{exp},"exp":{exp},"tenant":"acme"}}"#),
    ] {
        let claims: Box<serde_json::value::RawValue> = serde_json::from_str(&twice).unwrap();
        let token = encode(&key.header(), &claims, key.encoding()).unwrap();
        assert_eq!(ask(&gateway, &token).await, invalid(), "{twice}");
    }
}

#[tokio::test]
async fn a_token_stands_in_one_place() {
    let key = SigningKey::ed25519("ed");
    let routes = "  - { name: cookie, match: { path: /cookie }, tenant: { jwt: { claim: tenant, keys: app, cookie: session } }, forward: app }
  - { name: header, match: { path: /header }, tenant: { jwt: { claim: tenant, keys: app, header: X-Token } }, forward: app }
  - { name: nested, match: { path: /nested }, tenant: { jwt: { claim: [ app_metadata, tenant ], keys: app } }, forward: app }
  - { name: app, tenant: { jwt: { claim: tenant, keys: app } }, forward: app }";
    let (gateway, _backend) = start(&[&key], routes).await;
    let token = key.sign(&claims(&json!({ "app_metadata": { "tenant": "globex" } })));
    let bearer = format!("Bearer {token}");
    let tenant = |reply: &Value| reply["headers"]["x-tenant-id"][0].as_str().unwrap().to_owned();

    let reply = gateway.get("/cookie").header("cookie", &format!("a=b; session={token}")).send().await;
    assert_eq!(tenant(&reply.json()), "acme");
    let reply = gateway.get("/header").header("x-token", &token).send().await;
    assert_eq!(tenant(&reply.json()), "acme");
    let reply = gateway.get("/nested").header("authorization", &bearer).send().await;
    assert_eq!(tenant(&reply.json()), "globex");
    let reply = gateway.get("/").header("authorization", &format!("bearer  {token}")).send().await;
    assert_eq!(tenant(&reply.json()), "acme");

    let twice = gateway.get("/").header("authorization", &bearer).header("authorization", &bearer);
    assert_eq!(twice.send().await.code(), "tenant-ambiguous");
    let folded = gateway.get("/header").header("x-token", &token).header("x_token", "other");
    assert_eq!(folded.send().await.code(), "tenant-ambiguous");
    for other in ["Basic YTpi", "Bearer", "token"] {
        let reply = gateway.get("/").header("authorization", other).send().await;
        assert_eq!(reply.code(), "tenant-missing", "{other}");
    }
    assert_eq!(gateway.get("/").send().await.code(), "tenant-missing");
}

#[tokio::test]
async fn an_invalid_token_never_falls_through() {
    let key = SigningKey::ed25519("ed");
    let routes = "  - { name: app, tenant: { first: [ { jwt: { claim: tenant, keys: app } }, { header: X-Tenant-ID } ] }, forward: app }";
    let (gateway, _backend) = start(&[&key], routes).await;
    let ask = async |token: Option<&str>| {
        let call = gateway.get("/").tenant("globex");
        let call = match token {
            Some(token) => call.header("authorization", &format!("Bearer {token}")),
            None => call,
        };
        call.send().await
    };
    assert_eq!(ask(Some(&key.sign(&claims(&json!({ "exp": 1 }))))).await.code(), "token-invalid");
    assert_eq!(ask(Some("garbage")).await.code(), "token-invalid");
    let reply = ask(Some(&key.sign(&claims(&json!({}))))).await;
    assert_eq!(reply.json()["headers"]["x-tenant-id"][0], "acme");
    assert_eq!(ask(None).await.json()["headers"]["x-tenant-id"][0], "globex");
}

#[tokio::test]
async fn a_route_can_ask_every_request_for_a_token() {
    let key = SigningKey::ed25519("ed");
    let routes = "  - { name: open, match: { path: /open }, tenant: none, verify: app, forward: app }
  - { name: app, tenant: { header: X-Tenant-ID }, verify: { keys: app, cookie: session }, forward: app }";
    let (gateway, _backend) = start(&[&key], routes).await;
    let token = key.sign(&claims(&json!({})));
    assert_eq!(gateway.get("/open").send().await.code(), "token-invalid");
    let reply = gateway.get("/open").header("authorization", &format!("Bearer {token}")).send().await;
    assert_eq!(reply.status(), 200);
    assert!(reply.json()["headers"]["x-tenant-id"].is_null());
    assert_eq!(gateway.get("/").tenant("acme").send().await.code(), "token-invalid");
    let reply = gateway.get("/").tenant("acme").header("cookie", &format!("session={token}")).send().await;
    assert_eq!(reply.status(), 200);
}

#[tokio::test]
async fn plugins_see_the_claims_of_a_verified_token() {
    let key = SigningKey::ed25519("ed");
    let backend = Backend::start().await;
    let routes = "  - { name: verified, match: { path: /verified }, verify: app, tenant: { plugin: reads }, forward: app }
  - { name: after, match: { path: /after }, tenant: { first: [ { jwt: { claim: missing, keys: app } }, { plugin: reads } ] }, forward: app }
  - { name: before, tenant: { first: [ { plugin: reads }, { jwt: { claim: missing, keys: app } } ] }, forward: app }
plugins: { reads: { path: reads.wasm } }";
    let gateway = Harness::new()
        .policy(&policy(&backend, FILE, routes))
        .file("jwks.json", key_set(&[&key]))
        .file("reads.wasm", guest("reads-claims"))
        .start()
        .await;
    // The guest takes all of the claims for the tenant's id: nobody has that one.
    let claims = claims(&json!({}));
    let bearer = format!("Bearer {}", key.sign(&claims));
    for path in ["/verified", "/after"] {
        let reply = gateway.get(path).header("authorization", &bearer).send().await;
        assert_eq!(reply.code(), "tenant-unknown", "{path}");
        assert!(reply.json()["detail"].as_str().unwrap().contains(&claims.to_string()), "{path}");
    }
    // Asked before anything is verified, it sees nothing.
    let reply = gateway.get("/").header("authorization", &bearer).send().await;
    assert_eq!(reply.code(), "tenant-missing");
}

#[tokio::test]
async fn each_issuer_speaks_for_itself() {
    let (one, two) = (SigningKey::ed25519("k"), SigningKey::es256("k"));
    let backend = Backend::start().await;
    let keys = "app: { issuers: [ { jwks: one.json, issuer: one, audience: api }, { jwks: two.json, issuer: two, audience: api }, \
                { secret: 'a secret that is thirty-two bytes.', issuer: three, audience: api } ] }";
    let gateway = Harness::new()
        .policy(&policy(&backend, keys, ROUTE))
        .file("one.json", key_set(&[&one]))
        .file("two.json", key_set(&[&two]))
        .start()
        .await;
    let by = |issuer: &str| claims(&json!({ "iss": issuer }));
    assert_eq!(ask(&gateway, &one.sign(&by("one"))).await, served("acme"));
    assert_eq!(ask(&gateway, &two.sign(&by("two"))).await, served("acme"));
    let hs256 = |issuer: &str| {
        let secret = EncodingKey::from_secret(b"a secret that is thirty-two bytes.");
        encode(&Header::new(Algorithm::HS256), &by(issuer), &secret).unwrap()
    };
    assert_eq!(ask(&gateway, &hs256("three")).await, served("acme"));
    for token in [one.sign(&by("two")), two.sign(&by("one")), one.sign(&by("four")), hs256("one")] {
        assert_eq!(ask(&gateway, &token).await, invalid());
    }
    assert_eq!(ask(&gateway, &one.sign(&claims(&json!({ "iss": null })))).await, invalid());
}

#[tokio::test]
async fn a_file_of_keys_is_read_again() {
    let (old, new) = (SigningKey::ed25519("old"), SigningKey::ed25519("new"));
    let (gateway, _backend) = start(&[&old], ROUTE).await;
    let tokens = (old.sign(&claims(&json!({}))), new.sign(&claims(&json!({}))));
    assert_eq!((ask(&gateway, &tokens.0).await, ask(&gateway, &tokens.1).await), (served("acme"), invalid()));
    gateway.replace_file("jwks.json", key_set(&[&new]));
    gateway.until_generation(2).await;
    assert_eq!((ask(&gateway, &tokens.0).await, ask(&gateway, &tokens.1).await), (invalid(), served("acme")));
}

/// A gateway whose keys are fetched.
async fn fetching(server: &IssuerServer, settings: &str) -> (TestGateway, Backend) {
    let backend = Backend::start().await;
    let keys = format!(
        "app: {{ jwks: '{}', ca: ca.pem, issuer: '{ISSUER}', audience: api, {settings} }}",
        server.url()
    );
    let policy = policy(&backend, &keys, ROUTE);
    (Harness::new().policy(&policy).file("ca.pem", &server.certificate).start().await, backend)
}

/// Asks until the answer is this one.
async fn until_answer(gateway: &TestGateway, token: &str, expected: (u16, String)) {
    let waiting = async {
        while ask(gateway, token).await != expected {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("the answer comes about");
}

#[tokio::test]
async fn keys_come_and_go_without_a_restart() {
    let (old, new) = (SigningKey::ed25519("old"), SigningKey::es256("new"));
    let server = IssuerServer::start(key_set(&[&old])).await;
    let (gateway, _backend) = fetching(&server, "refresh: 1h").await;
    let (by_old, by_new) = (old.sign(&claims(&json!({}))), new.sign(&claims(&json!({}))));
    // The first request waits for the first fetch.
    assert_eq!(ask(&gateway, &by_old).await, served("acme"));
    server.change(|published| published.body = key_set(&[&old, &new]));
    // An hour before the next fetch: the unknown key asks for one.
    assert_eq!(ask(&gateway, &by_new).await, served("acme"));
    assert_eq!(ask(&gateway, &by_old).await, served("acme"));

    // Whoever makes keys up does not make us ask each time.
    let before = server.asked();
    for attempt in 0..20 {
        let stranger = SigningKey::ed25519(&format!("stranger-{attempt}"));
        assert_eq!(ask(&gateway, &stranger.sign(&claims(&json!({})))).await, invalid());
    }
    assert!(server.asked() - before <= 3, "{} fetches", server.asked() - before);

    // Another edit of the policy keeps the keys; the server need not be there.
    server.change(|published| published.status = 500);
    let text = std::fs::read_to_string(gateway.path_of("policy.yaml")).unwrap();
    gateway.write_policy(&format!("{text}\n# another edit\n"));
    gateway.until_generation(2).await;
    assert_eq!(ask(&gateway, &by_old).await, served("acme"));
}

#[tokio::test]
async fn a_key_that_was_withdrawn_is_forgotten() {
    let (old, new) = (SigningKey::ed25519("old"), SigningKey::ed25519("new"));
    let server = IssuerServer::start(key_set(&[&old])).await;
    let (gateway, _backend) = fetching(&server, "refresh: 200ms").await;
    let token = old.sign(&claims(&json!({})));
    assert_eq!(ask(&gateway, &token).await, served("acme"));
    server.change(|published| published.body = key_set(&[&new]));
    until_answer(&gateway, &token, invalid()).await;
}

#[tokio::test]
async fn an_issuer_that_is_down_stops_nobody_at_first() {
    let key = SigningKey::ed25519("ed");
    let server = IssuerServer::start(key_set(&[&key])).await;
    let (gateway, _backend) = fetching(&server, "refresh: 100ms, stale_if_error: 24h").await;
    let token = key.sign(&claims(&json!({})));
    assert_eq!(ask(&gateway, &token).await, served("acme"));
    for (status, body) in [(500, String::new()), (200, "not a set".into()), (302, key_set(&[]))] {
        server.change(|published| (published.status, published.body) = (status, body.clone()));
        let before = server.asked();
        crate::support::gateway::until(|| server.asked() > before).await;
        assert_eq!(ask(&gateway, &token).await, served("acme"), "{status}");
    }
}

#[tokio::test]
async fn keys_that_are_too_old_are_given_up() {
    let key = SigningKey::ed25519("ed");
    let server = IssuerServer::start(key_set(&[&key])).await;
    let (gateway, _backend) = fetching(&server, "refresh: 100ms, stale_if_error: 100ms").await;
    let token = key.sign(&claims(&json!({})));
    assert_eq!(ask(&gateway, &token).await, served("acme"));
    server.change(|published| published.status = 503);
    until_answer(&gateway, &token, (503, "keys-unavailable".into())).await;
    server.change(|published| published.status = 200);
    until_answer(&gateway, &token, served("acme")).await;
}

#[tokio::test]
async fn without_keys_nobody_is_believed() {
    let key = SigningKey::ed25519("ed");
    let server = IssuerServer::start(key_set(&[&key])).await;
    server.change(|published| published.status = 500);
    let (gateway, _backend) = fetching(&server, "refresh: 1h").await;
    let token = key.sign(&claims(&json!({})));
    let reply = gateway.get("/").header("authorization", &format!("Bearer {token}")).send().await;
    assert_eq!((reply.status(), reply.code().as_str()), (503, "keys-unavailable"));
    assert!(reply.header("retry-after").is_some());

    // A server that proves to be nobody is not asked for keys.
    let impostor = IssuerServer::start(key_set(&[&key])).await;
    let text = std::fs::read_to_string(gateway.path_of("policy.yaml")).unwrap();
    gateway.write_policy(&text.replace(&server.url(), &impostor.url()));
    gateway.until_generation(2).await;
    assert_eq!(ask(&gateway, &token).await, (503, "keys-unavailable".into()));
    assert_eq!(impostor.asked(), 0);
}

#[test]
fn mistakes_with_keys_are_found_in_the_policy() {
    let set = key_set(&[&SigningKey::ed25519("ed")]);
    for (keys, message) in [
        ("app: { jwks: 'http://idp.example/', audience: a }", "keys come over `https:`"),
        ("app: { jwks: 'https://user@idp.example/', audience: a }", "must not carry a user"),
        ("app: { jwks: none.json, audience: a }", "there is no such file"),
        ("app: { jwks: empty.json, audience: a }", "has no usable key"),
        ("app: { jwks: jwks.json }", "no `audience`"),
        ("app: { jwks: jwks.json, audience: a, refresh: 1m }", "`refresh` is for a `jwks` that is a URL"),
        ("app: { jwks: jwks.json, audience: a, algorithms: [ HS256 ] }", "needs a `secret`"),
        ("app: { jwks: jwks.json, audience: a, algorithms: [ none ] }", "expected an algorithm"),
        ("app: { secret: short, audience: a }", "`secret` must be at least 32 bytes"),
        ("app: { secret: '${SECRET}', audience: a, algorithms: [ RS256 ] }", "does not go with a `secret`"),
        ("app: { jwks: jwks.json, secret: '${SECRET}', audience: a }", "either `jwks` or a `secret`"),
        ("app: { audience: a }", "these keys have no source"),
        ("app: { jwks: 'https://idp.example/', ca: empty.json, audience: a }", "has no certificate in it"),
        (
            "app: { issuers: [ { jwks: jwks.json, audience: a }, { jwks: jwks.json, audience: a } ] }",
            "each needs the key `issuer`",
        ),
        (
            "app: { issuers: [ { jwks: jwks.json, issuer: i, audience: a }, { jwks: jwks.json, issuer: i, audience: a } ] }",
            "two issuers are called `i`",
        ),
        ("app: { isuer: i }", "unknown key `isuer`"),
        ("app: [ { sha256: 00, tenant: acme } ]", "a SHA-256 in 64 hexadecimal digits"),
        ("app: { list: [] }", "is a table of API keys"),
        ("apps: { jwks: jwks.json, audience: a }", "unknown keys `app`"),
    ] {
        let policy = format!(
            "version: 1\nupstreams: {{ app: {{ endpoints: [ http://127.0.0.1:1 ] }} }}\n\
             tenants: {{ list: [ {{ id: acme, schema: acme }} ] }}\nkeys:\n  {keys}\nroutes:\n{ROUTE}\n"
        );
        let desk = Desk::with(&policy).file("jwks.json", &set).file("empty.json", "{\"keys\":[]}");
        let found = desk.variable("SECRET", "a secret that is thirty-two bytes.").diagnostics();
        assert!(found.contains(message), "{keys}: {found}");
        assert!(!found.contains("thirty-two"), "{found}");
    }
}
