//! The embedded store: SQLite in one directory, or in memory.
//!
//! - `database`: the on-disk format. `core`: applies requests. `writer`: the thread that drives it with
//!   group commit. `read`, `reader`: reading beside it. `hub`: watches. `upkeep`: what runs on a timer
//!   (leases, compaction). `maintenance`: backup and restore.
//!
//! # Durability
//! A write is acknowledged after an fsync that covers it. Volatile writes (see [`Op::Put`](crate::Op::Put))
//! are acknowledged once they are in the write-ahead log without an fsync: they survive kill -9 but not a
//! power loss, after which the store goes on at a higher revision and calls what was before compacted.
//!
//! # When the disk fails
//! A commit that fails is rolled back whole and its writers are told; reads go on. Every later write tries
//! anew, so the store recovers by itself when there is space again. After a failed fsync the first write
//! starts a new write-ahead log, because the kernel may have dropped what the old one should hold.

mod core;
mod database;
mod hub;
mod maintenance;
mod read;
mod reader;
mod upkeep;
mod writer;

use std::fmt;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use base::{Clock, Tasks};
use tokio::sync::{mpsc, oneshot};

use crate::Store;
use crate::embedded::core::{Core, Reply, Request};
use crate::embedded::hub::Hub;
use crate::embedded::reader::{Pool, Reader};
use crate::embedded::upkeep::{Leases, Retention};
use crate::embedded::writer::Command;
use crate::error::Error;
use crate::types::{Range, RangeResponse, Revision, Txn, TxnResponse, check_range};
use crate::watch::Watch;

/// How much history the store keeps by itself.
#[derive(Clone, Debug)]
pub struct Options {
    /// History younger than this is kept, as long as `revisions` allows it.
    pub history: Duration,
    /// At most about so many revisions are kept.
    pub revisions: i64,
}

impl Default for Options {
    fn default() -> Self {
        Self { history: Duration::from_secs(300), revisions: 500_000 }
    }
}

/// The embedded store. It is closed when dropped.
pub struct Embedded {
    reader: Reader,
    hub: Arc<Hub>,
    leases: Arc<Leases>,
    retention: Arc<Retention>,
    writer: Writer,
    directory: Option<PathBuf>,
    thread: Option<WriterThread>,
    tasks: Tasks,
}

/// The writer's thread, and the right to tell it to end however full its queue is.
struct WriterThread {
    close: mpsc::OwnedPermit<Command>,
    handle: JoinHandle<()>,
}

/// Where requests to the core go.
#[derive(Clone)]
enum Writer {
    /// `None` once the store is being dropped.
    Thread(Option<mpsc::Sender<Command>>),
    Inline(Arc<Mutex<Core>>),
}

impl Writer {
    async fn submit(&self, request: Request) -> Result<Reply, Error> {
        match self {
            Self::Inline(core) => {
                let mut core = core.lock().unwrap_or_else(PoisonError::into_inner);
                let mut replies = core.commit(std::slice::from_ref(&request));
                while core.has_chores() {
                    core.chore(1024);
                }
                replies.pop().unwrap_or_else(|| Err(stopped()))
            }
            Self::Thread(commands) => {
                let (reply, answer) = oneshot::channel();
                let commands = commands.as_ref().ok_or_else(stopped)?;
                commands.send(Command::Request(request, reply)).await.map_err(|_| stopped())?;
                answer.await.map_err(|_| stopped())?
            }
        }
    }

    fn downgrade(&self) -> WeakWriter {
        match self {
            Self::Thread(None) => WeakWriter::Gone,
            Self::Thread(Some(commands)) => WeakWriter::Thread(commands.downgrade()),
            Self::Inline(core) => WeakWriter::Inline(Arc::downgrade(core)),
        }
    }
}

/// What the timer tasks hold, so that they don't keep the store open.
enum WeakWriter {
    Gone,
    Thread(mpsc::WeakSender<Command>),
    Inline(std::sync::Weak<Mutex<Core>>),
}

impl WeakWriter {
    /// `None` when the store is closed.
    async fn submit(&self, request: Request) -> Option<Result<Reply, Error>> {
        let writer = match self {
            Self::Gone => return None,
            Self::Thread(commands) => Writer::Thread(Some(commands.upgrade()?)),
            Self::Inline(core) => Writer::Inline(core.upgrade()?),
        };
        Some(writer.submit(request).await)
    }
}

fn stopped() -> Error {
    Error::Unavailable("the store's writer has stopped".to_owned())
}

impl Embedded {
    /// Opens the store in `dir`, creating it if there is none. Must be called inside a tokio runtime.
    pub fn open(dir: &Path, clock: Clock, tasks: Tasks) -> Result<Self, Error> {
        Self::open_with(dir, clock, tasks, Options::default())
    }

    /// As [`Embedded::open`], with options.
    pub fn open_with(dir: &Path, clock: Clock, tasks: Tasks, options: Options) -> Result<Self, Error> {
        let lock = lock(dir)?;
        let tasks = tasks.child("store");
        let path = dir.join(database::FILE);
        let named = |failure| name(dir, Error::from(failure));
        let hub = Arc::new(Hub::default());
        let connection = database::open(&path).map_err(named)?;
        let core = Core::open(connection, hub.clone(), Some(&boot())).map_err(named)?;
        let leases = core.leases().map_err(named)?;
        let (sender, commands) = mpsc::channel(writer::QUEUE);
        let close = sender.clone().try_reserve_owned().map_err(|_| stopped())?;
        let handle = writer::start(core, commands, &path, lock).map_err(named)?;
        let reader = Reader::Pool(Arc::new(Pool::new(path, tasks.clone())));
        let mut store =
            Self::assemble(hub, reader, Writer::Thread(Some(sender)), leases, clock, tasks, options);
        store.directory = Some(dir.to_owned());
        store.thread = Some(WriterThread { close, handle });
        Ok(store)
    }

    /// A store in memory, without threads: every operation is done when it returns, and a run on a paused
    /// runtime goes the same way each time. Must be called inside a tokio runtime.
    pub fn in_memory(clock: Clock, tasks: Tasks) -> Self {
        Self::in_memory_with(clock, tasks, Options::default())
    }

    /// As [`Embedded::in_memory`], with options.
    ///
    /// # Panics
    /// If there is no memory for an empty database.
    #[expect(clippy::expect_used, reason = "only lack of memory makes it fail, as with any allocation")]
    pub fn in_memory_with(clock: Clock, tasks: Tasks, options: Options) -> Self {
        let hub = Arc::new(Hub::default());
        let core = database::open_in_memory()
            .and_then(|connection| Core::open(connection, hub.clone(), None))
            .map_err(Error::from)
            .expect("an empty database in memory");
        let core = Arc::new(Mutex::new(core));
        let (reader, writer) = (Reader::Inline(core.clone()), Writer::Inline(core));
        Self::assemble(hub, reader, writer, Vec::new(), clock, tasks.child("store"), options)
    }

    fn assemble(
        hub: Arc<Hub>,
        reader: Reader,
        writer: Writer,
        leases: Vec<(i64, i64)>,
        clock: Clock,
        tasks: Tasks,
        options: Options,
    ) -> Self {
        let leases = Arc::new(Leases::new(clock.clone(), leases));
        let retention = Arc::new(Retention::new(clock, options, hub.published()));
        tasks.spawn("leases", upkeep::expire(leases.clone(), writer.downgrade()));
        tasks.spawn("compaction", upkeep::compact(retention.clone(), writer.downgrade()));
        Self { reader, hub, leases, retention, writer, directory: None, thread: None, tasks }
    }

    async fn submit(&self, request: Request) -> Result<Reply, Error> {
        let reply = self.writer.submit(request).await;
        if reply.is_ok() {
            self.retention.observe(self.hub.published());
        }
        reply
    }
}

#[async_trait::async_trait]
impl Store for Embedded {
    async fn range(&self, range: Range) -> Result<RangeResponse, Error> {
        check_range(&range)?;
        self.reader.read(move |connection, now| read::range(connection, &range, now)).await
    }

    async fn txn(&self, txn: Txn) -> Result<TxnResponse, Error> {
        txn.validate()?;
        match self.submit(Request::Txn(txn)).await? {
            Reply::Txn(response) => Ok(response),
            other => Err(mismatch(&other)),
        }
    }

    async fn watch(
        &self,
        start: String,
        end: Option<String>,
        from: Revision,
        prev: bool,
    ) -> Result<Watch, Error> {
        check_range(&Range { start: start.clone(), end: end.clone(), revision: from, ..Range::default() })?;
        Ok(Watch::new(self.hub.watch(self.reader.clone(), (start, end), from, prev)?))
    }

    async fn compact(&self, revision: Revision) -> Result<(), Error> {
        self.submit(Request::Compact(revision)).await.map(drop)
    }

    async fn lease_grant(&self, ttl: Duration) -> Result<i64, Error> {
        let seconds = i64::try_from(ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0)).unwrap_or(i64::MAX);
        let seconds = seconds.clamp(1, upkeep::MAX_LEASE_SECONDS);
        match self.submit(Request::LeaseGrant { seconds }).await? {
            Reply::Lease(id) => {
                self.leases.add(id, seconds);
                Ok(id)
            }
            other => Err(mismatch(&other)),
        }
    }

    async fn lease_keep_alive(&self, id: i64) -> Result<(), Error> {
        self.leases.renew(id)
    }

    async fn lease_revoke(&self, id: i64) -> Result<(), Error> {
        self.submit(Request::LeaseRevoke(id)).await?;
        self.leases.remove(id);
        Ok(())
    }

    async fn revision(&self) -> Result<Revision, Error> {
        Ok(self.hub.published())
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.hub.close();
        if let Reader::Pool(pool) = &self.reader {
            pool.close();
        }
        if let Writer::Thread(commands) = &mut self.writer {
            *commands = None;
        }
        if let Some(thread) = self.thread.take() {
            // It is told, as a task of this very runtime thread may hold a sender while it waits for an answer. Once it
            // has ended, the directory is free for the next.
            thread.close.send(Command::Close);
            // A panic of that thread was reported by itself.
            let _ = thread.handle.join();
        }
    }
}

impl fmt::Debug for Embedded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Embedded").field("directory", &self.directory).finish_non_exhaustive()
    }
}

fn mismatch(reply: &Reply) -> Error {
    Error::Unavailable(format!("the store's writer answered something else: {reply:?}"))
}

/// Puts the directory's name into an error.
fn name(dir: &Path, error: Error) -> Error {
    Error::Open(format!("can't open the store in {}: {error}", dir.display()))
}

/// Creates the directory if need be, and makes this process its only user.
fn lock(dir: &Path) -> Result<File, Error> {
    let io = |what: &str, error: std::io::Error| name(dir, Error::Open(format!("{what}: {error}")));
    std::fs::create_dir_all(dir).map_err(|error| io("creating the directory", error))?;
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(dir.join("lock"))
        .map_err(|error| io("creating the lock file", error))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let who = match file.read_to_string(&mut holder) {
                Ok(length) if length > 0 => format!("process {}", holder.trim()),
                _ => "another process".to_owned(),
            };
            return Err(Error::Open(format!(
                "the store in {} is in use by {who}; stop it first or use another directory",
                dir.display()
            )));
        }
        Err(TryLockError::Error(error)) => return Err(io("locking the directory", error)),
    }
    // Only information for whoever finds it locked: the lock itself ends with the process.
    let told = file
        .set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| file.write_all(format!("{}\n", std::process::id()).as_bytes()));
    if let Err(error) = told {
        tracing::debug!(%error, "noting the process in the lock file");
    }
    Ok(file)
}

/// Names this boot of the machine; unknown counts as another one.
fn boot() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map_or_else(|_| format!("unknown {}", std::process::id()), |id| id.trim().to_owned())
}
