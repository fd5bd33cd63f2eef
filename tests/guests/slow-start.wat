;; Counts to three hundred million before it has started.
(module
  (import "innkeeper:policy/types@0.1.0" "[resource-drop]request" (func $drop (param i32)))
  (memory (export "memory") 1)
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    i32.const 4096)
  (func (export "configure") (param i32 i32) (result i32)
    i32.const 16)
  (func (export "resolve") (param i32) (result i32)
    (call $drop (local.get 0))
    i32.const 64)
  (func $start
    (local $count i32)
    (loop $again
      (local.set $count (i32.add (local.get $count) (i32.const 1)))
      (br_if $again (i32.ne (local.get $count) (i32.const 300000000)))))
  (start $start)
  (data (i32.const 64) "\00\00\00\00\00\00\00\00\00\01\00\00\04\00\00\00\00\00\00\00\00\00\00\00")
  (data (i32.const 256) "acme"))
