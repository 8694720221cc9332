//! `skiff exec` and `skiff attach`

use std::process::ExitCode;

use clap::Args;
use serde_json::Value;

use super::pods::{container, pod};
use super::stream::{self, Streams};
use crate::Failure;
use crate::resources::{Call, Session, name, namespace, text};

#[derive(Args, Debug)]
pub(crate) struct Exec {
    /// POD or TYPE/NAME
    #[arg(value_name = "POD | TYPE/NAME")]
    pod: String,
    /// What was once allowed without --
    #[arg(hide = true)]
    stray: Vec<String>,
    /// Container name. If omitted, use the default container annotation or the first container
    #[arg(long, short = 'c')]
    container: Option<String>,
    /// Pass stdin to the container
    #[arg(long, short = 'i')]
    stdin: bool,
    /// Stdin is a TTY
    #[arg(long, short = 't')]
    tty: bool,
    /// Only print output from the remote session
    #[arg(long, short = 'q')]
    quiet: bool,
    /// The command and its arguments
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

impl Exec {
    pub(crate) async fn run(self, session: &Session) -> Result<ExitCode, Failure> {
        if self.command.is_empty() {
            return Err(Failure::new(if self.stray.is_empty() {
                "error: you must specify at least one command for the container"
            } else {
                "error: exec [POD] [COMMAND] is not supported anymore. Use exec [POD] -- [COMMAND] instead"
            }));
        }
        let pod = pod(session, &self.pod).await?;
        refuse_finished(&pod)?;
        let container = container(&pod, self.container.as_deref(), self.quiet)?;
        let tty = stream::usable_tty(self.stdin, self.tty);
        let mut call = subresource(&pod, "exec", &container, self.stdin, tty);
        for word in &self.command {
            call = call.query("command", word);
        }
        let connection = session.connect(call).await?;
        Ok(ExitCode::from(stream::run(connection, Streams { stdin: self.stdin, tty }).await?))
    }
}

#[derive(Args, Debug)]
pub(crate) struct Attach {
    /// POD or TYPE/NAME
    #[arg(value_name = "POD | TYPE/NAME")]
    pod: String,
    /// Container name. If omitted, use the default container annotation or the first container
    #[arg(long, short = 'c')]
    container: Option<String>,
    /// Pass stdin to the container
    #[arg(long, short = 'i')]
    stdin: bool,
    /// Stdin is a TTY
    #[arg(long, short = 't')]
    tty: bool,
    /// Only print output from the remote session
    #[arg(long, short = 'q')]
    quiet: bool,
}

impl Attach {
    pub(crate) async fn run(self, session: &Session) -> Result<ExitCode, Failure> {
        let pod = pod(session, &self.pod).await?;
        attach(session, &pod, self.container.as_deref(), self.stdin, self.tty, self.quiet).await
    }
}

/// Attaches the terminal to a container of a pod.
pub(crate) async fn attach(
    session: &Session,
    pod: &Value,
    asked: Option<&str>,
    stdin: bool,
    tty: bool,
    quiet: bool,
) -> Result<ExitCode, Failure> {
    refuse_finished(pod)?;
    let container = container(pod, asked, quiet).map_err(|failure| match asked {
        Some(_) => Failure::new(failure.to_string().replacen(
            "error: ",
            "error: cannot attach to the container: ",
            1,
        )),
        None => failure,
    })?;
    let has_tty = crate::resources::items(pod, "spec.containers")
        .iter()
        .any(|c| text(c, "name") == container && c["tty"] == true);
    if tty && !has_tty && !quiet {
        eprintln!("error: Unable to use a TTY - container {container} did not allocate one");
    }
    let tty = stream::usable_tty(stdin, tty && has_tty);
    if (stdin || tty) && !quiet {
        eprintln!(
            "All commands and output from this session will be recorded in container logs, including credentials and sensitive information passed through the command prompt."
        );
        eprintln!("If you don't see a command prompt, try pressing enter.");
    }
    let connection = session.connect(subresource(pod, "attach", &container, stdin, tty)).await?;
    Ok(ExitCode::from(stream::run(connection, Streams { stdin, tty }).await?))
}

fn subresource(pod: &Value, sub: &str, container: &str, stdin: bool, tty: bool) -> Call {
    let flag = |on: bool| on.then_some("true");
    Call::get(format!("/api/v1/namespaces/{}/pods/{}/{sub}", namespace(pod), name(pod)))
        .query("container", container)
        .query_if("stdin", flag(stdin))
        .query("stdout", "true")
        .query_if("stderr", flag(!tty))
        .query_if("tty", flag(tty))
        .accept("*/*")
}

fn refuse_finished(pod: &Value) -> Result<(), Failure> {
    let phase = text(pod, "status.phase");
    if matches!(phase, "Succeeded" | "Failed") {
        return Err(Failure::new(format!(
            "error: cannot exec into a container in a completed pod; current phase is {phase}"
        )));
    }
    Ok(())
}
