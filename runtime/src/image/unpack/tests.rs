//! Unpacking on the real filesystem, with archives as tools make them and as attackers would; needs root.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};

use tar::{Builder, EntryType, Header};

use super::*;
use crate::image::document::sha256;

/// An archive under construction.
struct Layer(Builder<Vec<u8>>);

impl Layer {
    fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    /// Any name, also those that the builder would refuse.
    fn entry(mut self, kind: EntryType, path: &str, link: &str, mode: u32, data: &[u8]) -> Self {
        let mut header = Header::new_ustar();
        header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
        header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(1000);
        header.set_gid(1001);
        header.set_mtime(1_700_000_000);
        header.set_size(data.len() as u64);
        if kind == EntryType::Char {
            header.set_device_major(1).unwrap();
            header.set_device_minor(3).unwrap();
        }
        header.set_cksum();
        self.0.append(&header, data).unwrap();
        self
    }

    fn dir(self, path: &str, mode: u32) -> Self {
        self.entry(EntryType::Directory, path, "", mode, b"")
    }

    fn file(self, path: &str, data: &[u8]) -> Self {
        self.entry(EntryType::Regular, path, "", 0o644, data)
    }

    fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(EntryType::Symlink, path, target, 0o777, b"")
    }

    fn hard_link(self, path: &str, target: &str) -> Self {
        self.entry(EntryType::Link, path, target, 0o644, b"")
    }

    fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut data = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let mut length = rest + 1;
            while length != rest + length.to_string().len() {
                length = rest + length.to_string().len();
            }
            write!(data, "{length} {key}=").unwrap();
            data.extend_from_slice(value);
            data.push(b'\n');
        }
        self.entry(EntryType::XHeader, "pax", "", 0o644, &data)
    }

    fn bytes(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

/// Layers unpacked one over the other in a directory of their own.
struct Stack {
    temp: tempfile::TempDir,
    layers: Vec<PathBuf>,
}

impl Stack {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        fs::create_dir(temp.path().join("outside")).unwrap();
        fs::set_permissions(temp.path().join("outside"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(temp.path().join("outside/secret"), "secret").unwrap();
        Self { temp, layers: Vec::new() }
    }

    fn try_add_as(&mut self, blob: &[u8], diff_id: &str, limits: Limits) -> Result<Usage, ImageError> {
        let number = self.layers.len();
        let (file, root) =
            (self.temp.path().join(format!("blob{number}")), self.temp.path().join(format!("layer{number}")));
        fs::write(&file, blob).unwrap();
        fs::create_dir(&root).unwrap();
        let lowers: Vec<PathBuf> = self.layers.iter().rev().cloned().collect();
        self.layers.push(root.clone());
        unpack(&file, diff_id, &root, &lowers, limits)
    }

    fn try_add(&mut self, layer: Layer) -> Result<Usage, ImageError> {
        let blob = layer.bytes();
        self.try_add_as(&blob, &sha256(&blob), Limits::default())
    }

    fn add(&mut self, layer: Layer) -> PathBuf {
        self.try_add(layer).unwrap();
        self.layers.last().unwrap().clone()
    }

    fn assert_outside_untouched(&self) {
        let outside = self.temp.path().join("outside");
        assert_eq!(fs::read_to_string(outside.join("secret")).unwrap(), "secret");
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
        let metadata = fs::metadata(outside).unwrap();
        assert_eq!((metadata.uid(), metadata.mode() & 0o7777), (0, 0o755));
    }
}

fn mode(path: PathBuf) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

#[test]
fn every_kind_of_entry_is_made_with_owner_mode_and_time() {
    let mut stack = Stack::new();
    let root = stack.add(
        Layer::new()
            .dir("./", 0o711)
            .dir("d/", 0o750)
            .file("d/f", b"data")
            .symlink("d/s", "/etc/passwd")
            .hard_link("d/h", "d/f")
            .entry(EntryType::Char, "d/null", "", 0o666, b"")
            .entry(EntryType::Fifo, "d/fifo", "", 0o600, b"")
            .entry(EntryType::Regular, "d/suid", "", 0o4755, b""),
    );
    assert_eq!((mode(root.clone()), mode(root.join("d")), mode(root.join("d/f"))), (0o711, 0o750, 0o644));
    assert_eq!(mode(root.join("d/suid")), 0o4755);
    let file = fs::metadata(root.join("d/f")).unwrap();
    assert_eq!((file.uid(), file.gid(), file.mtime(), file.nlink()), (1000, 1001, 1_700_000_000, 2));
    assert_eq!(fs::metadata(root.join("d")).unwrap().mtime(), 1_700_000_000);
    let link = fs::symlink_metadata(root.join("d/s")).unwrap();
    assert_eq!((link.uid(), link.mtime()), (1000, 1_700_000_000));
    assert_eq!(fs::read_link(root.join("d/s")).unwrap(), Path::new("/etc/passwd"));
    let null = fs::metadata(root.join("d/null")).unwrap();
    assert!(null.file_type().is_char_device());
    assert_eq!((null.rdev(), null.mode() & 0o777), (nix::sys::stat::makedev(1, 3), 0o666));
    assert!(fs::metadata(root.join("d/fifo")).unwrap().file_type().is_fifo());
}

#[test]
fn whiteouts_become_overlays_own() {
    let mut stack = Stack::new();
    stack.add(Layer::new().dir("a", 0o755).file("a/x", b"").dir("b", 0o755).file("b/y", b""));
    let root = stack.add(
        Layer::new()
            .dir("a", 0o755)
            .file("a/.wh.x", b"")
            .file("b/.wh..wh..opq", b"")
            .file("b/new", b"")
            .file("a/.wh..wh.plnk", b""),
    );
    let hidden = fs::symlink_metadata(root.join("a/x")).unwrap();
    assert!(hidden.file_type().is_char_device() && hidden.rdev() == 0);
    assert_eq!(xattr::get(root.join("b"), "trusted.overlay.opaque").unwrap().unwrap(), b"y");
    assert!(!root.join("a/.wh..wh.plnk").exists());
    let container = stack.temp.path().join("c1");
    let used = crate::image::rootfs::Used { image: String::new(), layers: Vec::new() };
    let merged = crate::image::rootfs::mount(&container, &used, &stack.layers).unwrap();
    let seen = (merged.join("a/x").exists(), merged.join("b/y").exists(), merged.join("b/new").exists());
    crate::image::rootfs::unmount(&container).unwrap();
    assert_eq!(seen, (false, false, true));
}

#[test]
fn a_whiteout_hides_only_what_is_below_whatever_the_order() {
    let mut stack = Stack::new();
    stack.add(Layer::new().dir("d", 0o755).file("d/old", b"").file("f", b"old"));
    let root = stack.add(
        Layer::new()
            .file(".wh.f", b"")
            .file("f", b"new")
            .file(".wh.d", b"")
            .dir("d", 0o700)
            .file("d/new", b"")
            .dir("e", 0o755)
            .file(".wh.e", b"")
            .file(".wh.g", b"")
            .file("g/h", b""),
    );
    assert_eq!(fs::read(root.join("f")).unwrap(), b"new");
    assert!(root.join("d/new").exists() && root.join("g/h").exists());
    for dir in ["d", "e", "g"] {
        assert_eq!(xattr::get(root.join(dir), "trusted.overlay.opaque").unwrap().unwrap(), b"y", "{dir}");
    }
}

#[test]
fn a_directory_that_is_only_implied_is_as_below() {
    let mut stack = Stack::new();
    let lower = stack.add(Layer::new().dir("home", 0o711).dir("home/user", 0o700).file("home/user/a", b""));
    xattr::set(lower.join("home/user"), "user.note", b"kept").unwrap();
    stack.add(Layer::new().file("unrelated", b""));
    let root = stack.add(Layer::new().file("home/user/.wh.a", b"").file("new/deep/file", b""));
    let user = fs::metadata(root.join("home/user")).unwrap();
    assert_eq!((user.uid(), user.gid(), user.mode() & 0o7777), (1000, 1001, 0o700));
    assert_eq!(user.mtime(), 1_700_000_000);
    assert_eq!(mode(root.join("home")), 0o711);
    assert_eq!(xattr::get(root.join("home/user"), "user.note").unwrap().unwrap(), b"kept");
    assert_eq!((mode(root.join("new")), mode(root.join("new/deep"))), (0o755, 0o755));
}

#[test]
fn an_implied_directory_does_not_take_after_one_that_is_hidden() {
    let mut stack = Stack::new();
    stack.add(Layer::new().dir("d", 0o700).dir("d/e", 0o700));
    stack.add(Layer::new().dir("d", 0o755).file("d/.wh..wh..opq", b""));
    let root = stack.add(Layer::new().file("d/e/f", b""));
    assert_eq!(mode(root.join("d/e")), 0o755);
    assert_eq!(fs::metadata(root.join("d/e")).unwrap().uid(), 0);
}

#[test]
fn attributes_survive_whatever_bytes_they_hold_but_overlays_own_are_dropped() {
    // A file capability with a line end in it, as cap_dac_override,cap_fowner+ep has.
    let capability = [1, 0, 0, 2, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let mut stack = Stack::new();
    let root = stack.add(
        Layer::new()
            .pax(&[
                ("SCHILY.xattr.user.b", b"a\nb=c\0d"),
                ("mtime", b"1600000000.5"),
                ("SCHILY.xattr.security.capability", &capability),
                ("SCHILY.xattr.trusted.overlay.redirect", b"/outside"),
                ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
            ])
            .file("f", b""),
    );
    let file = root.join("f");
    assert_eq!(xattr::get(&file, "user.b").unwrap().unwrap(), b"a\nb=c\0d");
    assert_eq!(xattr::get(&file, "security.capability").unwrap().unwrap(), capability);
    assert_eq!(xattr::get(&file, "trusted.overlay.redirect").unwrap(), None);
    assert_eq!(xattr::get(&file, "trusted.overlay.opaque").unwrap(), None);
    let metadata = fs::metadata(&file).unwrap();
    assert_eq!((metadata.mtime(), metadata.mtime_nsec()), (1_600_000_000, 500_000_000));
}

#[test]
fn long_names_of_both_traditions_are_read() {
    let mut stack = Stack::new();
    let (pax, gnu) = ("p".repeat(180), "g".repeat(180));
    let mut builder = Builder::new(Vec::new());
    let mut header = Header::new_gnu();
    header.set_size(1);
    header.set_mode(0o644);
    builder.append_data(&mut header, &gnu, &b"x"[..]).unwrap();
    let mut layer = Layer(builder);
    layer = layer.pax(&[("path", format!("d/{pax}").as_bytes())]).file("short", b"y");
    let root = stack.add(layer);
    assert_eq!(fs::read(root.join(&gnu)).unwrap(), b"x");
    assert_eq!(fs::read(root.join("d").join(&pax)).unwrap(), b"y");
    assert!(!root.join("short").exists());
}

#[test]
fn a_later_entry_replaces_an_earlier_one_and_never_writes_through_it() {
    let mut stack = Stack::new();
    let root = stack.add(
        Layer::new()
            .file("a", b"first")
            .hard_link("b", "a")
            .file("b", b"second")
            .symlink("c", "a")
            .file("c", b"third")
            .dir("d", 0o755)
            .file("d/x", b"")
            .file("d", b"file")
            .dir("e", 0o700)
            .file("e/kept", b"")
            .dir("e", 0o755),
    );
    assert_eq!(fs::read(root.join("a")).unwrap(), b"first");
    assert_eq!(fs::read(root.join("b")).unwrap(), b"second");
    assert_eq!(fs::read(root.join("c")).unwrap(), b"third");
    assert_eq!(fs::read(root.join("d")).unwrap(), b"file");
    assert!(root.join("e/kept").exists());
    assert_eq!(mode(root.join("e")), 0o755);
}

#[test]
fn a_link_in_the_layer_leads_where_it_would_in_the_container() {
    let mut stack = Stack::new();
    let root = stack.add(
        Layer::new()
            .dir("usr/lib", 0o755)
            .symlink("lib", "usr/lib")
            .file("lib/a", b"a")
            .symlink("abs", "/usr")
            .file("abs/b", b"b")
            .symlink("up", "../../../usr")
            .file("up/c", b"c"),
    );
    assert!(root.join("usr/lib/a").exists() && root.join("usr/b").exists() && root.join("usr/c").exists());
}

#[test]
fn hostile_archives_do_not_get_out_of_the_layer() {
    let outside = |stack: &Stack| stack.temp.path().join("outside").display().to_string();
    type Attack = fn(&str) -> Layer;
    let attacks: [(&str, Attack); 9] = [
        ("a path with dots", |_| Layer::new().file("../outside/new", b"x")),
        ("an absolute path", |out| Layer::new().file(&format!("{out}/new"), b"x")),
        ("a link to outside, then through it", |out| {
            Layer::new().symlink("l", out).file("l/secret", b"x").file("l/new", b"x")
        }),
        ("a relative link to outside", |_| {
            Layer::new().symlink("l", "../outside").file("l/secret", b"x").dir("l/d", 0o777)
        }),
        ("a link that is written to", |out| {
            let secret = format!("{out}/secret");
            Layer::new().symlink("l", &secret).file("l", b"x")
        }),
        ("a hard link to outside", |out| {
            Layer::new().hard_link("h", &format!("{out}/secret")).file("h", b"x")
        }),
        ("a hard link with dots", |_| Layer::new().hard_link("h", "../outside/secret")),
        ("a directory over a link", |out| Layer::new().symlink("l", out).dir("l", 0o777)),
        ("a whiteout through a link", |out| Layer::new().symlink("l", out).file("l/.wh.secret", b"")),
    ];
    for (name, attack) in attacks {
        let mut stack = Stack::new();
        let _ = stack.try_add(attack(&outside(&stack)));
        println!("{name}");
        stack.assert_outside_untouched();
    }
    let mut stack = Stack::new();
    let outside = outside(&stack);
    // A link made by a lower layer is no way out for the attributes of implied directories either.
    stack.add(Layer::new().symlink("l", &outside));
    let _ = stack.try_add(Layer::new().file("l/secret/x", b"x"));
    stack.assert_outside_untouched();
}

#[test]
fn whiteouts_of_no_name_are_refused() {
    for path in [".wh.", ".wh...", "d/.wh.."] {
        let error = Stack::new().try_add(Layer::new().file(path, b"")).unwrap_err();
        assert!(error.to_string().contains("hides no name"), "{error}");
    }
}

#[test]
fn archives_without_padding_or_trailer_are_complete() {
    let mut stack = Stack::new();
    let blob = Layer::new().file("f", b"data").bytes();
    let short = &blob[..512 + 4];
    stack.try_add_as(short, &sha256(short), Limits::default()).unwrap();
    assert_eq!(fs::read(stack.layers[0].join("f")).unwrap(), b"data");
    let long = [blob.as_slice(), &[0; 20_000]].concat();
    stack.try_add_as(&long, &sha256(&long), Limits::default()).unwrap();
    stack.try_add_as(b"", &sha256(b""), Limits::default()).unwrap();
}

#[test]
fn a_cut_or_damaged_archive_is_an_error() {
    let blob = Layer::new().file("f", &[7; 2000]).bytes();
    for cut in [300, 512 + 100] {
        let part = &blob[..cut];
        assert!(Stack::new().try_add_as(part, &sha256(part), Limits::default()).is_err());
    }
    let mut damaged = blob.clone();
    damaged[0] = b'g';
    let error = Stack::new().try_add_as(&damaged, &sha256(&damaged), Limits::default()).unwrap_err();
    assert!(error.to_string().contains("not a tar archive"), "{error}");
    let error = Stack::new().try_add_as(&blob, &sha256("other"), Limits::default()).unwrap_err();
    assert!(error.to_string().contains(&format!("has the digest {}", sha256(&blob))), "{error}");
}

#[test]
fn compression_is_told_by_content() {
    let blob = Layer::new().file("f", &[7; 5000]).bytes();
    let half = blob.len() / 2;
    let gzip = |data: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    };
    let members = [gzip(&blob[..half]), gzip(&blob[half..])].concat();
    for packed in [gzip(&blob), members, zstd::encode_all(blob.as_slice(), 1).unwrap()] {
        let mut stack = Stack::new();
        let usage = stack.try_add_as(&packed, &sha256(&blob), Limits::default()).unwrap();
        assert_eq!(usage, Usage { bytes: 8192, inodes: 1 });
        assert!(stack.try_add_as(&packed[..packed.len() / 2], &sha256(&blob), Limits::default()).is_err());
    }
}

#[test]
fn bombs_are_stopped() {
    let zeros = vec![0; 10 << 20];
    let blob = Layer::new().file("f", &zeros).bytes();
    let packed = zstd::encode_all(blob.as_slice(), 1).unwrap();
    let limits = Limits { bytes: 1 << 20, entries: 10 };
    let error = Stack::new().try_add_as(&packed, &sha256(&blob), limits).unwrap_err();
    assert!(error.to_string().contains("more than is allowed"), "{error}");
    let many = (0..11).fold(Layer::new(), |layer, n| layer.file(&format!("f{n}"), b"")).bytes();
    let error = Stack::new().try_add_as(&many, &sha256(&many), limits).unwrap_err();
    assert!(error.to_string().contains("more than 10 entries"), "{error}");
    // A name of two megabytes.
    let name = vec![b'n'; 2 << 20];
    let blob = Layer::new().entry(EntryType::GNULongName, "././@LongLink", "", 0o644, &name).bytes();
    let error = Stack::new().try_add_as(&blob, &sha256(&blob), Limits::default()).unwrap_err();
    assert!(error.to_string().contains("take too much"), "{error}");
}

#[test]
fn a_symlink_in_the_place_of_a_lower_directory_is_not_copied_from() {
    let mut stack = Stack::new();
    let lower = stack.add(Layer::new().dir("real", 0o700));
    symlink("real", lower.join("link")).unwrap();
    fs::set_permissions(lower.join("real"), fs::Permissions::from_mode(0o700)).unwrap();
    let root = stack.add(Layer::new().file("link/f", b""));
    assert_eq!(mode(root.join("link")), 0o755);
}

#[test]
fn garbage_never_panics() {
    // Headers with a right checksum and anything else in them.
    let mut state = 1u64;
    let mut random = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u8
    };
    for _ in 0..300 {
        let mut blob = Layer::new().pax(&[("path", b"a/b")]).file("f", b"x").symlink("s", "f").bytes();
        for _ in 0..6 {
            let at = usize::from(random()) * 8 % blob.len();
            blob[at] = random();
        }
        for block in blob.chunks_mut(512).filter(|block| block[257..262] == *b"ustar") {
            let mut header = Header::new_old();
            header.as_mut_bytes().copy_from_slice(block);
            header.set_cksum();
            block.copy_from_slice(header.as_bytes());
        }
        let mut stack = Stack::new();
        let _ = stack.try_add_as(&blob, &sha256(&blob), Limits { bytes: 1 << 20, entries: 100 });
        stack.assert_outside_untouched();
    }
}
