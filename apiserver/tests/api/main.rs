//! Requests end to end through the pipeline, on a store in memory.

mod apply;
mod bad_input;
mod certificates;
mod common;
mod openapi;
mod protobuf;
mod quota;
mod secrets;
mod streams;
mod verbs;
mod workloads;
