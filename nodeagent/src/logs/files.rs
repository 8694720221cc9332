//! A log with the files that were rotated away from it. Files are held open, so that a rotation meanwhile takes
//! nothing away.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::{Stream, line};

const BLOCK: u64 = 64 * 1024;
/// What is kept of a line that began in an earlier block.
const LONGEST: usize = 1 << 20;

/// The files of a log, oldest first, and where to begin.
#[derive(Debug)]
pub(super) struct Files {
    pub(super) files: Vec<File>,
    pub(super) offset: u64,
}

/// The rotated files of a log, oldest first.
pub(super) fn rotated(path: &Path) -> Vec<PathBuf> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str()))
    else {
        return Vec::new();
    };
    let prefix = format!("{name}.");
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let is_stamp = |rest: &str| rest.len() == 15 && rest.bytes().all(|b| b.is_ascii_digit() || b == b'-');
    let mut found: Vec<String> =
        names.filter(|name| name.strip_prefix(&prefix).is_some_and(is_stamp)).collect();
    // Their stamps sort as their times.
    found.sort_unstable();
    found.into_iter().map(|name| directory.join(name)).collect()
}

impl Files {
    /// Opens a log where its last `tail` lines begin, or from its beginning.
    pub(super) fn open(path: &Path, tail: Option<u64>, stream: Option<Stream>) -> io::Result<Self> {
        let current = File::open(path)?;
        let mut files = vec![current];
        let mut wanted = tail;
        let mut offset = 0;
        if let Some(lines) = wanted {
            match tail_of(&files[0], lines, stream)? {
                Tail::From(start) => return Ok(Self { files, offset: start }),
                Tail::Missing(lines) => wanted = Some(lines),
            }
        }
        for older in rotated(path).into_iter().rev() {
            let Ok(older) = File::open(older) else { continue };
            // Renamed since we opened it.
            if same(&older, &files[0])? {
                continue;
            }
            let tail = wanted.map(|lines| tail_of(&older, lines, stream)).transpose()?;
            files.insert(0, older);
            match tail {
                Some(Tail::From(start)) => {
                    offset = start;
                    break;
                }
                Some(Tail::Missing(lines)) => wanted = Some(lines),
                None => {}
            }
        }
        Ok(Self { files, offset })
    }
}

/// True if both are one file.
pub(super) fn same(one: &File, other: &File) -> io::Result<bool> {
    let (one, other) = (one.metadata()?, other.metadata()?);
    Ok((one.dev(), one.ino()) == (other.dev(), other.ino()))
}

#[derive(Debug, PartialEq, Eq)]
enum Tail {
    /// The lines begin here.
    From(u64),
    /// So many more are in older files.
    Missing(u64),
}

/// Looks for the last lines of the container in a file, from its end backwards.
fn tail_of(file: &File, mut lines: u64, stream: Option<Stream>) -> io::Result<Tail> {
    let mut position = file.metadata()?.len();
    // What follows the last end of a line is not a line yet. `None` until that end is found.
    let mut line_end: Option<u64> = None;
    let mut kept: Vec<u8> = Vec::new();
    loop {
        let size = position.min(BLOCK);
        position -= size;
        let mut block = vec![0; usize::try_from(size).unwrap_or_default()];
        file.read_exact_at(&mut block, position)?;
        block.append(&mut kept);
        let mut end = block.len();
        while let Some(newline) = block[..end].iter().rposition(|byte| *byte == b'\n') {
            let begin = newline + 1;
            if let Some(line_end) = line_end
                && is_end(&block[begin..end], stream)
            {
                if lines == 0 {
                    return Ok(Tail::From(line_end));
                }
                lines -= 1;
            }
            line_end = Some(position + begin as u64);
            end = newline;
        }
        if position == 0 {
            if let Some(line_end) = line_end
                && is_end(&block[..end], stream)
            {
                if lines == 0 {
                    return Ok(Tail::From(line_end));
                }
                lines -= 1;
            }
            return Ok(if lines == 0 { Tail::From(0) } else { Tail::Missing(lines) });
        }
        block.truncate(end.min(LONGEST));
        kept = block;
    }
}

/// True for the last piece of a line of the container.
fn is_end(text: &[u8], stream: Option<Stream>) -> bool {
    line::parse(text).is_some_and(|line| !line.partial && stream.is_none_or(|wanted| wanted == line.stream))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(files: &Files) -> String {
        let mut text = String::new();
        for (position, file) in files.files.iter().enumerate() {
            let mut bytes = vec![0; usize::try_from(file.metadata().unwrap().len()).unwrap()];
            file.read_exact_at(&mut bytes, 0).unwrap();
            let from = if position == 0 { usize::try_from(files.offset).unwrap() } else { 0 };
            text.push_str(std::str::from_utf8(&bytes[from..]).unwrap());
        }
        text.lines().filter_map(|line| line.rsplit(' ').next()).collect::<Vec<_>>().join(" ")
    }

    fn line(tag: &str, text: impl std::fmt::Display) -> String {
        format!("2026-01-01T00:00:01.5Z stdout {tag} {text}\n")
    }

    #[test]
    fn the_last_lines_are_found_across_rotated_files() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("0.log");
        fs::write(base.path().join("0.log.20260101-000000"), line("F", "a") + &line("F", "b")).unwrap();
        fs::write(base.path().join("0.log.20260102-000000"), line("F", "c") + &line("P", "d1")).unwrap();
        fs::write(base.path().join("0.log.other"), line("F", "no")).unwrap();
        fs::write(base.path().join("10.log"), line("F", "no")).unwrap();
        fs::write(&path, line("F", "d2") + &line("P", "e1") + &line("F", "e2") + "2026-01-").unwrap();
        for (tail, expected) in [
            (None, "a b c d1 d2 e1 e2 2026-01-"),
            (Some(0), "2026-01-"),
            (Some(1), "e1 e2 2026-01-"),
            (Some(2), "d2 e1 e2 2026-01-"),
            (Some(3), "c d1 d2 e1 e2 2026-01-"),
            (Some(4), "b c d1 d2 e1 e2 2026-01-"),
            (Some(9), "a b c d1 d2 e1 e2 2026-01-"),
        ] {
            assert_eq!(text(&Files::open(&path, tail, None).unwrap()), expected, "{tail:?}");
        }
    }

    #[test]
    fn the_last_lines_are_found_across_blocks() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("0.log");
        let all: Vec<String> = (0..9000).map(|n| n.to_string()).collect();
        fs::write(&path, all.iter().map(|n| line("F", n)).collect::<String>()).unwrap();
        for tail in [0, 1, 1000, 1300, 1500, 8999, 9000] {
            let files = Files::open(&path, Some(tail), None).unwrap();
            let expected = all[9000 - usize::try_from(tail).unwrap()..].join(" ");
            assert_eq!(text(&files), expected, "{tail}");
        }
        fs::write(&path, "").unwrap();
        assert_eq!(Files::open(&path, Some(3), None).unwrap().offset, 0);
    }
}
