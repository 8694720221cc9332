//! Archives as Skiff, Docker and others write them, and hostile ones; needs root for unpacking.

use std::fs;
use std::path::Path;
use std::process::Command;

use base::{Clock, Tasks};
use serde_json::json;
use tar::{Builder, EntryType, Header};

use crate::image::document::sha256;
use crate::image::{ImageError, Images};

struct Node {
    images: Images,
    dir: tempfile::TempDir,
}

/// A node whose executable is a small file.
fn node() -> Node {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("skiff"), "the binary").unwrap();
    let tasks = Tasks::new("test");
    let images =
        Images::open(&dir.path().join("root"), &dir.path().join("skiff"), Clock::system(), tasks).unwrap();
    Node { images, dir }
}

impl Node {
    async fn load(&self, archive: Vec<u8>) -> Result<Vec<std::sync::Arc<crate::image::Image>>, ImageError> {
        let path = self.dir.path().join("archive.tar");
        fs::write(&path, archive).unwrap();
        self.images.load(&path).await
    }
}

fn add(tar: &mut Builder<Vec<u8>>, path: &str, data: &[u8]) {
    let mut header = Header::new_gnu();
    header.set_size(data.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, path, data).unwrap();
}

fn layer(name: &str) -> Vec<u8> {
    let mut tar = Builder::new(Vec::new());
    add(&mut tar, name, name.as_bytes());
    tar.into_inner().unwrap()
}

/// An archive as old versions of `docker save` write it: layers named by directory, one a link to another.
fn docker_archive() -> (Vec<u8>, String) {
    let (one, two) = (layer("one"), layer("two"));
    let config = json!({
        "config": {"Env": ["A=b"], "Entrypoint": ["/one"], "User": "daemon", "Volumes": {"/data": {}}},
        "rootfs": {"type": "layers", "diff_ids": [sha256(&one), sha256(&two), sha256(&one)]},
    })
    .to_string();
    let name = sha256(&config).replace("sha256:", "") + ".json";
    let mut tar = Builder::new(Vec::new());
    add(&mut tar, &name, config.as_bytes());
    add(&mut tar, "aaa/layer.tar", &one);
    add(&mut tar, "bbb/layer.tar", &two);
    let mut link = Header::new_gnu();
    link.set_entry_type(EntryType::Symlink);
    link.set_size(0);
    tar.append_link(&mut link, "ccc/layer.tar", "../aaa/layer.tar").unwrap();
    let manifest = json!([{
        "Config": name,
        "RepoTags": ["app:1", "registry.example/app:2"],
        "Layers": ["aaa/layer.tar", "bbb/layer.tar", "ccc/layer.tar"],
    }]);
    add(&mut tar, "manifest.json", manifest.to_string().as_bytes());
    (tar.into_inner().unwrap(), sha256(config))
}

#[tokio::test]
async fn an_archive_of_docker_save_is_loaded() {
    let node = node();
    let (archive, id) = docker_archive();
    let images = node.load(archive).await.unwrap();
    assert_eq!(images.len(), 1);
    assert_eq!(images[0].id, id);
    assert_eq!(images[0].repo_tags, ["docker.io/library/app:1", "registry.example/app:2"]);
    assert_eq!(images[0].config.volumes, ["/data"]);
    let root = node.images.mount_rootfs(&images[0], "c1").await.unwrap();
    let seen = (fs::read(root.join("one")).unwrap(), fs::read(root.join("two")).unwrap());
    node.images.unmount_rootfs("c1").await.unwrap();
    assert_eq!(seen, (b"one".to_vec(), b"two".to_vec()));
}

#[tokio::test]
async fn what_is_saved_is_loaded_elsewhere_as_the_same_image() {
    let (here, there) = (node(), node());
    let (archive, id) = docker_archive();
    here.load(archive).await.unwrap();
    let file = here.dir.path().join("saved.tar");
    here.images.save(&["app:1".to_owned()], &file).await.unwrap();
    let loaded = there.images.load(&file).await.unwrap();
    assert_eq!(loaded[0].id, id);
    assert_eq!(loaded[0].repo_tags, ["docker.io/library/app:1"]);
    // By id it has all its names, and compressed archives are fine.
    here.images.save(std::slice::from_ref(&id), &file).await.unwrap();
    let packed = zstd::encode_all(fs::File::open(&file).unwrap(), 1).unwrap();
    assert_eq!(there.load(packed).await.unwrap()[0].repo_tags.len(), 2);
}

#[tokio::test]
async fn the_built_in_images_can_be_saved_and_run_elsewhere() {
    let (here, there) = (node(), node());
    let file = here.dir.path().join("saved.tar");
    let names = ["skiff.local/hello:1".to_owned(), "skiff.local/hello:2".to_owned()];
    here.images.save(&names, &file).await.unwrap();
    let loaded = there.images.load(&file).await.unwrap();
    assert_eq!(loaded.len(), 2);
    assert_eq!(loaded[1].repo_tags, ["skiff.local/hello:2"]);
    let root = there.images.mount_rootfs(&loaded[1], "c1").await.unwrap();
    let seen = fs::read(root.join("skiff")).unwrap();
    let tmp = std::os::unix::fs::MetadataExt::mode(&fs::metadata(root.join("tmp")).unwrap()) & 0o7777;
    there.images.unmount_rootfs("c1").await.unwrap();
    assert_eq!((seen, tmp), (b"the binary".to_vec(), 0o1777));
    // Twice the same: nothing in it depends on when it was made.
    let again = here.dir.path().join("again.tar");
    here.images.save(&names, &again).await.unwrap();
    assert_eq!(fs::read(&file).unwrap(), fs::read(&again).unwrap());
}

#[tokio::test]
async fn other_tools_read_what_is_saved() {
    let node = node();
    let file = node.dir.path().join("saved.tar");
    node.images.save(&["skiff.local/hello:1".to_owned()], &file).await.unwrap();
    let listing = Command::new("tar").arg("-tf").arg(&file).output().unwrap();
    let listing = String::from_utf8(listing.stdout).unwrap();
    for name in ["oci-layout", "index.json", "manifest.json", "blobs/sha256/"] {
        assert!(listing.contains(name), "{listing}");
    }
}

#[tokio::test]
async fn an_unknown_image_is_not_saved_and_no_file_is_left() {
    let node = node();
    let file = node.dir.path().join("saved.tar");
    let error = node.images.save(&["nothing:1".to_owned()], &file).await.unwrap_err();
    assert!(error.is_not_found());
    assert!(!file.exists());
}

#[tokio::test]
async fn bad_archives_are_refused_and_leave_nothing() {
    let node = node();
    let hex = sha256("x").replace("sha256:", "");
    let with = |files: &[(&str, &str)]| {
        let mut tar = Builder::new(Vec::new());
        for (path, data) in files {
            add(&mut tar, path, data.as_bytes());
        }
        tar.into_inner().unwrap()
    };
    let manifest = json!({"schemaVersion": 2, "config": {"digest": sha256("x"), "size": 1}, "layers": []});
    let index = json!({"schemaVersion": 2, "manifests": [{"digest": sha256("x"), "size": 1}]}).to_string();
    let secret = node.dir.path().join("skiff").display().to_string();
    let docker = json!([{"Config": secret, "RepoTags": null, "Layers": []}]).to_string();
    let cases = [
        (with(&[("file", "x")]), "neither an OCI layout nor made by docker save"),
        (with(&[("index.json", "{")]), "EOF"),
        (with(&[("index.json", &index)]), "is missing or damaged"),
        // The content does not have the digest it is named by.
        (with(&[("index.json", &index), (&format!("blobs/sha256/{hex}"), &manifest.to_string())]), "damaged"),
        // A file of this machine, not of the archive.
        (with(&[("manifest.json", &docker)]), "is missing"),
        (b"no archive at all".to_vec(), "archive"),
    ];
    let before = node.images.list().len();
    for (archive, reason) in cases {
        let error = node.load(archive).await.unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }
    assert_eq!(node.images.list().len(), before);
    assert_eq!(fs::read_dir(node.dir.path().join("root/images/ingest")).unwrap().count(), 0);
    assert!(node.images.load(Path::new("/nonexistent")).await.is_err());
}

#[tokio::test]
async fn a_removed_image_takes_its_content_with_it_but_not_from_a_container() {
    let node = node();
    let (archive, id) = docker_archive();
    let image = node.load(archive).await.unwrap().remove(0);
    let root = node.images.mount_rootfs(&image, "c1").await.unwrap();
    assert!(!node.images.prune().await.unwrap().contains(&id), "a container uses it");
    node.images.tag("app:1", "other/name:x").await.unwrap();
    assert_eq!(node.images.resolve("other/name:x").unwrap().id, id);
    node.images.remove("app:1").await.unwrap();
    node.images.remove("app:1").await.unwrap();
    assert!(node.images.resolve(&id).is_none() && node.images.resolve("other/name:x").is_none());
    assert_eq!(fs::read(root.join("two")).unwrap(), b"two");
    let layers = || fs::read_dir(node.dir.path().join("root/images/layers")).unwrap().count();
    // Its three and the built-in images' one.
    assert_eq!(layers(), 4);
    node.images.unmount_rootfs("c1").await.unwrap();
    assert_eq!(layers(), 1);
}

#[tokio::test]
async fn prune_removes_what_no_container_uses_and_keeps_the_built_in() {
    let node = node();
    let (archive, id) = docker_archive();
    node.load(archive).await.unwrap();
    assert_eq!(node.images.prune().await.unwrap(), [id]);
    assert_eq!(node.images.list().len(), 3);
}
