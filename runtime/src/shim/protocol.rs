//! What server and shim tell each other.
//!
//! A connection begins with one JSON line from the server, a [`Request`]; the socket a shim is started with has
//! an implied [`Request::Watch`]. A watched shim sends [`Notice`]s, one per line, and closes when it is gone.
//! An attached connection goes on with [`Frame`]s both ways.

use std::io::{self, Write};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::Path;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use tokio::net::UnixStream;
use tokio_util::codec::{Decoder, Encoder};

use crate::process::ProcessId;

/// First line of a connection.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Request {
    /// Be told of start and end.
    Watch,
    /// Streams of the container from now on.
    Attach {
        /// Whether the client's input goes to the container.
        stdin: bool,
    },
    /// Open the log file anew, after rotation.
    ReopenLog,
}

/// A line of a watched shim.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Notice {
    Started(Started),
    /// The container could not be started, and nothing is left of it.
    Failed(String),
    Exited(Exited),
    /// Answer to a request that has no other.
    Done,
}

/// A running container; also the content of `started.json`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Started {
    pub(crate) init: ProcessId,
    /// Nanoseconds of Unix time.
    pub(crate) at: i64,
}

/// A container that ended; also the content of `exit.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Exited {
    pub(crate) code: i32,
    /// Nanoseconds of Unix time.
    pub(crate) at: i64,
    /// `Completed`, `Error`, `OOMKilled`, `StartError` or `Unknown`.
    pub(crate) reason: String,
    pub(crate) message: String,
}

/// One piece of an attached stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    Stdin(Bytes),
    /// The client has no more input.
    StdinEnd,
    Stdout(Bytes),
    Stderr(Bytes),
    Resize {
        width: u16,
        height: u16,
    },
}

/// The largest payload of a frame.
const LIMIT: usize = 1 << 20;

/// Frames on the wire: one byte kind, four bytes length, payload.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frames;

impl Decoder for Frames {
    type Item = Frame;
    type Error = io::Error;

    fn decode(&mut self, buffer: &mut BytesMut) -> io::Result<Option<Frame>> {
        let Some(header) = buffer.get(..5) else { return Ok(None) };
        let kind = header[0];
        let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]) as usize;
        if length > LIMIT {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "frame too large"));
        }
        if buffer.len() < 5 + length {
            buffer.reserve(5 + length - buffer.len());
            return Ok(None);
        }
        buffer.advance(5);
        let mut payload = buffer.split_to(length).freeze();
        Ok(Some(match kind {
            0 => Frame::Stdin(payload),
            1 => Frame::Stdout(payload),
            2 => Frame::Stderr(payload),
            3 => Frame::StdinEnd,
            4 if length == 4 => Frame::Resize { width: payload.get_u16(), height: payload.get_u16() },
            _ => return Err(io::Error::new(io::ErrorKind::InvalidData, "unknown frame")),
        }))
    }
}

impl Encoder<Frame> for Frames {
    type Error = io::Error;

    fn encode(&mut self, frame: Frame, buffer: &mut BytesMut) -> io::Result<()> {
        let (kind, payload) = match frame {
            Frame::Stdin(payload) => (0, payload),
            Frame::Stdout(payload) => (1, payload),
            Frame::Stderr(payload) => (2, payload),
            Frame::StdinEnd => (3, Bytes::new()),
            Frame::Resize { width, height } => {
                let mut payload = BytesMut::new();
                payload.put_u16(width);
                payload.put_u16(height);
                (4, payload.freeze())
            }
        };
        let length = u32::try_from(payload.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        buffer.reserve(5 + payload.len());
        buffer.put_u8(kind);
        buffer.put_u32(length);
        buffer.put(payload);
        Ok(())
    }
}

/// A value as one line.
pub(crate) fn line<T: Serialize>(value: &T) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    Ok(line)
}

/// Tells the server that the container could not be started.
pub(super) fn send_failed(mut server: &StdUnixStream, message: &str) -> io::Result<()> {
    server.write_all(&line(&Notice::Failed(message.to_owned()))?)
}

/// Connects to the shim of a container.
pub(crate) async fn connect(directory: &Path) -> io::Result<UnixStream> {
    // A socket's address is short; the directory's path may not be.
    let held = std::fs::File::open(directory)?;
    UnixStream::connect(short(&held, super::SOCKET)).await
}

/// A path of fixed length for a file in an open directory.
pub(crate) fn short(directory: &std::fs::File, name: &str) -> std::path::PathBuf {
    use std::os::fd::AsRawFd;
    format!("/proc/self/fd/{}/{name}", directory.as_raw_fd()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_the_wire_in_any_pieces() {
        let frames = [
            Frame::Stdin(Bytes::from_static(b"hello")),
            Frame::StdinEnd,
            Frame::Stdout(Bytes::new()),
            Frame::Stderr(Bytes::from_static(b"x")),
            Frame::Resize { width: 80, height: 24 },
        ];
        let mut wire = BytesMut::new();
        for frame in frames.clone() {
            Frames.encode(frame, &mut wire).unwrap();
        }
        let (mut buffer, mut decoded) = (BytesMut::new(), Vec::new());
        for byte in wire {
            buffer.put_u8(byte);
            decoded.extend(Frames.decode(&mut buffer).unwrap());
        }
        assert_eq!(decoded, frames);
    }

    #[test]
    fn a_frame_that_is_too_large_or_unknown_is_an_error() {
        for wire in [&[0u8, 255, 0, 0, 0][..], &[9, 0, 0, 0, 0]] {
            assert!(Frames.decode(&mut BytesMut::from(wire)).is_err());
        }
    }
}
