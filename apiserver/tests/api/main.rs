//! Requests end to end through the pipeline, on a store in memory.

mod common;
mod protobuf;
mod verbs;
