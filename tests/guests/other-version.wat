;; A component for a version of the contract that this host does not serve.
(component
  (import "innkeeper:policy/log@0.2.0" (instance (export "write" (func (param "level" string))))))
