;; A component that has an interface where functions should be.
(component
  (component $empty)
  (instance $nothing (instantiate $empty))
  (export "configure" (instance $nothing))
  (export "resolve" (instance $nothing)))
