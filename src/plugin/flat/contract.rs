//! The functions of `wit/policy.wit` as a core module sees them: the canonical ABI's flattening of
//! their types, one row a function.

/// A function of the host that a plugin may import.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HostFunction {
    Method,
    Scheme,
    Authority,
    Path,
    Query,
    Header,
    Headers,
    Peer,
    Claims,
    DropRequest,
    FindTenant,
    GetEntry,
    WriteLog,
}

/// What a function answers, and thus what an adapter has to put into the guest's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// Nothing.
    Nothing,
    /// A `string`.
    Text,
    /// An `option` of this many strings in a row.
    MaybeTexts(u32),
    /// A `list<tuple<string, string>>`.
    Pairs,
}

impl Answer {
    /// Bytes of the answer itself, without the texts that it points to: pointer and length are four
    /// bytes each, and so is a discriminant with its padding.
    pub(super) fn size(self) -> usize {
        match self {
            Self::Nothing => 0,
            Self::Text | Self::Pairs => 8,
            Self::MaybeTexts(count) => 4 + 8 * count as usize,
        }
    }
}

/// The interface of the request.
pub(super) const TYPES: &str = "innkeeper:policy/types";
/// Its resource.
pub(super) const REQUEST: &str = "request";

impl HostFunction {
    const ALL: [Self; 13] = [
        Self::Method,
        Self::Scheme,
        Self::Authority,
        Self::Path,
        Self::Query,
        Self::Header,
        Self::Headers,
        Self::Peer,
        Self::Claims,
        Self::DropRequest,
        Self::FindTenant,
        Self::GetEntry,
        Self::WriteLog,
    ];

    /// The function that a component imports as `name` of `interface`, which has no version.
    pub(super) fn imported(interface: &str, name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|function| function.path() == (interface, name))
    }

    /// Its name in the flat module, where one name is enough.
    pub(super) fn name(self) -> &'static str {
        self.path().1
    }

    fn path(self) -> (&'static str, &'static str) {
        match self {
            Self::Method => (TYPES, "[method]request.method"),
            Self::Scheme => (TYPES, "[method]request.scheme"),
            Self::Authority => (TYPES, "[method]request.authority"),
            Self::Path => (TYPES, "[method]request.path"),
            Self::Query => (TYPES, "[method]request.query"),
            Self::Header => (TYPES, "[method]request.header"),
            Self::Headers => (TYPES, "[method]request.headers"),
            Self::Peer => (TYPES, "[method]request.peer"),
            Self::Claims => (TYPES, "[method]request.claims"),
            Self::DropRequest => (TYPES, "[resource-drop]request"),
            Self::FindTenant => ("innkeeper:policy/directory", "find"),
            Self::GetEntry => ("innkeeper:policy/kv", "get"),
            Self::WriteLog => ("innkeeper:policy/log", "write"),
        }
    }

    /// Its parameters in core WebAssembly, all of them `i32`: a handle is one, a string two, and an
    /// answer is one more, the place where it is to be put.
    pub(super) fn parameters(self) -> u32 {
        match self {
            Self::DropRequest => 1,
            Self::Method
            | Self::Scheme
            | Self::Authority
            | Self::Path
            | Self::Query
            | Self::Headers
            | Self::Peer
            | Self::Claims => 2,
            Self::FindTenant | Self::GetEntry => 3,
            Self::Header | Self::WriteLog => 4,
        }
    }

    pub(super) fn answer(self) -> Answer {
        match self {
            Self::Method | Self::Scheme | Self::Authority | Self::Path | Self::Peer => Answer::Text,
            Self::Query | Self::Header | Self::Claims | Self::GetEntry => Answer::MaybeTexts(1),
            Self::FindTenant => Answer::MaybeTexts(2),
            Self::Headers => Answer::Pairs,
            Self::DropRequest | Self::WriteLog => Answer::Nothing,
        }
    }
}
