//! The roles the binary plays by its arguments. They run before any thread exists.

use std::ffi::OsString;
use std::process::ExitCode;

use crate::{exec, sandbox, shim};

/// Plays the role named by `argv[1]` (`shim`, `exec-helper`, `pause`); `None` when it is none of them. To be
/// called first in `main`, before tokio or any other thread exists: the roles clone processes.
pub fn main(argv: &[OsString]) -> Option<ExitCode> {
    match argv.get(1)?.to_str()? {
        "shim" => Some(shim::main(argv)),
        "exec-helper" => Some(exec::helper::main(argv)),
        "pause" => Some(sandbox::pause::main(argv)),
        _ => None,
    }
}
