//! Revisioned key-value store with watch (etcd v3 semantics): trait, embedded and etcd implementations.
