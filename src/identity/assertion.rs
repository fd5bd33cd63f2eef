//! Assertions: to whom a request belongs, signed, so that a backend need not trust its network.
//! JSON Web Tokens (RFC 7519) under Ed25519 (RFC 8037).

use std::time::{Duration, SystemTime, UNIX_EPOCH};
use std::{fmt, sync::Arc};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use ed25519_dalek::{SECRET_KEY_LENGTH, Signer as _, SigningKey};
use http::{HeaderValue, Method};
use moka::future::Cache;
use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::admitted::Admitted;
use crate::policy::{self, AssertionBinding};
use crate::tenant::{Tenant, TenantId, TenantSchema};

/// Keeps an assertion apart from every other token that someone may sign with the same key
/// (RFC 8725, section 3.11).
const TYPE: &str = "innkeeper-assertion+jwt";

/// Assertions that are kept at most, per route. More tenants than that are signed for more often.
const MAX_KEPT: u64 = 10_000;

/// The keys that assertions are signed with; the first one signs, the others were or will be.
pub struct AssertionKeys(Vec<Key>);

struct Key {
    /// The RFC 7638 thumbprint of its public half.
    id: String,
    signs: SigningKey,
    /// The header of every token that it signs, encoded.
    header: String,
}

/// Asserts, for one route.
pub struct Asserter {
    keys: Arc<AssertionKeys>,
    settings: policy::Assertion,
    kept: Option<Cache<(TenantId, TenantSchema), HeaderValue>>,
}

/// The request that an assertion is for.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'r> {
    /// Its id.
    pub id: &'r str,
    /// Its method.
    pub method: &'r Method,
    /// How the client reached us.
    pub scheme: &'r str,
    /// What it asked for.
    pub authority: &'r str,
    /// The path that the backend gets.
    pub path: &'r str,
}

/// What an assertion says.
#[derive(Serialize)]
struct Claims<'c> {
    iss: &'c str,
    aud: &'c str,
    sub: &'c str,
    schema: &'c str,
    iat: u64,
    exp: u64,
    jti: &'c str,
    /// Method and target of its one request (named as in RFC 9449, section 4.2).
    #[serde(skip_serializing_if = "Option::is_none")]
    htm: Option<&'c str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    htu: Option<String>,
}

impl AssertionKeys {
    /// These keys, of which the first one signs; a random one where there are none.
    pub fn new(keys: &[SigningKey]) -> Self {
        if keys.is_empty() {
            let mut secret = [0; SECRET_KEY_LENGTH];
            getrandom::fill(&mut secret).expect("the system has random numbers");
            return Self(vec![Key::new(SigningKey::from_bytes(&secret))]);
        }
        Self(keys.iter().cloned().map(Key::new).collect())
    }

    /// Their public halves as a JWK set (RFC 7517), for backends.
    pub fn key_set(&self) -> Value {
        json!({ "keys": self.0.iter().map(Key::public).collect::<Vec<_>>() })
    }

    fn sign(&self, claims: &Claims<'_>) -> HeaderValue {
        let key = self.0.first().expect("there is always a key");
        let claims = serde_json::to_vec(claims).expect("texts and numbers are JSON");
        let mut token = key.header.clone();
        token.push('.');
        BASE64.encode_string(claims, &mut token);
        let signature = key.signs.sign(token.as_bytes());
        token.push('.');
        BASE64.encode_string(signature.to_bytes(), &mut token);
        let mut value = HeaderValue::try_from(token).expect("a token is base64url and dots");
        value.set_sensitive(true);
        value
    }
}

impl Key {
    fn new(signs: SigningKey) -> Self {
        let public = BASE64.encode(signs.verifying_key().as_bytes());
        // RFC 8037, appendix A.3: these members in this order, without spaces.
        let thumbprint = Sha256::digest(format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{public}"}}"#));
        let id = BASE64.encode(thumbprint);
        let header = BASE64.encode(json!({ "alg": "EdDSA", "typ": TYPE, "kid": id }).to_string());
        Self { id, signs, header }
    }

    fn public(&self) -> Value {
        let public = BASE64.encode(self.signs.verifying_key().as_bytes());
        json!({ "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": self.id, "x": public })
    }
}

impl Asserter {
    /// Asserts as the route says.
    pub fn new(settings: policy::Assertion, keys: Arc<AssertionKeys>) -> Self {
        let kept = (settings.binding == AssertionBinding::Tenant).then(|| {
            // What a backend gets has at least half of its time before it.
            Cache::builder().max_capacity(MAX_KEPT).time_to_live(settings.lifetime / 2).build()
        });
        Self { keys, settings, kept }
    }

    /// The assertion that goes with a request of an admitted tenant.
    pub async fn assert(&self, admitted: &Admitted, subject: Subject<'_>) -> HeaderValue {
        let tenant = admitted.tenant();
        let Some(kept) = &self.kept else { return self.sign(tenant, subject) };
        let key = (tenant.id.clone(), tenant.schema.clone());
        kept.get_with(key, async { self.sign(tenant, subject) }).await
    }

    fn sign(&self, tenant: &Tenant, subject: Subject<'_>) -> HeaderValue {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
        let is_bound = self.settings.binding == AssertionBinding::Request;
        let Subject { id, method, scheme, authority, path } = subject;
        self.keys.sign(&Claims {
            iss: &self.settings.issuer,
            aud: &self.settings.audience,
            sub: tenant.id.as_str(),
            schema: tenant.schema.as_str(),
            iat: now,
            exp: now + self.settings.lifetime.as_secs().max(1),
            jti: id,
            htm: is_bound.then(|| method.as_str()),
            htu: is_bound.then(|| format!("{scheme}://{authority}{path}")),
        })
    }
}

impl fmt::Debug for AssertionKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|key| &key.id)).finish()
    }
}

impl fmt::Debug for Asserter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asserter").field("settings", &self.settings).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_named_by_its_thumbprint() {
        // The key of RFC 8037, appendix A.1, and its thumbprint in appendix A.3.
        let secret = BASE64.decode("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A").unwrap();
        let keys = AssertionKeys::new(&[SigningKey::from_bytes(&secret.try_into().unwrap())]);
        let public = &keys.key_set()["keys"][0];
        assert_eq!(public["x"], "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo");
        assert_eq!(public["kid"], "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
        assert!(public["d"].is_null());
    }

    #[test]
    fn each_process_has_a_key_of_its_own() {
        let (one, two) = (AssertionKeys::new(&[]), AssertionKeys::new(&[]));
        assert_ne!(one.key_set(), two.key_set());
    }
}
