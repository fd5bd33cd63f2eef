;; Reads `default` from its table when it is configured, and `tenant` for each request, which goes
;; before.
(module
  (import "innkeeper:policy/types@0.1.0" "[resource-drop]request" (func $drop (param i32)))
  (import "innkeeper:policy/kv@0.1.0" "get" (func $get (param i32 i32 i32)))
  (memory (export "memory") 1)
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    (local $at i32)
    (local.set $at (global.get $free))
    (global.set $free (i32.add (local.get $at) (local.get 3)))
    (local.get $at))
  (func (export "configure") (param i32 i32) (result i32)
    (call $get (i32.const 256) (i32.const 7) (i32.const 600))
    (call $answer)
    i32.const 16)
  (func (export "resolve") (param i32) (result i32)
    (call $drop (local.get 0))
    (call $get (i32.const 272) (i32.const 6) (i32.const 600))
    (call $answer)
    i32.const 64)
  (func $answer
    (if (i32.load8_u (i32.const 600))
      (then
        (i32.store (i32.const 72) (i32.load (i32.const 604)))
        (i32.store (i32.const 76) (i32.load (i32.const 608))))))
  (global $free (mut i32) (i32.const 4096))
  (data (i32.const 256) "default")
  (data (i32.const 272) "tenant"))
