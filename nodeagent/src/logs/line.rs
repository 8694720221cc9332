//! PURE: lines in CRI's format, `2026-01-02T03:04:05.6Z stdout F text`, and what a client gets of them.
//!
//! A long line of the container is written as several with the tag `P` and a last one with `F`.

use jiff::Timestamp;

use super::{LogOptions, Stream};

/// A line that never ends is not one of a runtime.
const LONGEST: usize = 1 << 20;

/// One line as the runtime wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Line<'a> {
    pub(super) time: &'a str,
    pub(super) stream: Stream,
    /// The container's line goes on in the next one of the stream.
    pub(super) partial: bool,
    pub(super) text: &'a [u8],
}

/// Reads one line without its end; `None` if it isn't in the format.
pub(super) fn parse(line: &[u8]) -> Option<Line<'_>> {
    let mut parts = line.splitn(4, |byte| *byte == b' ');
    let time = std::str::from_utf8(parts.next()?).ok().filter(|time| time.len() >= 20)?;
    let stream = match parts.next()? {
        b"stdout" => Stream::Stdout,
        b"stderr" => Stream::Stderr,
        _ => return None,
    };
    // Further tags may follow the first after colons.
    let partial = match parts.next()?.split(|byte| *byte == b':').next()? {
        b"P" => true,
        b"F" => false,
        _ => return None,
    };
    Some(Line { time, stream, partial, text: parts.next().unwrap_or_default() })
}

/// Turns pieces of a file into what the client gets.
#[derive(Debug)]
pub(crate) struct Filter {
    since: Option<Timestamp>,
    timestamps: bool,
    stream: Option<Stream>,
    left: Option<u64>,
    /// The beginning of a line whose end is not written yet.
    begun: Vec<u8>,
    /// What is read belongs to a line that is too long.
    overlong: bool,
    /// Per stream, whether a line of the container goes on, and whether it is shown.
    open: [Option<bool>; 2],
}

impl Filter {
    pub(crate) fn new(options: &LogOptions) -> Self {
        Self {
            since: options.since,
            timestamps: options.timestamps,
            stream: options.stream,
            left: options.limit_bytes,
            begun: Vec::new(),
            overlong: false,
            open: [None; 2],
        }
    }

    /// True when the client has got all that it may.
    pub(super) fn is_full(&self) -> bool {
        self.left == Some(0)
    }

    /// A new file begins: an unfinished line of the one before has no end.
    pub(super) fn next_file(&mut self) {
        self.begun.clear();
        self.overlong = false;
    }

    /// Takes what was read and appends to `out` what the client gets of it.
    pub(crate) fn feed(&mut self, mut input: &[u8], out: &mut Vec<u8>) {
        while let Some(end) = input.iter().position(|byte| *byte == b'\n') {
            let (line, rest) = (&input[..end], &input[end + 1..]);
            input = rest;
            if self.overlong {
                self.overlong = false;
            } else if self.begun.is_empty() {
                self.line(line, out);
            } else {
                let mut whole = std::mem::take(&mut self.begun);
                whole.extend_from_slice(line);
                self.line(&whole, out);
            }
        }
        if !self.overlong {
            self.begun.extend_from_slice(input);
            if self.begun.len() > LONGEST {
                self.begun = Vec::new();
                self.overlong = true;
            }
        }
    }

    fn line(&mut self, line: &[u8], out: &mut Vec<u8>) {
        let Some(line) = parse(line) else { return };
        if self.stream.is_some_and(|wanted| wanted != line.stream) || self.is_full() {
            return;
        }
        let open = &mut self.open[usize::from(line.stream == Stream::Stderr)];
        let begins = open.is_none();
        let shown = open.unwrap_or_else(|| {
            self.since.is_none_or(|since| line.time.parse::<Timestamp>().is_ok_and(|time| time >= since))
        });
        *open = line.partial.then_some(shown);
        if !shown {
            return;
        }
        let from = out.len();
        if begins && self.timestamps {
            out.extend_from_slice(line.time.as_bytes());
            out.push(b' ');
        }
        out.extend_from_slice(line.text);
        if !line.partial {
            out.push(b'\n');
        }
        if let Some(left) = &mut self.left {
            let fits = usize::try_from(*left).unwrap_or(usize::MAX).min(out.len() - from);
            out.truncate(from + fits);
            *left -= fits as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "2026-01-01T00:00:01.5Z stdout F one\n\
                       2026-01-01T00:00:02.5Z stdout P two\n\
                       2026-01-01T00:00:03.5Z stderr F err\n\
                       not a line\n\
                       2026-01-01T00:00:04.5Z stdout F :tail\n\
                       2026-01-01T00:00:05.5Z stdout F \n";

    fn shown(options: &LogOptions, piece: usize) -> String {
        let mut filter = Filter::new(options);
        let mut out = Vec::new();
        for piece in LOG.as_bytes().chunks(piece) {
            filter.feed(piece, &mut out);
        }
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn clients_get_what_they_ask_for() {
        let since = Some("2026-01-01T00:00:03Z".parse().unwrap());
        for (what, options, expected) in [
            ("all", LogOptions::default(), "one\ntwoerr\n:tail\n\n"),
            (
                "stdout with its times",
                LogOptions { timestamps: true, stream: Some(Stream::Stdout), ..LogOptions::default() },
                "2026-01-01T00:00:01.5Z one\n2026-01-01T00:00:02.5Z two:tail\n2026-01-01T00:00:05.5Z \n",
            ),
            (
                "a line counts as of its beginning",
                LogOptions { since, stream: Some(Stream::Stdout), ..LogOptions::default() },
                "\n",
            ),
            ("stderr", LogOptions { stream: Some(Stream::Stderr), ..LogOptions::default() }, "err\n"),
            ("a limit", LogOptions { limit_bytes: Some(6), ..LogOptions::default() }, "one\ntw"),
        ] {
            for piece in [1, 7, 1000] {
                assert_eq!(shown(&options, piece), expected, "{what}, in pieces of {piece}");
            }
        }
    }

    #[test]
    fn what_is_not_in_the_format_is_no_line() {
        for line in [
            "",
            "x",
            "2026-01-01T00:00:01.5Z",
            "2026-01-01T00:00:01.5Z stdin F x",
            "2026-01-01T00:00:01.5Z stdout X x",
        ] {
            assert_eq!(parse(line.as_bytes()), None, "{line}");
        }
        let tagged = parse(b"2026-01-01T00:00:01.5Z stdout F:tag a b").unwrap();
        assert_eq!((tagged.partial, tagged.text), (false, b"a b".as_slice()));
    }

    #[test]
    fn a_line_without_end_takes_no_memory() {
        let mut filter = Filter::new(&LogOptions::default());
        let mut out = Vec::new();
        for _ in 0..40 {
            filter.feed(&[b'x'; 65536], &mut out);
        }
        assert!(filter.begun.len() <= LONGEST);
        filter.feed(b"\n2026-01-01T00:00:01.5Z stdout F next\n", &mut out);
        assert_eq!(out, b"next\n");
    }
}
