//! Notices when somebody else deletes a table, for example by `nft flush ruleset`.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};
use tokio::io::unix::AsyncFd;

use super::attributes;
use super::batch::{DELETE_TABLE, SUBSYSTEM};
use super::socket::{NFGENMSG, messages};

/// NFNLGRP_NFTABLES, as a bit.
const GROUP: u32 = 1 << 6;

/// The kernel's notifications about a table, in the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Watch {
    fd: AsyncFd<OwnedFd>,
    table: String,
    buffer: Vec<u8>,
}

impl Watch {
    /// Needs a tokio runtime.
    pub fn open(table: &str) -> io::Result<Self> {
        let fd = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            SockProtocol::NetlinkNetFilter,
        )?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, GROUP))?;
        // SAFETY: an `OwnedFd` refers to the same open file for as long as it lives.
        let fd = unsafe { AsyncFd::register(fd)? };
        Ok(Self { fd, table: table.to_owned(), buffer: vec![0; 64 << 10] })
    }

    /// Returns when the table was deleted, by whomever, or when notifications were lost.
    pub async fn deleted(&mut self) -> io::Result<()> {
        loop {
            let mut ready = self.fd.readable().await?;
            match recv(self.fd.as_raw_fd(), &mut self.buffer, MsgFlags::empty()) {
                Ok(length) => {
                    if messages(&self.buffer[..length]).any(|message| is_deletion(&message, &self.table)) {
                        return Ok(());
                    }
                }
                Err(Errno::EAGAIN) => ready.clear_ready(),
                Err(Errno::EINTR) => {}
                Err(Errno::ENOBUFS) => return Ok(()),
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

fn is_deletion(message: &super::socket::Received<'_>, table: &str) -> bool {
    let name = || {
        let attributes = attributes(message.payload.get(NFGENMSG..).unwrap_or_default());
        attributes.into_iter().find(|(kind, _)| *kind == 1).map(|(_, name)| name)
    };
    message.kind == SUBSYSTEM << 8 | DELETE_TABLE
        && name().and_then(|name| name.strip_suffix(b"\0")) == Some(table.as_bytes())
}
