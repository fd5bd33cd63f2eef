//! The tokens of one request: each is found in its place, verified once, and shown to plugins.

use std::borrow::Cow;
use std::sync::Arc;

use http::HeaderName;
use http::header::AUTHORIZATION;

use super::resolve::cookie_value;
use crate::decision::RequestHead;
use crate::error::{Code, Refusal};
use crate::identity::{Claims, Verifier};
use crate::policy::{self, TokenPlace};

/// A token that is to be verified, bound to what verifies it.
#[derive(Debug, Clone)]
pub(super) struct TokenSource {
    place: TokenPlace,
    verifier: Arc<Verifier>,
}

/// What has been verified of one request so far.
#[derive(Default)]
pub(super) struct Tokens<'r> {
    verified: Vec<(&'r TokenSource, Arc<Claims>)>,
    /// The request with the claims of the first token.
    told: Option<Arc<RequestHead>>,
}

impl TokenSource {
    /// Binds a source of the policy to its verifier.
    pub(super) fn bind(source: &policy::TokenSource, verifier: impl Fn(&str) -> Arc<Verifier>) -> Self {
        Self { place: source.place.clone(), verifier: verifier(&source.keys.name) }
    }

    /// The place as a client would recognise it.
    pub(super) fn describe(&self) -> String {
        match &self.place {
            TokenPlace::Header(name) => format!("the token in `{name}`"),
            TokenPlace::Cookie(name) => format!("the token in the cookie `{name}`"),
        }
    }

    fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.verifier, &other.verifier) && self.place == other.place
    }

    /// The token, if the request brings one.
    fn find<'h>(&self, head: &'h RequestHead) -> Result<Option<Cow<'h, str>>, Refusal> {
        let name = match &self.place {
            TokenPlace::Cookie(name) => return Ok(cookie_value(head, name)?.map(Cow::Owned)),
            TokenPlace::Header(name) => name,
        };
        Ok(after_bearer(name, head)?.map(Cow::Borrowed))
    }
}

/// What a header brings, without the word `Bearer` (RFC 6750, section 2.1), which only
/// `Authorization` must have.
pub(super) fn after_bearer<'h>(name: &HeaderName, head: &'h RequestHead) -> Result<Option<&'h str>, Refusal> {
    let Some(value) = head.header_once(name)? else { return Ok(None) };
    let bearer = value.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    Ok(match bearer {
        Some((_, token)) => Some(token.trim()),
        // Another scheme is another proof, which is none of ours.
        None if name == AUTHORIZATION => None,
        None => Some(value),
    })
}

impl<'r> Tokens<'r> {
    /// The claims of the token in its place; `None` where the request brings none.
    pub(super) async fn claims(
        &mut self,
        source: &'r TokenSource,
        head: &RequestHead,
    ) -> Result<Option<Arc<Claims>>, Refusal> {
        if let Some((_, claims)) = self.verified.iter().find(|(other, _)| other.is(source)) {
            return Ok(Some(Arc::clone(claims)));
        }
        let Some(token) = source.find(head)? else { return Ok(None) };
        let claims = source.verifier.verify(&token).await?;
        self.verified.push((source, Arc::clone(&claims)));
        Ok(Some(claims))
    }

    /// Verifies a token that must be there.
    pub(super) async fn require(
        &mut self,
        source: &'r TokenSource,
        head: &RequestHead,
    ) -> Result<(), Refusal> {
        match self.claims(source, head).await? {
            Some(_) => Ok(()),
            None => Err(Refusal::new(Code::TokenInvalid, format!("send {}", source.describe()))),
        }
    }

    /// The request as plugins are to see it: with the claims of its first token, if one was
    /// verified. The copy is made when the first plugin asks, and for no other request.
    pub(super) fn tell<'h>(&'h mut self, head: &'h Arc<RequestHead>) -> &'h Arc<RequestHead> {
        let Some((_, claims)) = self.verified.first() else { return head };
        self.told.get_or_insert_with(|| {
            Arc::new(RequestHead { claims: Some(claims.to_json().into()), ..RequestHead::clone(head) })
        })
    }
}
