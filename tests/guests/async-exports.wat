;; A component whose functions return before they have answered.
(component
  (core module $m
    (memory (export "memory") 1)
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 64))
    (func (export "configure") (param i32 i32) (result i32) (i32.const 0))
    (func (export "callback") (param i32 i32 i32) (result i32) (i32.const 0)))
  (core instance $i (instantiate $m))
  (func $configure async (param "config" string) (result (result (error string)))
    (canon lift (core func $i "configure") async (callback (core func $i "callback"))
      (memory (core memory $i "memory")) (realloc (core func $i "realloc"))))
  (export "configure" (func $configure))
  (export "resolve" (func $configure)))
