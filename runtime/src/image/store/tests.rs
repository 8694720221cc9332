use std::io::{BufRead, BufReader};
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};

use super::*;
use crate::image::ImageConfig;
use crate::image::document::sha256;
use crate::image::files::Usage;

fn open(root: &Path) -> Store {
    Store::open(&root.join("images"), &root.join("containers")).unwrap()
}

fn record(chain_id: &str) -> Record {
    Record {
        manifest: Some(sha256("manifest")),
        size: 1,
        pinned: false,
        config: ImageConfig::default(),
        layers: vec![Layer {
            chain_id: chain_id.to_owned(),
            diff_id: chain_id.to_owned(),
            blob: Some(sha256("blob")),
            usage: Usage { bytes: 10, inodes: 1 },
        }],
    }
}

fn add_layer(store: &Store, chain_id: &str) {
    let dir = store.ingest().unwrap();
    fs::create_dir(dir.path().join("fs")).unwrap();
    store.add_layer(chain_id, dir).unwrap();
}

#[test]
fn what_one_process_changes_another_sees() {
    let dir = tempfile::tempdir().unwrap();
    let (here, there) = (open(dir.path()), open(dir.path()));
    let id = sha256("config");
    there
        .update(|index| {
            index.images.insert(id.clone(), record(&sha256("layer")));
            index.names.insert("docker.io/library/a:1".to_owned(), id.clone());
            index.names.insert(format!("docker.io/library/a@{}", sha256("manifest")), id.clone());
            Ok(())
        })
        .unwrap();
    let snapshot = here.snapshot().unwrap();
    let hex = &id["sha256:".len()..];
    for name in ["a:1", "docker.io/library/a:1", &id, hex, &hex[..12], &format!("a@{}", sha256("manifest"))] {
        assert_eq!(snapshot.resolve(name).expect(name).id, id);
    }
    for name in ["a", "a:2", &hex[..8], "", "A B"] {
        assert!(snapshot.resolve(name).is_none(), "{name}");
    }
    let image = snapshot.resolve("a:1").unwrap();
    assert_eq!((image.repo_tags.len(), image.repo_digests.len()), (1, 1));
    assert_eq!(snapshot.unpacked(), Usage { bytes: 10, inodes: 1 });
}

#[test]
fn a_change_that_fails_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let result: Result<(), _> = store.update(|index| {
        index.names.insert("x".to_owned(), "y".to_owned());
        Err(ImageError::NotFound("x".to_owned()))
    });
    assert!(result.is_err());
    assert!(!store.index_path().exists());
}

#[test]
fn half_written_files_of_a_killed_process_are_ignored_and_collected() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let id = sha256("config");
    let layer = sha256("layer");
    add_layer(&store, &layer);
    store
        .update(|index| {
            index.images.insert(id.clone(), record(&layer));
            Ok(())
        })
        .unwrap();
    // What `replace` and an unpacking leave behind when the process dies in them.
    fs::write(store.root.join(".tmpAbCdEf"), b"{\"images\":").unwrap();
    fs::create_dir_all(store.root.join("ingest/x/fs")).unwrap();
    add_layer(&store, &sha256("unreferred"));
    fs::write(store.blob(&sha256("unreferred")), b"x").unwrap();
    drop(store);
    let store = open(dir.path());
    store.collect_garbage().unwrap();
    assert!(store.snapshot().unwrap().resolve(&id).is_some());
    assert!(store.has_layer(&layer));
    assert!(!store.has_layer(&sha256("unreferred")) && !store.has_blob(&sha256("unreferred")));
    assert!(names(&store.root.join("ingest")).unwrap().next().is_none());
    assert!(names(&store.root.join("trash")).unwrap().next().is_none());
}

#[test]
fn a_damaged_index_is_an_error_and_not_an_empty_store() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    fs::write(dir.path().join("images/images.json"), b"{\"images\":").unwrap();
    let error = Store::open(&dir.path().join("images"), &dir.path().join("containers")).unwrap_err();
    assert!(error.to_string().contains("images.json"), "{error}");
}

#[test]
fn content_in_use_is_not_collected_and_does_not_delay_the_collection() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let layer = sha256("layer");
    let in_use = store.in_use().unwrap();
    add_layer(&store, &layer);
    store.collect_garbage().unwrap();
    assert!(store.has_layer(&layer));
    drop(in_use);
    store.collect_garbage().unwrap();
    assert!(!store.has_layer(&layer));
}

#[test]
fn deleting_garbage_does_not_follow_links() {
    let dir = tempfile::tempdir().unwrap();
    let precious = dir.path().join("precious");
    fs::create_dir(&precious).unwrap();
    fs::write(precious.join("file"), b"x").unwrap();
    let store = open(dir.path());
    let ingest = store.ingest().unwrap();
    fs::create_dir(ingest.path().join("fs")).unwrap();
    symlink(&precious, ingest.path().join("fs/link")).unwrap();
    store.add_layer(&sha256("layer"), ingest).unwrap();
    store.collect_garbage().unwrap();
    assert!(!store.has_layer(&sha256("layer")));
    assert!(precious.join("file").exists());
}

#[test]
fn two_stores_that_write_at_once_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path());
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let root = dir.path();
            scope.spawn(move || {
                let store = open(root);
                for n in 0..5 {
                    let id = sha256(format!("{thread} {n}"));
                    store
                        .update(|index| {
                            index.images.insert(id, record(&sha256("layer")));
                            Ok(())
                        })
                        .unwrap();
                }
            });
        }
    });
    assert_eq!(open(dir.path()).snapshot().unwrap().list().len(), 20);
}

/// The directory of the store that [`an_endless_writer_for_the_test_that_kills_it`] writes to.
const VICTIM: &str = "SKIFF_TEST_VICTIM_STORE";

#[test]
#[ignore = "runs as the child of another test"]
fn an_endless_writer_for_the_test_that_kills_it() {
    let Some(dir) = std::env::var_os(VICTIM) else { return };
    let store = open(Path::new(&dir));
    for n in 0.. {
        let id = sha256(n.to_string());
        store
            .update(|index| {
                index.images.insert(id.clone(), record(&sha256("layer")));
                index.names.insert(format!("docker.io/library/a:{n}"), id);
                Ok(())
            })
            .unwrap();
        println!("acknowledged {n}");
    }
}

#[test]
fn what_was_acknowledged_before_a_kill_is_there_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = 0;
    for wanted in [3, 8, 2] {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--nocapture", "--exact"])
            .arg("image::store::tests::an_endless_writer_for_the_test_that_kills_it")
            .env(VICTIM, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // It goes on writing while this reads and kills.
        let seen =
            lines.map_while(Result::ok).filter(|line| line.contains("acknowledged ")).take(wanted).count();
        child.kill().unwrap();
        child.wait().unwrap();
        acknowledged = acknowledged.max(seen);
        let store = open(dir.path());
        let snapshot = store.snapshot().unwrap();
        for n in 0..acknowledged {
            assert!(snapshot.resolve(&format!("a:{n}")).is_some(), "{n} of {acknowledged} is lost");
        }
        store.collect_garbage().unwrap();
    }
    assert_eq!(acknowledged, 8);
}
