//! The writer thread of a store on disk: group commit, upkeep and checkpoints.
//!
//! Requests queue in a bounded channel. The thread takes all that wait (up to a bound), applies them in one
//! SQLite transaction and answers them after its one fsync; while it syncs, the next group gathers.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::mpsc as blocking;
use std::thread::JoinHandle;

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use crate::embedded::core::{Core, Reply, Request};
use crate::embedded::database::{self, Failure};
use crate::error::Error;

/// The most requests waiting for the writer; beyond it callers wait.
pub(crate) const QUEUE: usize = 4096;
/// The most requests in one commit.
const GROUP: usize = 1024;
/// So much is written before a checkpoint starts in the background.
const CHECKPOINT_BYTES: usize = 4 << 20;
/// A write-ahead log of more pages than this is emptied with the writer waiting.
const LOG_PAGES: i64 = 16_384;

/// What the writer is told.
pub(crate) enum Command {
    /// A request and where its answer goes.
    Request(Request, oneshot::Sender<Result<Reply, Error>>),
    /// To end. What was asked before is answered, what is asked later never is.
    Close,
}

/// Starts the writer on `core`, whose database is at `path`. `lock` is held until the thread ends.
/// The thread ends when it is told to, or when all senders of `commands` are gone.
pub(crate) fn start(
    core: Core,
    commands: mpsc::Receiver<Command>,
    path: &Path,
    lock: File,
) -> Result<JoinHandle<()>, Failure> {
    let checkpointer = Checkpointer::start(path)?;
    std::thread::Builder::new()
        .name("store-writer".to_owned())
        .spawn(move || {
            run(core, commands, checkpointer);
            drop(lock);
        })
        .map_err(|error| Error::Unavailable(format!("starting the writer thread: {error}")).into())
}

fn run(mut core: Core, mut commands: mpsc::Receiver<Command>, checkpointer: Checkpointer) {
    let mut open = true;
    while open {
        let first = if core.has_chores() {
            match commands.try_recv() {
                Ok(command) => command,
                Err(mpsc::error::TryRecvError::Empty) => {
                    core.chore(256);
                    checkpointer.consider(&mut core);
                    continue;
                }
                Err(mpsc::error::TryRecvError::Disconnected) => break,
            }
        } else {
            match commands.blocking_recv() {
                Some(command) => command,
                None => break,
            }
        };
        let (mut requests, mut replies) = (Vec::new(), Vec::new());
        let mut next = Some(first);
        while let Some(command) = next {
            let Command::Request(request, reply) = command else {
                open = false;
                break;
            };
            requests.push(request);
            replies.push(reply);
            next = if requests.len() < GROUP { commands.try_recv().ok() } else { None };
        }
        for (reply, answer) in replies.into_iter().zip(core.commit(&requests)) {
            // Whoever asked may have gone away; what is committed stays committed.
            let _ = reply.send(answer);
        }
        if core.has_chores() {
            // Twice what was written, so that sweeping keeps up with any load.
            core.chore(64.max(2 * requests.len()));
        }
        checkpointer.consider(&mut core);
    }
    core.close();
    checkpointer.stop();
}

/// A thread that copies the write-ahead log into the database, beside the writer.
struct Checkpointer {
    wake: blocking::SyncSender<()>,
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    /// A background checkpoint has just ended, so what is left to copy is little.
    ended: AtomicBool,
    pages: AtomicI64,
}

impl Checkpointer {
    fn start(path: &Path) -> Result<Self, Failure> {
        let connection = database::open_reader(path)?;
        let (wake, woken) = blocking::sync_channel(1);
        let shared = Arc::new(Shared::default());
        let inner = shared.clone();
        let thread = std::thread::Builder::new()
            .name("store-checkpoint".to_owned())
            .spawn(move || {
                while woken.recv().is_ok() {
                    checkpoint(&connection, &inner);
                }
            })
            .map_err(|error| Error::Unavailable(format!("starting the checkpoint thread: {error}")))?;
        Ok(Self { wake, shared, thread })
    }

    /// Starts a checkpoint if enough was written; ends one if the log grew too long meanwhile.
    fn consider(&self, core: &mut Core) {
        if core.written > CHECKPOINT_BYTES && self.wake.try_send(()).is_ok() {
            core.written = 0;
        }
        // A log that is copied to its end is started anew by the next commit. Under constant load the
        // background never reaches the end, so the writer itself copies the rest.
        if self.shared.ended.swap(false, Ordering::AcqRel)
            && self.shared.pages.load(Ordering::Relaxed) > LOG_PAGES
        {
            core.checkpoint();
        }
    }

    fn stop(self) {
        drop(self.wake);
        // A panic of that thread was reported by itself.
        let _ = self.thread.join();
    }
}

fn checkpoint(connection: &Connection, shared: &Shared) {
    match connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| row.get::<_, i64>(1)) {
        Ok(pages) => {
            shared.pages.store(pages, Ordering::Relaxed);
            shared.ended.store(true, Ordering::Release);
        }
        Err(error) => tracing::warn!(%error, "checkpoint of the store failed; it is tried again later"),
    }
}
