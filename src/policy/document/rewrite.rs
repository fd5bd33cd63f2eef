//! How a route changes what it forwards, as written.

use http::HeaderName;

use crate::policy::decode::{Located, Named, record};

record! {
    /// Changes of headers, in this order: `remove`, `set`, `add`. Values may hold `{tenant}`,
    /// `{schema}`, `{request_id}` and what the route's path captures.
    HeaderRules is "rules for headers";
    /// Headers that take the place of what is there.
    set: Option<Named<Located<String>>>,
    /// Headers that come to what is there.
    add: Option<Named<Located<String>>>,
    /// Headers that are taken away.
    remove: Option<Vec<Located<HeaderName>>>,
}
