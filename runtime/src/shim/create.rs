//! Creates and starts the container. Nothing here may start a thread.

use std::error::Error as StdError;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::Path;

use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use nix::fcntl::OFlag;
use nix::unistd::pipe2;

use super::executor::ProcessExecutor;
use super::protocol::{Started, short};
use super::{Console, LIBCONTAINER, LOG, SOCKET, ShimConfig, trace};
use crate::error::{Error, IoContext};
use crate::process::ProcessId;
use crate::record;

/// A running container and the shim's ends of its streams.
pub(super) struct Created {
    pub(super) started: Started,
    pub(super) listener: UnixListener,
    pub(super) streams: Streams,
}

/// The container's streams.
pub(super) enum Streams {
    /// The master side of its terminal.
    Terminal(OwnedFd),
    /// Its pipes.
    Pipes { stdin: Option<OwnedFd>, stdout: OwnedFd, stderr: OwnedFd },
}

/// Creates and starts the container of a bundle.
pub(super) fn create(config: &ShimConfig, directory: &Path) -> Result<Created, Error> {
    let held = File::open(directory).at("open", directory)?;
    let socket = directory.join(SOCKET);
    let listener = UnixListener::bind(short(&held, SOCKET)).at("listen on", &socket)?;
    drop(held);
    // libcontainer sets the score of its caller to that of the container.
    let own_score = std::fs::read("/proc/self/oom_score_adj").unwrap_or_default();
    let result = build(config, directory, listener);
    let _ = std::fs::write("/proc/self/oom_score_adj", own_score);
    result.map_err(|error| explain(&*error, directory)).inspect_err(|_| {
        let _ = std::fs::remove_file(&socket);
        if let Ok(cgroups) = crate::cgroup::Cgroups::detect() {
            let _ = cgroups.kill(&config.cgroup, super::run::KILL_LIMIT);
            let _ = cgroups.remove(&config.cgroup);
        }
        let _ = record::remove_dir_all(&directory.join(LIBCONTAINER));
    })
}

fn build(
    config: &ShimConfig,
    directory: &Path,
    listener: UnixListener,
) -> Result<Created, Box<dyn StdError>> {
    let root = directory.join(LIBCONTAINER);
    std::fs::create_dir_all(&root)?;
    let mut builder = ContainerBuilder::new(config.id.clone(), SyscallType::default())
        .with_executor(ProcessExecutor::default())
        .with_root_path(root)?
        .validate_id()?;
    let mut console = None;
    let mut pipes = None;
    if config.tty {
        let listening = Console::listen(directory, "tty.sock")?;
        builder = builder.with_console_socket(Some(listening.path()));
        console = Some(listening);
    } else {
        let (stdout, container_stdout) = pipe2(OFlag::O_CLOEXEC)?;
        let (stderr, container_stderr) = pipe2(OFlag::O_CLOEXEC)?;
        builder = builder.with_stdout(container_stdout).with_stderr(container_stderr);
        let mut stdin = None;
        if config.stdin {
            let (container_stdin, own) = pipe2(OFlag::O_CLOEXEC)?;
            builder = builder.with_stdin(container_stdin);
            stdin = Some(own);
        }
        pipes = Some((stdin, stdout, stderr));
    }
    let mut container = builder.as_init(directory).with_systemd(false).with_detach(true).build()?;
    let pid = container.pid().ok_or("libcontainer tells no process")?.as_raw();
    let init = ProcessId::of(pid).ok_or("the container ended before it was started")?;
    let streams = match (console, pipes) {
        (Some(console), _) => Streams::Terminal(console.receive()?),
        (None, Some((stdin, stdout, stderr))) => Streams::Pipes { stdin, stdout, stderr },
        (None, None) => return Err("the container has no streams".into()),
    };
    let started = Started { init, at: super::run::now() };
    // Written before the start: whoever finds the container running finds this too.
    record::write(&config.started, &started)?;
    container.start()?;
    Ok(Created { started, listener, streams })
}

/// The error with its sources and what libcontainer logged.
fn explain(error: &dyn StdError, directory: &Path) -> Error {
    let mut text = sources(error);
    let logged = trace::last_errors(&directory.join(LOG));
    if !logged.is_empty() && !text.contains(&logged) {
        text = format!("{text} ({logged})");
    }
    Error::Failed(text)
}

/// An error with all its sources, without repetitions.
pub(crate) fn sources(error: &dyn StdError) -> String {
    let mut chain = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let text = error.to_string();
        // Transparent errors show their source's text as theirs.
        if !chain.ends_with(&text) {
            chain = format!("{chain}: {text}");
        }
        source = error.source();
    }
    chain
}
