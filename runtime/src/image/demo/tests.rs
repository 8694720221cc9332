use base::{Clock, Tasks};

use super::*;
use crate::image::Images;

struct Node {
    dir: tempfile::TempDir,
}

impl Node {
    /// An executable beside an empty root.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("skiff"), b"one").unwrap();
        fs::set_permissions(dir.path().join("skiff"), fs::Permissions::from_mode(0o755)).unwrap();
        Self { dir }
    }

    fn open(&self) -> Images {
        let tasks = Tasks::new("test");
        Images::open(&self.dir.path().join("root"), &self.dir.path().join("skiff"), Clock::system(), tasks)
            .unwrap()
    }
}

#[tokio::test]
async fn the_built_in_images_are_there_and_run_the_binary() {
    let node = Node::new();
    let images = node.open();
    let image = images.resolve("skiff.local/hello:2").unwrap();
    assert_eq!(image.repo_tags, ["skiff.local/hello:2"]);
    assert_eq!(image.config.entrypoint, ["/skiff", "hello"]);
    assert!(image.config.env.contains(&"HELLO_TAG=2".to_owned()));
    assert!(image.pinned);
    assert_ne!(images.resolve("skiff.local/hello:1").unwrap().id, image.id);
    let pause = images.resolve("skiff.local/pause:1").unwrap();
    assert_eq!(pause.config.entrypoint, ["/skiff", "pause", "--here"]);
    let root = images.mount_rootfs(&image, "c1").await.unwrap();
    assert_eq!(fs::read(root.join("skiff")).unwrap(), b"one");
    assert_eq!(fs::metadata(root.join("tmp")).unwrap().mode() & 0o7777, 0o1777);
    fs::write(root.join("skiff"), b"broken by the container").unwrap();
    images.unmount_rootfs("c1").await.unwrap();
    assert_eq!(fs::read(node.dir.path().join("skiff")).unwrap(), b"one");
}

#[tokio::test]
async fn the_binary_is_linked_and_an_unchanged_one_writes_nothing() {
    let node = Node::new();
    drop(node.open());
    assert_eq!(fs::metadata(node.dir.path().join("skiff")).unwrap().nlink(), 2);
    let index = node.dir.path().join("root/images/images.json");
    let inode = fs::metadata(&index).unwrap().ino();
    drop(node.open());
    assert_eq!(fs::metadata(&index).unwrap().ino(), inode);
}

#[tokio::test]
async fn a_binary_that_not_all_may_execute_is_copied() {
    let node = Node::new();
    fs::set_permissions(node.dir.path().join("skiff"), fs::Permissions::from_mode(0o700)).unwrap();
    let images = node.open();
    let root = images.mount_rootfs(&images.resolve("skiff.local/hello:1").unwrap(), "c1").await.unwrap();
    let mode = fs::metadata(root.join("skiff")).unwrap().mode() & 0o777;
    images.unmount_rootfs("c1").await.unwrap();
    assert_eq!(mode, 0o755);
    assert_eq!(fs::metadata(node.dir.path().join("skiff")).unwrap().nlink(), 1);
}

#[tokio::test]
async fn a_new_binary_makes_new_images_and_containers_keep_the_old() {
    let node = Node::new();
    let images = node.open();
    let old = images.resolve("skiff.local/hello:1").unwrap();
    let root = images.mount_rootfs(&old, "c1").await.unwrap();
    let path = node.dir.path().join("skiff");
    fs::remove_file(&path).unwrap();
    fs::write(&path, b"three").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let again = node.open();
    let new = again.resolve("skiff.local/hello:1").unwrap();
    assert_ne!(new.id, old.id);
    assert!(again.resolve(&old.id).is_none());
    assert_eq!(again.list().len(), 3);
    assert_eq!(fs::read(root.join("skiff")).unwrap(), b"one");
    let layers = || fs::read_dir(node.dir.path().join("root/images/layers")).unwrap().count();
    assert_eq!(layers(), 2);
    again.unmount_rootfs("c1").await.unwrap();
    assert_eq!(layers(), 1);
}

#[tokio::test]
async fn a_missing_binary_is_no_reason_not_to_open() {
    let node = Node::new();
    fs::remove_file(node.dir.path().join("skiff")).unwrap();
    assert!(node.open().list().is_empty());
}

#[tokio::test]
async fn a_large_binary_is_neither_read_nor_copied() {
    let node = Node::new();
    let file = fs::File::create(node.dir.path().join("skiff")).unwrap();
    // More than the disk holds.
    file.set_len(1 << 42).unwrap();
    fs::set_permissions(node.dir.path().join("skiff"), fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(node.open().list().len(), 3);
    assert_eq!(file.metadata().unwrap().nlink(), 2);
}

#[tokio::test]
async fn a_layer_that_a_power_failure_damaged_is_made_again() {
    let node = Node::new();
    let images = node.open();
    let layer = fs::read_dir(node.dir.path().join("root/images/layers")).unwrap().next().unwrap().unwrap();
    let passwd = layer.path().join("fs/etc/passwd");
    fs::write(&passwd, "").unwrap();
    drop(images);
    drop(node.open());
    assert_eq!(fs::read_to_string(passwd).unwrap(), PASSWD);
}
