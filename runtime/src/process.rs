//! Processes that are not our children: told apart from a later process with the same number, signalled and
//! awaited through pidfds.
#![allow(unsafe_code)]

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::{Deserialize, Serialize};
use tokio::io::unix::AsyncFd;

/// A process as it can be found again after a restart of ours: the number alone is reused by the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessId {
    pub(crate) pid: i32,
    /// Field 22 of `/proc/PID/stat`.
    pub(crate) started_ticks: u64,
}

impl ProcessId {
    /// The process that has this number now.
    pub(crate) fn of(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name in parentheses may contain anything, also parentheses.
        let started_ticks = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()?;
        Some(Self { pid, started_ticks })
    }

    /// A handle on exactly this process; `None` when it is gone.
    pub(crate) fn open(self) -> Option<PidFd> {
        let handle = PidFd::open(self.pid).ok()?;
        // Checked after opening: from here on the handle can't come to mean another process.
        (Self::of(self.pid) == Some(self)).then_some(handle)
    }
}

/// A handle on a process.
#[derive(Debug)]
pub(crate) struct PidFd(OwnedFd);

impl PidFd {
    pub(crate) fn open(pid: i32) -> io::Result<Self> {
        // SAFETY: pidfd_open takes two integers and returns a new descriptor or -1.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just made and nobody else owns it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd as i32) }))
    }

    /// Sends a signal; a process that has ended already is no error.
    pub(crate) fn signal(&self, signal: i32) -> io::Result<()> {
        let info = std::ptr::null::<libc::siginfo_t>();
        // SAFETY: a null siginfo asks the kernel to fill it as kill(2) does.
        let result =
            unsafe { libc::syscall(libc::SYS_pidfd_send_signal, self.0.as_raw_fd(), signal, info, 0) };
        match result {
            0 => Ok(()),
            _ => match io::Error::last_os_error() {
                error if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
                error => Err(error),
            },
        }
    }

    /// Blocks until the process has ended; false when it has not within `limit`.
    pub(crate) fn wait(&self, limit: Duration) -> bool {
        let timeout = PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        loop {
            match poll(&mut fds, timeout) {
                Err(nix::errno::Errno::EINTR) => {}
                result => return result.is_ok_and(|ready| ready > 0),
            }
        }
    }

    /// The wait status of a process that has ended, also after its parent collected it (kernel 6.15).
    pub(crate) fn exit_status(&self) -> Option<i32> {
        const PIDFD_INFO_EXIT: u64 = 1 << 3;
        // _IOWR(0xFF, 11, struct pidfd_info) for the 64-byte first version of the struct.
        const PIDFD_GET_INFO: libc::c_ulong = 0xc040_ff0b;
        let mut info = [0u64; 8];
        info[0] = PIDFD_INFO_EXIT;
        // SAFETY: the kernel writes at most the 64 bytes whose size the request number carries.
        let result = unsafe { libc::ioctl(self.0.as_raw_fd(), PIDFD_GET_INFO as _, info.as_mut_ptr()) };
        // The exit code is the last 32-bit field.
        (result == 0 && info[0] & PIDFD_INFO_EXIT != 0).then(|| (info[7] >> 32) as i32)
    }
}

impl AsFd for PidFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for PidFd {
    fn as_raw_fd(&self) -> i32 {
        self.0.as_raw_fd()
    }
}

impl From<PidFd> for OwnedFd {
    fn from(process: PidFd) -> Self {
        process.0
    }
}

/// Lets the runtime watch a descriptor.
pub(crate) fn watched<T: AsRawFd + Into<OwnedFd>>(fd: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: what turns into an owned descriptor owns it, so it stays open and the same while it is watched.
    unsafe { AsyncFd::register(fd) }.map_err(Into::into)
}

/// The exit code a shell would show for a wait status.
pub(crate) fn exit_code(status: i32) -> i32 {
    if libc::WIFSIGNALED(status) { 128 + libc::WTERMSIG(status) } else { libc::WEXITSTATUS(status) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_told_from_another_with_its_number() {
        let own = ProcessId::of(std::process::id() as i32).unwrap();
        assert!(own.open().is_some());
        assert!(ProcessId { started_ticks: own.started_ticks + 1, ..own }.open().is_none());
    }

    #[test]
    fn a_process_is_signalled_and_awaited_by_its_handle() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let handle = PidFd::open(child.id() as i32).unwrap();
        assert!(!handle.wait(Duration::ZERO));
        handle.signal(libc::SIGKILL).unwrap();
        assert!(handle.wait(Duration::from_secs(10)));
        child.wait().unwrap();
        handle.signal(libc::SIGKILL).unwrap();
        if let Some(status) = handle.exit_status() {
            assert_eq!(exit_code(status), 137);
        }
    }
}
