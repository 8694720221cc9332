//! The audit log: a file of lines, written by one task, turned over when it is large.
//!
//! Requests never wait for the disk. Lines go through a queue that is bounded in number and in bytes; what finds no
//! room there, or on the disk, is counted as lost.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use base::{Clock, Tasks};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use tokio::sync::mpsc;
use tracing::warn;

/// So many lines wait at most; upstream's figure.
const QUEUE: usize = 10_000;
/// And so many bytes.
const QUEUE_BYTES: usize = 64 << 20;
/// So many lines are written at a time; upstream's figure.
const BATCH: usize = 400;
/// How old logs name the time of their end.
const STAMP: &str = "%Y-%m-%dT%H-%M-%S.%3f";

/// Where the log is kept, and how much of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// The file; `-` is the standard output.
    pub path: PathBuf,
    /// Old logs are removed after so many days; 0 keeps them.
    pub max_age_days: u32,
    /// So many old logs are kept; 0 keeps all.
    pub max_backups: usize,
    /// A log is turned over when it has so many megabytes; 0 never.
    pub max_megabytes: u64,
}

/// The way of lines to the log.
#[derive(Debug)]
pub(super) struct Log {
    lines: mpsc::Sender<Vec<u8>>,
    queued: Arc<AtomicUsize>,
    lost: Arc<AtomicU64>,
}

impl Log {
    /// Opens the log, and starts the task that writes it.
    pub(super) fn open(settings: LogSettings, clock: Clock, tasks: &Tasks) -> io::Result<Self> {
        let mut file = LogFile { settings, file: None, size: 0, torn: false };
        file.ready()?;
        let (lines, queue) = mpsc::channel(QUEUE);
        let (queued, lost) = (Arc::<AtomicUsize>::default(), Arc::<AtomicU64>::default());
        let writer =
            Writer { queue, file, clock, queued: queued.clone(), lost: lost.clone(), tasks: tasks.clone() };
        tasks.spawn_draining("audit log", writer.run());
        Ok(Self { lines, queued, lost })
    }

    /// Adds a line, without its end. Never waits.
    pub(super) fn add(&self, line: Vec<u8>) {
        let size = line.len();
        if self.queued.fetch_add(size, Relaxed) + size > QUEUE_BYTES || self.lines.try_send(line).is_err() {
            self.queued.fetch_sub(size, Relaxed);
            self.lost.fetch_add(1, Relaxed);
        }
    }

    /// How many lines were lost.
    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Relaxed)
    }
}

struct Writer {
    queue: mpsc::Receiver<Vec<u8>>,
    file: LogFile,
    clock: Clock,
    queued: Arc<AtomicUsize>,
    lost: Arc<AtomicU64>,
    tasks: Tasks,
}

impl Writer {
    /// Writes what comes, and what is left when the server ends.
    async fn run(mut self) {
        let token = self.tasks.token();
        let mut failing = false;
        loop {
            let mut batch = Vec::new();
            tokio::select! {
                biased;
                () = token.cancelled(), if !self.queue.is_closed() => {
                    self.queue.close();
                    continue;
                }
                _ = self.queue.recv_many(&mut batch, BATCH) => {}
            }
            if batch.is_empty() {
                return;
            }
            let (count, now) = (batch.len() as u64, self.clock.now());
            self.queued.fetch_sub(batch.iter().map(Vec::len).sum(), Relaxed);
            let mut file = self.file;
            let (file, written) = self
                .tasks
                .blocking(move || {
                    let written = file.write(&batch, now);
                    (file, written)
                })
                .await;
            self.file = file;
            match written {
                Ok(()) => failing = false,
                Err((written, error)) => {
                    self.lost.fetch_add(count - written, Relaxed);
                    // Once, until it works again: a full disk must not fill the other log, too.
                    if !std::mem::replace(&mut failing, true) {
                        let path = self.file.settings.path.display();
                        warn!(%path, %error, "audit events are lost: the log can't be written");
                    }
                }
            }
        }
    }
}

struct LogFile {
    settings: LogSettings,
    file: Option<File>,
    size: u64,
    /// The last write broke off within a line.
    torn: bool,
}

impl LogFile {
    fn is_stdout(&self) -> bool {
        self.settings.path == Path::new("-")
    }

    /// Writes lines; if that fails, how many were written before.
    fn write(&mut self, lines: &[Vec<u8>], now: Timestamp) -> Result<(), (u64, io::Error)> {
        let most = self.settings.max_megabytes << 20;
        let mut written = 0;
        let mut rest = lines;
        while !rest.is_empty() {
            // As many as fit into this file.
            let mut chunk = Vec::new();
            let mut count = 0;
            for line in rest {
                let size = self.size + chunk.len() as u64 + line.len() as u64 + 1;
                if most > 0 && size > most && self.size + chunk.len() as u64 > 0 {
                    break;
                }
                chunk.extend_from_slice(line);
                chunk.push(b'\n');
                count += 1;
            }
            let result = match count {
                0 => self.turn_over(now),
                _ => self.append(&chunk),
            };
            result.map_err(|error| (written, error))?;
            written += count;
            rest = &rest[usize::try_from(count).unwrap_or(rest.len())..];
        }
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.is_stdout() {
            return io::stdout().lock().write_all(bytes);
        }
        let torn = self.torn;
        let file = self.ready()?;
        let result = if torn { file.write_all(b"\n") } else { Ok(()) }.and_then(|()| file.write_all(bytes));
        self.torn = result.is_err();
        match &result {
            Ok(()) => self.size += bytes.len() as u64 + u64::from(torn),
            // Looked at again the next time: the file may have been removed, or made larger.
            Err(_) => self.file = None,
        }
        result
    }

    /// The open file.
    fn ready(&mut self) -> io::Result<&mut File> {
        let (path, is_stdout) = (&self.settings.path, self.is_stdout());
        if self.file.is_none() && !is_stdout {
            if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                fs::create_dir_all(parent)?;
            }
            let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
            self.size = file.metadata()?.len();
            self.file = Some(file);
        }
        self.file.as_mut().ok_or_else(|| io::Error::other("the standard output is no file"))
    }

    /// Gives the log the name of an old one, and removes those that are too old or too many.
    fn turn_over(&mut self, now: Timestamp) -> io::Result<()> {
        self.file = None;
        let name = format!("{}{}{}", self.stem(), now.to_zoned(TimeZone::UTC).strftime(STAMP), self.ending());
        fs::rename(&self.settings.path, self.settings.path.with_file_name(name))?;
        self.size = 0;
        self.ready()?;
        let mut old = self.old()?;
        // Newest first.
        old.sort_by(|a, b| b.cmp(a));
        let keep = if self.settings.max_backups == 0 { usize::MAX } else { self.settings.max_backups };
        let oldest = now - jiff::SignedDuration::from_hours(24 * i64::from(self.settings.max_age_days));
        for (at, (ended, path)) in old.into_iter().enumerate() {
            if at >= keep || self.settings.max_age_days > 0 && ended < oldest {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    fn old(&self) -> io::Result<Vec<(Timestamp, PathBuf)>> {
        let parent = self.settings.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let mut old = Vec::new();
        for entry in fs::read_dir(parent.unwrap_or(Path::new(".")))? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let stamp = name.strip_prefix(&*self.stem()).and_then(|rest| rest.strip_suffix(&*self.ending()));
            let ended = stamp.and_then(|stamp| jiff::civil::DateTime::strptime(STAMP, stamp).ok());
            if let Some(ended) = ended.and_then(|ended| ended.to_zoned(TimeZone::UTC).ok()) {
                old.push((ended.timestamp(), path));
            }
        }
        Ok(old)
    }

    /// What an old log's name begins with: `audit-` for `audit.log`.
    fn stem(&self) -> String {
        let stem = self.settings.path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        format!("{stem}-")
    }

    fn ending(&self) -> String {
        let ending = self.settings.path.extension().and_then(|ending| ending.to_str());
        ending.map_or_else(String::new, |ending| format!(".{ending}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(path: PathBuf) -> LogSettings {
        LogSettings { path, max_age_days: 0, max_backups: 2, max_megabytes: 1 }
    }

    #[test]
    fn a_log_is_turned_over_and_few_old_ones_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let mut file =
            LogFile { settings: settings(dir.path().join("audit.log")), file: None, size: 0, torn: false };
        let line = vec![b'x'; 300 << 10];
        let start: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        for hour in 0..5 {
            file.write(&vec![line.clone(); 4], start + jiff::SignedDuration::from_hours(hour)).unwrap();
        }
        let mut names: Vec<String> = fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        let expect = ["audit-2026-01-01T03-00-00.000.log", "audit-2026-01-01T04-00-00.000.log", "audit.log"];
        assert_eq!(names, expect);
        for name in names {
            assert!(fs::metadata(dir.path().join(name)).unwrap().len() <= 1 << 20);
        }
    }

    #[test]
    fn what_does_not_fit_on_the_disk_is_lost_and_the_next_line_is_whole() {
        // The kernel's own full disk.
        let mut file = LogFile {
            settings: LogSettings { max_megabytes: 0, ..settings("/dev/full".into()) },
            file: None,
            size: 0,
            torn: false,
        };
        let (written, error) = file.write(&[b"a".to_vec()], Timestamp::UNIX_EPOCH).unwrap_err();
        assert_eq!((written, error.kind()), (0, io::ErrorKind::StorageFull));
        let dir = tempfile::tempdir().unwrap();
        file.settings.path = dir.path().join("deep/audit.log");
        file.write(&[b"b".to_vec(), b"c".to_vec()], Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(fs::read_to_string(&file.settings.path).unwrap(), "\nb\nc\n");
    }

    #[tokio::test]
    async fn a_queue_that_is_full_loses_lines_and_never_waits() {
        let tasks = Tasks::new("test");
        let log = Log::open(settings("/dev/full".into()), Clock::system(), &tasks).unwrap();
        // The task has no turn before this test waits.
        for _ in 0..QUEUE + 5 {
            log.add(vec![b'x']);
        }
        assert_eq!(log.lost(), 5);
        log.add(vec![b'x'; QUEUE_BYTES + 1]);
        assert_eq!(log.lost(), 6);
        tasks.shutdown(std::time::Duration::from_secs(30)).await.unwrap();
        assert_eq!(log.lost(), QUEUE as u64 + 6);
    }
}
