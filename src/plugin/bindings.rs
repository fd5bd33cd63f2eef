//! What `wit/policy.wit` says, as Rust: generated, so that host and contract cannot differ.
#![allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic, reason = "generated code")]

wasmtime::component::bindgen!({
    path: "wit",
    world: "policy",
    imports: {
        "innkeeper:policy/directory.find": async | trappable,
        default: trappable,
    },
    exports: { default: async },
    with: { "innkeeper:policy/types.request": crate::plugin::state::RequestView },
});
