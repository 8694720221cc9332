//! On the real kernel; needs root.

use std::os::unix::fs::symlink;

use super::*;

/// A container directory that is unmounted also when the test fails.
struct Container {
    temp: tempfile::TempDir,
}

impl Container {
    fn new() -> Self {
        Self { temp: tempfile::tempdir().unwrap() }
    }

    fn dir(&self) -> PathBuf {
        self.temp.path().join("containers/c1")
    }

    fn layers(&self, count: usize) -> Vec<PathBuf> {
        let long = "x".repeat(60);
        let layers: Vec<PathBuf> = (0..count)
            .map(|n| self.temp.path().join(format!("layers, with: odd \\ names/{long}{n}/fs")))
            .collect();
        for (n, layer) in layers.iter().enumerate() {
            fs::create_dir_all(layer).unwrap();
            fs::write(layer.join(format!("file{n}")), format!("{n}")).unwrap();
            fs::write(layer.join("same"), format!("{n}")).unwrap();
        }
        layers
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = unmount(&self.dir());
    }
}

fn used() -> Used {
    Used { image: "sha256:i".to_owned(), layers: vec!["sha256:l".to_owned()] }
}

#[test]
fn a_hundred_and_twenty_layers_mount_with_the_last_on_top() {
    let container = Container::new();
    let merged = mount(&container.dir(), &used(), &container.layers(120)).unwrap();
    assert_eq!(fs::read_to_string(merged.join("same")).unwrap(), "119");
    assert_eq!(fs::read_to_string(merged.join("file0")).unwrap(), "0");
}

#[test]
fn what_is_written_stays_out_of_the_layers_and_goes_with_the_container() {
    let container = Container::new();
    let layers = container.layers(1);
    let dir = container.dir();
    let merged = mount(&dir, &used(), &layers).unwrap();
    fs::write(merged.join("file0"), "changed").unwrap();
    assert_eq!(fs::read_to_string(layers[0].join("file0")).unwrap(), "0");
    assert_eq!(records(dir.parent().unwrap()).unwrap(), [used()]);
    assert!(super::super::files::usage(&dir.join("upper")).bytes > 0);
    unmount(&dir).unwrap();
    assert!(!dir.exists());
    assert!(records(dir.parent().unwrap()).unwrap().is_empty());
}

#[test]
fn mounting_twice_is_mounting_once_and_unmounting_twice_too() {
    let container = Container::new();
    let layers = container.layers(2);
    let dir = container.dir();
    let merged = mount(&dir, &used(), &layers).unwrap();
    fs::write(merged.join("new"), "1").unwrap();
    assert_eq!(mount(&dir, &used(), &layers).unwrap(), merged);
    assert_eq!(fs::read_to_string(merged.join("new")).unwrap(), "1");
    unmount(&dir).unwrap();
    unmount(&dir).unwrap();
}

#[test]
fn a_mount_after_a_crash_shows_what_was_written_before() {
    let container = Container::new();
    let layers = container.layers(2);
    let dir = container.dir();
    let merged = mount(&dir, &used(), &layers).unwrap();
    fs::write(merged.join("new"), "1").unwrap();
    // As after a reboot: the mount is gone, the directories are there.
    umount2(&merged, MntFlags::MNT_DETACH).unwrap();
    assert!(!merged.join("new").exists());
    let merged = mount(&dir, &used(), &layers).unwrap();
    assert_eq!(fs::read_to_string(merged.join("new")).unwrap(), "1");
}

#[test]
fn mounts_left_one_over_another_and_inside_are_all_taken_away() {
    let container = Container::new();
    let dir = container.dir();
    let merged = mount(&dir, &used(), &container.layers(1)).unwrap();
    fs::create_dir(merged.join("proc")).unwrap();
    let none: Option<&str> = None;
    mount_syscall(Some("tmpfs"), &merged.join("proc"), Some("tmpfs"), MsFlags::empty(), none).unwrap();
    mount_syscall(Some("tmpfs"), &merged, Some("tmpfs"), MsFlags::empty(), none).unwrap();
    unmount(&dir).unwrap();
    assert!(!dir.exists());
}

#[test]
fn an_image_without_layers_gives_an_empty_root() {
    let container = Container::new();
    let merged = mount(&container.dir(), &used(), &[]).unwrap();
    assert_eq!(fs::read_dir(&merged).unwrap().count(), 0);
    fs::write(merged.join("new"), "1").unwrap();
}

#[test]
fn the_root_directory_has_the_owner_and_mode_of_the_top_layer() {
    let container = Container::new();
    let layers = container.layers(2);
    chown(&layers[1], Some(1234), Some(5)).unwrap();
    fs::set_permissions(&layers[1], fs::Permissions::from_mode(0o1751)).unwrap();
    let merged = mount(&container.dir(), &used(), &layers).unwrap();
    let metadata = fs::metadata(merged).unwrap();
    assert_eq!((metadata.uid(), metadata.gid(), metadata.mode() & 0o7777), (1234, 5, 0o1751));
}

#[test]
fn other_files_of_the_container_stay() {
    let container = Container::new();
    let dir = container.dir();
    mount(&dir, &used(), &container.layers(1)).unwrap();
    fs::write(dir.join("record.json"), "{}").unwrap();
    unmount(&dir).unwrap();
    assert!(dir.join("record.json").exists());
}

#[test]
fn a_link_in_the_place_of_a_layer_is_not_followed() {
    let container = Container::new();
    let layers = container.layers(1);
    fs::remove_dir_all(&layers[0]).unwrap();
    symlink("/", &layers[0]).unwrap();
    assert!(mount(&container.dir(), &used(), &layers).is_err());
}

#[test]
fn a_container_id_that_is_a_path_is_refused() {
    for id in ["", "..", ".", "a/b", "../c", ".hidden", "a\0b"] {
        assert!(container_dir(Path::new("/c"), id).is_err(), "{id:?}");
    }
    assert_eq!(container_dir(Path::new("/c"), "0a-b_c.d").unwrap(), Path::new("/c/0a-b_c.d"));
}
