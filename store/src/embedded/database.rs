//! The SQLite database: its format, how it is opened, and the translation of its errors.
//!
//! `log` holds every write in order, `current` the key space as it is now, `past` what a key was until
//! when. A row of `log` knows the row that it replaced, so compaction walks the log and deletes what each
//! row replaced, and costs as much as what changed, not as much as what is stored.

use std::path::Path;

use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension};

use crate::error::Error;
use crate::types::Revision;

/// Version of the on-disk format, in SQLite's `user_version`.
pub(crate) const FORMAT: i32 = 1;
/// "SKFF" in SQLite's `application_id`.
const APPLICATION: i32 = 0x534b_4646;
/// The database's file in the store's directory.
pub(crate) const FILE: &str = "store.db";

/// A log row's id is its revision and, in the low bits, its place among the revision's rows.
const PLACE_BITS: u32 = 20;
/// The most rows that one revision can have.
pub(crate) const MAX_ROWS: usize = 1 << PLACE_BITS;

const SCHEMA: &str = "
CREATE TABLE log (
    id INTEGER PRIMARY KEY,     -- revision << 20 | place in the revision
    key TEXT NOT NULL,
    previous INTEGER NOT NULL,  -- id of the row that this one replaced; 0 = none
    created INTEGER NOT NULL,   -- create revision; 0 = this row is a deletion
    version INTEGER NOT NULL,
    lease INTEGER NOT NULL,
    value BLOB NOT NULL
);
CREATE TABLE current (
    key TEXT PRIMARY KEY,
    id INTEGER NOT NULL,
    created INTEGER NOT NULL,
    version INTEGER NOT NULL,
    lease INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX current_lease ON current (lease) WHERE lease <> 0;
CREATE TABLE past (
    key TEXT NOT NULL,
    ended INTEGER NOT NULL,     -- id of the row that replaced it
    id INTEGER NOT NULL,
    PRIMARY KEY (key, ended)
) WITHOUT ROWID;
CREATE TABLE lease (id INTEGER PRIMARY KEY, seconds INTEGER NOT NULL);
CREATE TABLE meta (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    revision INTEGER NOT NULL,
    compacted INTEGER NOT NULL, -- history before it is gone for readers
    swept INTEGER NOT NULL,     -- and gone from the tables
    next_lease INTEGER NOT NULL,
    boot TEXT NOT NULL          -- the machine's boot while open; empty after a clean end
);
INSERT INTO meta VALUES (1, 1, 0, 0, 1, '');
";

/// The log id of a revision's row at `place`.
pub(crate) fn row_id(revision: Revision, place: usize) -> i64 {
    revision << PLACE_BITS | place as i64
}

/// The revision of a log id.
pub(crate) fn revision_of(id: i64) -> Revision {
    id >> PLACE_BITS
}

/// The first log id beyond a revision.
pub(crate) fn bound(revision: Revision) -> i64 {
    revision.saturating_add(1).min(i64::MAX >> PLACE_BITS) << PLACE_BITS
}

/// Where the store stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Now {
    pub(crate) revision: Revision,
    pub(crate) compacted: Revision,
    pub(crate) swept: Revision,
    pub(crate) next_lease: i64,
}

impl Now {
    pub(crate) fn read(connection: &Connection) -> rusqlite::Result<Self> {
        connection.prepare_cached("SELECT revision, compacted, swept, next_lease FROM meta")?.query_row(
            [],
            |row| {
                Ok(Self {
                    revision: row.get(0)?,
                    compacted: row.get(1)?,
                    swept: row.get(2)?,
                    next_lease: row.get(3)?,
                })
            },
        )
    }

    pub(crate) fn write(&self, connection: &Connection) -> rusqlite::Result<()> {
        connection
            .prepare_cached("UPDATE meta SET revision = ?1, compacted = ?2, swept = ?3, next_lease = ?4")?
            .execute([self.revision, self.compacted, self.swept, self.next_lease])?;
        Ok(())
    }
}

/// A failure inside the database code: SQLite's, or an answer.
#[derive(Debug)]
pub(crate) enum Failure {
    Sql(rusqlite::Error),
    Answer(Error),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Answer(error)
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Sql(error) => translate(&error),
            Failure::Answer(error) => error,
        }
    }
}

/// SQLite's error in the store's words.
pub(crate) fn translate(error: &rusqlite::Error) -> Error {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => Error::NoSpace(error.to_string()),
        Some(ErrorCode::TooBig) => Error::TooLarge(error.to_string()),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Error::Damaged(error.to_string()),
        _ => Error::Unavailable(error.to_string()),
    }
}

/// Whether a sync failed: the kernel may have dropped what was written before, so the log can't be trusted
/// until all of it was copied into the database and synced there.
pub(crate) fn is_failed_sync(error: &rusqlite::Error) -> bool {
    matches!(error, rusqlite::Error::SqliteFailure(error, _)
        if matches!(error.extended_code, rusqlite::ffi::SQLITE_IOERR_FSYNC | rusqlite::ffi::SQLITE_IOERR_DIR_FSYNC))
}

/// Opens the writing connection to `path`, creating the database if there is none.
pub(crate) fn open(path: &Path) -> Result<Connection, Failure> {
    let connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    configure(&connection)?;
    prepare(&connection)?;
    Ok(connection)
}

/// An empty database in memory.
pub(crate) fn open_in_memory() -> Result<Connection, Failure> {
    let connection = Connection::open_in_memory()?;
    connection.set_prepared_statement_cache_capacity(64);
    prepare(&connection)?;
    Ok(connection)
}

/// Opens a second connection, for reading or checkpoints, to a database that is open for writing.
pub(crate) fn open_reader(path: &Path) -> Result<Connection, Failure> {
    let connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    connection.set_prepared_statement_cache_capacity(32);
    connection.busy_timeout(std::time::Duration::from_secs(10))?;
    connection.execute_batch("PRAGMA wal_autocheckpoint = 0; PRAGMA cache_size = -1024;")?;
    Ok(connection)
}

fn configure(connection: &Connection) -> Result<(), Failure> {
    connection.set_prepared_statement_cache_capacity(64);
    connection.busy_timeout(std::time::Duration::from_secs(10))?;
    // auto_vacuum only takes effect before the first table exists, and before WAL.
    connection.execute_batch(
        "PRAGMA auto_vacuum = INCREMENTAL;
         PRAGMA journal_mode = WAL;
         PRAGMA wal_autocheckpoint = 0;
         PRAGMA journal_size_limit = 16777216;
         PRAGMA synchronous = FULL;
         PRAGMA cache_size = -4096;",
    )?;
    Ok(())
}

fn number(connection: &Connection, pragma: &str) -> rusqlite::Result<i32> {
    connection.query_row(pragma, [], |row| row.get(0))
}

/// Creates the schema in an empty database, and refuses one that isn't ours or is newer.
fn prepare(connection: &Connection) -> Result<(), Failure> {
    let empty = connection.query_row("SELECT 1 FROM sqlite_schema", [], |_| Ok(())).optional()?.is_none();
    if empty && number(connection, "PRAGMA application_id")? == 0 {
        connection.execute_batch(&format!(
            "BEGIN IMMEDIATE; {SCHEMA} PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {FORMAT}; COMMIT;"
        ))?;
        return Ok(());
    }
    verify(connection)
}

/// Refuses a database that isn't a store in our format.
pub(crate) fn verify(connection: &Connection) -> Result<(), Failure> {
    if number(connection, "PRAGMA application_id")? != APPLICATION {
        return Err(Error::Open("the file is not a Skiff store".to_owned()).into());
    }
    let format = number(connection, "PRAGMA user_version")?;
    if format != FORMAT {
        return Err(Error::Open(format!(
            "the store has format {format}, this program reads format {FORMAT}; use the version of Skiff that wrote it"
        ))
        .into());
    }
    Ok(())
}
