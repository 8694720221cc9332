//! Role `pause`: the init of a pid namespace that the containers of a pod share. It reaps what is orphaned
//! and does nothing else. `ARG0 pause CGROUP` prints the init's process number and leaves it running;
//! `ARG0 pause --here` is that init itself, for runtimes that start it as a container.
#![allow(unsafe_code)]

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork, setsid};

use crate::cgroup::Cgroups;

/// The role's `main`. Single-threaded.
pub(crate) fn main(argv: &[OsString]) -> ExitCode {
    let argument = argv.get(2).and_then(|argument| argument.to_str());
    let result = match argument {
        Some("--here") => reap(),
        cgroup => run(cgroup),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(cgroup: Option<&str>) -> nix::Result<()> {
    if let (Some(cgroup), Ok(cgroups)) = (cgroup, Cgroups::detect()) {
        cgroups.join(cgroup);
    }
    setsid().ok();
    unshare(CloneFlags::CLONE_NEWPID)?;
    // SAFETY: this process has one thread, so the child may go on as ordinary code.
    match unsafe { fork()? } {
        ForkResult::Parent { child } => {
            let _ = write!(std::io::stdout(), "{child}");
            Ok(())
        }
        ForkResult::Child => reap(),
    }
}

/// Waits for the end, collecting whoever becomes our child. An init ignores signals it does not ask for.
fn reap() -> nix::Result<()> {
    let _ = nix::sys::prctl::set_name(c"pause");
    // What started us reads our output to its end.
    for stream in 0..3 {
        // SAFETY: nothing of this process uses the standard streams from here on.
        unsafe { libc::close(stream) };
    }
    let mut wanted = SigSet::empty();
    for signal in [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT] {
        wanted.add(signal);
    }
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&wanted), None)?;
    loop {
        match wanted.wait()? {
            Signal::SIGCHLD => loop {
                match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                    Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => break,
                    _ => {}
                }
            },
            _ => return Ok(()),
        }
    }
}
