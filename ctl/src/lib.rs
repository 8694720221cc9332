//! The command line: [`roles`] are the long-running parts of a cluster, `commands` what a user asks of one.

mod args;
mod commands;
mod failure;
pub mod fuzz;
mod hello;
mod kubeconfig;
mod output;
mod resources;
mod roles;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

pub use failure::Failure;

/// Runs the command that `argv` names.
pub fn main(argv: &[OsString]) -> ExitCode {
    let arguments = match args::Arguments::try_parse_from(argv) {
        Ok(arguments) => arguments,
        Err(error) => return args::explain(&error),
    };
    match arguments.command.run(&arguments.global) {
        Ok(code) => code,
        Err(failure) => failure.report(),
    }
}
