//! The `skiff` binary: server, agent, and command line.

use std::ffi::OsString;
use std::process::ExitCode;

fn main() -> ExitCode {
    let argv: Vec<OsString> = std::env::args_os().collect();
    // The runtime's roles clone processes, so they must come before any thread.
    if let Some(code) = runtime::role::main(&argv) {
        return code;
    }
    ctl::main(&argv)
}
