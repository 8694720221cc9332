//! Further processes in a running container, each joined by a fresh process of our own ([`helper`]).

use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use tokio::io::unix::AsyncFd;
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};

use crate::container::Container;
use crate::core::Core;
use crate::error::{Error, IoContext};
use crate::process::{PidFd, watched};
use crate::record;
use crate::shim::receive_descriptor;

pub(crate) mod helper;
mod sync;

/// What the helper is told, in `exec.json`.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Request {
    /// Id of the container.
    id: String,
    args: Vec<String>,
    tty: bool,
}

/// The file names in the directory of one exec.
const REQUEST: &str = "exec.json";
const PROCESS: &str = "process.json";
const ERROR: &str = "error";

/// A process that was started in a container, and our ends of its streams.
pub(crate) struct Exec {
    directory: PathBuf,
    child: Child,
    pub(crate) stdin: Option<ChildStdin>,
    pub(crate) stdout: Option<ChildStdout>,
    pub(crate) stderr: Option<ChildStderr>,
    /// Instead of the three.
    pub(crate) terminal: Option<Arc<AsyncFd<OwnedFd>>>,
}

impl Core {
    /// Starts a process in a running container.
    pub(crate) async fn exec(
        self: &Arc<Self>,
        container: &Container,
        args: Vec<String>,
        stdin: bool,
        tty: bool,
    ) -> Result<Exec, Error> {
        container.must_run()?;
        if args.is_empty() {
            return Err(Error::Invalid("no command specified".to_owned()));
        }
        let directory =
            self.paths.container_state(&container.id).join(format!("exec-{}", &self.new_id()[..16]));
        let (path, request) = (directory.join(REQUEST), Request { id: container.id.clone(), args, tty });
        self.tasks
            .blocking(move || {
                std::fs::create_dir_all(path.parent().unwrap_or(&path)).at("create", &path)?;
                let text =
                    serde_json::to_vec(&request).map_err(|error| Error::failed("exec request", error))?;
                std::fs::write(&path, text).at("write", &path)
            })
            .await?;
        let executable = self.paths.executable();
        let mut command = Command::new(&executable);
        command.arg("exec-helper").arg(&directory).env_clear().current_dir("/");
        let mut sender = None;
        if tty {
            let (own, helpers) = UnixStream::pair().at("make a socket for", &executable)?;
            command.stdin(OwnedFd::from(helpers)).stdout(Stdio::null()).stderr(Stdio::null());
            sender = Some(own);
        } else {
            command.stdin(if stdin { Stdio::piped() } else { Stdio::null() });
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
        }
        let mut child = command.spawn().at("start", &executable)?;
        // It holds the helper's end of the socket.
        drop(command);
        let mut exec = Exec {
            directory,
            stdin: child.stdin.take(),
            stdout: child.stdout.take(),
            stderr: child.stderr.take(),
            child,
            terminal: None,
        };
        if let Some(sender) = sender {
            match self.tasks.blocking(move || receive_descriptor(sender.as_raw_fd())).await {
                Ok(master) => {
                    fcntl(&master, FcntlArg::F_SETFL(OFlag::O_RDWR | OFlag::O_NONBLOCK))
                        .at("open", "the terminal")?;
                    exec.terminal = Some(Arc::new(watched(master).at("open", "the terminal")?));
                }
                // The helper says better why there is none.
                Err(error) => {
                    exec.wait().await?;
                    return Err(error).at("receive", "the terminal");
                }
            }
        }
        Ok(exec)
    }
}

impl Exec {
    /// The exit code of the process, or why it could not be started.
    pub(crate) async fn wait(&mut self) -> Result<i32, Error> {
        let status = self.child.wait().await.at("wait for", &self.directory)?;
        let failed = std::fs::read_to_string(self.directory.join(ERROR));
        match (failed, status.code()) {
            (Ok(message), _) => Err(Error::Failed(message)),
            (Err(_), Some(code)) => Ok(code),
            (Err(_), None) => Err(Error::Failed("the exec helper was killed".to_owned())),
        }
    }

    /// Kills the process; [`Exec::wait`] then tells that it was killed.
    pub(crate) fn kill(&self) {
        if let Some(helper) = self.child.id().and_then(|pid| PidFd::open(pid as i32).ok()) {
            let _ = helper.signal(libc::SIGTERM);
        }
    }
}

impl Drop for Exec {
    fn drop(&mut self) {
        // The helper ends with its process; dropped early, the process is not wanted any more.
        self.kill();
        let _ = record::remove_dir_all(&self.directory);
    }
}
