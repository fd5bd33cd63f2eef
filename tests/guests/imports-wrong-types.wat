;; A component that expects a function of the contract to take something else.
(component
  (import "innkeeper:policy/log@0.1.0" (instance (export "write" (func (param "level" u64)))))
  (core module $m
    (memory (export "memory") 1)
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 64))
    (func (export "configure") (param i32 i32) (result i32) (i32.const 16)))
  (core instance $i (instantiate $m))
  (func $configure (param "config" string) (result (result (error string)))
    (canon lift (core func $i "configure") (memory (core memory $i "memory")) (realloc (core func $i "realloc"))))
  (export "configure" (func $configure))
  (export "resolve" (func $configure)))
