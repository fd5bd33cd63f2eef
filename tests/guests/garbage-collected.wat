;; A component that leaves its memory to a collector, which this host does not have.
(component
  (core module $m
    (type $box (struct (field (mut i32))))
    (func (export "make") (result (ref $box)) (struct.new $box (i32.const 1))))
  (core instance (instantiate $m)))
