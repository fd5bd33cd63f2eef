//! What tokens and keys of clients are checked against.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{HeaderName, Uri};
use jsonwebtoken::Algorithm;
use jsonwebtoken::jwk::Jwk;
use rustls::pki_types::CertificateDer;

use super::{Name, Secret};
use crate::tenant::TenantId;

/// Keys under one name of the policy.
#[derive(Debug, Clone, PartialEq)]
pub enum Keys {
    /// Of those who issue tokens.
    Issuers(Arc<TokenKeys>),
    /// A table of keys that stand for tenants.
    Table(Arc<KeyTable>),
}

/// Whose tokens are believed.
#[derive(Debug, PartialEq)]
pub struct TokenKeys {
    /// The name in the policy.
    pub name: Name,
    /// The issuers. Where there are several, each has its own `issuer`.
    pub issuers: Vec<Issuer>,
}

/// One issuer of tokens (RFC 7519), and what its tokens must say.
#[derive(Debug, Clone, PartialEq)]
pub struct Issuer {
    /// What its signatures are verified with.
    pub source: KeySource,
    /// What `iss` must be; `None` for anything.
    pub issuer: Option<String>,
    /// What `aud` must be, one of these; empty for anything.
    pub audience: Vec<String>,
    /// The algorithms that it may sign with.
    pub algorithms: Vec<Algorithm>,
    /// How far its clock may be off ours. Default 30 s.
    pub leeway: Duration,
}

/// Where an issuer's keys come from.
#[derive(Debug, Clone, PartialEq)]
pub enum KeySource {
    /// A set that is part of the policy.
    Set(KeySet),
    /// A secret that the issuer shares with us.
    Secret(Secret),
    /// A set that is fetched.
    Url(RemoteKeys),
}

/// A set of keys that is fetched (RFC 7517, section 5).
#[derive(Debug, Clone, PartialEq)]
pub struct RemoteKeys {
    /// Where it is: `https:`, or `http:` on this machine.
    pub url: Uri,
    /// Certificates that its server is checked against; `None` for the machine's own list.
    pub ca: Option<Vec<CertificateDer<'static>>>,
    /// How often it is fetched. Default 10 min.
    pub refresh: Duration,
    /// How long its keys are used while it cannot be fetched. Default 24 h.
    pub stale_if_error: Duration,
}

/// The keys of a JWK set that can verify signatures.
#[derive(Debug, Clone, PartialEq)]
pub struct KeySet(Vec<Jwk>);

/// Keys that stand for tenants, by their SHA-256. Nobody can find a key by how long a look-up
/// takes: where a hash is put depends on all of its key.
#[derive(Debug, PartialEq)]
pub struct KeyTable {
    /// The name in the policy.
    pub name: Name,
    /// Whom each key stands for.
    pub owners: HashMap<[u8; 32], KeyOwner>,
}

/// Whom a key stands for.
#[derive(Debug, Clone, PartialEq)]
pub struct KeyOwner {
    /// The tenant.
    pub tenant: TenantId,
    /// When the key ends; `None` for never.
    pub expires: Option<SystemTime>,
}

/// Where a request's token is.
#[derive(Debug, Clone, PartialEq)]
pub enum TokenPlace {
    /// In this header; in `Authorization` after the word `Bearer` (RFC 6750, section 2.1).
    Header(HeaderName),
    /// In this cookie.
    Cookie(String),
}

/// A token that is to be verified.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenSource {
    /// Whose tokens are believed.
    pub keys: Arc<TokenKeys>,
    /// Where the token is.
    pub place: TokenPlace,
}

/// Why a text is no set of keys that could be used.
#[derive(Debug, thiserror::Error)]
pub enum KeySetError {
    /// It is something else.
    #[error("it is not a JWK set (RFC 7517): {0}")]
    NotASet(#[from] serde_json::Error),
    /// None of its keys is of use.
    #[error("none of its {0} keys can verify a signature: RSA of 2048 bits, P-256, P-384 and Ed25519 can")]
    NoKey(usize),
}

impl KeySet {
    /// Reads a JWK set. Keys of other kinds and uses may be among them and are left out, as RFC 7517
    /// (section 5) asks: an issuer may have more keys than those that sign.
    ///
    /// # Errors
    /// Where no key is left.
    pub fn parse(text: &[u8]) -> Result<Self, KeySetError> {
        #[derive(serde::Deserialize)]
        struct Written {
            keys: Vec<serde_json::Value>,
        }
        let written: Written = serde_json::from_slice(text)?;
        let count = written.keys.len();
        let read = written.keys.into_iter().filter_map(|key| serde_json::from_value::<Jwk>(key).ok());
        let usable: Vec<Jwk> = read.filter(|key| !algorithms_of(key).is_empty()).collect();
        if usable.is_empty() { Err(KeySetError::NoKey(count)) } else { Ok(Self(usable)) }
    }

    /// Its keys.
    pub fn keys(&self) -> &[Jwk] {
        &self.0
    }
}

/// The smallest RSA modulus that is taken, in bytes (RFC 7518, section 3.3).
const MIN_RSA_BYTES: usize = 256;

/// The algorithms whose signatures a public key can verify. Secrets have none: a set of public keys
/// in which one stands was published by mistake.
pub(crate) fn algorithms_of(key: &Jwk) -> Vec<Algorithm> {
    use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, PublicKeyUse};
    use jsonwebtoken::{DecodingKey, DecodingKeyKind};

    let signs = key.common.public_key_use.as_ref().is_none_or(|usage| *usage == PublicKeyUse::Signature);
    let Some(decoded) = DecodingKey::from_jwk(key).ok().filter(|_| signs) else { return Vec::new() };
    let fitting: &[Algorithm] = match (&key.algorithm, decoded.kind()) {
        (AlgorithmParameters::RSA(_), DecodingKeyKind::RsaModulusExponent { n, .. })
            if n.len() >= MIN_RSA_BYTES =>
        {
            &[
                Algorithm::RS256,
                Algorithm::RS384,
                Algorithm::RS512,
                Algorithm::PS256,
                Algorithm::PS384,
                Algorithm::PS512,
            ]
        }
        (AlgorithmParameters::EllipticCurve(key), _) => match key.curve {
            EllipticCurve::P256 => &[Algorithm::ES256],
            EllipticCurve::P384 => &[Algorithm::ES384],
            _ => &[],
        },
        (AlgorithmParameters::OctetKeyPair(key), _) if key.curve == EllipticCurve::Ed25519 => {
            &[Algorithm::EdDSA]
        }
        _ => &[],
    };
    let named = key.common.key_algorithm.map(|named| named.to_string());
    let named = |algorithm: &Algorithm| {
        named.as_ref().is_none_or(|named| named.parse::<Algorithm>().is_ok_and(|named| named == *algorithm))
    };
    fitting.iter().copied().filter(named).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The public key of RFC 8037, appendix A.2.
    const ED25519: &str = r#""kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo""#;

    fn parse(keys: &[String]) -> Result<KeySet, KeySetError> {
        KeySet::parse(format!(r#"{{"keys":[{}]}}"#, keys.join(",")).as_bytes())
    }

    #[test]
    fn keys_that_do_not_sign_are_left_out() {
        let good = format!("{{{ED25519},\"kid\":\"a\"}}");
        let others = [
            format!("{{{ED25519},\"use\":\"enc\"}}"),
            format!("{{{ED25519},\"alg\":\"RS256\"}}"),
            r#"{"kty":"oct","k":"c2VjcmV0"}"#.into(),
            r#"{"kty":"RSA","n":"AQAB","e":"AQAB"}"#.into(),
            r#"{"kty":"unheard-of"}"#.into(),
            r#"{"kty":"EC","crv":"P-256","x":"!","y":"!"}"#.into(),
            "7".into(),
        ];
        assert!(matches!(parse(&others), Err(KeySetError::NoKey(7))));
        let mut all = others.to_vec();
        all.push(good);
        let set = parse(&all).unwrap();
        assert_eq!(set.keys().len(), 1);
        assert_eq!(set.keys()[0].common.key_id.as_deref(), Some("a"));
        assert_eq!(algorithms_of(&set.keys()[0]), [Algorithm::EdDSA]);
    }

    #[test]
    fn what_is_no_set_is_refused() {
        for text in ["", "[]", "{}", "{\"keys\":{}}", "not json"] {
            assert!(matches!(KeySet::parse(text.as_bytes()), Err(KeySetError::NotASet(_))), "{text}");
        }
    }
}
