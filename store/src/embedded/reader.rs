//! Reading without queueing behind writers.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use base::Tasks;
use rusqlite::Connection;
use tokio::sync::Semaphore;

use crate::embedded::core::Core;
use crate::embedded::database::{self, Failure, Now};
use crate::error::Error;

/// How many reads run at once, each on a connection of its own.
const CONNECTIONS: usize = 4;

/// Runs reads, each on one consistent snapshot.
#[derive(Clone)]
pub(crate) enum Reader {
    /// On disk: connections beside the writer's, on tokio's blocking pool.
    Pool(Arc<Pool>),
    /// In memory: inline, on the one connection that there is.
    Inline(Arc<Mutex<Core>>),
}

/// Reading connections, opened when they are first needed.
pub(crate) struct Pool {
    path: PathBuf,
    tasks: Tasks,
    permits: Arc<Semaphore>,
    idle: Mutex<Vec<Connection>>,
}

impl Pool {
    pub(crate) fn new(path: PathBuf, tasks: Tasks) -> Self {
        Self { path, tasks, permits: Arc::new(Semaphore::new(CONNECTIONS)), idle: Mutex::default() }
    }

    /// Closes the idle connections, so that the writer's is the last and cleans up.
    pub(crate) fn close(&self) {
        self.permits.close();
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl Reader {
    /// Runs `f` on a snapshot of the database and where it stands.
    pub(crate) async fn read<T, F>(&self, f: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&Connection, Now) -> Result<T, Failure> + Send + 'static,
    {
        match self {
            Self::Inline(core) => {
                core.lock().unwrap_or_else(PoisonError::into_inner).read(f).map_err(Error::from)
            }
            Self::Pool(pool) => {
                let Ok(permit) = pool.permits.clone().acquire_owned().await else {
                    return Err(Error::Unavailable("the store was closed".to_owned()));
                };
                let inner = pool.clone();
                pool.tasks
                    .blocking(move || {
                        let _permit = permit;
                        let idle = inner.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
                        let connection = match idle {
                            Some(connection) => connection,
                            None => database::open_reader(&inner.path)?,
                        };
                        let answer = snapshot(&connection, f);
                        let broken = matches!(&answer, Err(Failure::Sql(_)));
                        if !broken && !inner.permits.is_closed() {
                            inner.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
                        }
                        answer
                    })
                    .await
                    .map_err(Error::from)
            }
        }
    }
}

/// Runs `f` in a reading transaction.
fn snapshot<T>(
    connection: &Connection,
    f: impl FnOnce(&Connection, Now) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let transaction = connection.unchecked_transaction()?;
    let now = Now::read(&transaction)?;
    let answer = f(&transaction, now)?;
    transaction.commit()?;
    Ok(answer)
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pool(_) => "Reader::Pool",
            Self::Inline(_) => "Reader::Inline",
        })
    }
}
