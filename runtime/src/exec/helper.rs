//! Role `exec-helper`: joins a container, executes a process in it, and ends as that process ends.
//!
//! `ARG0 exec-helper DIRECTORY`, in a fresh single-threaded process. Standard input, output and error are those
//! of the process; for a process with a terminal, standard input is a socket that gets the terminal's master.
#![allow(unsafe_code)]

use std::collections::HashSet;
use std::error::Error as StdError;
use std::ffi::OsString;
use std::io::{self, IoSlice};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use oci_spec::runtime::{Capability, LinuxSeccomp, Process, Spec};

use super::{ERROR, PROCESS, REQUEST, Request};
use crate::process::exit_code;
use crate::record;
use crate::shim::executor::ProcessExecutor;
use crate::shim::{Console, LIBCONTAINER, LOG, capture, last_errors, sources};

/// The role's `main`.
pub(crate) fn main(argv: &[OsString]) -> ExitCode {
    let Some(directory) = argv.get(2).map(PathBuf::from) else { return ExitCode::FAILURE };
    let result = start(&directory).and_then(wait);
    match result {
        // A process can end with any of the 256.
        Ok(code) => ExitCode::from(code.rem_euclid(256) as u8),
        Err(error) => {
            let mut text = sources(error.as_ref());
            let logged = last_errors(&directory.join(LOG));
            if !logged.is_empty() {
                text = format!("{text} ({logged})");
            }
            let _ = std::fs::write(directory.join(ERROR), text);
            ExitCode::FAILURE
        }
    }
}

/// Starts the process; the number is its process id.
fn start(directory: &Path) -> Result<i32, Box<dyn StdError>> {
    let request: Request = record::read(&directory.join(REQUEST))?.ok_or("no request")?;
    let bundle = directory.parent().ok_or("no bundle")?;
    // libcontainer leaves the groups as they are when a process asks for none.
    nix::unistd::setgroups(&[])?;
    capture(&directory.join(LOG))?;
    let spec = Spec::load(bundle.join("config.json"))?;
    let (process, executor) = prepare(&spec, &request)?;
    let path = directory.join(PROCESS);
    std::fs::write(&path, serde_json::to_vec(&process)?)?;
    let mut builder = ContainerBuilder::new(request.id, SyscallType::default())
        .with_executor(executor)
        .with_root_path(bundle.join(LIBCONTAINER))?
        .validate_id()?;
    let console = request.tty.then(|| Console::listen(directory, "tty.sock")).transpose()?;
    if let Some(console) = &console {
        builder = builder.with_console_socket(Some(console.path()));
    }
    let pid = builder.as_tenant().with_process(Some(path)).with_detach(true).build()?;
    if let Some(console) = console {
        send(&console.receive()?)?;
    }
    // The streams are the process' alone: whoever reads them waits for their end.
    let null = std::fs::File::options().read(true).write(true).open("/dev/null")?;
    nix::unistd::dup2_stdin(&null)?;
    nix::unistd::dup2_stdout(&null)?;
    nix::unistd::dup2_stderr(&null)?;
    Ok(pid.as_raw())
}

/// The container's own process with other arguments, and what is to be done right before it is executed.
///
/// libcontainer gives a joining process no seccomp filter, so the executor loads it. At that point the
/// capabilities are dropped already, and without "no new privileges" the kernel takes a filter only from
/// who may administrate: so the process keeps that until the filter is loaded.
fn prepare(spec: &Spec, request: &Request) -> Result<(Process, ProcessExecutor), Box<dyn StdError>> {
    let mut process = spec.process().clone().ok_or("the container has no process")?;
    process.set_args(Some(request.args.clone())).set_terminal(Some(request.tty));
    let seccomp: Option<LinuxSeccomp> = spec.linux().as_ref().and_then(|linux| linux.seccomp().clone());
    let mut executor = ProcessExecutor { seccomp, capabilities: None };
    if executor.seccomp.is_some() && process.no_new_privileges() != Some(true) {
        let wanted = process.capabilities().clone().ok_or("the container has no capabilities")?;
        let mut raised = wanted.clone();
        let with = |set: &Option<HashSet<Capability>>| {
            let mut set = set.clone().unwrap_or_default();
            set.extend([Capability::SysAdmin, Capability::Setpcap]);
            Some(set)
        };
        let (bounding, effective, permitted) =
            (with(raised.bounding()), with(raised.effective()), with(raised.permitted()));
        raised.set_bounding(bounding).set_effective(effective).set_permitted(permitted);
        process.set_capabilities(Some(raised));
        executor.capabilities = Some(wanted);
    }
    Ok((process, executor))
}

/// Sends the terminal's master through standard input.
fn send(master: &impl AsRawFd) -> nix::Result<()> {
    let descriptors = [master.as_raw_fd()];
    let control = [ControlMessage::ScmRights(&descriptors)];
    sendmsg::<()>(0, &[IoSlice::new(b"t")], &control, MsgFlags::empty(), None).map(drop)
}

/// The exit code of the process, which is killed if we are asked to end.
fn wait(process: i32) -> Result<i32, Box<dyn StdError>> {
    let mut wanted = SigSet::empty();
    wanted.add(Signal::SIGCHLD);
    wanted.add(Signal::SIGTERM);
    // Only now: the process would have inherited the mask.
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&wanted), None)?;
    loop {
        let mut status = 0;
        // SAFETY: waitpid writes one integer. nix's wrapper fails on real-time signals, which processes use.
        match unsafe { libc::waitpid(process, &mut status, libc::WNOHANG) } {
            0 => {}
            pid if pid == process => return Ok(exit_code(status)),
            _ => return Err(io::Error::last_os_error().into()),
        }
        if wanted.wait()? == Signal::SIGTERM {
            // SAFETY: kill takes two integers; the process is our child and not collected yet.
            unsafe { libc::kill(process, libc::SIGKILL) };
        }
    }
}
