;; A component with `configure` and without `resolve`.
(component
  (core module $m
    (memory (export "memory") 1)
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 64))
    (func (export "configure") (param i32 i32) (result i32) (i32.const 16)))
  (core instance $i (instantiate $m))
  (func $configure (param "config" string) (result (result (error string)))
    (canon lift (core func $i "configure") (memory (core memory $i "memory")) (realloc (core func $i "realloc"))))
  (export "configure" (func $configure)))
