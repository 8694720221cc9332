//! The request pipeline: generic registry and verbs, watch cache, authentication, authorization, admission, discovery.

pub mod pki;
