//! What a component may be made of, looked at before it is compiled: compiling cannot be stopped, and a
//! function of a megabyte takes minutes and gigabytes.

use wasmparser::{Parser, Payload};

use super::load_error::{LoadError, LoadErrorClass};

/// Code of one function, bytes. The largest of a JavaScript engine has 170 KiB.
const MAX_FUNCTION_BYTES: usize = 512 << 10;

/// Functions of all modules together. A JavaScript engine has 13,000.
const MAX_FUNCTIONS: usize = 1 << 16;

/// Looks at the sizes of a component's functions. What cannot be read is left to the compiler, which
/// says why.
pub(super) fn check(wasm: &[u8]) -> Result<(), LoadError> {
    let too_large = |what: String| Err(LoadError::new(LoadErrorClass::TooLarge, what));
    let mut functions = 0;
    for payload in Parser::new(0).parse_all(wasm) {
        let Ok(Payload::CodeSectionEntry(body)) = payload else { continue };
        functions += 1;
        let bytes = body.range().len();
        if bytes > MAX_FUNCTION_BYTES {
            return too_large(format!(
                "a function in it has {} KiB of code, and may have {} KiB: divide it, or keep data out of code",
                bytes >> 10,
                MAX_FUNCTION_BYTES >> 10
            ));
        }
        if functions > MAX_FUNCTIONS {
            return too_large(format!(
                "it has more than {MAX_FUNCTIONS} functions: leave out what it does not use"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(functions: usize, adds: usize) -> Vec<u8> {
        let body = "(drop (i32.add (i32.const 1) (i32.const 2)))".repeat(adds);
        let function = format!("(func {body})");
        wat::parse_str(format!("(module {})", function.repeat(functions))).unwrap()
    }

    #[test]
    fn what_would_take_minutes_to_compile_is_refused() {
        check(&module(1000, 10)).unwrap();
        for (wasm, message) in
            [(module(1, 100_000), "KiB of code"), (module(MAX_FUNCTIONS + 1, 0), "more than 65536 functions")]
        {
            let error = check(&wasm).unwrap_err();
            assert_eq!(error.class, LoadErrorClass::TooLarge);
            assert!(error.message.contains(message), "{error}");
        }
    }
}
