//! Who a container runs as: numbers, or names from the image's own passwd and group files.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use cri::{LinuxContainerSecurityContext, SupplementalGroupsPolicy};
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};

use crate::error::{Error, IoContext};

/// A resolved user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// All groups, the primary one first.
    pub(crate) groups: Vec<u32>,
}

/// Resolves the user of a container; `image_user` is the image's `user[:group]`.
pub(crate) fn resolve(
    rootfs: &Path,
    security: &LinuxContainerSecurityContext,
    image_user: &str,
) -> Result<User, Error> {
    // An image may lack both files: then only numbers can be used.
    let (passwd, group) = (read_inside(rootfs, "etc/passwd")?, read_inside(rootfs, "etc/group")?);
    resolve_in(&passwd, &group, security, image_user)
}

pub(crate) fn resolve_in(
    passwd: &str,
    group: &str,
    security: &LinuxContainerSecurityContext,
    image_user: &str,
) -> Result<User, Error> {
    let (image_name, image_group) = image_user.split_once(':').unwrap_or((image_user, ""));
    let wanted_user = match (&security.run_as_user, security.run_as_username.as_str()) {
        (Some(uid), _) => uid.value.to_string(),
        (None, "") => image_name.to_owned(),
        (None, name) => name.to_owned(),
    };
    let wanted_user = if wanted_user.is_empty() { "0".to_owned() } else { wanted_user };
    let entry = Account::find(passwd, &wanted_user);
    let uid = match (&entry, wanted_user.parse()) {
        (Some(entry), _) => entry.uid,
        (None, Ok(uid)) => uid,
        (None, Err(_)) => {
            return Err(Error::Invalid(format!(
                "unable to find user {wanted_user}: no matching entries in passwd file"
            )));
        }
    };
    // The image's group belongs to the image's user only.
    let named_group =
        if security.run_as_user.is_none() && security.run_as_username.is_empty() { image_group } else { "" };
    let gid = match (&security.run_as_group, named_group) {
        (Some(gid), _) => number(gid.value)?,
        (None, "") => entry.as_ref().map_or(0, |entry| entry.gid),
        (None, name) => match (group_id(group, name), name.parse()) {
            (Some(gid), _) | (None, Ok(gid)) => gid,
            (None, Err(_)) => {
                return Err(Error::Invalid(format!(
                    "unable to find group {name}: no matching entries in group file"
                )));
            }
        },
    };
    let mut groups = vec![gid];
    if security.supplemental_groups_policy() == SupplementalGroupsPolicy::Merge
        && let Some(entry) = &entry
    {
        groups.extend(memberships(group, &entry.name));
    }
    for gid in &security.supplemental_groups {
        groups.push(number(*gid)?);
    }
    let mut seen = std::collections::BTreeSet::new();
    groups.retain(|gid| seen.insert(*gid));
    Ok(User { uid, gid, groups })
}

fn number(id: i64) -> Result<u32, Error> {
    u32::try_from(id).map_err(|_| Error::Invalid(format!("invalid user or group {id}")))
}

/// A line of passwd.
struct Account {
    name: String,
    uid: u32,
    gid: u32,
}

impl Account {
    /// By name, else by number.
    fn find(passwd: &str, wanted: &str) -> Option<Self> {
        let entries = || {
            passwd.lines().filter_map(|line| {
                let mut fields = line.split(':');
                let name = fields.next()?.to_owned();
                Some(Self { name, uid: fields.nth(1)?.parse().ok()?, gid: fields.next()?.parse().ok()? })
            })
        };
        entries()
            .find(|entry| entry.name == wanted)
            .or_else(|| entries().find(|entry| wanted.parse() == Ok(entry.uid)))
    }
}

fn group_id(group: &str, wanted: &str) -> Option<u32> {
    group.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == wanted).then(|| fields.nth(1)?.parse().ok())?
    })
}

fn memberships(group: &str, user: &str) -> Vec<u32> {
    let member = |line: &str| {
        let mut fields = line.split(':').skip(2);
        let gid = fields.next()?.parse().ok()?;
        fields.next()?.split(',').any(|name| name.trim() == user).then_some(gid)
    };
    group.lines().filter_map(member).collect()
}

/// The text of a file of the image. The image decides about links in it, so they are followed only inside.
fn read_inside(rootfs: &Path, relative: &str) -> Result<String, Error> {
    const LIMIT: u64 = 4 << 20;
    let path = rootfs.join(relative);
    let root = File::open(rootfs).at("open", rootfs)?;
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let file = match openat2(&root, relative, how) {
        Ok(file) => File::from(file),
        Err(nix::errno::Errno::ENOENT | nix::errno::Errno::ENOTDIR) => return Ok(String::new()),
        Err(error) => return Err(error).at("open", &path),
    };
    if !file.metadata().at("read", &path)?.is_file() {
        return Ok(String::new());
    }
    let mut text = Vec::new();
    file.take(LIMIT).read_to_end(&mut text).at("read", &path)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
mod tests {
    use cri::Int64Value;

    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34::/var/www:/bin/false\n";
    const GROUP: &str = "root:x:0:\nweb:x:34:\nlogs:x:50:other,web\nmedia:x:60:web\n";

    #[test]
    fn users_and_groups_come_from_names_or_numbers() {
        let number = |value| Some(Int64Value { value });
        let plain = LinuxContainerSecurityContext::default;
        for (what, security, image, expected) in [
            ("nothing said", plain(), "", (0, 0, vec![0])),
            ("image name", plain(), "web", (33, 34, vec![34, 50, 60])),
            ("image name and group", plain(), "web:logs", (33, 50, vec![50, 60])),
            ("image numbers", plain(), "1000:2000", (1000, 2000, vec![2000])),
            (
                "uid known in passwd",
                LinuxContainerSecurityContext { run_as_user: number(33), ..plain() },
                "0",
                (33, 34, vec![34, 50, 60]),
            ),
            (
                "uid unknown",
                LinuxContainerSecurityContext { run_as_user: number(1000), ..plain() },
                "web:logs",
                (1000, 0, vec![0]),
            ),
            (
                "uid, gid, more groups",
                LinuxContainerSecurityContext {
                    run_as_user: number(1000),
                    run_as_group: number(7),
                    supplemental_groups: vec![8, 7],
                    ..plain()
                },
                "",
                (1000, 7, vec![7, 8]),
            ),
            (
                "strict",
                LinuxContainerSecurityContext {
                    supplemental_groups: vec![8],
                    supplemental_groups_policy: SupplementalGroupsPolicy::Strict as i32,
                    ..plain()
                },
                "web",
                (33, 34, vec![34, 8]),
            ),
            (
                "user name",
                LinuxContainerSecurityContext { run_as_username: "web".to_owned(), ..plain() },
                "",
                (33, 34, vec![34, 50, 60]),
            ),
        ] {
            let (uid, gid, groups) = expected;
            assert_eq!(
                resolve_in(PASSWD, GROUP, &security, image).unwrap(),
                User { uid, gid, groups },
                "{what}"
            );
        }
        assert!(resolve_in(PASSWD, GROUP, &plain(), "nobody").is_err());
        assert!(resolve_in(PASSWD, GROUP, &plain(), "web:nogroup").is_err());
    }

    #[test]
    fn a_link_out_of_the_image_stays_inside() {
        let rootfs = tempfile::tempdir().unwrap();
        std::fs::create_dir(rootfs.path().join("etc")).unwrap();
        std::os::unix::fs::symlink("../../../../../../etc/passwd", rootfs.path().join("etc/passwd")).unwrap();
        // Inside, the link leads to itself.
        assert!(read_inside(rootfs.path(), "etc/passwd").is_err());
        std::os::unix::fs::symlink("/etc/shadow", rootfs.path().join("etc/group")).unwrap();
        assert_eq!(read_inside(rootfs.path(), "etc/group").unwrap(), "");
    }
}
