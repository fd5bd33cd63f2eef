;; A component that throws exceptions, which this host does not know.
(component
  (core module $m
    (tag $failed (param i32))
    (func (export "fail") (throw $failed (i32.const 1))))
  (core instance (instantiate $m)))
