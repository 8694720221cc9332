//! Keys, ranges, transactions and their answers.

use std::collections::HashSet;

use bytes::Bytes;

use crate::error::Error;

/// A point in the store's history. Every transaction that writes makes the next one.
pub type Revision = i64;

/// The largest key, in bytes.
pub const MAX_KEY_BYTES: usize = 8 * 1024;
/// The largest request, keys and values together: etcd's default `--max-request-bytes`.
pub const MAX_REQUEST_BYTES: usize = 3 * 512 * 1024;
/// The most operations in one branch of a transaction: etcd's default `--max-txn-ops`.
pub const MAX_OPS: usize = 128;
/// The `end` of a range without an end, as in etcd.
pub const TO_THE_END: &str = "\0";
/// Writes to keys with this prefix are volatile, see [`Op::Put`].
pub const VOLATILE_PREFIX: &str = "/registry/leases/";

/// One key as of a revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyValue {
    /// The key.
    pub key: String,
    /// The value; empty in keys-only answers and for deletions.
    pub value: Bytes,
    /// When the key was last created.
    pub create_revision: Revision,
    /// When the key was last written (for a deletion: deleted).
    pub mod_revision: Revision,
    /// How often the key was written since it was created.
    pub version: i64,
    /// The lease that the key lives under; 0 is none.
    pub lease: i64,
}

/// Which keys to read, and as of when.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// The first key.
    pub start: String,
    /// The first key beyond the range. `None` is the one key `start`; [`TO_THE_END`] is no end.
    pub end: Option<String>,
    /// The most keys to return; 0 is all.
    pub limit: usize,
    /// The revision to read at; 0 is the latest.
    pub revision: Revision,
    /// Leave the values out.
    pub keys_only: bool,
    /// Return no keys, only their count.
    pub count_only: bool,
}

impl Range {
    /// The one key.
    pub fn key(key: impl Into<String>) -> Self {
        Self { start: key.into(), ..Self::default() }
    }

    /// All keys from `start`, and below `end`.
    pub fn between(start: impl Into<String>, end: impl Into<String>) -> Self {
        Self { start: start.into(), end: Some(end.into()), ..Self::default() }
    }

    /// All keys that begin with `prefix`.
    pub fn prefix(prefix: impl Into<String>) -> Self {
        let start = prefix.into();
        Self { end: Some(prefix_end(&start)), start, ..Self::default() }
    }

    /// Only keys after `key`: the next page.
    pub fn after(mut self, key: &str) -> Self {
        self.start = format!("{key}\0");
        self
    }

    /// At most `limit` keys.
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = limit;
        self
    }

    /// As of `revision`.
    pub fn at(mut self, revision: Revision) -> Self {
        self.revision = revision;
        self
    }

    /// Without values.
    pub fn keys_only(mut self) -> Self {
        self.keys_only = true;
        self
    }

    /// Only the count.
    pub fn count_only(mut self) -> Self {
        self.count_only = true;
        self
    }
}

/// The first key that doesn't begin with `prefix` and is greater: the `end` of a range over the prefix.
pub fn prefix_end(prefix: &str) -> String {
    let mut end = prefix.to_owned();
    while let Some(last) = end.pop() {
        // The next character, skipping the gap of the surrogates.
        let next = match last {
            '\u{d7ff}' => Some('\u{e000}'),
            last => char::from_u32(last as u32 + 1),
        };
        if let Some(next) = next {
            end.push(next);
            return end;
        }
    }
    TO_THE_END.to_owned()
}

/// Whether `key` is in `start..end` (`end` as in [`Range::end`]).
pub(crate) fn contains(start: &str, end: Option<&str>, key: &str) -> bool {
    match end {
        None => key == start,
        Some(TO_THE_END) => key >= start,
        Some(end) => key >= start && key < end,
    }
}

/// The answer to a [`Range`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeResponse {
    /// The store's revision when it answered (not the one read at).
    pub revision: Revision,
    /// What was found, in key order.
    pub kvs: Vec<KeyValue>,
    /// Whether the limit cut the answer short.
    pub more: bool,
    /// All keys of the range, also those beyond the limit.
    pub count: i64,
}

/// A condition of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compare {
    /// The key was last written at `equals`; 0 is "doesn't exist".
    ModRevision {
        /// The key to look at.
        key: String,
        /// What it must be.
        equals: Revision,
    },
    /// The key was created at `equals`; 0 is "doesn't exist".
    CreateRevision {
        /// The key to look at.
        key: String,
        /// What it must be.
        equals: Revision,
    },
    /// The key was written `equals` times since it was created; 0 is "doesn't exist".
    Version {
        /// The key to look at.
        key: String,
        /// What it must be.
        equals: i64,
    },
}

impl Compare {
    /// The key was last written at `revision`; 0 is "doesn't exist".
    pub fn mod_revision(key: impl Into<String>, revision: Revision) -> Self {
        Self::ModRevision { key: key.into(), equals: revision }
    }

    pub(crate) fn key(&self) -> &str {
        match self {
            Self::ModRevision { key, .. } | Self::CreateRevision { key, .. } | Self::Version { key, .. } => {
                key
            }
        }
    }
}

/// One operation of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Writes a key.
    Put {
        /// The key.
        key: String,
        /// Its new value.
        value: Bytes,
        /// The lease that it lives under; 0 is none.
        lease: i64,
        /// The write need not survive a power loss: for what is soon written again (heartbeats) or merely
        /// informs (events). It survives kill -9 like any other. Keys below [`VOLATILE_PREFIX`] are
        /// volatile without saying so. A transaction is volatile if all of its writes are.
        /// The embedded store saves the fsync; etcd ignores this.
        volatile: bool,
    },
    /// Deletes a key, if it exists.
    Delete {
        /// The key.
        key: String,
    },
    /// Deletes all keys in `start..end` (`end` as in [`Range::end`]).
    DeleteRange {
        /// The first key.
        start: String,
        /// The first key beyond the range.
        end: Option<String>,
    },
    /// Reads, and sees what the operations before it wrote.
    Get(Range),
}

impl Op {
    /// A durable write without a lease.
    pub fn put(key: impl Into<String>, value: impl Into<Bytes>) -> Self {
        Self::Put { key: key.into(), value: value.into(), lease: 0, volatile: false }
    }

    /// Deletes a key, if it exists.
    pub fn delete(key: impl Into<String>) -> Self {
        Self::Delete { key: key.into() }
    }

    /// Reads the one key.
    pub fn get(key: impl Into<String>) -> Self {
        Self::Get(Range::key(key))
    }
}

/// What an operation answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpResult {
    /// Written.
    Put,
    /// So many keys were deleted ([`Op::Delete`] and [`Op::DeleteRange`]).
    Deleted(i64),
    /// What was read.
    Get(RangeResponse),
}

/// If every condition holds, `success` is run, otherwise `failure`: at one revision, whole or not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Txn {
    /// The conditions.
    pub compare: Vec<Compare>,
    /// Run if all conditions hold.
    pub success: Vec<Op>,
    /// Run if not.
    pub failure: Vec<Op>,
}

impl Txn {
    /// Unconditional operations.
    pub fn of(success: impl Into<Vec<Op>>) -> Self {
        Self { success: success.into(), ..Self::default() }
    }

    /// Adds a condition.
    pub fn when(mut self, compare: Compare) -> Self {
        self.compare.push(compare);
        self
    }

    /// Adds an operation for the case that a condition doesn't hold.
    pub fn or_else(mut self, op: Op) -> Self {
        self.failure.push(op);
        self
    }

    /// Whether neither branch writes.
    pub fn is_read_only(&self) -> bool {
        self.success.iter().chain(&self.failure).all(|op| matches!(op, Op::Get(_)))
    }

    /// Refuses what every implementation refuses, before anything is sent or written.
    pub fn validate(&self) -> Result<(), Error> {
        let mut bytes = 0;
        for compare in &self.compare {
            check_key(compare.key())?;
            bytes += compare.key().len();
        }
        if self.compare.len() > MAX_OPS {
            return Err(Error::Invalid(format!(
                "{} conditions in a transaction; at most {MAX_OPS}",
                self.compare.len()
            )));
        }
        for ops in [&self.success, &self.failure] {
            bytes += check_ops(ops)?;
        }
        if bytes > MAX_REQUEST_BYTES {
            return Err(Error::TooLarge(format!("{bytes} bytes; at most {MAX_REQUEST_BYTES}")));
        }
        Ok(())
    }
}

fn check_ops(ops: &[Op]) -> Result<usize, Error> {
    if ops.len() > MAX_OPS {
        return Err(Error::Invalid(format!("{} operations in a transaction; at most {MAX_OPS}", ops.len())));
    }
    let mut bytes = 0;
    let mut written = HashSet::new();
    let mut cleared: Vec<(&str, Option<&str>)> = Vec::new();
    for op in ops {
        match op {
            Op::Put { key, value, .. } => {
                check_key(key)?;
                bytes += key.len() + value.len();
                if !written.insert(key.as_str()) {
                    return Err(Error::Invalid(format!("key {key:?} is written twice in one transaction")));
                }
            }
            Op::Delete { key } => {
                check_key(key)?;
                bytes += key.len();
                cleared.push((key, None));
            }
            Op::DeleteRange { start, end } => {
                if end.is_none() {
                    check_key(start)?;
                }
                bytes += start.len() + end.as_ref().map_or(0, String::len);
                cleared.push((start, end.as_deref()));
            }
            Op::Get(range) => bytes += check_range(range)?,
        }
    }
    // As in etcd: no key is written and deleted in one transaction, so that each has one event per revision.
    for (start, end) in cleared {
        if let Some(key) = written.iter().find(|key| contains(start, end, key)) {
            return Err(Error::Invalid(format!("key {key:?} is written and deleted in one transaction")));
        }
    }
    Ok(bytes)
}

/// Refuses keys that no implementation takes.
fn check_key(key: &str) -> Result<(), Error> {
    if key.is_empty() {
        return Err(Error::Invalid("empty key".to_owned()));
    }
    if key.len() > MAX_KEY_BYTES {
        return Err(Error::TooLarge(format!("key of {} bytes; at most {MAX_KEY_BYTES}", key.len())));
    }
    Ok(())
}

/// Refuses ranges that no implementation takes; returns the size of the keys.
pub(crate) fn check_range(range: &Range) -> Result<usize, Error> {
    if range.end.is_none() {
        check_key(&range.start)?;
    }
    if range.revision < 0 {
        return Err(Error::Invalid(format!("negative revision {}", range.revision)));
    }
    let bytes = range.start.len() + range.end.as_ref().map_or(0, String::len);
    if bytes > 2 * MAX_KEY_BYTES {
        return Err(Error::TooLarge(format!("keys of {bytes} bytes in a range")));
    }
    Ok(bytes)
}

/// The answer to a [`Txn`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TxnResponse {
    /// Whether every condition held.
    pub succeeded: bool,
    /// The transaction's own revision if it wrote, otherwise the store's when it answered.
    pub revision: Revision,
    /// One result for each operation of the branch that ran.
    pub results: Vec<OpResult>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_before_the_next_sibling() {
        for (prefix, end) in [
            ("/registry/pods/", "/registry/pods0"),
            ("", TO_THE_END),
            ("\u{10ffff}", TO_THE_END),
            ("a\u{10ffff}", "b"),
            ("\u{d7ff}", "\u{e000}"),
        ] {
            assert_eq!(prefix_end(prefix), end, "{prefix:?}");
        }
    }

    #[test]
    fn a_transaction_over_a_limit_is_refused() {
        let put = |key: &str, size: usize| Op::put(key, vec![0; size]);
        assert!(Txn::of([put("a", MAX_REQUEST_BYTES - 1)]).validate().is_ok());
        assert!(matches!(Txn::of([put("a", MAX_REQUEST_BYTES)]).validate(), Err(Error::TooLarge(_))));
        assert!(matches!(
            Txn::of([put(&"k".repeat(MAX_KEY_BYTES + 1), 0)]).validate(),
            Err(Error::TooLarge(_))
        ));
        assert!(matches!(Txn::of([put("", 0)]).validate(), Err(Error::Invalid(_))));
        assert!(matches!(Txn::of([put("a", 0), put("a", 0)]).validate(), Err(Error::Invalid(_))));
        assert!(matches!(Txn::of([put("a", 0), Op::delete("a")]).validate(), Err(Error::Invalid(_))));
        let many: Vec<Op> = (0..=MAX_OPS).map(|n| put(&format!("{n}"), 0)).collect();
        assert!(matches!(Txn::of(many).validate(), Err(Error::Invalid(_))));
    }
}
