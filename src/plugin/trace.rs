//! What one call of a plugin read: enough to ask it the same again.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::tenant::{TenantId, TenantSchema};

/// Names that one trace remembers, bytes. An honest plugin reads a handful of headers; one that
/// asks for everything it can think of is not worth the memory.
const MAX_BYTES: usize = 16 << 10;

/// A part of a request, or of what the policy gives the plugin.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The method.
    Method,
    /// The scheme.
    Scheme,
    /// Host and port that the client asked for.
    Authority,
    /// The path.
    Path,
    /// The query.
    Query,
    /// One header, in lower case; it need not be there.
    Header(String),
    /// Every header there is.
    AllHeaders,
    /// The other end of the connection.
    Peer,
    /// The verified claims.
    Claims,
    /// An entry of the plugin's table; it need not be there.
    Entry(String),
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Method => f.write_str("method"),
            Self::Scheme => f.write_str("scheme"),
            Self::Authority => f.write_str("authority"),
            Self::Path => f.write_str("path"),
            Self::Query => f.write_str("query"),
            Self::Header(name) => write!(f, "header {name}"),
            Self::AllHeaders => f.write_str("all headers"),
            Self::Peer => f.write_str("peer"),
            Self::Claims => f.write_str("claims"),
            Self::Entry(key) => write!(f, "kv {key}"),
        }
    }
}

/// What a call read so far.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Reads {
    /// Parts of the request.
    pub parts: BTreeSet<Part>,
    /// What the directory answered: a tenant's schema, or that there is no such tenant.
    pub tenants: BTreeMap<TenantId, Option<TenantSchema>>,
    /// Whether it read more than a trace remembers.
    pub cut: bool,
    bytes: usize,
}

impl Reads {
    /// Whether a part of the request was read.
    pub fn has(&self, part: &Part) -> bool {
        self.parts.contains(part)
    }

    fn make_room(&mut self, bytes: usize) -> bool {
        self.bytes += bytes;
        self.cut |= self.bytes > MAX_BYTES;
        !self.cut
    }
}

/// Gathers what a call reads. The caller holds it too: a call that was given up still tells what
/// it had read.
#[derive(Debug, Default)]
pub struct Trace(Mutex<Reads>);

impl Trace {
    /// What was read so far.
    pub fn reads(&self) -> Reads {
        self.lock().clone()
    }

    pub(super) fn read(&self, part: Part) {
        let mut reads = self.lock();
        if reads.parts.contains(&part) {
            return;
        }
        let name = if let Part::Header(name) | Part::Entry(name) = &part { name.len() } else { 0 };
        let bytes = size_of::<Part>() + name;
        if reads.make_room(bytes) {
            reads.parts.insert(part);
        }
    }

    pub(super) fn found(&self, id: &TenantId, schema: Option<&TenantSchema>) {
        let mut reads = self.lock();
        if !reads.tenants.contains_key(id) && reads.make_room(id.as_str().len()) {
            reads.tenants.insert(id.clone(), schema.cloned());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Reads> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_does_not_grow_without_end() {
        let trace = Trace::default();
        for index in 0..100_000 {
            trace.read(Part::Header(format!("x-{index}")));
            trace.read(Part::Path);
        }
        let reads = trace.reads();
        assert!(reads.cut);
        assert!(reads.parts.len() < 1000, "{}", reads.parts.len());
        assert!(reads.has(&Part::Path));
    }
}
