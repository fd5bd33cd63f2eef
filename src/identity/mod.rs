//! Identity: whether what a client brings to prove itself is believed, and what it then says.

mod api_key;
mod assertion;
mod certificate;
mod claims;
mod fetch;
mod keys;
mod remote;
mod verify;

pub use api_key::owner;
pub use assertion::{Asserter, AssertionKeys, Subject};
pub use certificate::tenant as tenant_of_certificate;
pub use claims::Claims;
pub use verify::Verifier;

use crate::error::{Code, Refusal};

/// A token or key that is not believed.
fn invalid(detail: impl Into<std::borrow::Cow<'static, str>>) -> Refusal {
    Refusal::new(Code::TokenInvalid, detail)
}
