//! The `skiff` binary: server, agent, and command line.

use std::ffi::OsString;
use std::process::ExitCode;

fn main() -> ExitCode {
    let argv: Vec<OsString> = std::env::args_os().collect();
    // A container runtime executes this binary as its CNI plugin: without arguments, and with this variable.
    if argv.len() == 1 && std::env::var_os(network::cni::COMMAND).is_some() {
        return network::cni::main();
    }
    // The runtime's roles clone processes, so they must come before any thread.
    if let Some(code) = runtime::role::main(&argv) {
        return code;
    }
    ctl::main(&argv)
}
