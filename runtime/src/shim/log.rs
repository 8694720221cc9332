//! The container's log in CRI's format: `TIME STREAM TAG TEXT`, with tag `F` for a whole line and `P` for a part.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

/// A line longer than this is written in parts.
const LINE: usize = 16 << 10;

/// An open log file.
#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    file: Option<File>,
}

impl Log {
    /// Opens a log; an empty path is a log that keeps nothing.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let mut log = Self { path: path.to_owned(), file: None };
        log.reopen()?;
        Ok(log)
    }

    /// Opens the file by its name again, after someone moved it away.
    pub(super) fn reopen(&mut self) -> io::Result<()> {
        if self.path.as_os_str().is_empty() {
            return Ok(());
        }
        if let Some(parent) = self.path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        self.file = Some(OpenOptions::new().append(true).create(true).mode(0o640).open(&self.path)?);
        Ok(())
    }

    /// Writes finished lines. A full disk loses log, it never stops a container.
    fn write(&mut self, lines: &[u8]) {
        if let Some(file) = &mut self.file {
            let _ = file.write_all(lines);
        }
    }
}

/// One stream on its way into the log.
#[derive(Debug)]
pub(super) struct Lines {
    stream: &'static str,
    /// The beginning of a line whose end has not come yet.
    pending: Vec<u8>,
    /// Reused between writes.
    out: Vec<u8>,
}

impl Lines {
    pub(super) fn new(stream: &'static str) -> Self {
        Self { stream, pending: Vec::new(), out: Vec::new() }
    }

    /// Takes what was read and writes the lines that it completes.
    pub(super) fn push(&mut self, log: &mut Log, now: Timestamp, mut bytes: &[u8]) {
        self.out.clear();
        while !bytes.is_empty() {
            let room = LINE - self.pending.len();
            let end = bytes.iter().take(room + 1).position(|byte| *byte == b'\n');
            match end {
                Some(end) => {
                    self.pending.extend_from_slice(&bytes[..end]);
                    bytes = &bytes[end + 1..];
                    self.finish(now, "F");
                }
                None if bytes.len() > room => {
                    self.pending.extend_from_slice(&bytes[..room]);
                    bytes = &bytes[room..];
                    self.finish(now, "P");
                }
                None => {
                    self.pending.extend_from_slice(bytes);
                    break;
                }
            }
        }
        log.write(&self.out);
    }

    /// Writes what is left when the stream ends without a newline.
    pub(super) fn end(&mut self, log: &mut Log, now: Timestamp) {
        self.out.clear();
        if !self.pending.is_empty() {
            self.finish(now, "P");
        }
        log.write(&self.out);
    }

    fn finish(&mut self, now: Timestamp, tag: &str) {
        // Writing to memory can't fail.
        let _ = write!(self.out, "{now:.9} {} {tag} ", self.stream);
        self.out.append(&mut self.pending);
        self.out.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logged(pieces: &[&[u8]]) -> String {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pod/0.log");
        let mut log = Log::open(&path).unwrap();
        let mut lines = Lines::new("stdout");
        let now = "2026-01-02T03:04:05.000000006Z".parse().unwrap();
        for piece in pieces {
            lines.push(&mut log, now, piece);
        }
        lines.end(&mut log, now);
        std::fs::read_to_string(&path).unwrap().replace("2026-01-02T03:04:05.000000006Z stdout ", "")
    }

    #[test]
    fn lines_are_tagged_whole_however_they_arrive() {
        assert_eq!(logged(&[b"one\ntwo\n"]), "F one\nF two\n");
        assert_eq!(logged(&[b"o", b"ne", b"\n\n"]), "F one\nF \n");
        assert_eq!(logged(&[b"no end"]), "P no end\n");
        assert_eq!(logged(&[]), "");
    }

    #[test]
    fn a_long_line_is_written_in_parts() {
        let long = vec![b'x'; LINE + 1];
        let text = logged(&[&long, b"\n"]);
        assert_eq!(text, format!("P {}\nF x\n", "x".repeat(LINE)));
        let exact = vec![b'x'; LINE];
        assert_eq!(logged(&[&exact, b"\n"]), format!("F {}\n", "x".repeat(LINE)));
    }
}
