//! The terminal of a container: libcontainer makes it inside and sends its master side through a socket.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

use super::protocol::short;
use crate::error::{Error, IoContext};

/// Waits for a master.
#[derive(Debug)]
pub(crate) struct Console {
    path: PathBuf,
    listener: UnixListener,
}

impl Console {
    /// Listens in a directory.
    pub(crate) fn listen(directory: &Path, name: &str) -> Result<Self, Error> {
        let path = directory.join(name);
        let held = File::open(directory).at("open", directory)?;
        let listener = UnixListener::bind(short(&held, name)).at("listen on", &path)?;
        Ok(Self { path, listener })
    }

    /// What libcontainer is told.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The master that was sent, once the process is created.
    pub(crate) fn receive(self) -> Result<OwnedFd, Error> {
        let _ = std::fs::remove_file(&self.path);
        let (socket, _) = self.listener.accept().at("accept on", &self.path)?;
        receive_descriptor(socket.as_raw_fd()).at("receive the terminal from", &self.path)
    }
}

/// Takes the one descriptor that comes with the next message.
pub(crate) fn receive_descriptor(socket: i32) -> io::Result<OwnedFd> {
    let mut data = [0u8; 64];
    let mut parts = [IoSliceMut::new(&mut data)];
    let mut space = nix::cmsg_space!([i32; 1]);
    let message = recvmsg::<()>(socket, &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(descriptors) = control
            && let Some(first) = descriptors.first()
        {
            // SAFETY: the kernel made this descriptor for this message, and nobody else owns it.
            return Ok(unsafe { OwnedFd::from_raw_fd(*first) });
        }
    }
    Err(io::Error::new(io::ErrorKind::UnexpectedEof, "no descriptor in the message"))
}

/// Tells a terminal its size.
pub(crate) fn resize(terminal: &impl AsRawFd, width: u16, height: u16) -> io::Result<()> {
    let size = libc::winsize { ws_row: height, ws_col: width, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCSWINSZ reads one winsize, which outlives the call.
    match unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &size) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
