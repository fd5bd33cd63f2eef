;; A component whose functions have the right names and the wrong types.
(component
  (core module $m (func (export "nothing")))
  (core instance $i (instantiate $m))
  (func $nothing (canon lift (core func $i "nothing")))
  (export "configure" (func $nothing))
  (export "resolve" (func $nothing)))
