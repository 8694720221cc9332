//! Network namespaces, and acting inside of one.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::path::Path;
use std::thread;

use nix::sched::{CloneFlags, setns};

use super::Socket;

/// An open network namespace.
pub(crate) struct Netns {
    file: File,
}

impl Netns {
    /// The namespace of the calling thread.
    pub(crate) fn current() -> io::Result<Self> {
        Self::open(Path::new("/proc/thread-self/ns/net"))
    }

    /// The namespace that a file stands for.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { file: File::open(path)? })
    }

    /// Runs `f` inside. A thread can't be in two namespaces, and whoever calls is usually a pool's thread that
    /// must stay where it is: so the work gets a short-lived thread of its own.
    pub(crate) fn run<T: Send>(&self, f: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        thread::scope(|scope| {
            let inside = || {
                setns(self, CloneFlags::CLONE_NEWNET)?;
                f()
            };
            let thread = thread::Builder::new().name("netns".into()).spawn_scoped(scope, inside)?;
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// A routing socket inside; it may be used from any thread.
    pub(crate) fn socket(&self) -> io::Result<Socket> {
        self.run(Socket::open)
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl AsRawFd for Netns {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}
