//! Reading: ranges now and in the past, and the log for watches.

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::embedded::database::{Failure, Now, bound, revision_of, row_id};
use crate::embedded::hub::{Batch, Change, Prev};
use crate::error::Error;
use crate::types::{KeyValue, Range, RangeResponse, Revision, TO_THE_END, contains};

/// Greater than every key in SQLite's order, where every blob sorts after every text.
pub(crate) const NO_END: &[u8] = &[];

/// The `end` of a range as SQLite's bound for `key < ?`.
#[derive(Debug)]
pub(crate) enum End<'a> {
    Key(&'a str),
    None,
}

impl rusqlite::ToSql for End<'_> {
    fn to_sql(&self) -> rusqlite::Result<rusqlite::types::ToSqlOutput<'_>> {
        use rusqlite::types::{ToSqlOutput, ValueRef};
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Key(key) => ValueRef::Text(key.as_bytes()),
            Self::None => ValueRef::Blob(NO_END),
        }))
    }
}

/// `start..end` as SQLite's half-open bounds; the one key when there is no end.
pub(crate) fn bounds<'a>(start: &'a str, end: Option<&'a str>, buffer: &'a mut String) -> (&'a str, End<'a>) {
    match end {
        Some(TO_THE_END) => (start, End::None),
        Some(end) => (start, End::Key(end)),
        None => {
            buffer.push_str(start);
            buffer.push('\0');
            (start, End::Key(buffer))
        }
    }
}

/// Refuses revisions that are gone or not reached.
pub(crate) fn check_revision(revision: Revision, now: Now) -> Result<(), Error> {
    if revision > now.revision {
        return Err(Error::FutureRevision { requested: revision, current: now.revision });
    }
    if revision > 0 && revision < now.compacted {
        return Err(Error::Compacted { revision: now.compacted });
    }
    Ok(())
}

/// Answers a range. `now.revision` is what the answer carries.
pub(crate) fn range(connection: &Connection, range: &Range, now: Now) -> Result<RangeResponse, Failure> {
    check_revision(range.revision, now)?;
    let mut buffer = String::new();
    let (start, end) = bounds(&range.start, range.end.as_deref(), &mut buffer);
    // The latest revision may be in the making (inside a transaction), so it must not take the way of the past.
    let past = range.revision > 0 && range.revision < now.revision;
    if range.count_only {
        let count = count(connection, start, &end, past.then_some(range.revision))?;
        return Ok(RangeResponse { revision: now.revision, kvs: Vec::new(), more: false, count });
    }
    let limit =
        if range.limit == 0 { -1 } else { i64::try_from(range.limit).unwrap_or(i64::MAX).saturating_add(1) };
    let read = |row: &Row<'_>| key_value(row, range.keys_only);
    let mut kvs: Vec<KeyValue> = if past {
        let sql = if range.keys_only { PAST_KEYS } else { PAST };
        let mut statement = connection.prepare_cached(sql)?;
        statement
            .query_map(params![start, end, limit, bound(range.revision)], read)?
            .collect::<Result<_, _>>()?
    } else {
        let sql = if range.keys_only { LATEST_KEYS } else { LATEST };
        let mut statement = connection.prepare_cached(sql)?;
        statement.query_map(params![start, end, limit], read)?.collect::<Result<_, _>>()?
    };
    let more = range.limit > 0 && kvs.len() > range.limit;
    let count = if more {
        kvs.truncate(range.limit);
        count(connection, start, &end, past.then_some(range.revision))?
    } else {
        kvs.len() as i64
    };
    Ok(RangeResponse { revision: now.revision, kvs, more, count })
}

const LATEST: &str =
    "SELECT c.key, c.id, c.created, c.version, c.lease, l.value FROM current c CROSS JOIN log l
    WHERE c.key >= ?1 AND c.key < ?2 AND l.id = c.id ORDER BY c.key LIMIT ?3";
const LATEST_KEYS: &str = "SELECT key, id, created, version, lease FROM current
    WHERE key >= ?1 AND key < ?2 ORDER BY key LIMIT ?3";
// A key's row at a revision is its current one if that is old enough, else the one replaced only afterwards.
const PAST: &str = "SELECT p.key, p.id, l.created, l.version, l.lease, l.value FROM (
        SELECT key, id FROM current WHERE key >= ?1 AND key < ?2 AND id < ?4
        UNION ALL SELECT key, id FROM past WHERE key >= ?1 AND key < ?2 AND id < ?4 AND ended >= ?4
        ORDER BY key LIMIT ?3
    ) p CROSS JOIN log l WHERE l.id = p.id ORDER BY p.key";
const PAST_KEYS: &str = "SELECT p.key, p.id, l.created, l.version, l.lease FROM (
        SELECT key, id FROM current WHERE key >= ?1 AND key < ?2 AND id < ?4
        UNION ALL SELECT key, id FROM past WHERE key >= ?1 AND key < ?2 AND id < ?4 AND ended >= ?4
        ORDER BY key LIMIT ?3
    ) p CROSS JOIN log l WHERE l.id = p.id ORDER BY p.key";

fn count(
    connection: &Connection,
    start: &str,
    end: &End<'_>,
    past: Option<Revision>,
) -> Result<i64, Failure> {
    Ok(match past {
        None => connection
            .prepare_cached("SELECT COUNT(*) FROM current WHERE key >= ?1 AND key < ?2")?
            .query_row(params![start, end], |row| row.get(0))?,
        Some(revision) => connection
            .prepare_cached(
                "SELECT (SELECT COUNT(*) FROM current WHERE key >= ?1 AND key < ?2 AND id < ?3)
                      + (SELECT COUNT(*) FROM past WHERE key >= ?1 AND key < ?2 AND id < ?3 AND ended >= ?3)",
            )?
            .query_row(params![start, end, bound(revision)], |row| row.get(0))?,
    })
}

fn key_value(row: &Row<'_>, keys_only: bool) -> rusqlite::Result<KeyValue> {
    Ok(KeyValue {
        key: row.get(0)?,
        mod_revision: revision_of(row.get(1)?),
        create_revision: row.get(2)?,
        version: row.get(3)?,
        lease: row.get(4)?,
        value: if keys_only { Bytes::new() } else { Bytes::copy_from_slice(row.get_ref(5)?.as_blob()?) },
    })
}

/// A row of the log by its id; `None` if compaction took it.
pub(crate) fn log_row(connection: &Connection, id: i64) -> rusqlite::Result<Option<KeyValue>> {
    connection
        .prepare_cached("SELECT key, id, created, version, lease, value FROM log WHERE id = ?1")?
        .query_row([id], |row| key_value(row, false))
        .optional()
}

/// How many rows of the log, and how many bytes of values, are read in one go for a watch.
const CHUNK_ROWS: usize = 500;
const CHUNK_BYTES: usize = 4 << 20;

/// A part of the log, of whole revisions.
#[derive(Debug)]
pub(crate) struct Chunk {
    pub(crate) batches: Vec<Batch>,
    /// Everything up to here is in `batches` or concerns other keys.
    pub(crate) through: Revision,
}

/// Reads the log for `start..end` from after `position`, at most through `until`.
pub(crate) fn log(
    connection: &Connection,
    now: Now,
    (start, end): (&str, Option<&str>),
    position: Revision,
    until: Revision,
    prev: bool,
) -> Result<Chunk, Failure> {
    if position < now.compacted {
        return Err(Error::Compacted { revision: now.compacted }.into());
    }
    let mut batches: Vec<Batch> = Vec::new();
    let (mut rows, mut bytes) = (0, 0);
    let mut statement = connection.prepare_cached(
        "SELECT key, id, created, version, lease, value, previous FROM log WHERE id >= ?1 AND id < ?2 ORDER BY id",
    )?;
    let mut found = statement.query([row_id(position + 1, 0), bound(until)])?;
    while let Some(row) = found.next()? {
        if !contains(start, end, row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?) {
            continue;
        }
        let revision = revision_of(row.get(1)?);
        if batches.last().is_none_or(|batch| batch.revision != revision) {
            if rows >= CHUNK_ROWS || bytes >= CHUNK_BYTES {
                return Ok(Chunk {
                    through: batches.last().map_or(position, |batch| batch.revision),
                    batches,
                });
            }
            batches.push(Batch { revision, changes: Vec::new() });
        }
        let kv = key_value(row, false)?;
        let prev = match row.get(6)? {
            0 => Prev::Loaded(None),
            id if prev => Prev::Loaded(log_row(connection, id)?),
            _ => Prev::Unloaded,
        };
        rows += 1;
        bytes += kv.value.len();
        if let Some(batch) = batches.last_mut() {
            batch.changes.push(Change { deleted: kv.create_revision == 0, kv, prev });
        }
    }
    Ok(Chunk { batches, through: until.max(position) })
}
