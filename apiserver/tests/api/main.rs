//! Requests end to end through the pipeline, on a store in memory.

mod apply;
mod audit;
mod bad_input;
mod cbor;
mod certificates;
mod common;
mod connections;
mod guard;
mod hostile;
mod openapi;
mod protobuf;
mod quota;
mod secrets;
mod streams;
mod verbs;
mod watch_law;
mod workloads;
