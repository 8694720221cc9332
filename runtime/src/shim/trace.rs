//! Keeps what libcontainer reports through `tracing`: its errors say little, its log says why.

use std::fmt::{self, Write as _};
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use crate::error::{Error, IoContext};

/// How much of the file is looked at for the last lines.
const TAIL: usize = 16 << 10;

/// Writes errors, also those of cloned children, to a file, one line each.
struct ErrorsToFile(File);

/// Sends the errors of this process and its children to a file from here on.
pub(crate) fn capture(path: &Path) -> Result<(), Error> {
    let file = open(path)?;
    tracing::subscriber::set_global_default(ErrorsToFile(file)).map_err(|error| Error::failed("log", error))
}

/// Adds one line, without a subscriber.
pub(super) fn note(path: &Path, text: &str) {
    if let Ok(mut file) = open(path) {
        let _ = writeln!(file, "{text}");
    }
}

fn open(path: &Path) -> Result<File, Error> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path).at("open", path)
}

/// The last errors of a file, as one line.
pub(crate) fn last_errors(path: &Path) -> String {
    let text = std::fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text[text.len().saturating_sub(TAIL)..]).into_owned();
    let mut lines: Vec<&str> = text.lines().rev().take(3).collect();
    lines.reverse();
    lines.join("; ")
}

impl Subscriber for ErrorsToFile {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::ERROR
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        // One write per line: children of the shim write to the same file.
        let _ = (&self.0).write_all(format!("{}{}\n", line.message, line.fields).as_bytes());
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}
