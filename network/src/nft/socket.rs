//! The netlink socket through which batches reach the kernel.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, sendto, setsockopt,
    socket, sockopt,
};

use super::batch::{Batch, Element, GET_ELEMENT, NEW_ELEMENT, frame};
use super::{FAMILY_IPV4, attributes};

/// Room for a batch with a million elements; the kernel allocates only what is sent.
const SEND_BUFFER: usize = 256 << 20;
const RECEIVE_BUFFER: usize = 8 << 20;
/// A batch may meet another's generation change a few times in a row, not for ever.
const ATTEMPTS: usize = 8;
const HEADER: usize = 16;
pub(super) const NFGENMSG: usize = 4;

/// Speaks nfnetlink in the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

/// The kernel took nothing of a batch.
#[derive(Debug, thiserror::Error)]
#[error("nft table {table}: {change}: {source}")]
pub struct CommitError {
    pub table: String,
    /// The first change that was refused.
    pub change: String,
    pub source: io::Error,
}

impl Socket {
    pub fn open() -> io::Result<Self> {
        let fd = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkNetFilter,
        )?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        setsockopt(&fd, sockopt::SndBufForce, &SEND_BUFFER)?;
        setsockopt(&fd, sockopt::RcvBufForce, &RECEIVE_BUFFER)?;
        Ok(Self { fd, sequence: 0, buffer: vec![0; 256 << 10] })
    }

    /// Makes all changes of the batch, or none.
    pub fn commit(&mut self, batch: Batch) -> Result<(), CommitError> {
        if batch.is_empty() {
            return Ok(());
        }
        let table = batch.table().to_owned();
        let (bytes, descriptions) = batch.finish();
        let error = |change: &str, source: io::Error| CommitError {
            table: table.clone(),
            change: change.to_owned(),
            source,
        };
        let mut attempt = 1;
        loop {
            self.drain();
            self.send(&bytes).map_err(|source| error("send", source))?;
            match self.answers().map_err(|source| error("receive", source))? {
                None => return Ok(()),
                Some((_, Errno::EAGAIN | Errno::EINTR | Errno::EBUSY)) if attempt < ATTEMPTS => attempt += 1,
                Some((sequence, errno)) if errno as i32 == libc::ERESTART && attempt < ATTEMPTS => {
                    tracing::debug!(sequence, "ruleset changed under the batch");
                    attempt += 1;
                }
                Some((sequence, errno)) => {
                    let change = descriptions.get(sequence as usize).map_or("batch", String::as_str);
                    return Err(error(change, errno.into()));
                }
            }
        }
    }

    /// The elements of a set or map, without verdicts.
    pub fn elements(&mut self, table: &str, set: &str) -> io::Result<Vec<Element>> {
        let mut found = Vec::new();
        let kind = 10 << 8 | GET_ELEMENT;
        self.dump(
            kind,
            FAMILY_IPV4,
            |request| {
                request.text(1, table);
                request.text(2, set);
            },
            |kind, payload| {
                if kind == 10 << 8 | NEW_ELEMENT {
                    elements_of(payload, &mut found);
                }
            },
        )?;
        Ok(found)
    }

    /// Sends one request and hands each answer's type and attributes to `each`.
    pub(crate) fn dump(
        &mut self,
        kind: u16,
        family: u8,
        fill: impl FnOnce(&mut super::Attributes<'_>),
        mut each: impl FnMut(u16, &[u8]),
    ) -> io::Result<()> {
        let sequence = self.next_sequence();
        let mut bytes = Vec::new();
        let flags = (libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16;
        frame(&mut bytes, kind, flags, sequence, family, 0, fill);
        self.drain();
        self.send(&bytes)?;
        loop {
            let length = self.receive(MsgFlags::empty())?;
            for message in messages(&self.buffer[..length]) {
                if message.sequence != sequence {
                    continue;
                }
                match message.kind {
                    kind if kind == libc::NLMSG_DONE as u16 => return Ok(()),
                    kind if kind == libc::NLMSG_ERROR as u16 => {
                        return message.errno().map_or(Ok(()), |errno| Err(errno.into()));
                    }
                    kind => each(kind, message.payload.get(NFGENMSG..).unwrap_or_default()),
                }
            }
        }
    }

    /// Sends one request and waits for the kernel's yes or no.
    pub(crate) fn request(
        &mut self,
        kind: u16,
        family: u8,
        fill: impl FnOnce(&mut super::Attributes<'_>),
    ) -> io::Result<()> {
        let sequence = self.next_sequence();
        let mut bytes = Vec::new();
        let flags = (libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16;
        frame(&mut bytes, kind, flags, sequence, family, 0, fill);
        self.drain();
        self.send(&bytes)?;
        self.answers()?.map_or(Ok(()), |(_, errno)| Err(errno.into()))
    }

    fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }

    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        sendto(self.fd.as_raw_fd(), bytes, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
        Ok(())
    }

    fn receive(&mut self, flags: MsgFlags) -> Result<usize, Errno> {
        loop {
            match recv(self.fd.as_raw_fd(), &mut self.buffer, flags) {
                Err(Errno::EINTR) => {}
                other => return other,
            }
        }
    }

    /// Forgets answers that nobody waits for.
    fn drain(&mut self) {
        while self.receive(MsgFlags::MSG_DONTWAIT).is_ok() {}
    }

    /// Reads the answers to what was just sent: the first refusal, with its sequence number. The kernel works
    /// in the sender's context, so all of them are there.
    fn answers(&mut self) -> io::Result<Option<(u32, Errno)>> {
        let mut first = None;
        let mut answered = false;
        loop {
            let length = match self.receive(MsgFlags::MSG_DONTWAIT) {
                Ok(length) => length,
                Err(Errno::EAGAIN) if answered => return Ok(first),
                Err(Errno::EAGAIN) => return Err(io::Error::other("the kernel did not answer")),
                Err(errno) => return Err(errno.into()),
            };
            for message in messages(&self.buffer[..length]) {
                if message.kind == libc::NLMSG_ERROR as u16 {
                    answered = true;
                    if let Some(errno) = message.errno() {
                        first.get_or_insert((message.sequence, errno));
                    }
                }
            }
        }
    }
}

pub(super) struct Received<'a> {
    pub(super) kind: u16,
    sequence: u32,
    pub(super) payload: &'a [u8],
}

impl Received<'_> {
    /// The error of an NLMSG_ERROR; none for an acknowledgement.
    fn errno(&self) -> Option<Errno> {
        let code = self.payload.first_chunk::<4>().map_or(-libc::EPROTO, |code| i32::from_ne_bytes(*code));
        (code != 0).then(|| Errno::from_raw(-code))
    }
}

pub(super) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Received<'_>> {
    std::iter::from_fn(move || {
        let header = bytes.first_chunk::<HEADER>()?;
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let kind = u16::from_ne_bytes([header[4], header[5]]);
        let sequence = u32::from_ne_bytes([header[8], header[9], header[10], header[11]]);
        // The last message of an oversized answer may be cut off.
        let payload = bytes.get(HEADER..length.min(bytes.len()))?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Received { kind, sequence, payload })
    })
}

fn elements_of(payload: &[u8], found: &mut Vec<Element>) {
    let value = |nest: &[u8]| attributes(nest).find(|(kind, _)| *kind == 1).map(|(_, value)| value.to_vec());
    for (_, list) in attributes(payload).filter(|(kind, _)| *kind == 3) {
        for (_, element) in attributes(list) {
            let part = |wanted| {
                attributes(element).find(|(kind, _)| *kind == wanted).and_then(|(_, nest)| value(nest))
            };
            if let Some(key) = part(1) {
                found.push(
                    part(2)
                        .map_or_else(|| Element::Key(key.clone()), |data| Element::Value(key.clone(), data)),
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::super::{Chain, Ct, Expr, Hook, Meta, Reg, Set, Verdict};
    use super::*;

    const KINDS: Set = Set {
        name: "kinds",
        key: &[12, 13],
        data: Some(&[19]),
        verdicts: false,
        ranges: false,
        dynamic: None,
    };
    const VERDICTS: Set =
        Set { name: "verdicts", key: &[19], data: None, verdicts: true, ranges: false, dynamic: None };

    fn in_new_namespace(test: impl FnOnce() + Send + 'static) {
        let thread = std::thread::spawn(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            test();
        });
        thread.join().unwrap();
    }

    fn ruleset() -> String {
        String::from_utf8(Command::new("nft").args(["list", "ruleset"]).output().unwrap().stdout).unwrap()
    }

    fn table() -> Batch {
        let mut batch = Batch::new("t");
        batch.add_table();
        let hook = Hook { kind: "filter", number: 3, priority: 0 };
        batch.add_chain(&Chain { name: "out".into(), hook: Some(hook) });
        batch.add_chain(&Chain { name: "other".into(), hook: None });
        batch.add_set(&KINDS);
        batch.add_set(&VERDICTS);
        let rule = [
            Expr::Meta { key: Meta::L4Proto, to: Reg(0) },
            Expr::DestinationPort(Reg(1)),
            Expr::Find { map: "kinds".into(), from: Reg(0), to: Reg(2) },
            Expr::SetCtMark(Reg(2)),
        ];
        batch.add_rule("out", &rule);
        let mark = Expr::Ct { key: Ct::Mark, to: Reg(0) };
        batch.add_rule("out", &[mark, Expr::Dispatch { map: "verdicts".into(), from: Reg(0) }]);
        let element = Element::Verdict(7u32.to_ne_bytes().to_vec(), Verdict::Goto("other".into()));
        batch.add_elements("verdicts", &[element]);
        batch.add_elements("kinds", &[entry()]);
        batch
    }

    fn entry() -> Element {
        Element::Value(vec![6, 0, 0, 0, 0, 80, 0, 0], 7u32.to_ne_bytes().to_vec())
    }

    #[test]
    fn a_batch_is_what_the_nft_program_lists() {
        in_new_namespace(|| {
            let mut socket = Socket::open().unwrap();
            socket.commit(table()).unwrap();
            let listed = ruleset();
            assert!(listed.contains("tcp . 80 : 0x00000007"), "{listed}");
            assert!(listed.contains("0x00000007 : goto other"), "{listed}");
            assert_eq!(socket.elements("t", "kinds").unwrap(), [entry()]);
        });
    }

    #[test]
    fn a_refused_change_is_named_and_undoes_the_batch() {
        in_new_namespace(|| {
            let mut socket = Socket::open().unwrap();
            let mut batch = table();
            batch.delete_elements("kinds", &[Element::Key(vec![17, 0, 0, 0, 0, 80, 0, 0])]);
            let error = socket.commit(batch).unwrap_err();
            assert_eq!(error.source.raw_os_error(), Some(libc::ENOENT));
            assert!(error.change.starts_with("delete elements of kinds"), "{error}");
            assert_eq!(ruleset(), "");
        });
    }

    #[test]
    fn an_element_is_replaced_within_one_batch() {
        in_new_namespace(|| {
            let mut socket = Socket::open().unwrap();
            socket.commit(table()).unwrap();
            let mut batch = Batch::new("t");
            let changed = Element::Value(vec![6, 0, 0, 0, 0, 80, 0, 0], 9u32.to_ne_bytes().to_vec());
            batch.delete_elements("kinds", &[Element::Key(vec![6, 0, 0, 0, 0, 80, 0, 0])]);
            batch.add_elements("kinds", std::slice::from_ref(&changed));
            socket.commit(batch).unwrap();
            assert_eq!(socket.elements("t", "kinds").unwrap(), [changed]);
        });
    }
}
