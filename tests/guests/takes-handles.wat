;; Opens standard error again and again, and closes it never.
(module
  (import "wasi:cli/stderr@0.2.0" "get-stderr" (func $stderr (result i32)))
  (memory (export "memory") 1)
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    i32.const 4096)
  (func (export "configure") (param i32 i32) (result i32)
    i32.const 16)
  (func (export "resolve") (param i32) (result i32)
    (loop $again
      (drop (call $stderr))
      (br $again))
    unreachable)
)
