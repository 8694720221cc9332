//! One way in for every component: kube::Client over TLS or in-process, shared watch caches, leader election, events.
