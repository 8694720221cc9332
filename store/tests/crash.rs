//! kill -9 of a loaded process: nothing acknowledged is missing, nothing is half there.
//!
//! The test starts itself as the process to kill: that child runs 64 writers and prints a line for each
//! write when it is acknowledged. A write puts two keys with the same value in one transaction.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use base::{Clock, Tasks};
use store::{Embedded, Op, Range, Store, Txn};

const ROUNDS: usize = 50;
const WRITERS: usize = 64;
const DIR: &str = "STORE_CRASH_DIR";
const ROUND: &str = "STORE_CRASH_ROUND";

/// The process to kill; does nothing when it is run as a test.
#[tokio::test]
async fn child() {
    let (Ok(dir), Ok(round)) = (std::env::var(DIR), std::env::var(ROUND)) else { return };
    let tasks = Tasks::new("crash");
    let store = Embedded::open(dir.as_ref(), Clock::system(), tasks.clone()).unwrap();
    let writer = |writer: usize| {
        let (store, round) = (&store, &round);
        async move {
            for n in 0.. {
                let value = format!("{round}-{n}");
                let pair = [format!("/a/{writer}"), format!("/b/{writer}")];
                let put = |key: &String| Op::put(key, value.clone());
                let revision = store.txn(Txn::of([put(&pair[0]), put(&pair[1])])).await.unwrap().revision;
                let line = format!("acknowledged {writer} {revision} {value}\n");
                std::io::stdout().write_all(line.as_bytes()).unwrap();
            }
        }
    };
    futures::future::join_all((0..WRITERS).map(writer)).await;
}

#[tokio::test]
async fn a_killed_process_loses_no_acknowledged_write() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged: BTreeMap<usize, (i64, String)> = BTreeMap::new();
    let (mut writes, mut last) = (0, 0);
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["child", "--exact", "--nocapture", "--test-threads=1"])
            .env(DIR, dir.path())
            .env(ROUND, round.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut seen = 0;
        // Killed after a different number of writes each time, then everything it had said is read.
        let until = 200 + round * 37;
        let lines = BufReader::new(child.stdout.take().unwrap());
        for line in lines.lines() {
            let line = line.unwrap();
            let Some((_, line)) = line.split_once("acknowledged ") else { continue };
            let mut words = line.split(' ');
            // The last line may be cut short by the kill.
            let (Some(writer), Some(revision), Some(value)) = (words.next(), words.next(), words.next())
            else {
                continue;
            };
            let entry = acknowledged.entry(writer.parse().unwrap()).or_default();
            *entry = (revision.parse().unwrap(), value.to_owned());
            seen += 1;
            if seen == until {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(seen >= until, "round {round}: the child ended by itself after {seen} writes");
        writes += seen;

        let tasks = Tasks::new("check");
        let store = Embedded::open(dir.path(), Clock::system(), tasks.clone()).unwrap();
        let read = async |prefix: &str| store.range(Range::prefix(prefix)).await.unwrap();
        let (a, b) = (read("/a/").await, read("/b/").await);
        assert!(a.revision >= last, "the revision went back from {last} to {}", a.revision);
        last = a.revision;
        let half = |kvs: &[store::KeyValue]| -> Vec<_> {
            kvs.iter().map(|kv| (kv.key[3..].to_owned(), kv.value.clone(), kv.mod_revision)).collect()
        };
        assert_eq!(half(&a.kvs), half(&b.kvs), "round {round}: a transaction is half there");
        let found: BTreeMap<usize, i64> =
            a.kvs.iter().map(|kv| (kv.key[3..].parse().unwrap(), kv.mod_revision)).collect();
        for (writer, (revision, value)) in &acknowledged {
            let present = found.get(writer).copied().unwrap_or(0);
            assert!(
                present >= *revision,
                "round {round}: writer {writer} lost {value} of revision {revision}"
            );
            if present == *revision {
                let kv = &store.range(Range::key(format!("/a/{writer}"))).await.unwrap().kvs[0];
                assert_eq!(&kv.value[..], value.as_bytes());
            }
        }
    }
    println!(
        "{ROUNDS} kills, {WRITERS} writers, {writes} acknowledged transactions: 0 missing, 0 half there"
    );
}
