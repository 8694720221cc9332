//! Changes of files as events, through the kernel's inotify.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// What changed, and in which file of a watched directory.
pub(super) type Event = InotifyEvent;
pub(super) type Watch = WatchDescriptor;

/// A set of watches with one bounded queue of events, held by the kernel.
#[derive(Debug)]
pub(super) struct Notify(AsyncFd<Handle>);

#[derive(Debug)]
struct Handle(Inotify);

impl AsRawFd for Handle {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Notify {
    #[expect(deprecated, reason = "its successor is unsafe; the handle owns its descriptor and keeps it")]
    pub(super) fn new() -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        Ok(Self(AsyncFd::with_interest(Handle(inotify), Interest::READABLE)?))
    }

    pub(super) fn watch(&self, path: &Path, what: AddWatchFlags) -> io::Result<Watch> {
        Ok(self.0.get_ref().0.add_watch(path, what)?)
    }

    pub(super) fn forget(&self, watch: Watch) {
        // It is gone already when its file is.
        let _ = self.0.get_ref().0.rm_watch(watch);
    }

    /// The events since the last call; waits for the first.
    pub(super) async fn events(&self) -> io::Result<Vec<Event>> {
        loop {
            let mut ready = self.0.readable().await?;
            match ready.get_inner().0.read_events() {
                Ok(events) => return Ok(events),
                Err(Errno::EAGAIN) => ready.clear_ready(),
                Err(error) => return Err(error.into()),
            }
        }
    }
}
