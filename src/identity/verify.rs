//! Verifies tokens: whose one is, by which key, and whether it says what it must.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, decode_header};
use serde::Deserialize;

use super::claims::Claims;
use super::invalid;
use super::keys::{Ring, Unverified};
use super::remote::Remote;
use crate::error::{Code, Refusal};
use crate::policy::{self, KeySource, TokenKeys};

/// The longest token that is looked at: with every claim that an issuer could mean to put in.
const MAX_TOKEN_BYTES: usize = 16 << 10;

/// When a client may find that keys have been fetched.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Verifies the tokens of all issuers under one name of the policy.
#[derive(Debug)]
pub struct Verifier {
    settings: Arc<TokenKeys>,
    /// In the policy's order.
    sources: Vec<Source>,
}

#[derive(Debug)]
enum Source {
    Fixed(Arc<Ring>),
    Remote(Remote),
}

/// What a token says of itself before anything is believed.
struct Heading {
    algorithm: Algorithm,
    key: Option<String>,
}

impl Verifier {
    /// A verifier that fetches nothing yet.
    pub fn new(settings: Arc<TokenKeys>) -> Self {
        let source = |issuer: &policy::Issuer| match &issuer.source {
            KeySource::Set(set) => Source::Fixed(Ring::of_set(set, issuer)),
            KeySource::Secret(secret) => Source::Fixed(Ring::of_secret(secret, issuer)),
            KeySource::Url(remote) => Source::Remote(Remote::new(issuer.clone(), remote.clone())),
        };
        let sources = settings.issuers.iter().map(source).collect();
        Self { settings, sources }
    }

    /// What the policy says of it.
    pub fn settings(&self) -> &Arc<TokenKeys> {
        &self.settings
    }

    /// Begins to fetch key sets, and goes on until it is dropped. Within a runtime.
    pub fn start(&self) {
        for source in &self.sources {
            if let Source::Remote(remote) = source {
                remote.start();
            }
        }
    }

    /// The claims of a token, if it is what it must be.
    ///
    /// # Errors
    /// `token-invalid`; `keys-unavailable` where its issuer's keys are not known.
    pub async fn verify(&self, token: &str) -> Result<Arc<Claims>, Refusal> {
        let heading = Heading::read(token)?;
        let (issuer, source) = self.issuer_of(token)?;
        if !issuer.algorithms.contains(&heading.algorithm) {
            return Err(invalid("the token is signed in a way that is not taken here")
                .because(format_args!("{:?} is not among its `algorithms`", heading.algorithm)));
        }
        let (algorithm, key) = (heading.algorithm, heading.key.as_deref());
        let ring = source.ring().await.ok_or_else(|| self.unavailable())?;
        let mut verified = ring.verify(token, algorithm, key).await;
        if let (Err(Unverified::NoKey), Source::Remote(remote)) = (&verified, source)
            && let Some(ring) = remote.refreshed().await
        {
            verified = ring.verify(token, algorithm, key).await;
        }
        verified.map_err(|why| refuse(&why, &heading))
    }

    /// The issuer that a token says it is by: its keys are the only ones that it is verified with.
    fn issuer_of(&self, token: &str) -> Result<(&policy::Issuer, &Source), Refusal> {
        let mut issuers = self.settings.issuers.iter().zip(&self.sources);
        if self.sources.len() == 1 {
            return Ok(issuers.next().expect("there is one"));
        }
        let named = issuer_named_in(token).ok_or_else(|| invalid("the token names no issuer"))?;
        issuers.find(|(issuer, _)| issuer.issuer.as_ref() == Some(&named)).ok_or_else(|| {
            invalid("the token is by an issuer that is not known here")
                .because(format_args!("`{}` has no issuer {named:?}", self.settings.name))
        })
    }

    fn unavailable(&self) -> Refusal {
        Refusal::new(Code::KeysUnavailable, "tokens cannot be verified now; try again later")
            .because(format_args!("the key set of `{}` has not been fetched", self.settings.name))
            .retry_after(RETRY_AFTER)
    }
}

impl Source {
    async fn ring(&self) -> Option<Arc<Ring>> {
        match self {
            Self::Fixed(ring) => Some(Arc::clone(ring)),
            Self::Remote(remote) => remote.ring().await,
        }
    }
}

impl Heading {
    /// Reads a token's header. Keys that it brings itself, and URLs of such, are not looked at.
    fn read(token: &str) -> Result<Self, Refusal> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(invalid(format!("the token is longer than {MAX_TOKEN_BYTES} bytes")));
        }
        if token.split('.').count() != 3 {
            return Err(invalid("the token is not a signed JSON Web Token"));
        }
        let header = decode_header(token)
            .map_err(|error| invalid("the token's header cannot be read").because(error))?;
        if header.crit.is_some() {
            // RFC 7515, section 4.1.11: what must be understood and is not, refuses the token.
            return Err(invalid("the token needs an extension that is not known here"));
        }
        Ok(Self { algorithm: header.alg, key: header.kid })
    }
}

/// The `iss` that stands in a token. Not believed: it only says with whose keys to verify.
fn issuer_named_in(token: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Named {
        iss: String,
    }
    let claims = BASE64.decode(token.split('.').nth(1)?).ok()?;
    serde_json::from_slice(&claims).ok().map(|Named { iss }| iss)
}

/// What a client is told helps it to a better token; what is wrong with a forged one is for the log.
fn refuse(why: &Unverified, heading: &Heading) -> Refusal {
    let error = match why {
        Unverified::NoKey => {
            return invalid("the token is signed with a key that is not known here")
                .because(format_args!("no key for {:?} with `kid` {:?}", heading.algorithm, heading.key));
        }
        Unverified::Unnamed => {
            return invalid("the token does not say with which key it is signed (`kid`)");
        }
        Unverified::Refused(error) => error,
    };
    let refusal = match error.kind() {
        ErrorKind::ExpiredSignature => invalid("the token has expired"),
        ErrorKind::ImmatureSignature => invalid("the token is not valid yet"),
        ErrorKind::InvalidAudience => invalid("the token is for somebody else (`aud`)"),
        ErrorKind::InvalidIssuer => invalid("the token is by somebody else (`iss`)"),
        ErrorKind::MissingRequiredClaim(claim) => invalid(format!("the token lacks the claim `{claim}`")),
        _ => invalid("the token is not valid"),
    };
    refusal.because(error)
}
