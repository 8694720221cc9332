//! A container is started by a shim of its own, which is then followed to the end.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::process::Stdio;
use std::sync::Arc;

use cri::ContainerEventType;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::UnixStream;
use tokio::process::Command;
use tracing::warn;

use super::{Container, Phase};
use crate::core::Core;
use crate::error::{Error, IoContext};
use crate::process::{exit_code, watched};
use crate::record;
use crate::shim::protocol::{Exited, Notice, Started};

/// The exit code of a container that never ran, as containerd gives it.
const START_FAILED: i32 = 128;
/// The exit code of a container of which nothing is known.
const UNKNOWN: i32 = 255;

impl Core {
    /// Starts a created container.
    pub(crate) async fn start_container(self: &Arc<Self>, container: &Arc<Container>) -> Result<(), Error> {
        let _changing = container.changing.lock().await;
        if container.phase() != Phase::Created {
            return Err(Error::Precondition(format!("container {:?} is not in created state", container.id)));
        }
        let sandbox = self.sandboxes.get(&container.sandbox_id)?;
        if !sandbox.ready() {
            return Err(Error::Precondition(format!("sandbox {:?} is not ready", sandbox.id)));
        }
        let mut notices = Notices::new(self.spawn_shim(container)?);
        container.shim_gone.send_replace(false);
        match notices.next().await {
            Some(Notice::Started(started)) => {
                container.phase.send_replace(Phase::Running(started));
                self.emit(&container.id, &sandbox, ContainerEventType::ContainerStartedEvent);
                self.tasks.spawn("follow", self.clone().follow(container.clone(), notices));
                Ok(())
            }
            other => {
                let message = match other {
                    Some(Notice::Failed(message)) => message,
                    _ => "the shim ended before the container was started".to_owned(),
                };
                let message = format!("failed to create container: {message}");
                self.start_failed(container, &message).await;
                Err(Error::Failed(message))
            }
        }
    }

    /// Starts the shim. What it inherits is one socket.
    fn spawn_shim(&self, container: &Container) -> Result<UnixStream, Error> {
        let executable = self.paths.executable();
        let (own, shims) = StdUnixStream::pair().at("make a socket for", &executable)?;
        own.set_nonblocking(true).at("prepare a socket for", &executable)?;
        let mut child = Command::new(&executable)
            .arg("shim")
            .arg(self.paths.container_state(&container.id))
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(OwnedFd::from(shims)))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .at("start", &executable)?;
        self.tasks.spawn("reap", async move {
            let _ = child.wait().await;
        });
        UnixStream::from_std(own).at("use a socket for", &executable)
    }

    async fn start_failed(self: &Arc<Self>, container: &Arc<Container>, message: &str) {
        let exited = Exited {
            code: START_FAILED,
            at: self.now(),
            reason: "StartError".to_owned(),
            message: message.to_owned(),
        };
        self.ended(container, None, exited).await;
        container.shim_gone.send_replace(true);
    }

    /// Waits for the end of a container, told by its shim or, if that one is gone, by the kernel.
    pub(super) async fn follow(self: Arc<Self>, container: Arc<Container>, mut notices: Notices) {
        let mut started = container.running();
        let mut told = false;
        while let Some(notice) = notices.next().await {
            match notice {
                Notice::Started(now) => {
                    started = Some(now);
                    container.phase.send_replace(Phase::Running(now));
                }
                Notice::Exited(exited) => {
                    told = true;
                    self.publish(&container, started, exited);
                }
                Notice::Failed(message) => {
                    told = true;
                    self.start_failed(&container, &message).await;
                }
                Notice::Done => {}
            }
        }
        if !told {
            self.without_shim(&container, started).await;
        }
        container.shim_gone.send_replace(true);
    }

    /// Finds out how a container ended whose shim can't tell.
    pub(super) async fn without_shim(self: &Arc<Self>, container: &Arc<Container>, started: Option<Started>) {
        if let Ok(Some(exited)) = record::read(&self.paths.exit(&container.id)) {
            return self.publish(container, started, exited);
        }
        let unknown = |message: &str| Exited {
            code: UNKNOWN,
            at: self.now(),
            reason: "Unknown".to_owned(),
            message: message.to_owned(),
        };
        let Some(process) = started.and_then(|started| started.init.open()) else {
            return self.ended(container, started, unknown("the container and its shim are gone")).await;
        };
        warn!(container = %container.id, "the shim is gone; the container goes on without log");
        let Ok(process) = watched(process) else {
            return self.ended(container, started, unknown("the container can't be watched")).await;
        };
        let _ = process.readable().await;
        let exited = match process.get_ref().exit_status().map(exit_code) {
            Some(code) => {
                let oom = code == 128 + libc::SIGKILL && self.cgroups.oom_kills(&container.cgroup) > 0;
                let reason = match code {
                    _ if oom => "OOMKilled",
                    0 => "Completed",
                    _ => "Error",
                };
                Exited { code, at: self.now(), reason: reason.to_owned(), message: String::new() }
            }
            None => unknown("the container ended while its shim was gone"),
        };
        self.ended(container, started, exited).await;
    }

    /// Writes down an end that the shim did not, and clears away what it would have.
    async fn ended(self: &Arc<Self>, container: &Arc<Container>, started: Option<Started>, exited: Exited) {
        let (core, id, cgroup, written) =
            (self.clone(), container.id.clone(), container.cgroup.clone(), exited.clone());
        let result = self
            .tasks
            .blocking(move || {
                record::write(&core.paths.exit(&id), &written)?;
                core.clear_runtime(&id, &cgroup)
            })
            .await;
        if let Err(error) = result {
            warn!(container = %container.id, %error, "clear up after a container");
        }
        self.publish(container, started, exited);
    }

    fn publish(&self, container: &Container, started: Option<Started>, exited: Exited) {
        container.phase.send_replace(Phase::Exited { started, exited });
        if let Ok(sandbox) = self.sandboxes.get(&container.sandbox_id) {
            self.emit(&container.id, &sandbox, ContainerEventType::ContainerStoppedEvent);
        }
    }
}

/// The notices of one shim.
pub(super) struct Notices {
    stream: BufReader<UnixStream>,
    line: String,
}

impl Notices {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self { stream: BufReader::new(stream), line: String::new() }
    }

    /// `None` when the shim is gone.
    pub(super) async fn next(&mut self) -> Option<Notice> {
        self.line.clear();
        let read: io::Result<usize> = self.stream.read_line(&mut self.line).await;
        match read {
            Ok(1..) => serde_json::from_str(&self.line).ok(),
            _ => None,
        }
    }
}
