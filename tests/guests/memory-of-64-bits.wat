;; A component whose memory is larger than any address that the contract can name.
(component
  (core module $m (memory (export "memory") i64 0x1000000000))
  (core instance (instantiate $m)))
