//! A small image: busybox with its applets, as `docker save` writes images.

use std::path::Path;

use serde_json::json;
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

/// The name of the image.
pub(crate) const NAME: &str = "skiff.test/busybox:1";

const APPLETS: [&str; 30] = [
    "sh", "echo", "cat", "sleep", "id", "grep", "ls", "env", "true", "false", "dd", "kill", "ps", "hostname",
    "stty", "touch", "mkdir", "mount", "awk", "head", "wc", "tr", "pwd", "printf", "seq", "test", "date",
    "tail", "mv", "nc",
];

/// Writes the archive.
pub(crate) fn write(path: &Path) {
    let mut layer = Builder::new(Vec::new());
    for directory in ["bin", "etc", "tmp", "proc", "sys", "dev", "root"] {
        entry(&mut layer, directory, EntryType::Directory, 0o755, "", &[]);
    }
    entry(&mut layer, "bin/busybox", EntryType::Regular, 0o755, "", &std::fs::read("/bin/busybox").unwrap());
    for applet in APPLETS {
        entry(&mut layer, &format!("bin/{applet}"), EntryType::Symlink, 0o777, "busybox", &[]);
    }
    entry(
        &mut layer,
        "etc/passwd",
        EntryType::Regular,
        0o644,
        "",
        b"root:x:0:0::/root:/bin/sh\nweb:x:33:34::/tmp:/bin/sh\n",
    );
    entry(&mut layer, "etc/group", EntryType::Regular, 0o644, "", b"root:x:0:\nweb:x:34:\nlogs:x:50:web\n");
    let layer = layer.into_inner().unwrap();
    let config = json!({
        "architecture": "amd64", "os": "linux",
        "config": { "Env": ["PATH=/bin", "FROM=image"], "Cmd": ["sh"] },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{:x}", Sha256::digest(&layer))] },
        "history": [],
    })
    .to_string();
    let manifest =
        json!([{ "Config": "config.json", "RepoTags": [NAME], "Layers": ["layer.tar"] }]).to_string();
    let mut archive = Builder::new(std::fs::File::create(path).unwrap());
    for (name, content) in [
        ("layer.tar", layer.as_slice()),
        ("config.json", config.as_bytes()),
        ("manifest.json", manifest.as_bytes()),
    ] {
        entry(&mut archive, name, EntryType::Regular, 0o644, "", content);
    }
    archive.finish().unwrap();
}

fn entry<W: std::io::Write>(
    archive: &mut Builder<W>,
    name: &str,
    kind: EntryType,
    mode: u32,
    link: &str,
    content: &[u8],
) {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(content.len() as u64);
    if !link.is_empty() {
        header.set_link_name(link).unwrap();
    }
    archive.append_data(&mut header, name, content).unwrap();
}
