//! Keys of one issuer, ready to verify with.

use std::sync::Arc;

use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, TokenData, Validation, decode};

use super::claims::Claims;
use crate::policy::{self, KeySet, Secret, algorithms_of};

/// The keys that an issuer has now.
#[derive(Debug)]
pub(super) struct Ring(Vec<Key>);

#[derive(Debug)]
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
        Arc::new(Self(keys.collect()))
    }

    /// One secret.
    pub(super) fn of_secret(secret: &Secret, issuer: &policy::Issuer) -> Arc<Self> {
        let hmac = issuer.algorithms.iter().copied().filter(|one| one.family() == AlgorithmFamily::Hmac);
        let key = validation(issuer, hmac.collect()).map(|validation| {
            let verifies = DecodingKey::from_secret(secret.reveal().as_bytes());
            Key { id: None, verifies, validation }
        });
        Arc::new(Self(key.into_iter().collect()))
    }

    /// The claims of a token, if one of the keys signed it and it says what it must.
    pub(super) fn verify(
        &self,
        token: &str,
        algorithm: Algorithm,
        id: Option<&str>,
    ) -> Result<Claims, Unverified> {
        // A key without a name may be meant by any.
        let is_meant = |key: &Key| match (&key.id, id) {
            (Some(own), Some(meant)) => own == meant,
            _ => true,
        };
        let fits = |key: &&Key| key.validation.algorithms.contains(&algorithm) && is_meant(key);
        let mut fitting = self.0.iter().filter(fits);
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
