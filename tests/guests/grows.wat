;; Names the tenant by the pages of its memory, `t1` to `t9`, and takes one more.
(module
  (import "innkeeper:policy/types@0.1.0" "[resource-drop]request" (func $drop (param i32)))
  (memory (export "memory") 1)
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    i32.const 4096)
  (func (export "configure") (param i32 i32) (result i32)
    i32.const 16)
  (func (export "resolve") (param i32) (result i32)
    (call $drop (local.get 0))
    (i32.store8 (i32.const 257) (i32.add (i32.const 48) (memory.grow (i32.const 1))))
    i32.const 64)
  (data (i32.const 64) "\00\00\00\00\00\00\00\00\00\01\00\00\02\00\00\00")
  (data (i32.const 256) "t0"))
