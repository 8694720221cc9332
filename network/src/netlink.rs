//! The kernel's routing socket: requests, dumps and the namespaces they act in.
//!
//! The kernel handles a request while it is being sent, so the answer is there when `send` returns. A plain
//! blocking socket is therefore the quickest way to talk to it: no actor, no wakeup, one socket per
//! namespace. A socket belongs for ever to the namespace of the thread that opened it.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt,
    socket, sockopt,
};
use nix::sys::time::TimeVal;

mod message;
mod netns;

pub(crate) use message::{Attributes, Message, text, u32_of};
pub(crate) use netns::Netns;

/// The kernel fills at most 32 KiB at once in a dump.
const BUFFER: usize = 64 << 10;
/// Answers are immediate; only a lost one would ever be waited for.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
const HEADER: usize = 16;

/// How often a dump meets a change before it is given up.
const DUMP_ATTEMPTS: usize = 64;

const NLM_F_DUMP_INTR: u16 = 0x10;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

/// One conversation with the kernel's routing subsystem, in one network namespace.
pub(crate) struct Socket {
    fd: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
    /// The last dump is not one moment's state.
    interrupted: bool,
}

impl Socket {
    /// A socket in the network namespace of the calling thread.
    pub(crate) fn open() -> io::Result<Self> {
        Self::open_for(0)
    }

    fn open_for(groups: u32) -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let fd = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)?;
        setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::new(ANSWER_TIMEOUT.as_secs() as _, 0))?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
        Ok(Self { fd, sequence: 0, buffer: vec![0; BUFFER], interrupted: false })
    }

    /// Asks for a change and returns once it is made.
    pub(crate) fn request(&mut self, message: Message) -> io::Result<()> {
        self.exchange(message.with_flags(libc::NLM_F_REQUEST | libc::NLM_F_ACK), |_, _| ())
    }

    /// Asks for one object. `each` gets the message type and what follows its header.
    pub(crate) fn get(&mut self, message: Message, each: impl FnMut(u16, &[u8])) -> io::Result<()> {
        self.exchange(message.with_flags(libc::NLM_F_REQUEST | libc::NLM_F_ACK), each)
    }

    /// Asks for all objects of a kind: what follows the header of each answer.
    ///
    /// Where something changes while the kernel lists, it may leave others out and says so: then it is asked anew.
    pub(crate) fn dump(&mut self, message: &Message) -> io::Result<Vec<Vec<u8>>> {
        for _ in 0..DUMP_ATTEMPTS {
            let mut bodies = Vec::new();
            let message = message.clone().with_flags(libc::NLM_F_REQUEST | libc::NLM_F_DUMP);
            self.exchange(message, |_, body| bodies.push(body.to_vec()))?;
            if !self.interrupted {
                return Ok(bodies);
            }
        }
        Err(io::Error::from_raw_os_error(libc::EAGAIN))
    }

    /// A socket on which the kernel announces changes of routes.
    #[cfg(test)]
    pub(crate) fn open_for_routes() -> io::Result<Self> {
        Self::open_for(1 << (libc::RTNLGRP_IPV4_ROUTE - 1))
    }

    /// Returns when something was announced.
    #[cfg(test)]
    pub(crate) fn wait(&mut self) -> io::Result<()> {
        recv(self.fd.as_raw_fd(), &mut self.buffer, MsgFlags::empty())?;
        Ok(())
    }

    fn exchange(&mut self, message: Message, mut each: impl FnMut(u16, &[u8])) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        self.interrupted = false;
        send(self.fd.as_raw_fd(), &message.finish(self.sequence), MsgFlags::empty())?;
        loop {
            let length = match recv(self.fd.as_raw_fd(), &mut self.buffer, MsgFlags::empty()) {
                Err(nix::errno::Errno::EINTR) => continue,
                length => length?,
            };
            let mut rest = &self.buffer[..length];
            while rest.len() >= HEADER {
                let size = (u32_of(rest) as usize).clamp(HEADER, rest.len());
                let kind = u16::from_ne_bytes([rest[4], rest[5]]);
                let flags = u16::from_ne_bytes([rest[6], rest[7]]);
                let body = &rest[HEADER..size];
                let current = u32_of(&rest[8..]) == self.sequence;
                rest = &rest[size.next_multiple_of(4).min(rest.len())..];
                // Answers to an earlier request that was given up are not ours.
                if !current {
                    continue;
                }
                self.interrupted |= flags & NLM_F_DUMP_INTR != 0;
                match kind {
                    NLMSG_ERROR | NLMSG_DONE => {
                        let code = if body.len() >= 4 { u32_of(body).cast_signed() } else { 0 };
                        return if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(-code)) };
                    }
                    _ => each(kind, body),
                }
            }
        }
    }
}
