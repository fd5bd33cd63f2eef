//! Tickets: with one, a legacy backend may run statements as the tenant of the request that it is
//! serving. A JSON Web Token (RFC 7519) that we sign for ourselves; nobody else needs to read it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderValue, StatusCode};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, encode};
use serde::{Deserialize, Serialize};

use crate::admitted::Admitted;
use crate::error::{Code, Refusal};
use crate::policy::Secret;
use crate::tenant::TenantId;

/// Keeps a ticket apart from every other token that someone may sign with the same key
/// (RFC 8725, section 3.11).
const TYPE: &str = "innkeeper-ticket+jwt";

/// Issues tickets and honours them.
pub struct Tickets {
    signs: EncodingKey,
    verifies: DecodingKey,
    validation: Validation,
}

/// What a ticket says.
#[derive(Serialize, Deserialize)]
struct Claims {
    /// The tenant's id.
    sub: String,
    /// When it ends, seconds since 1970.
    exp: u64,
}

impl Tickets {
    /// Tickets signed with `key`: processes with the same one honour each other's.
    pub fn signed_with(key: &Secret) -> Self {
        Self::new(key.reveal().as_bytes())
    }

    /// Tickets that this process alone honours: its key is random and never leaves it.
    pub fn of_this_process() -> Self {
        let mut key = [0; 32];
        getrandom::fill(&mut key).expect("the system has random numbers");
        Self::new(&key)
    }

    fn new(key: &[u8]) -> Self {
        let mut validation = Validation::new(Algorithm::HS256);
        // Whoever issues it has the same clock, or one that is kept in step.
        validation.leeway = 0;
        validation.set_required_spec_claims(&["exp", "sub"]);
        Self { signs: EncodingKey::from_secret(key), verifies: DecodingKey::from_secret(key), validation }
    }

    /// A ticket for the tenant, valid for `lifetime`, counted in whole seconds and at least one.
    pub fn issue(&self, admitted: &Admitted, lifetime: Duration) -> HeaderValue {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let claims = Claims {
            sub: admitted.tenant().id.as_str().to_owned(),
            exp: now.as_secs() + lifetime.as_secs().max(1),
        };
        let header = Header { typ: Some(TYPE.to_owned()), ..Header::new(Algorithm::HS256) };
        let token = encode(&header, &claims, &self.signs).expect("two plain fields are JSON");
        let mut value = HeaderValue::try_from(token).expect("a token is base64url and dots");
        value.set_sensitive(true);
        value
    }

    /// The tenant that a ticket was issued for. It is still to be looked up and admitted: it may
    /// have been suspended since.
    ///
    /// # Errors
    /// `denied` with 401: not ours, changed, or over.
    pub fn tenant(&self, ticket: &str) -> Result<TenantId, Refusal> {
        let refused = |cause: String| {
            Refusal::new(
                Code::Denied,
                "the ticket is not valid any more, or never was: use the one of the request being served",
            )
            .with_status(StatusCode::UNAUTHORIZED)
            .because(cause)
        };
        let token = decode::<Claims>(ticket, &self.verifies, &self.validation)
            .map_err(|error| refused(format!("the ticket was refused: {error}")))?;
        if token.header.typ.as_deref() != Some(TYPE) {
            return Err(refused("the token is well signed, but is no ticket".into()));
        }
        token.claims.sub.parse().map_err(|error| refused(format!("the ticket names no tenant: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::admitted::admit;
    use crate::tenant::{Tenant, TenantState};

    fn admitted(id: &str) -> Admitted {
        let tenant = Tenant {
            id: id.parse().unwrap(),
            schema: "home".parse().unwrap(),
            role: None,
            database: None,
            state: TenantState::Active,
            isolation: None,
            limits: None,
        };
        admit(Arc::new(tenant)).unwrap()
    }

    fn issued(tickets: &Tickets, id: &str) -> String {
        let ticket = tickets.issue(&admitted(id), Duration::from_secs(60));
        assert!(ticket.is_sensitive());
        ticket.to_str().unwrap().to_owned()
    }

    #[test]
    fn a_ticket_names_its_tenant_to_whoever_has_the_key() {
        let key = Secret::new("k".repeat(32));
        let (one, two) = (Tickets::signed_with(&key), Tickets::signed_with(&key));
        assert_eq!(two.tenant(&issued(&one, "acme")).unwrap().as_str(), "acme");
    }

    #[test]
    fn keys_of_processes_differ() {
        let (one, two) = (Tickets::of_this_process(), Tickets::of_this_process());
        let refusal = two.tenant(&issued(&one, "acme")).unwrap_err();
        assert_eq!((refusal.code(), refusal.status()), (Code::Denied, StatusCode::UNAUTHORIZED));
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        let tickets = Tickets::of_this_process();
        let ticket = issued(&tickets, "acme");
        for index in 0..ticket.len() - 1 {
            let mut changed = ticket.clone().into_bytes();
            changed[index] = if changed[index] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            assert!(tickets.tenant(&changed).is_err(), "{changed}");
        }
    }
}
