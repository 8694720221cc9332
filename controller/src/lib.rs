//! Controllers on one harness, each a pure plan function.
