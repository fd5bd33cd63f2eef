;; Answers with an error text of a million bytes.
(module
  (import "innkeeper:policy/types@0.1.0" "[resource-drop]request" (func $drop (param i32)))
  (memory (export "memory") 40)
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    i32.const 4096)
  (func (export "configure") (param i32 i32) (result i32)
    i32.const 16)
  (func (export "resolve") (param i32) (result i32)
    (call $drop (local.get 0))
    i32.const 64)
  (data (i32.const 64) "\01\00\00\00\00\04\00\00\40\42\0f\00"))
