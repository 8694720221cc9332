//! The agent's side of the socket: takes the plugin's requests to the node's network.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base::{Clock, Tasks};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tracing::{debug, warn};

use super::{Answer, Failure, MESSAGE_LIMIT, Request};
use crate::config::Sandbox;
use crate::error::Error;
use crate::node::NodeNetwork;

/// Requests that are worked on at once; others wait in the kernel.
const AT_ONCE: usize = 64;
/// How long the whole of a request may take, and how long it may take to arrive.
const PATIENCE: Duration = Duration::from_secs(50);
const ARRIVAL: Duration = Duration::from_secs(5);
/// The wait after the kernel had no descriptor for a connection.
const EXHAUSTED: Duration = Duration::from_millis(100);

/// Who answers.
#[expect(clippy::large_enum_variant, reason = "there is one of a node")]
#[derive(Clone, Debug)]
pub enum Backend {
    /// A running node.
    Node(NodeNetwork),
    /// A node that is being taken down: nobody gets in, and everybody may leave, because whoever serves this removes
    /// the whole network afterwards.
    Leaving,
}

/// Serves plugins on a socket that only root can open, until the tasks are cancelled.
pub fn serve(socket: &Path, backend: Backend, tasks: &Tasks, clock: &Clock) -> Result<(), Error> {
    let listener = listen(socket).map_err(Error::file(socket))?;
    let slots = Arc::new(Semaphore::new(AT_ONCE));
    let (group, clock) = (tasks.clone(), clock.clone());
    tasks.spawn("cni", async move {
        loop {
            // The semaphore is never closed.
            let slot = slots.clone().acquire_owned().await;
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    warn!(%error, "accept a CNI request");
                    clock.wait(EXHAUSTED).await;
                    continue;
                }
            };
            let (backend, clock) = (backend.clone(), clock.clone());
            group.spawn("cni request", async move {
                let _slot = slot;
                tokio::select! {
                    result = exchange(stream, &backend, &clock) => {
                        if let Err(error) = result {
                            debug!(%error, "a CNI request was not answered");
                        }
                    }
                    () = clock.wait(PATIENCE) => warn!("a CNI request took too long"),
                }
            });
        }
    });
    Ok(())
}

fn listen(socket: &Path) -> io::Result<UnixListener> {
    if let Some(parent) = socket.parent() {
        std::fs::create_dir_all(parent)?;
    }
    // Left by a process that was killed.
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(socket)?;
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

async fn exchange(mut stream: UnixStream, backend: &Backend, clock: &Clock) -> io::Result<()> {
    let peer = stream.peer_cred()?;
    if peer.uid() != 0 {
        return Err(io::Error::other(format!("user {} asks", peer.uid())));
    }
    let mut bytes = Vec::new();
    let mut reading = (&mut stream).take(MESSAGE_LIMIT);
    tokio::select! {
        read = reading.read_to_end(&mut bytes) => read?,
        () = clock.wait(ARRIVAL) => return Err(io::ErrorKind::TimedOut.into()),
    };
    let answer = match serde_json::from_slice(&bytes) {
        Ok(request) => answer(backend, request).await,
        Err(error) => Answer::Failed(Failure::new(Failure::DECODE, format!("the request: {error}"))),
    };
    stream.write_all(&serde_json::to_vec(&answer)?).await?;
    stream.shutdown().await
}

async fn answer(backend: &Backend, request: Request) -> Answer {
    let network = match backend {
        Backend::Node(network) => network,
        Backend::Leaving => {
            return match request {
                Request::Del { .. } => Answer::Released,
                _ => Answer::Failed(Failure::new(Failure::TRY_AGAIN, "the node is being taken down")),
            };
        }
    };
    match request {
        Request::Add { sandbox, netns, interface, host_ports } => {
            let wanted = Sandbox { id: sandbox, netns, interface, host_ports };
            network.attach(wanted).await.map_or_else(|error| failed(&error), Answer::Attached)
        }
        Request::Del { sandbox } => match network.detach(&sandbox).await {
            Ok(()) => Answer::Released,
            Err(error) => failed(&error),
        },
        Request::Check { sandbox } => match network.attachment(&sandbox) {
            Some(attachment) => Answer::Attached(attachment),
            None => {
                let why = format!("sandbox {sandbox} has no address");
                Answer::Failed(Failure::new(Failure::UNKNOWN_CONTAINER, why))
            }
        },
    }
}

fn failed(error: &Error) -> Answer {
    let code = match error {
        Error::NotReady(_) | Error::Exhausted { .. } => Failure::TRY_AGAIN,
        Error::Kernel { .. } | Error::File { .. } => Failure::NETWORK,
    };
    Answer::Failed(Failure::new(code, error.to_string()))
}
