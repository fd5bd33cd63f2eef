;; Asks the directory again and again.
(module
  (import "innkeeper:policy/directory@0.1.0" "find" (func $find (param i32 i32 i32)))
  (memory (export "memory") 1)
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    i32.const 4096)
  (func (export "configure") (param i32 i32) (result i32)
    i32.const 16)
  (func (export "resolve") (param i32) (result i32)
    (loop $again
      (call $find (i32.const 256) (i32.const 4) (i32.const 600))
      (br $again))
    unreachable)
  (data (i32.const 256) "acme"))
