//! Keys of one issuer, ready to verify with.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, TokenData, Validation, decode};
use moka::future::Cache;
use sha2::{Digest, Sha256};

use super::claims::Claims;
use crate::policy::{self, KeySet, Secret, algorithms_of};

/// Tokens that are remembered at most, per issuer: a few kilobytes each.
const MAX_REMEMBERED: u64 = 10_000;

/// How long a token is remembered that nobody uses.
const REMEMBERED_IDLE: Duration = Duration::from_mins(10);

/// The keys that an issuer has now, and the tokens that they have vouched for. Clients send a token
/// with each request, and a signature costs more to verify than all the rest of a request does.
pub(super) struct Ring {
    keys: Vec<Key>,
    /// By the SHA-256 of the whole token. With other keys there is another ring, which knows none.
    verified: Cache<[u8; 32], Arc<Claims>>,
    leeway: Duration,
}

struct Key {
    /// Its name in tokens (`kid`), if it has one.
    id: Option<String>,
    verifies: DecodingKey,
    /// What a token signed with it must say; the algorithms are the key's own.
    validation: Validation,
}

/// Why none of a ring's keys vouches for a token.
#[derive(Debug)]
pub(super) enum Unverified {
    /// None has the token's `kid` and algorithm: the issuer may have a new one.
    NoKey,
    /// Several could have signed it, and it does not say which.
    Unnamed,
    /// The token is not what it must be.
    Refused(jsonwebtoken::errors::Error),
}

impl Ring {
    /// The keys of a set, for the algorithms that its issuer may use.
    pub(super) fn of_set(set: &KeySet, issuer: &policy::Issuer) -> Arc<Self> {
        let keys = set.keys().iter().filter_map(|key| {
            let mut allowed = algorithms_of(key);
            allowed.retain(|algorithm| issuer.algorithms.contains(algorithm));
            let validation = validation(issuer, allowed)?;
            let verifies = DecodingKey::from_jwk(key).expect("a set keeps only keys that can be read");
            Some(Key { id: key.common.key_id.clone(), verifies, validation })
        });
        Self::new(keys.collect(), issuer)
    }

    /// One secret.
    pub(super) fn of_secret(secret: &Secret, issuer: &policy::Issuer) -> Arc<Self> {
        let hmac = issuer.algorithms.iter().copied().filter(|one| one.family() == AlgorithmFamily::Hmac);
        let key = validation(issuer, hmac.collect()).map(|validation| {
            let verifies = DecodingKey::from_secret(secret.reveal().as_bytes());
            Key { id: None, verifies, validation }
        });
        Self::new(key.into_iter().collect(), issuer)
    }

    fn new(keys: Vec<Key>, issuer: &policy::Issuer) -> Arc<Self> {
        let verified = Cache::builder().max_capacity(MAX_REMEMBERED).time_to_idle(REMEMBERED_IDLE).build();
        Arc::new(Self { keys, verified, leeway: issuer.leeway })
    }

    /// The claims of a token, if one of the keys signed it and it says what it must.
    pub(super) async fn verify(
        &self,
        token: &str,
        algorithm: Algorithm,
        id: Option<&str>,
    ) -> Result<Arc<Claims>, Unverified> {
        let digest: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        if let Some(claims) = self.verified.get(&digest).await
            && !claims.have_expired(self.leeway)
        {
            return Ok(claims);
        }
        let claims = Arc::new(self.verify_anew(token, algorithm, id)?);
        self.verified.insert(digest, Arc::clone(&claims)).await;
        Ok(claims)
    }

    fn verify_anew(&self, token: &str, algorithm: Algorithm, id: Option<&str>) -> Result<Claims, Unverified> {
        // A key without a name may be meant by any.
        let is_meant = |key: &Key| match (&key.id, id) {
            (Some(own), Some(meant)) => own == meant,
            _ => true,
        };
        let fits = |key: &&Key| key.validation.algorithms.contains(&algorithm) && is_meant(key);
        let mut fitting = self.keys.iter().filter(fits);
        let first = fitting.next().ok_or(Unverified::NoKey)?;
        if id.is_none() && fitting.clone().next().is_some() {
            return Err(Unverified::Unnamed);
        }
        let mut last = first.verify(token);
        // Two keys of one name are an issuer's mistake, but not its clients'.
        for key in fitting {
            if last.is_ok() {
                break;
            }
            last = key.verify(token);
        }
        last.map_err(Unverified::Refused)
    }
}

/// What tokens say is their bearers': whoever prints a ring sees how many keys it has.
impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring").field("keys", &self.keys.len()).finish_non_exhaustive()
    }
}

impl Key {
    fn verify(&self, token: &str) -> jsonwebtoken::errors::Result<Claims> {
        decode(token, &self.verifies, &self.validation).map(|TokenData { claims, .. }| claims)
    }
}

/// What a token must say; `None` where no algorithm is left to sign it with.
fn validation(issuer: &policy::Issuer, algorithms: Vec<Algorithm>) -> Option<Validation> {
    let mut validation = Validation::new(*algorithms.first()?);
    validation.algorithms = algorithms;
    validation.leeway = issuer.leeway.as_secs();
    validation.validate_nbf = true;
    let mut required = vec!["exp"];
    if let Some(name) = &issuer.issuer {
        validation.set_issuer(&[name]);
        required.push("iss");
    }
    if issuer.audience.is_empty() {
        validation.validate_aud = false;
    } else {
        validation.set_audience(&issuer.audience);
        required.push("aud");
    }
    validation.set_required_spec_claims(&required);
    Some(validation)
}
