//! Controllers: each a pure plan function over cached state, on one harness.

pub mod harness;
