//! The life of the shim from the start of the container to its end.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base::{Clock, Tasks};
use bytes::BytesMut;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use tokio::io::AsyncReadExt;
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe;
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::create::{Created, Streams};
use super::fanout::Fanout;
use super::log::{Lines, Log};
use super::protocol::{Exited, Frame, Started};
use super::{LIBCONTAINER, SOCKET, ShimConfig};
use crate::cgroup::Cgroups;
use crate::error::{Error, IoContext};
use crate::process::{exit_code, watched};
use crate::record;

/// How long killed processes may take to disappear.
pub(super) const KILL_LIMIT: Duration = Duration::from_secs(10);
/// How long output is awaited that a process outside of the container may hold open.
const DRAIN_LIMIT: Duration = Duration::from_secs(3);
/// How long clients may take to hear of the end.
const DELIVERY_LIMIT: Duration = Duration::from_secs(2);
/// How much is read at once.
const PIECE: usize = 32 << 10;

/// What the shim's tasks share.
#[derive(Debug)]
pub(super) struct Shim {
    pub(super) config: ShimConfig,
    pub(super) started: Started,
    pub(super) log: Mutex<Log>,
    pub(super) fanout: Fanout,
    pub(super) input: Input,
    pub(super) exited: watch::Sender<Option<Exited>>,
    /// Clones are held by those that have something to tell at the end.
    pub(super) undelivered: Mutex<Option<mpsc::Sender<()>>>,
}

/// Where input goes.
#[derive(Debug)]
pub(super) enum Input {
    None,
    Pipe(tokio::sync::Mutex<Option<pipe::Sender>>),
    Terminal(Arc<AsyncFd<OwnedFd>>),
}

/// Nanoseconds of Unix time.
pub(super) fn now() -> i64 {
    i64::try_from(Clock::system().now().as_nanosecond()).unwrap_or(i64::MAX)
}

/// Serves the container until it has ended and that is written down.
pub(super) fn run(
    config: ShimConfig,
    directory: &Path,
    created: Created,
    server: StdUnixStream,
) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .at("start", "the shim's runtime")?;
    let directory = directory.to_owned();
    let result = runtime.block_on(async { serve(config, directory, created, server).await });
    runtime.shutdown_background();
    result
}

async fn serve(
    config: ShimConfig,
    directory: PathBuf,
    created: Created,
    server: StdUnixStream,
) -> Result<(), Error> {
    let children = signal(SignalKind::child()).at("watch", "child processes")?;
    let (outputs, input) = open(created.streams)?;
    let log = Log::open(&config.log_path).at("open", &config.log_path).unwrap_or_else(|error| {
        tracing::error!(%error, "no log");
        Log::open(Path::new("")).unwrap_or_else(|_| unreachable!("an empty path opens nothing"))
    });
    let (undelivered, mut delivered) = mpsc::channel(1);
    let shim = Arc::new(Shim {
        config,
        started: created.started,
        log: Mutex::new(log),
        fanout: Fanout::default(),
        input,
        exited: watch::Sender::new(None),
        undelivered: Mutex::new(Some(undelivered)),
    });
    let tasks = Tasks::new("shim");
    let listener = {
        created.listener.set_nonblocking(true).at("prepare", &directory)?;
        UnixListener::from_std(created.listener).at("listen in", &directory)?
    };
    server.set_nonblocking(true).at("prepare", &directory)?;
    let server = UnixStream::from_std(server).at("prepare", &directory)?;
    tasks.spawn("watch", shim.clone().watched(server));
    tasks.spawn("accept", shim.clone().accept(listener, tasks.clone()));

    let mut pumps = pin!(futures::future::join_all(outputs.into_iter().map(|output| pump(&shim, output))));
    let mut ended = pin!(init_exit(shim.started.init.pid, children));
    let mut drained = false;
    let code = loop {
        tokio::select! {
            code = &mut ended => break code,
            _ = &mut pumps, if !drained => drained = true,
        }
    };
    let cgroups = Cgroups::detect()?;
    // Read before the cgroup goes.
    let oom = code == 128 + libc::SIGKILL && cgroups.oom_kills(&shim.config.cgroup) > 0;
    if shim.config.kill_all
        && let Err(error) = cgroups.kill(&shim.config.cgroup, KILL_LIMIT)
    {
        tracing::error!(%error, "kill what the container left");
    }
    if !drained {
        let _ = timeout(DRAIN_LIMIT, pumps).await;
    }
    shim.fanout.close();
    let exited = Exited { code, at: now(), reason: reason(code, oom).to_owned(), message: String::new() };
    record::write(&shim.config.exit, &exited)?;
    shim.exited.send_replace(Some(exited));
    shim.undelivered.lock().unwrap_or_else(PoisonError::into_inner).take();
    let _ = timeout(DELIVERY_LIMIT, delivered.recv()).await;
    clear(&shim.config, &directory, &cgroups)
}

/// Kubernetes' word for how a container ended.
pub(crate) fn reason(code: i32, oom: bool) -> &'static str {
    match code {
        _ if oom => "OOMKilled",
        0 => "Completed",
        _ => "Error",
    }
}

/// Removes what the container had.
fn clear(config: &ShimConfig, directory: &Path, cgroups: &Cgroups) -> Result<(), Error> {
    // With a pid namespace of its own nothing outlives its init, except what was moved into its cgroup.
    cgroups.kill(&config.cgroup, KILL_LIMIT)?;
    cgroups.remove(&config.cgroup)?;
    record::remove_dir_all(&directory.join(LIBCONTAINER))?;
    record::remove_file(&directory.join(SOCKET))
}

/// An output of the container.
enum Output {
    Pipe(&'static str, pipe::Receiver),
    Terminal(Arc<AsyncFd<OwnedFd>>),
}

fn open(streams: Streams) -> Result<(Vec<Output>, Input), Error> {
    match streams {
        Streams::Pipes { stdin, stdout, stderr } => {
            let stdin = stdin.map(pipe::Sender::from_owned_fd).transpose().at("open", "standard input")?;
            let stdout = pipe::Receiver::from_owned_fd(stdout).at("open", "standard output")?;
            let stderr = pipe::Receiver::from_owned_fd(stderr).at("open", "standard error")?;
            let input = match stdin {
                Some(stdin) => Input::Pipe(tokio::sync::Mutex::new(Some(stdin))),
                None => Input::None,
            };
            Ok((vec![Output::Pipe("stdout", stdout), Output::Pipe("stderr", stderr)], input))
        }
        Streams::Terminal(master) => {
            fcntl(&master, FcntlArg::F_SETFL(OFlag::O_RDWR | OFlag::O_NONBLOCK))
                .at("open", "the terminal")?;
            let master = Arc::new(watched(master).at("open", "the terminal")?);
            Ok((vec![Output::Terminal(master.clone())], Input::Terminal(master)))
        }
    }
}

/// Carries an output into the log and to the attached clients until it ends.
async fn pump(shim: &Shim, mut output: Output) {
    let stream = match &output {
        Output::Pipe(stream, _) => stream,
        Output::Terminal(_) => "stdout",
    };
    let mut lines = Lines::new(stream);
    let mut buffer = BytesMut::with_capacity(PIECE);
    let clock = Clock::system();
    while let Ok(read) = output.read(&mut buffer).await {
        if read == 0 {
            break;
        }
        {
            let mut log = shim.log.lock().unwrap_or_else(PoisonError::into_inner);
            lines.push(&mut log, clock.now(), &buffer);
        }
        if shim.fanout.wanted() {
            let bytes = buffer.split().freeze();
            shim.fanout.send(&if stream == "stderr" { Frame::Stderr(bytes) } else { Frame::Stdout(bytes) });
        }
        buffer.clear();
        buffer.reserve(PIECE);
    }
    let mut log = shim.log.lock().unwrap_or_else(PoisonError::into_inner);
    lines.end(&mut log, clock.now());
}

impl Output {
    async fn read(&mut self, buffer: &mut BytesMut) -> io::Result<usize> {
        match self {
            Self::Pipe(_, pipe) => pipe.read_buf(buffer).await,
            Self::Terminal(master) => read_terminal(master, buffer).await,
        }
    }
}

/// Reads from a terminal's master side; 0 when its other side is closed.
pub(crate) async fn read_terminal(master: &AsyncFd<OwnedFd>, buffer: &mut BytesMut) -> io::Result<usize> {
    let mut piece = vec![0; PIECE];
    let read = master
        .async_io(tokio::io::Interest::READABLE, |master| match nix::unistd::read(master, &mut piece) {
            // What the kernel says when the last process with the other side is gone.
            Err(Errno::EIO) => Ok(0),
            result => result.map_err(io::Error::from),
        })
        .await?;
    buffer.extend_from_slice(&piece[..read]);
    Ok(read)
}

/// Writes all to a terminal's master side.
pub(crate) async fn write_terminal(master: &AsyncFd<OwnedFd>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = master
            .async_io(tokio::io::Interest::WRITABLE, |master| {
                nix::unistd::write(master, bytes).map_err(io::Error::from)
            })
            .await?;
        bytes = &bytes[written..];
    }
    Ok(())
}

/// Reaps children until the container's init is among them.
async fn init_exit(init: i32, mut children: Signal) -> i32 {
    loop {
        if let Some(code) = reap(init) {
            return code;
        }
        if children.recv().await.is_none() {
            return 255;
        }
    }
}

#[allow(unsafe_code)]
fn reap(init: i32) -> Option<i32> {
    let mut code = None;
    loop {
        let mut status = 0;
        // SAFETY: waitpid writes one integer. nix's wrapper fails on real-time signals, which containers use.
        match unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG) } {
            pid if pid == init => code = Some(exit_code(status)),
            pid if pid > 0 => {}
            0 => return code,
            _ if Errno::last() == Errno::EINTR => {}
            // No child is left: someone else collected it.
            _ => return code.or(Some(255)),
        }
    }
}

impl Input {
    /// The terminal, if that is what the container has.
    pub(super) fn terminal(&self) -> Option<i32> {
        match self {
            Self::Terminal(master) => Some(master.as_raw_fd()),
            Self::None | Self::Pipe(_) => None,
        }
    }
}
