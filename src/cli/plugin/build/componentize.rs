//! From what a compiler writes to a component, without another tool.

use wasi_preview1_component_adapter_provider::{
    WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER,
};
use wit_component::ComponentEncoder;

/// Why a module cannot become a component.
#[derive(Debug, thiserror::Error)]
#[error("the module cannot become a component ({0})")]
pub struct ComponentizeError(String);

/// Turns a core module that carries its world into a component. A component stays as it is.
///
/// Where the module speaks WASI's first preview, it gets an adapter to the second; what that needs
/// is the host's to grant.
///
/// # Errors
/// When the module carries no world, or does not fit the one that it carries.
pub fn componentize(wasm: &[u8]) -> Result<Vec<u8>, ComponentizeError> {
    if wasm.starts_with(b"\0asm\x0d\0\x01\0") {
        return Ok(wasm.into());
    }
    encode(wasm).map_err(ComponentizeError)
}

fn encode(module: &[u8]) -> Result<Vec<u8>, String> {
    let mut encoder = ComponentEncoder::default();
    encoder
        .validate(true)
        .module(module)
        .and_then(|encoder| {
            encoder.adapter(WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER)
        })
        .and_then(ComponentEncoder::encode)
        .map_err(|error| format!("{error:#}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::plugin::contract::Contract;
    use wit_component::{StringEncoding, embed_component_metadata};

    #[test]
    fn a_module_without_a_world_is_refused() {
        let module = wat::parse_str(r#"(module (import "env" "f" (func)))"#).unwrap();
        let error = componentize(&module).unwrap_err().to_string();
        assert!(error.contains("env"), "{error}");
    }

    #[test]
    fn a_component_is_left_alone() {
        let component = wat::parse_str("(component)").unwrap();
        assert_eq!(componentize(&component).unwrap(), component);
    }

    #[test]
    fn a_module_for_the_first_preview_of_wasi_is_adapted() {
        let mut module = wat::parse_str(
            r#"(module
                (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
                (memory (export "memory") 1)
                (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) i32.const 0)
                (func (export "configure") (param i32 i32) (result i32)
                    (drop (call $random (i32.const 64) (i32.const 8)))
                    i32.const 0)
                (func (export "resolve") (param i32) (result i32) i32.const 0))"#,
        )
        .unwrap();
        let Contract { resolve, world } = Contract::current();
        embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8, false).unwrap();
        let component = componentize(&module).unwrap();
        let text = String::from_utf8_lossy(&component).into_owned();
        assert!(text.contains("wasi:random/random@0.2"), "it asks for the second preview");
    }
}
