;; Grows a table without end.
(module
  (memory (export "memory") 1)
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    i32.const 4096)
  (func (export "configure") (param i32 i32) (result i32)
    i32.const 16)
  (func (export "resolve") (param i32) (result i32)
    (loop $more
      (br_if $more (i32.ne (i32.const -1) (table.grow $t (ref.null func) (i32.const 10000)))))
    unreachable)
  (table $t 1 funcref))
