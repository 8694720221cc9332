//! The stream of a log for a client.
//!
//! Following waits for the kernel's word that the file was written, renamed or closed. Only after it was closed,
//! which a runtime does at a container's end or to reopen it, is it asked whether the container has ended.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base::{Clock, Tasks};
use bytes::Bytes;
use futures::future::BoxFuture;
use nix::sys::inotify::AddWatchFlags;
use tokio::sync::mpsc;

use super::files::{Files, same};
use super::line::Filter;
use super::notify::{Event, Notify};
use super::{LogError, LogOptions};

/// What is read, and at most sent, at once.
const CHUNK: usize = 64 * 1024;
/// So many chunks wait for a slow client.
const QUEUE: usize = 4;
/// After a log was closed: how soon it is asked whether the container has ended, at first and at last.
const ASK_FIRST: Duration = Duration::from_millis(20);
const ASK_LAST: Duration = Duration::from_secs(1);

/// Tells whether the container has ended, so that nothing more will be written.
pub type Ended = Box<dyn Fn() -> BoxFuture<'static, bool> + Send + Sync>;

/// The parts of a log, in order. Dropping it ends the reading.
pub struct LogStream {
    parts: mpsc::Receiver<Bytes>,
}

impl LogStream {
    /// The next part; `None` at the end.
    pub async fn next(&mut self) -> Option<Bytes> {
        self.parts.recv().await
    }
}

impl fmt::Debug for LogStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogStream").finish_non_exhaustive()
    }
}

/// Opens a log. Errors come before the first part; what fails later ends the stream.
pub async fn read(
    tasks: &Tasks,
    clock: &Clock,
    path: &Path,
    options: LogOptions,
    ended: Ended,
) -> Result<LogStream, LogError> {
    // Before the file is read, so that no change is missed.
    let notify = if options.follow { Some(watch(path)?) } else { None };
    let (from, tail, stream) = (path.to_owned(), options.tail, options.stream);
    let files = match tasks.blocking(move || Files::open(&from, tail, stream)).await {
        Ok(files) => files,
        // The runtime makes it when it starts the container.
        Err(error) if error.kind() == io::ErrorKind::NotFound && options.follow => {
            Files { files: Vec::new(), offset: 0 }
        }
        Err(source) if source.kind() == io::ErrorKind::NotFound => {
            return Err(LogError::Missing { path: path.to_owned(), source });
        }
        Err(source) => return Err(LogError::Open { path: path.to_owned(), source }),
    };
    let (sender, parts) = mpsc::channel(QUEUE);
    let pump = Pump {
        tasks: tasks.clone(),
        clock: clock.clone(),
        path: path.to_owned(),
        filter: Filter::new(&options),
        sender,
        ended,
    };
    tasks.spawn("log", async move {
        let path = pump.path.clone();
        if let Err(error) = pump.run(files, notify).await {
            tracing::warn!(path = %path.display(), %error, "a log could not be read to its end");
        }
    });
    Ok(LogStream { parts })
}

fn watch(path: &Path) -> Result<Notify, LogError> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let what = AddWatchFlags::IN_MODIFY
        | AddWatchFlags::IN_CREATE
        | AddWatchFlags::IN_MOVED_TO
        | AddWatchFlags::IN_CLOSE_WRITE
        | AddWatchFlags::IN_DELETE
        | AddWatchFlags::IN_DELETE_SELF;
    let made = Notify::new().and_then(|notify| notify.watch(directory, what).map(|_| notify));
    made.map_err(|source| LogError::Missing { path: path.to_owned(), source })
}

struct Pump {
    tasks: Tasks,
    clock: Clock,
    path: PathBuf,
    filter: Filter,
    sender: mpsc::Sender<Bytes>,
    ended: Ended,
}

/// The client is gone, or has got all that it wanted.
#[derive(Debug)]
struct Enough;

impl Pump {
    async fn run(mut self, files: Files, notify: Option<Notify>) -> io::Result<()> {
        let mut current = None;
        let mut begin = files.offset;
        for file in files.files {
            self.filter.next_file();
            let Ok(end) = self.drain(&file, begin).await? else { return Ok(()) };
            current = Some((file, end));
            begin = 0;
        }
        match notify {
            Some(notify) => self.follow(notify, current).await,
            None => Ok(()),
        }
    }

    /// Sends a file from `offset` to its end; returns where that is.
    async fn drain(&mut self, file: &File, mut offset: u64) -> io::Result<Result<u64, Enough>> {
        loop {
            if self.filter.is_full() {
                return Ok(Err(Enough));
            }
            let handle = file.try_clone()?;
            let (bytes, read) = self
                .tasks
                .blocking(move || {
                    let mut bytes = vec![0; CHUNK];
                    let read = handle.read_at(&mut bytes, offset);
                    (bytes, read)
                })
                .await;
            let read = read?;
            if read == 0 {
                return Ok(Ok(offset));
            }
            offset += read as u64;
            let mut out = Vec::with_capacity(read);
            self.filter.feed(&bytes[..read], &mut out);
            if !out.is_empty() && self.sender.send(out.into()).await.is_err() {
                return Ok(Err(Enough));
            }
        }
    }

    async fn follow(mut self, notify: Notify, mut current: Option<(File, u64)>) -> io::Result<()> {
        // The file may have been closed right before we looked, and the runtime not have noticed the end yet.
        let mut doubt = Some(Doubt { pause: ASK_LAST, lasting: false });
        let mut ask = true;
        loop {
            // Asked before the file is read: what was written until the end is then sent.
            let over = ask && (self.ended)().await;
            let new = File::open(&self.path).ok();
            if let Some((file, offset)) = &mut current {
                let Ok(end) = self.drain(file, *offset).await? else { return Ok(()) };
                *offset = end;
            }
            if let Some(new) = new
                && !current.as_ref().map(|(file, _)| same(file, &new)).transpose()?.unwrap_or(false)
            {
                // Rotated: the runtime writes to the new file, and the old one was read to its end above.
                self.filter.next_file();
                let Ok(end) = self.drain(&new, 0).await? else { return Ok(()) };
                current = Some((new, end));
            }
            if over {
                return Ok(());
            }
            let pause = async {
                match doubt {
                    Some(doubt) => self.clock.wait(doubt.pause).await,
                    None => std::future::pending().await,
                }
            };
            ask = tokio::select! {
                () = self.sender.closed() => return Ok(()),
                () = pause => {
                    doubt = doubt.and_then(Doubt::next);
                    true
                }
                events = notify.events() => {
                    doubt = self.after(&events?, doubt);
                    false
                }
            };
        }
    }

    /// What the events say about when to ask for the container's end.
    fn after(&self, events: &[Event], mut doubt: Option<Doubt>) -> Option<Doubt> {
        let closed = AddWatchFlags::IN_CLOSE_WRITE | AddWatchFlags::IN_DELETE;
        let lost = AddWatchFlags::IN_DELETE_SELF | AddWatchFlags::IN_Q_OVERFLOW;
        for event in events {
            let ours = event.name.as_deref() == self.path.file_name();
            if event.mask.intersects(lost) || ours && event.mask.intersects(closed) {
                doubt = Some(Doubt { pause: ASK_FIRST, lasting: true });
            } else if ours && event.mask.intersects(AddWatchFlags::IN_MODIFY) {
                // It is written again, by the runtime that has reopened it.
                doubt = None;
            }
        }
        doubt
    }
}

/// Whether the container still runs is to be asked after a pause.
#[derive(Clone, Copy, Debug)]
struct Doubt {
    pause: Duration,
    /// Until there is an answer, not only once.
    lasting: bool,
}

impl Doubt {
    fn next(self) -> Option<Self> {
        self.lasting.then(|| Self { pause: (self.pause * 2).min(ASK_LAST), lasting: true })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    struct Fixture {
        base: tempfile::TempDir,
        tasks: Tasks,
        over: Arc<AtomicBool>,
    }

    impl Fixture {
        fn new() -> Self {
            Self { base: tempfile::tempdir().unwrap(), tasks: Tasks::new("test"), over: Arc::default() }
        }

        fn path(&self) -> PathBuf {
            self.base.path().join("0.log")
        }

        async fn read(&self, options: LogOptions) -> Result<LogStream, LogError> {
            let over = self.over.clone();
            let ended: Ended = Box::new(move || {
                let over = over.load(Ordering::SeqCst);
                Box::pin(async move { over })
            });
            read(&self.tasks, &Clock::system(), &self.path(), options, ended).await
        }
    }

    fn line(text: &str) -> String {
        format!("2026-01-01T00:00:01.5Z stdout F {text}\n")
    }

    async fn all(mut stream: LogStream) -> String {
        let mut text = Vec::new();
        while let Some(part) = stream.next().await {
            text.extend_from_slice(&part);
        }
        String::from_utf8(text).unwrap()
    }

    async fn next(stream: &mut LogStream) -> String {
        String::from_utf8(stream.next().await.unwrap().to_vec()).unwrap()
    }

    #[tokio::test]
    async fn a_log_is_read_with_what_was_rotated_away() {
        let fixture = Fixture::new();
        std::fs::write(fixture.base.path().join("0.log.20260101-000000"), line("a") + &line("b")).unwrap();
        std::fs::write(fixture.path(), line("c")).unwrap();
        assert_eq!(all(fixture.read(LogOptions::default()).await.unwrap()).await, "a\nb\nc\n");
        let tail = LogOptions { tail: Some(2), ..LogOptions::default() };
        assert_eq!(all(fixture.read(tail).await.unwrap()).await, "b\nc\n");
    }

    #[tokio::test]
    async fn following_shows_lines_as_they_come_until_the_end_of_the_container() {
        let fixture = Fixture::new();
        let mut file = File::create(fixture.path()).unwrap();
        file.write_all(line("one").as_bytes()).unwrap();
        let options = LogOptions { follow: true, ..LogOptions::default() };
        let mut stream = fixture.read(options).await.unwrap();
        assert_eq!(next(&mut stream).await, "one\n");
        let two = line("two");
        let (begin, end) = two.split_at(10);
        file.write_all(begin.as_bytes()).unwrap();
        file.write_all(end.as_bytes()).unwrap();
        assert_eq!(next(&mut stream).await, "two\n");
        // Rotated by a rename; the runtime goes on in the old file until it has opened the new one.
        std::fs::rename(fixture.path(), fixture.base.path().join("0.log.20260101-000000")).unwrap();
        file.write_all(line("three").as_bytes()).unwrap();
        let mut file = File::create(fixture.path()).unwrap();
        file.write_all(line("four").as_bytes()).unwrap();
        let mut text = next(&mut stream).await;
        while !text.ends_with("four\n") {
            text += &next(&mut stream).await;
        }
        assert_eq!(text, "three\nfour\n");
        file.write_all(line("five").as_bytes()).unwrap();
        fixture.over.store(true, Ordering::SeqCst);
        drop(file);
        assert_eq!(all(stream).await, "five\n");
    }

    #[tokio::test]
    async fn following_waits_for_a_log_that_is_not_there_yet() {
        let fixture = Fixture::new();
        assert!(matches!(fixture.read(LogOptions::default()).await, Err(LogError::Missing { .. })));
        let options = LogOptions { follow: true, limit_bytes: Some(3), ..LogOptions::default() };
        let stream = fixture.read(options).await.unwrap();
        std::fs::write(fixture.path(), line("late")).unwrap();
        assert_eq!(all(stream).await, "lat");
    }

    #[tokio::test]
    async fn a_client_that_goes_ends_the_reading() {
        let fixture = Fixture::new();
        std::fs::write(fixture.path(), line("one")).unwrap();
        let mut stream = fixture.read(LogOptions { follow: true, ..LogOptions::default() }).await.unwrap();
        next(&mut stream).await;
        drop(stream);
        // Waits for the task; it must not need the group to be cancelled.
        let name = fixture.tasks.clone();
        tokio::time::timeout(Duration::from_secs(10), async {
            while format!("{name:?}").contains("running: 1") {
                tokio::task::yield_now().await;
            }
        })
        .await
        .unwrap();
    }
}
