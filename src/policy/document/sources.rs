//! What routes refer to, as written: databases, tenants, plugins.

use std::time::Duration;

use crate::policy::decode::{Located, Named, NonEmpty, Required, record};
use crate::policy::json::Json;
use crate::policy::leaf::{DatabaseUrl, DurationOrZero, PublicKey, Sha256, Share, SharedKey, Size};
use crate::policy::word::StateWord;
use crate::policy::{Capability, Instances, OnFailure, QualifiedName};
use crate::tenant::{Isolation, RoleName, SchemaName, TenantId, TenantSchema};

record! {
    /// A PostgreSQL database.
    Database is "a database";
    /// Its connection URL; take it from the environment: `${DATABASE_URL}`.
    url: Required<Located<DatabaseUrl>>,
    /// What holds the wall between tenants: `schema` (default), `role` or `login`.
    isolation: Option<Located<Isolation>>,
    /// What tenants' roles log in with at level `login`.
    login: Option<Login>,
    /// The pool of connections to it.
    pool: Option<Pool>,
    /// How long a tenant's statement may run. Default 30s.
    statement_timeout: Option<Located<Duration>>,
    /// How long a tenant's transaction may idle. Default 10s.
    idle_in_transaction_timeout: Option<Located<Duration>>,
    /// Schemas searched after the tenant's own; `public` only if written here.
    shared_schemas: Option<Vec<Located<SchemaName>>>,
}

record! {
    /// What tenants' roles log in with: at most one of its keys. Default: no password.
    Login is "`login`";
    /// One password for all of them; take it from the environment: `${TENANT_PASSWORD}`.
    password: Option<Located<SharedKey>>,
    /// A secret that each role's own password is derived from: base64url(HMAC-SHA-256(secret, role)).
    derive_from: Option<Located<SharedKey>>,
}

record! {
    /// How many connections are kept, and for how long.
    Pool is "`pool`";
    /// Connections at most, over all tenants. Default 10.
    max_connections: Option<Located<u32>>,
    /// What one tenant may take of it.
    per_tenant: Option<TenantShare>,
    /// How long a request waits for a connection. Default 2s.
    acquire_timeout: Option<Located<Duration>>,
    /// How long a connection may idle. Default 10m.
    idle_timeout: Option<Located<Duration>>,
    /// How long a connection lives. Default 30m.
    max_lifetime: Option<Located<Duration>>,
}

record! {
    /// What one tenant may take of a pool.
    TenantShare is "`per_tenant`";
    /// Connections at once. Default: half of `max_connections`, at least 1.
    connections: Option<Located<u32>>,
    /// Requests that wait for one. Default 100.
    queue: Option<Located<u32>>,
}

record! {
    /// Where tenants are looked up: exactly one of `list`, `file` and `table`.
    Tenants is "`tenants`";
    /// The tenants themselves.
    list: Option<Vec<TenantEntry>>,
    /// A YAML file with the list.
    file: Option<Located<String>>,
    /// A PostgreSQL table with a row for each tenant.
    table: Option<Table>,
}

record! {
    /// A file of tenants that is a map.
    TenantFile is "a tenants file";
    /// The tenants.
    list: Option<Vec<TenantEntry>>,
    /// The tenants.
    tenants: Option<Vec<TenantEntry>>,
}

record! {
    /// One tenant.
    TenantEntry is "a tenant", later ["limits"];
    /// Its id, as resolvers name it.
    id: Required<Located<TenantId>>,
    /// Its own schema.
    schema: Required<Located<TenantSchema>>,
    /// The role that its statements run as at the levels `role` and `login`.
    role: Option<Located<RoleName>>,
    /// The database that it lives in, where that is not the query's own.
    database: Option<Located<String>>,
    /// `active` (default), `suspended` or `held`.
    state: Option<Located<StateWord>>,
    /// What clients of a held tenant are told to wait. Default 5s.
    retry_after: Option<Located<Duration>>,
    /// A stronger isolation level than its database's.
    isolation: Option<Located<Isolation>>,
}

record! {
    /// A table with a row for each tenant; `id`, `schema`, `role`, `state`, `isolation` and
    /// `database_column` name its columns.
    Table is "`table`", later ["limits", "retry_after"];
    /// The database that holds it.
    database: Required<Located<String>>,
    /// The table, with or without its schema.
    name: Required<Located<QualifiedName>>,
    /// Column with the tenant's id. Default `id`.
    id: Option<Located<String>>,
    /// Column with the tenant's schema. Default `schema`.
    schema: Option<Located<String>>,
    /// Column with the tenant's role.
    role: Option<Located<String>>,
    /// Column with the name of the tenant's database in this policy.
    database_column: Option<Located<String>>,
    /// Column with the tenant's state.
    state: Option<Located<String>>,
    /// Column with the tenant's isolation level.
    isolation: Option<Located<String>>,
    /// How long a row is believed. Default 60s.
    cache: Option<Located<DurationOrZero>>,
    /// How long the absence of a row is believed. Default 5s.
    negative_cache: Option<Located<DurationOrZero>>,
    /// How long a row still serves after `cache` while the table cannot be read. Default 0s.
    stale_if_error: Option<Located<DurationOrZero>>,
    /// Tenants remembered at most. Default 100000.
    max_entries: Option<Located<u64>>,
}

record! {
    /// A WASM component with mapping rules.
    Plugin is "a plugin";
    /// The component's file, relative to this one.
    path: Required<Located<String>>,
    /// The SHA-256 that the file must have.
    sha256: Option<Located<Sha256>>,
    /// Ed25519 public keys in base64; one of them must have signed the file.
    trusted_keys: Option<NonEmpty<Located<PublicKey>>>,
    /// The file with the signature, relative to this one. Default: `path` with `.sig` after it.
    signature: Option<Located<String>>,
    /// What the plugin is configured with: anything; it gets it as JSON.
    config: Option<Json>,
    /// A table of texts that the plugin may look up while it runs.
    kv: Option<Named<Located<String>>>,
    /// What the plugin may import: `directory`, `log`, `kv`, `claims`, `wasi`. Default: all.
    capabilities: Option<Vec<Located<Capability>>>,
    /// What one call may use.
    limits: Option<PluginLimits>,
    /// `per-request` (default) or `reused`.
    instances: Option<Located<Instances>>,
    /// How instances are kept, with `instances: reused`.
    reuse: Option<Reuse>,
    /// What a request gets when the plugin fails: `deny` (default), `next` or `previous`.
    on_failure: Option<Located<OnFailure>>,
    /// When a plugin that keeps failing is no longer asked.
    breaker: Option<Breaker>,
    /// A candidate version that is tried on live traffic, without effect.
    shadow: Option<Shadow>,
}

record! {
    /// How a plugin's instances are kept, with `instances: reused`.
    Reuse is "a plugin's `reuse`";
    /// Instances at most. Default 32.
    size: Option<Located<u32>>,
    /// Calls after which an instance is replaced. Default 10000.
    uses: Option<Located<u32>>,
}

record! {
    /// When a plugin that keeps failing is no longer asked.
    Breaker is "a plugin's `breaker`";
    /// Failures in a row that open it; 0 for never. Default 10.
    failures: Option<Located<usize>>,
    /// How long it stays open at first; twice as long after each failed trial. Default 1s.
    backoff: Option<Located<Duration>>,
    /// The longest that it stays open. Default 1m.
    max_backoff: Option<Located<Duration>>,
}

record! {
    /// A candidate version that decides beside the active one, without effect.
    Shadow is "a plugin's `shadow`";
    /// The candidate's file, relative to this one.
    path: Required<Located<String>>,
    /// The SHA-256 that it must have.
    sha256: Option<Located<Sha256>>,
    /// The part of the requests that it is asked about. Default 100%.
    sample: Option<Located<Share>>,
    /// Agreements without a difference after which it becomes the active version by itself.
    promote_after: Option<Located<u64>>,
    /// Whether the first difference ends the trial. Default false.
    drop_on_difference: Option<Located<bool>>,
}

record! {
    /// What one plugin call may use.
    PluginLimits is "a plugin's `limits`";
    /// Time of one call. Default 50ms.
    time: Option<Located<Duration>>,
    /// Memory of one instance. Default 16MiB.
    memory: Option<Located<Size>>,
}
