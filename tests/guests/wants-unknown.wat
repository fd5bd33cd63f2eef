;; A component that imports a function which nobody has.
(component
  (import "do-anything" (func)))
