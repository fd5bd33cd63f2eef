;; Logs and never ends.
(module
  (import "innkeeper:policy/log@0.1.0" "write" (func $log (param i32 i32 i32 i32)))
  (memory (export "memory") 1)
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    i32.const 4096)
  (func (export "configure") (param i32 i32) (result i32)
    i32.const 16)
  (func (export "resolve") (param i32) (result i32)
    (loop $again
      (call $log (i32.const 300) (i32.const 4) (i32.const 310) (i32.const 6))
      (br $again))
    unreachable)
  (data (i32.const 300) "info")
  (data (i32.const 310) "a line"))
