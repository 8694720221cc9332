//! The process that a runtime executes: asks the agent, prints the answer.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};

use super::spec::{self, Call};
use super::{Answer, Failure, MESSAGE_LIMIT, Request};
use crate::links;
use crate::netlink::Netns;

/// A configuration with the results of other plugins in it is still far smaller.
const INPUT_LIMIT: u64 = 1024 * 1024;
/// How long the agent may take. It gives up on an attach before.
const PATIENCE: Duration = Duration::from_secs(60);

/// The plugin's `main`: what is asked stands in the environment and on standard input.
pub fn main() -> ExitCode {
    let mut input = Vec::new();
    let read = io::stdin().take(INPUT_LIMIT).read_to_end(&mut input);
    let read = read.map_err(|error| Failure::new(Failure::IO, format!("standard input: {error}")));
    let result = read.and_then(|_| spec::parse(|name| std::env::var(name).ok(), &input)).and_then(run);
    let (said, code) = match &result {
        Ok(value) => (value.clone(), ExitCode::SUCCESS),
        Err(failure) => (spec::failed(failure), ExitCode::FAILURE),
    };
    // The answer to a DEL is empty; a runtime that hung up is told nothing.
    if !said.is_null() {
        let _ = writeln!(io::stdout(), "{said}");
    }
    code
}

/// What to print.
pub(super) fn run(call: Call) -> Result<Value, Failure> {
    match call {
        Call::Version { version } => Ok(spec::versions(&version)),
        Call::Loopback { version, up: Some(netns), before } => {
            set_up_loopback(&netns).map_err(|error| {
                Failure::new(Failure::IO, format!("loopback of {}: {error}", netns.display()))
            })?;
            Ok(before.unwrap_or_else(|| spec::loopback(&version, &netns.to_string_lossy())))
        }
        // It goes with its namespace.
        Call::Loopback { up: None, .. } => Ok(Value::Null),
        Call::Network { version, socket, request } => match (ask(&socket, &request)?, request) {
            (Answer::Failed(failure), _) => Err(failure),
            (Answer::Attached(attachment), Request::Add { netns, interface, .. }) => {
                Ok(spec::attached(&version, &attachment, &netns.to_string_lossy(), &interface))
            }
            (Answer::Attached(_), Request::Check { .. }) | (Answer::Released, Request::Del { .. }) => {
                Ok(Value::Null)
            }
            (answer, _) => {
                let why = format!("the node agent at {} answers {answer:?}", socket.display());
                Err(Failure::new(Failure::IO, why))
            }
        },
    }
}

fn set_up_loopback(netns: &Path) -> io::Result<()> {
    links::up(&mut Netns::open(netns)?.socket()?, links::LOOPBACK)
}

/// One question to the agent. Nobody there, or no answer in time, is a reason to try again.
fn ask(socket: &Path, request: &Request) -> Result<Answer, Failure> {
    let talk = || -> io::Result<Vec<u8>> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.write_all(json!(request).to_string().as_bytes())?;
        stream.shutdown(Shutdown::Write)?;
        let mut answer = Vec::new();
        stream.take(MESSAGE_LIMIT).read_to_end(&mut answer)?;
        Ok(answer)
    };
    let later = |why: String| {
        let msg = format!("the node agent at {} does not answer: {why}", socket.display());
        Failure::new(Failure::TRY_AGAIN, msg)
    };
    let answer = talk().map_err(|error| later(error.to_string()))?;
    // An agent that was stopped meanwhile leaves half an answer.
    serde_json::from_slice(&answer).map_err(|error| later(error.to_string()))
}
