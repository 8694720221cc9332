//! The writing side: groups of requests applied in one SQLite transaction.
//!
//! The same code runs on the writer thread of a store on disk and inline in a store in memory.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, params};

use crate::embedded::database::{self, Failure, MAX_ROWS, Now, bound, row_id};
use crate::embedded::hub::{Batch, Change, Hub, Prev};
use crate::embedded::read;
use crate::error::Error;
use crate::types::{Compare, KeyValue, Op, OpResult, Revision, Txn, TxnResponse, VOLATILE_PREFIX};

/// So many revisions may be committed without a sync before one is forced. After a power loss the store
/// goes on so far ahead of what it finds that no revision is ever used twice, see [`Core::open`].
const MAX_UNSYNCED: i64 = 100_000;
/// How far a store jumps ahead if the machine went down under it.
const BOOT_JUMP: i64 = 1_000_000;
/// How far a restored store jumps ahead: further than it can have gone since the backup.
const RESTORE_JUMP: i64 = 1_000_000_000;
/// In [`meta.boot`](database): the store was restored from a backup.
pub(crate) const RESTORED: &str = "restored";

/// What the writer is asked to do.
#[derive(Debug)]
pub(crate) enum Request {
    Txn(Txn),
    Compact(Revision),
    LeaseGrant { seconds: i64 },
    LeaseRevoke(i64),
}

impl Request {
    /// Whether it may write something that must survive a power loss.
    fn is_durable(&self) -> bool {
        match self {
            Self::Txn(txn) => txn.success.iter().chain(&txn.failure).any(|op| match op {
                Op::Put { key, volatile, .. } => !volatile && !key.starts_with(VOLATILE_PREFIX),
                Op::Delete { key } => !key.starts_with(VOLATILE_PREFIX),
                Op::DeleteRange { start, .. } => !start.starts_with(VOLATILE_PREFIX),
                Op::Get(_) => false,
            }),
            // Compaction that is lost is done again; a lease that expired expires again.
            Self::Compact(_) => false,
            Self::LeaseRevoke(_) | Self::LeaseGrant { .. } => false,
        }
    }
}

/// The answer to a [`Request`].
#[derive(Debug)]
pub(crate) enum Reply {
    Txn(TxnResponse),
    Lease(i64),
    Done,
}

/// The database's one writer.
pub(crate) struct Core {
    connection: Connection,
    hub: Arc<Hub>,
    now: Now,
    /// Whether commits sync at present.
    syncing: bool,
    on_disk: bool,
    unsynced: i64,
    /// A sync failed, see [`database::is_failed_sync`].
    distrusted: bool,
    /// There may be free pages to give back to the file system.
    vacuum: bool,
    /// Upkeep failed; it waits until a commit succeeds.
    resting: bool,
    /// Roughly how much was written since the last checkpoint.
    pub(crate) written: usize,
}

/// The state of a group while it is applied; becomes the core's when it is committed.
struct Work {
    now: Now,
    batches: Vec<Batch>,
    written: usize,
}

/// A key's row in `current`.
struct Row {
    id: i64,
    created: Revision,
    version: i64,
}

impl Core {
    /// Takes over an open database. `boot` names the machine's boot, `None` in memory.
    ///
    /// Commits of volatile writes are not synced. If the machine went down while the store was open, the
    /// last of them may be lost, though clients have seen their revisions. The store then goes on at a
    /// revision beyond all that it can have given out, and declares what was before compacted, so clients
    /// list anew instead of missing events. The same happens after a restore.
    pub(crate) fn open(connection: Connection, hub: Arc<Hub>, boot: Option<&str>) -> Result<Self, Failure> {
        let mut now = Now::read(&connection)?;
        if let Some(boot) = boot {
            let before: String = connection.query_row("SELECT boot FROM meta", [], |row| row.get(0))?;
            if !before.is_empty() && before != boot {
                let jump = if before == RESTORED { RESTORE_JUMP } else { BOOT_JUMP };
                now.revision += jump;
                now.compacted = now.revision;
            }
            let transaction = connection.unchecked_transaction()?;
            transaction.execute("UPDATE meta SET boot = ?1", [boot])?;
            now.write(&transaction)?;
            transaction.commit()?;
        }
        hub.publish(Vec::new(), now.revision, now.compacted);
        Ok(Self {
            connection,
            hub,
            now,
            syncing: true,
            on_disk: boot.is_some(),
            unsynced: 0,
            distrusted: false,
            vacuum: boot.is_some(),
            resting: false,
            written: 0,
        })
    }

    /// Runs `f` on the writing connection.
    pub(crate) fn read<T>(
        &self,
        f: impl FnOnce(&Connection, Now) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        f(&self.connection, self.now)
    }

    /// The leases there are, with their times in seconds.
    pub(crate) fn leases(&self) -> Result<Vec<(i64, i64)>, Failure> {
        let mut statement = self.connection.prepare("SELECT id, seconds FROM lease ORDER BY id")?;
        Ok(statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>()?)
    }

    /// Applies the requests in order in one commit, publishes what they changed, and answers each.
    /// If the commit fails none was applied.
    pub(crate) fn commit(&mut self, requests: &[Request]) -> Vec<Result<Reply, Error>> {
        self.try_commit(requests).unwrap_or_else(|error| {
            self.roll_back();
            let error = Error::from(error);
            tracing::warn!(%error, "a commit failed; its writers were told");
            requests.iter().map(|_| Err(error.clone())).collect()
        })
    }

    fn try_commit(&mut self, requests: &[Request]) -> Result<Vec<Result<Reply, Error>>, Failure> {
        self.regain_trust()?;
        let durable = self.unsynced > MAX_UNSYNCED || requests.iter().any(Request::is_durable);
        self.set_syncing(durable)?;
        self.connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        let mut work = Work { now: self.now, batches: Vec::new(), written: 0 };
        let mut replies = Vec::with_capacity(requests.len());
        for request in requests {
            // An answer is the request's own; SQLite's failures concern the whole group.
            replies.push(match self.apply(request, &mut work) {
                Ok(reply) => Ok(reply),
                Err(Failure::Answer(error)) => Err(error),
                Err(error) => return Err(error),
            });
        }
        if work.now != self.now {
            work.now.write(&self.connection)?;
        }
        self.finish()?;
        self.unsynced = if durable { 0 } else { self.unsynced + work.now.revision - self.now.revision };
        self.now = work.now;
        self.written += work.written;
        self.resting = false;
        self.hub.publish(work.batches, work.now.revision, work.now.compacted);
        Ok(replies)
    }

    fn finish(&mut self) -> Result<(), Failure> {
        let result = self.connection.prepare_cached("COMMIT")?.execute([]);
        if let Err(error) = &result {
            self.distrusted |= database::is_failed_sync(error);
        }
        result?;
        Ok(())
    }

    fn roll_back(&mut self) {
        if !self.connection.is_autocommit()
            && let Err(error) = self.connection.execute_batch("ROLLBACK")
        {
            tracing::error!(%error, "rolling back a failed commit");
        }
    }

    fn set_syncing(&mut self, syncing: bool) -> Result<(), Failure> {
        if self.on_disk && self.syncing != syncing {
            let level = if syncing { "PRAGMA synchronous = FULL" } else { "PRAGMA synchronous = NORMAL" };
            self.connection.execute_batch(level)?;
            self.syncing = syncing;
        }
        Ok(())
    }

    /// After a failed sync: starts a new write-ahead log, from which nothing can be missing.
    fn regain_trust(&mut self) -> Result<(), Failure> {
        if self.distrusted {
            let busy: i64 =
                self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
            if busy != 0 {
                return Err(Error::Unavailable("a sync failed; waiting to start a new log".to_owned()).into());
            }
            self.distrusted = false;
        }
        Ok(())
    }

    fn apply(&self, request: &Request, work: &mut Work) -> Result<Reply, Failure> {
        match request {
            Request::Txn(txn) => self.txn(txn, work).map(Reply::Txn),
            Request::Compact(revision) => {
                if *revision > work.now.revision {
                    return Err(
                        Error::FutureRevision { requested: *revision, current: work.now.revision }.into()
                    );
                }
                if *revision <= work.now.compacted {
                    return Err(Error::Compacted { revision: work.now.compacted }.into());
                }
                work.now.compacted = *revision;
                Ok(Reply::Done)
            }
            Request::LeaseGrant { seconds } => {
                let id = work.now.next_lease;
                work.now.next_lease += 1;
                self.connection
                    .prepare_cached("INSERT INTO lease (id, seconds) VALUES (?1, ?2)")?
                    .execute([id, *seconds])?;
                Ok(Reply::Lease(id))
            }
            Request::LeaseRevoke(id) => self.revoke(*id, work),
        }
    }

    fn revoke(&self, id: i64, work: &mut Work) -> Result<Reply, Failure> {
        if self.connection.prepare_cached("DELETE FROM lease WHERE id = ?1")?.execute([id])? == 0 {
            return Err(Error::LeaseNotFound(id).into());
        }
        let keys: Vec<String> = self
            .connection
            .prepare_cached("SELECT key FROM current WHERE lease = ?1 AND lease <> 0 ORDER BY key")?
            .query_map([id], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        // A revision has room for so many rows only; leases of more keys take several.
        for keys in keys.chunks(MAX_ROWS) {
            let mut batch = Batch { revision: work.now.revision + 1, changes: Vec::new() };
            for key in keys {
                self.delete(key, &mut batch, work)?;
            }
            finish_batch(batch, work);
        }
        Ok(Reply::Done)
    }

    fn txn(&self, txn: &Txn, work: &mut Work) -> Result<TxnResponse, Failure> {
        let mut succeeded = true;
        for compare in &txn.compare {
            succeeded &= self.holds(compare)?;
        }
        let ops = if succeeded { &txn.success } else { &txn.failure };
        // Everything that can be refused is refused before the first write.
        self.check(ops, work)?;
        let mut batch = Batch { revision: work.now.revision + 1, changes: Vec::new() };
        let mut results = Vec::with_capacity(ops.len());
        for op in ops {
            results.push(match op {
                Op::Put { key, value, lease, .. } => {
                    self.put(key, value, *lease, &mut batch, work)?;
                    OpResult::Put
                }
                Op::Delete { key } => OpResult::Deleted(i64::from(self.delete(key, &mut batch, work)?)),
                Op::DeleteRange { start, end } => {
                    let keys = self.keys(start, end.as_deref())?;
                    for key in &keys {
                        self.delete(key, &mut batch, work)?;
                    }
                    OpResult::Deleted(keys.len() as i64)
                }
                Op::Get(range) => {
                    let wrote = i64::from(!batch.changes.is_empty());
                    let now = Now { revision: work.now.revision + wrote, ..work.now };
                    OpResult::Get(read::range(&self.connection, range, now)?)
                }
            });
        }
        finish_batch(batch, work);
        Ok(TxnResponse { succeeded, revision: work.now.revision, results })
    }

    fn holds(&self, compare: &Compare) -> Result<bool, Failure> {
        let row = self.row(compare.key())?;
        Ok(match compare {
            Compare::ModRevision { equals, .. } => {
                row.map_or(0, |row| database::revision_of(row.id)) == *equals
            }
            Compare::CreateRevision { equals, .. } => row.map_or(0, |row| row.created) == *equals,
            Compare::Version { equals, .. } => row.map_or(0, |row| row.version) == *equals,
        })
    }

    fn check(&self, ops: &[Op], work: &Work) -> Result<(), Failure> {
        let mut rows = 0;
        let mut leases = BTreeSet::new();
        for op in ops {
            match op {
                Op::Put { lease, .. } => {
                    rows += 1;
                    leases.insert(*lease);
                }
                Op::Delete { .. } => rows += 1,
                Op::DeleteRange { start, end } => rows += self.keys(start, end.as_deref())?.len(),
                Op::Get(range) => read::check_revision(range.revision, work.now)?,
            }
        }
        if rows >= MAX_ROWS {
            return Err(Error::TooLarge(format!("{rows} keys change at once; at most {MAX_ROWS}")).into());
        }
        leases.remove(&0);
        for lease in leases {
            let found = self
                .connection
                .prepare_cached("SELECT 1 FROM lease WHERE id = ?1")?
                .query_row([lease], |_| Ok(()))
                .optional()?;
            if found.is_none() {
                return Err(Error::LeaseNotFound(lease).into());
            }
        }
        Ok(())
    }

    fn keys(&self, start: &str, end: Option<&str>) -> Result<Vec<String>, Failure> {
        let mut buffer = String::new();
        let (start, end) = read::bounds(start, end, &mut buffer);
        let mut statement = self
            .connection
            .prepare_cached("SELECT key FROM current WHERE key >= ?1 AND key < ?2 ORDER BY key")?;
        Ok(statement.query_map(params![start, end], |row| row.get(0))?.collect::<Result<_, _>>()?)
    }

    fn row(&self, key: &str) -> Result<Option<Row>, Failure> {
        Ok(self
            .connection
            .prepare_cached("SELECT id, created, version FROM current WHERE key = ?1")?
            .query_row([key], |row| Ok(Row { id: row.get(0)?, created: row.get(1)?, version: row.get(2)? }))
            .optional()?)
    }

    fn put(
        &self,
        key: &str,
        value: &Bytes,
        lease: i64,
        batch: &mut Batch,
        work: &mut Work,
    ) -> Result<(), Failure> {
        let id = row_id(batch.revision, batch.changes.len());
        let old = self.row(key)?;
        let (created, version) =
            old.as_ref().map_or((batch.revision, 1), |row| (row.created, row.version + 1));
        self.append(id, key, old.as_ref(), (created, version, lease), value)?;
        self.connection
            .prepare_cached(
                "INSERT INTO current (key, id, created, version, lease) VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT (key) DO UPDATE SET id = ?2, version = ?4, lease = ?5",
            )?
            .execute(params![key, id, created, version, lease])?;
        let kv = KeyValue {
            key: key.to_owned(),
            value: value.clone(),
            create_revision: created,
            mod_revision: batch.revision,
            version,
            lease,
        };
        let prev = self.prev(key, old.as_ref())?;
        batch.changes.push(Change { deleted: false, kv, prev });
        work.written += value.len() + 2 * key.len() + 8192;
        Ok(())
    }

    /// Deletes a key, if it exists.
    fn delete(&self, key: &str, batch: &mut Batch, work: &mut Work) -> Result<bool, Failure> {
        let Some(old) = self.row(key)? else { return Ok(false) };
        let id = row_id(batch.revision, batch.changes.len());
        self.append(id, key, Some(&old), (0, 0, 0), &Bytes::new())?;
        self.connection.prepare_cached("DELETE FROM current WHERE key = ?1")?.execute([key])?;
        let prev = self.prev(key, Some(&old))?;
        let kv = KeyValue { key: key.to_owned(), mod_revision: batch.revision, ..KeyValue::default() };
        batch.changes.push(Change { deleted: true, kv, prev });
        work.written += 2 * key.len() + 8192;
        Ok(true)
    }

    fn append(
        &self,
        id: i64,
        key: &str,
        old: Option<&Row>,
        (created, version, lease): (Revision, i64, i64),
        value: &Bytes,
    ) -> Result<(), Failure> {
        self.connection
            .prepare_cached(
                "INSERT INTO log (id, key, previous, created, version, lease, value)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?
            .execute(params![id, key, old.map_or(0, |old| old.id), created, version, lease, &value[..]])?;
        if let Some(old) = old {
            self.connection
                .prepare_cached("INSERT INTO past (key, ended, id) VALUES (?1, ?2, ?3)")?
                .execute(params![key, id, old.id])?;
        }
        Ok(())
    }

    fn prev(&self, key: &str, old: Option<&Row>) -> Result<Prev, Failure> {
        Ok(match old {
            None => Prev::Loaded(None),
            Some(old) if self.hub.wants_prev(key) => Prev::Loaded(read::log_row(&self.connection, old.id)?),
            Some(_) => Prev::Unloaded,
        })
    }

    /// Whether there is upkeep to do: compacted history to delete, free pages to give back.
    pub(crate) fn has_chores(&self) -> bool {
        !self.resting && (self.now.swept < self.now.compacted || self.vacuum)
    }

    /// Does a slice of upkeep of about `rows` rows. After a failure it rests until a commit succeeds.
    pub(crate) fn chore(&mut self, rows: usize) {
        if let Err(error) = self.try_chore(rows) {
            self.roll_back();
            self.resting = true;
            tracing::warn!(error = %Error::from(error), "deleting compacted history failed; it is tried again later");
        }
    }

    fn try_chore(&mut self, rows: usize) -> Result<(), Failure> {
        self.regain_trust()?;
        self.set_syncing(false)?;
        if self.now.swept < self.now.compacted {
            self.connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
            let swept = self.sweep(rows)?;
            let now = Now { swept, ..self.now };
            now.write(&self.connection)?;
            self.finish()?;
            self.now = now;
            self.written += rows * 4096;
            self.vacuum = self.on_disk && swept == now.compacted;
        } else if self.vacuum {
            let number = |pragma: &str| self.connection.query_row(pragma, [], |row| row.get::<_, i64>(0));
            let (free, all) = (number("PRAGMA freelist_count")?, number("PRAGMA page_count")?);
            // A quarter may stay, for what is written next.
            self.vacuum = free > 256 && free > all / 4;
            if self.vacuum {
                // It steps once per page, so its rows must be drained.
                let mut statement = self.connection.prepare_cached("PRAGMA incremental_vacuum(128)")?;
                let mut steps = statement.query([])?;
                while steps.next()?.is_some() {}
                self.written += 256 * 4096;
            }
        }
        Ok(())
    }

    /// Deletes what the next log rows up to the compacted revision replaced, and deletions themselves.
    /// Returns the revision up to which that is done.
    fn sweep(&self, rows: usize) -> Result<Revision, Failure> {
        let from = bound(self.now.swept);
        let until = bound(self.now.compacted);
        let mut statement = self
            .connection
            .prepare_cached("SELECT id, previous, created FROM log WHERE id >= ?1 AND id < ?2 ORDER BY id")?;
        let mut found = statement.query([from, until])?;
        let mut batch: Vec<(i64, i64, i64)> = Vec::new();
        let mut swept = self.now.compacted;
        while let Some(row) = found.next()? {
            let next: (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
            // Whole revisions only, because the position is kept as a revision.
            if let Some((last, ..)) = batch.last()
                && batch.len() >= rows
                && database::revision_of(*last) != database::revision_of(next.0)
            {
                swept = database::revision_of(*last);
                break;
            }
            batch.push(next);
        }
        drop(found);
        let mut forget = self.connection.prepare_cached(
            "DELETE FROM past WHERE ended = ?1 AND key = (SELECT key FROM log WHERE id = ?1)",
        )?;
        let mut delete = self.connection.prepare_cached("DELETE FROM log WHERE id = ?1")?;
        for (id, previous, created) in batch {
            if previous != 0 {
                forget.execute([id])?;
                delete.execute([previous])?;
            }
            if created == 0 {
                delete.execute([id])?;
            }
        }
        Ok(swept)
    }

    /// Copies what it can from the log into the database, without waiting for anyone.
    pub(crate) fn checkpoint(&self) {
        let result = self.connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
        if let Err(error) = result {
            tracing::warn!(%error, "checkpoint of the store failed; it is tried again later");
        }
    }

    /// Marks the end as clean. The database is closed when the core is dropped.
    pub(crate) fn close(&mut self) {
        self.hub.close();
        let result = self
            .regain_trust()
            .and_then(|()| self.set_syncing(true))
            .and_then(|()| Ok(self.connection.execute("UPDATE meta SET boot = ''", [])?));
        if let Err(error) = result {
            tracing::warn!(error = %Error::from(error), "closing the store; it will be recovered at the next start");
        }
    }
}

/// Makes the changes a revision of their own, if there are any.
fn finish_batch(batch: Batch, work: &mut Work) {
    if !batch.changes.is_empty() {
        work.now.revision = batch.revision;
        work.batches.push(batch);
    }
}
