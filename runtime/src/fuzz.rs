//! What is read of images, and of those at the other end of a socket, under arbitrary bytes.

use std::io;

use base::fuzz::{Target, texts};
use bytes::{Bytes, BytesMut};
use cri::{Int64Value, LinuxContainerSecurityContext};
use tokio_util::codec::{Decoder, Encoder};

use crate::container::user;
use crate::image::document::{ConfigFile, Manifest, chain_ids};
use crate::image::reference::Reference;
use crate::image::unpack::tarball::Tarball;
use crate::shim::protocol::{Frame, Frames};
use crate::streaming::channel::Protocol;

/// Every parser of this crate that reads what images, registries or clients say.
pub const TARGETS: &[Target] = &[
    Target { name: "image_reference", run: reference, seeds: reference_seeds },
    Target { name: "image_document", run: document, seeds: document_seeds },
    Target { name: "layer", run: layer, seeds: layer_seeds },
    Target { name: "passwd", run: passwd, seeds: passwd_seeds },
    Target { name: "frames", run: frames, seeds: frame_seeds },
];

const BLOCK: usize = 512;

fn reference(data: &[u8]) {
    let Ok(name) = Reference::parse(&String::from_utf8_lossy(data)) else { return };
    let again = Reference::parse(&name.to_string());
    assert!(again.is_ok_and(|again| again == name), "{name}");
}

fn reference_seeds() -> Vec<Vec<u8>> {
    let digest = "0123456789abcdef".repeat(4);
    let full = format!("localhost:5000/a/b__c:v1@sha256:{digest}");
    texts(&["nginx", "registry.k8s.io/e2e-test-images/agnhost:2.47", "[::1]:5000/a", &full])
}

fn document(data: &[u8]) {
    if let Ok(manifest) = Manifest::parse("m", data) {
        let _ = manifest.for_this_machine();
    }
    if let Ok(config) = ConfigFile::parse("c", data) {
        let _ = chain_ids(&config.rootfs.diff_ids);
    }
}

fn document_seeds() -> Vec<Vec<u8>> {
    let digest = format!("sha256:{}", "0123456789abcdef".repeat(4));
    [
        r#"{"schemaVersion":2,"config":{"digest":"D","size":7},"layers":[{"mediaType":"x","digest":"D","size":1}]}"#,
        r#"{"schemaVersion":2,"manifests":[{"digest":"D","size":1,"platform":{"os":"linux","architecture":"amd64"}}]}"#,
        r#"{"config":{"User":"a:b","Env":["A=b"],"Cmd":null,"Volumes":{"/v":{}}},"rootfs":{"diff_ids":["D","D"]}}"#,
    ]
    .map(|text| text.replace('D', &digest).into_bytes())
    .to_vec()
}

/// An archive whose headers have the right sums, which nothing near a right archive would have otherwise.
fn layer(data: &[u8]) {
    let mut whole = data.to_vec();
    for block in whole.chunks_exact_mut(BLOCK).filter(|block| block[257..].starts_with(b"ustar")) {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    }
    for archive in [data, &whole] {
        let mut archive = Tarball::new(archive);
        while let Ok(Some(_)) = archive.next_entry() {
            if io::copy(&mut archive, &mut io::sink()).is_err() {
                break;
            }
        }
    }
}

fn layer_seeds() -> Vec<Vec<u8>> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut add = |kind: tar::EntryType, path: &str, data: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_size(data.len() as u64);
        header.set_cksum();
        let _ = builder.append(&header, data);
    };
    add(tar::EntryType::Directory, "d/", b"");
    add(
        tar::EntryType::XHeader,
        "x",
        b"30 SCHILY.xattr.user.a=\0\n=v\xff\n\x0014 mtime=1.5\n11 path=a\n12 uid=1000\n",
    );
    add(tar::EntryType::Regular, "d/f", b"data");
    add(tar::EntryType::GNULongName, "././@LongLink", &[b'a'; 600]);
    add(tar::EntryType::Char, "c", b"");
    add(tar::EntryType::Symlink, "s", b"");
    builder.into_inner().into_iter().collect()
}

/// Both files of users and groups, and who is asked for: three parts, with a zero between them.
fn passwd(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut parts = text.splitn(3, '\0');
    let mut part = || parts.next().unwrap_or_default();
    let (passwd, group, user) = (part(), part(), part());
    let own = LinuxContainerSecurityContext::default();
    let given = LinuxContainerSecurityContext {
        run_as_user: Some(Int64Value { value: 1000 }),
        supplemental_groups: vec![1, -1],
        ..own.clone()
    };
    let _ = (user::resolve_in(passwd, group, &own, user), user::resolve_in(passwd, group, &given, user));
}

fn passwd_seeds() -> Vec<Vec<u8>> {
    texts(&[
        "root:x:0:0:root:/:/bin/sh\na:x:1000:1001::/:\n\0root:x:0:\nb:x:7:a, root\n\0a:b",
        "\0\x004294967295:-1",
    ])
}

/// What shims and servers say to each other, and the messages of clients in the same bytes.
fn frames(data: &[u8]) {
    let (mut input, mut written) = (BytesMut::from(data), BytesMut::new());
    let mut found: Vec<Frame> = Vec::new();
    while let Ok(Some(frame)) = Frames.decode(&mut input) {
        assert!(Frames.encode(frame.clone(), &mut written).is_ok(), "{frame:?}");
        found.push(frame);
    }
    let again: Vec<Frame> = std::iter::from_fn(|| Frames.decode(&mut written).ok().flatten()).collect();
    assert_eq!(again, found);
    for protocol in [Protocol::V4, Protocol::V5] {
        let _ = protocol.read(Bytes::copy_from_slice(data));
    }
}

fn frame_seeds() -> Vec<Vec<u8>> {
    let mut bytes = BytesMut::new();
    for frame in
        [Frame::Stdin(Bytes::from_static(b"in")), Frame::StdinEnd, Frame::Resize { width: 80, height: 24 }]
    {
        let _ = Frames.encode(frame, &mut bytes);
    }
    vec![bytes.to_vec(), b"\x04{\"Width\":80,\"Height\":24}".to_vec(), b"\xff\0".to_vec()]
}

#[cfg(test)]
mod tests {
    #[test]
    fn no_parser_is_harmed_by_what_it_is_given() {
        base::fuzz::hold(super::TARGETS);
    }
}
