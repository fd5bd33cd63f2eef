//! From what the compiler writes to a component, without another tool.

use wit_component::ComponentEncoder;

/// Why a module cannot become a component.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ComponentizeError(String);

/// Turns a core module that carries its world into a component. A component stays as it is.
///
/// # Errors
/// When the module carries no world, or does not fit the one that it carries.
pub fn componentize(wasm: &[u8]) -> Result<Vec<u8>, ComponentizeError> {
    if wasm.starts_with(b"\0asm\x0d\0\x01\0") {
        return Ok(wasm.into());
    }
    let encoded = ComponentEncoder::default()
        .validate(true)
        .module(wasm)
        .and_then(|mut encoder| encoder.encode())
        .map_err(|error| ComponentizeError(explain(&format!("{error:#}"))))?;
    Ok(encoded)
}

fn explain(error: &str) -> String {
    if error.contains("wasi_snapshot_preview1") {
        return format!(
            "the module was built for WASI preview 1, which plugins cannot use: build it for \
             wasm32-unknown-unknown or wasm32-wasip2 ({error})"
        );
    }
    format!(
        "the module cannot become a component: does the crate name its plugin in \
         `innkeeper_plugin::plugin!(…)`, and is it a `cdylib`? ({error})"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_without_a_world_is_refused_with_the_fix() {
        let module = wat::parse_str(r#"(module (import "env" "f" (func)))"#).unwrap();
        let error = componentize(&module).unwrap_err().to_string();
        assert!(error.contains("plugin!"), "{error}");
    }

    #[test]
    fn a_component_is_left_alone() {
        let component = wat::parse_str("(component)").unwrap();
        assert_eq!(componentize(&component).unwrap(), component);
    }
}
