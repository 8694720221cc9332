//! The command line as a whole.

use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};

use crate::{Failure, commands, hello, roles};

/// A Kubernetes cluster in one binary.
#[derive(Debug, Parser)]
#[command(name = "skiff", version, disable_help_subcommand = true)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) global: commands::Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    #[command(flatten)]
    Role(roles::Role),
    #[command(flatten)]
    User(commands::Command),
    /// The demo web server that the image skiff.local/hello runs.
    #[command(hide = true)]
    Hello(hello::Hello),
}

impl Command {
    pub(crate) fn run(self, global: &commands::Global) -> Result<ExitCode, Failure> {
        match self {
            Self::User(command) => command.run(global),
            Self::Role(role) => role.run(),
            Self::Hello(hello) => hello.run(),
        }
    }
}

/// Help and version go to stdout. What is wrong goes to stderr, in one line.
pub(crate) fn explain(error: &clap::Error) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // A closed stdout is no reason to fail.
            let _ = error.print();
            ExitCode::SUCCESS
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = error.print();
            ExitCode::from(2)
        }
        _ => {
            let text = error.render().to_string();
            // What is missing stands on lines of its own.
            let said = text.lines().map(str::trim).skip_while(|line| line.is_empty());
            let line = said.take_while(|line| !line.is_empty()).collect::<Vec<_>>().join(" ");
            Failure::usage(format!("{line} (see `skiff --help`)")).report()
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn no_two_flags_are_in_each_others_way() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn global_flags_stand_before_or_after_the_command() {
        for line in [
            "skiff -n a get pods",
            "skiff get pods -n a",
            "skiff get -n=a pods",
            "skiff get --namespace a pods",
        ] {
            let arguments = Arguments::try_parse_from(line.split(' ')).unwrap();
            assert_eq!(arguments.global.namespace.as_deref(), Some("a"), "{line}");
        }
    }
}
