//! Role `shim`: one process per container, which outlives the server.
//!
//! It creates the container while it is single-threaded (libcontainer clones processes and runs Rust code in
//! the children), starts it, writes its log, serves attach, and writes down how it ended. The server hears of
//! start and end on a socket; the file is what counts, so a server that was away misses nothing, and the shim
//! need not wait for it.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::Mode;

use crate::error::{Error, IoContext};
use crate::record;

mod attach;
mod console;
mod create;
pub(crate) mod executor;
mod fanout;
mod log;
pub(crate) mod protocol;
mod run;
mod serve;
mod trace;

pub(crate) use console::{Console, receive_descriptor, resize};
pub(crate) use create::sources;
pub(crate) use run::{read_terminal, write_terminal};
pub(crate) use trace::{capture, last_errors};

/// What a shim is told by the server, in `shim.json`.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct ShimConfig {
    pub(crate) id: String,
    /// The log file; empty for none.
    pub(crate) log_path: PathBuf,
    pub(crate) stdin: bool,
    pub(crate) stdin_once: bool,
    pub(crate) tty: bool,
    /// The container's cgroup.
    pub(crate) cgroup: String,
    /// The cgroup of the shim itself.
    pub(crate) shim_cgroup: String,
    /// Whether the container's processes live on without its init: they share a pid namespace.
    pub(crate) kill_all: bool,
    /// Where the start is written down.
    pub(crate) started: PathBuf,
    /// Where the end is written down.
    pub(crate) exit: PathBuf,
}

/// The file names in the container's state directory.
pub(crate) const CONFIG: &str = "shim.json";
pub(crate) const SOCKET: &str = "shim.sock";
pub(crate) const LOG: &str = "shim.log";
/// libcontainer's own directory.
pub(crate) const LIBCONTAINER: &str = "lc";

/// The role's `main`: `ARG0 shim STATE-DIRECTORY`, with the server's socket as standard input.
pub(crate) fn main(argv: &[OsString]) -> ExitCode {
    let Some(directory) = argv.get(2).map(PathBuf::from) else { return ExitCode::FAILURE };
    match detach_stdin().and_then(|server| run(&directory, server)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody listens any more; the file is for whoever looks for the reason.
            trace::note(&directory.join(LOG), &error.to_string());
            ExitCode::FAILURE
        }
    }
}

fn run(directory: &Path, server: UnixStream) -> Result<(), Error> {
    let path = directory.join(CONFIG);
    let config: ShimConfig =
        record::read(&path)?.ok_or_else(|| Error::Failed(format!("{} is missing", path.display())))?;
    leave_the_server(&config)?;
    trace::capture(&directory.join(LOG))?;
    match create::create(&config, directory) {
        Ok(created) => run::run(config, directory, created, server),
        Err(error) => {
            let message = error.to_string();
            protocol::send_failed(&server, &message).at("tell the server through", directory)?;
            Err(error)
        }
    }
}

/// Takes the server's socket from standard input and leaves nothing there.
fn detach_stdin() -> Result<UnixStream, Error> {
    let stdin = io::stdin();
    let server = fcntl(stdin.as_fd(), FcntlArg::F_DUPFD_CLOEXEC(3)).at("duplicate", "standard input")?;
    null_stdio()?;
    // SAFETY: F_DUPFD_CLOEXEC made this descriptor, and nobody else owns it.
    #[allow(unsafe_code)]
    let server = unsafe { <OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(server) };
    Ok(UnixStream::from(server))
}

/// Points standard input, output and error at nothing.
fn null_stdio() -> Result<(), Error> {
    let null = nix::fcntl::open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())
        .at("open", "/dev/null")?;
    nix::unistd::dup2_stdin(&null).at("replace", "standard input")?;
    nix::unistd::dup2_stdout(&null).at("replace", "standard output")?;
    nix::unistd::dup2_stderr(&null).at("replace", "standard error")
}

/// Becomes independent of the server: of its session, its cgroup, its groups.
fn leave_the_server(config: &ShimConfig) -> Result<(), Error> {
    // Fails only if we lead a session already.
    let _ = nix::unistd::setsid();
    nix::sys::prctl::set_child_subreaper(true).at("become subreaper for", &config.id)?;
    // libcontainer leaves the groups as they are when a container asks for none.
    nix::unistd::setgroups(&[]).at("drop the groups of", &config.id)?;
    nix::sys::stat::umask(Mode::from_bits_truncate(0o022));
    nix::unistd::chdir("/").at("enter", "/")?;
    crate::cgroup::Cgroups::detect()?.join(&config.shim_cgroup);
    let _ = nix::sys::prctl::set_name(c"skiff-shim");
    Ok(())
}
