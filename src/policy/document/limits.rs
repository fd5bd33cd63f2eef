//! What a tenant may take, as written.

use crate::policy::decode::{Located, record};
use crate::policy::leaf::DurationOrZero;
use crate::policy::rate::{ByteRate, RequestRate};

record! {
    /// What a tenant may take. What is not written here has the value in `tenants.limits`, and
    /// what is not written there either is not limited.
    TenantLimits is "a tenant's `limits`";
    /// Requests: `100/s`, `6000/m`.
    requests: Option<Located<RequestRate>>,
    /// Requests at once after a rest. Default: what `requests` gives in a second.
    burst: Option<Located<u64>>,
    /// Bytes of bodies in both directions: `10MiB/s`. Bodies wait; they are not broken off.
    bytes: Option<Located<ByteRate>>,
    /// Requests under way at once.
    concurrency: Option<Located<u32>>,
    /// Requests that wait for one of those places. Default 64.
    queue: Option<Located<usize>>,
    /// How long one of them waits. Default 1s.
    wait: Option<Located<DurationOrZero>>,
    /// Connections of a database's pool at once, in place of its `per_tenant.connections`.
    connections: Option<Located<u32>>,
}
