//! What only a store on disk does: restart, lock, backup and restore, upkeep, volatile writes.

use std::path::Path;

use base::{Clock, Tasks};
use store::{Embedded, Error, Op, Range, Store, Txn};

fn open(dir: &Path, tasks: &Tasks) -> Result<Embedded, Error> {
    Embedded::open(dir, Clock::system(), tasks.clone())
}

async fn put(store: &Embedded, key: &str, value: Vec<u8>) -> i64 {
    store.txn(Txn::of([Op::put(key, value)])).await.unwrap().revision
}

#[tokio::test]
async fn a_restart_keeps_everything_and_goes_on_at_the_same_revision() {
    let (dir, tasks) = (tempfile::tempdir().unwrap(), Tasks::new("test"));
    let store = open(dir.path(), &tasks).unwrap();
    let first = put(&store, "/a", b"1".to_vec()).await;
    let second = put(&store, "/registry/leases/a", b"2".to_vec()).await;
    drop(store);
    let store = open(dir.path(), &tasks).unwrap();
    assert_eq!(store.revision().await.unwrap(), second);
    assert_eq!(store.range(Range::prefix("/").at(first)).await.unwrap().count, 1);
    assert_eq!(put(&store, "/a", b"3".to_vec()).await, second + 1);
}

#[tokio::test]
async fn a_directory_in_use_is_refused_in_one_line() {
    let (dir, tasks) = (tempfile::tempdir().unwrap(), Tasks::new("test"));
    let _store = open(dir.path(), &tasks).unwrap();
    let error = open(dir.path(), &tasks).unwrap_err().to_string();
    assert!(error.contains("in use by process") && error.lines().count() == 1, "{error}");
}

#[tokio::test]
async fn a_backup_restores_at_a_higher_revision_with_history_compacted() {
    let (dir, tasks) = (tempfile::tempdir().unwrap(), Tasks::new("test"));
    let store = open(&dir.path().join("a"), &tasks).unwrap();
    put(&store, "/a", b"1".to_vec()).await;
    let backup = dir.path().join("backup");
    store.backup(&backup).await.unwrap();
    let later = put(&store, "/b", b"2".to_vec()).await;
    Embedded::restore(&backup, &dir.path().join("b")).unwrap();
    assert!(Embedded::restore(&backup, &dir.path().join("b")).is_err());
    let restored = open(&dir.path().join("b"), &tasks).unwrap();
    let all = restored.range(Range::prefix("/")).await.unwrap();
    assert!(all.kvs.len() == 1 && all.revision > later, "{all:?}");
    let watch = restored.watch("/".into(), None, later + 1, false).await;
    assert!(matches!(watch, Err(Error::Compacted { .. })));
}

#[tokio::test]
async fn a_store_closes_while_its_own_task_waits_for_an_answer() {
    let (dir, tasks) = (tempfile::tempdir().unwrap(), Tasks::new("test"));
    let store = open(&dir.path().join("a"), &tasks).unwrap();
    put(&store, "/a", b"1".to_vec()).await;
    let backup = dir.path().join("backup");
    store.backup(&backup).await.unwrap();
    for round in 0..20 {
        let dir = dir.path().join(format!("b{round}"));
        // Its history ends at a higher revision, so that there is something to compact at once.
        Embedded::restore(&backup, &dir).unwrap();
        let restored = open(&dir, &tasks).unwrap();
        // Lets the task ask; the answer finds this thread waiting for the writer to end.
        tokio::task::yield_now().await;
        drop(restored);
    }
}

#[tokio::test]
async fn compaction_gives_space_back_to_the_file_system() {
    let (dir, tasks) = (tempfile::tempdir().unwrap(), Tasks::new("test"));
    let store = open(dir.path(), &tasks).unwrap();
    let mut last = 0;
    for _ in 0..400 {
        last = put(&store, "/a", vec![b'x'; 50_000]).await;
    }
    store.compact(last).await.unwrap();
    drop(store);
    // What the first run did not get to is done by the next.
    let store = open(dir.path(), &tasks).unwrap();
    while std::fs::metadata(dir.path().join("store.db")).unwrap().len() > 5_000_000 {
        put(&store, "/b", vec![b'y'; 100_000]).await;
        let now = store.revision().await.unwrap();
        store.compact(now).await.unwrap();
        assert!(now < last + 2000, "the file does not shrink");
    }
}

/// A small file system of its own, gone when dropped. Needs root.
struct Small(tempfile::TempDir);

impl Small {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=8m", "store-test"])
            .arg(dir.path())
            .status();
        assert!(mounted.is_ok_and(|status| status.success()), "this test mounts a tmpfs: run it as root");
        Self(dir)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").args(["-l"]).arg(self.0.path()).status();
    }
}

#[tokio::test]
async fn a_full_disk_refuses_writes_serves_reads_and_recovers_without_a_restart() {
    let (small, tasks) = (Small::new(), Tasks::new("test"));
    let ballast = small.0.path().join("ballast");
    std::fs::write(&ballast, vec![0; 5_000_000]).unwrap();
    let store = open(&small.0.path().join("store"), &tasks).unwrap();
    let mut written = 0;
    let error = loop {
        match store.txn(Txn::of([Op::put(format!("/k/{written}"), vec![b'x'; 100_000])])).await {
            Ok(_) => written += 1,
            Err(error) => break error,
        }
        assert!(written < 1000, "the disk never fills");
    };
    assert!(matches!(error, Error::NoSpace(_)), "{error:?}");
    assert_eq!(store.range(Range::prefix("/k/")).await.unwrap().count, written);
    std::fs::remove_file(&ballast).unwrap();
    put(&store, "/after", b"v".to_vec()).await;
    assert_eq!(store.range(Range::prefix("/")).await.unwrap().count, written + 1);
}
