//! PURE: which files a volume holds, from the objects that it shows.

use std::collections::BTreeMap;
use std::path::{Component, Path};

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{DownwardAPIVolumeFile, KeyToPath, Pod};

use crate::pod::environment::{Addresses, field};
use crate::pod::{find_container, resources};

/// What a file is unless the volume says otherwise.
pub(super) const DEFAULT_MODE: u32 = 0o644;

/// One file of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct File {
    pub(super) data: Vec<u8>,
    pub(super) mode: u32,
    /// The owner, if it isn't root.
    pub(super) user: Option<u32>,
}

/// The files of a volume by their path in it.
pub(super) type Payload = BTreeMap<String, File>;

/// The keys of a ConfigMap or a Secret with their values.
pub(super) type Data<'a> = BTreeMap<&'a str, &'a [u8]>;

pub(super) fn config_map_data(map: &k8s_openapi::api::core::v1::ConfigMap) -> Data<'_> {
    let text = map.data.iter().flatten().map(|(key, value)| (key.as_str(), value.as_bytes()));
    text.chain(binary(map.binary_data.as_ref())).collect()
}

pub(super) fn secret_data(secret: &k8s_openapi::api::core::v1::Secret) -> Data<'_> {
    binary(secret.data.as_ref()).collect()
}

fn binary(map: Option<&BTreeMap<String, ByteString>>) -> impl Iterator<Item = (&str, &[u8])> {
    map.into_iter().flatten().map(|(key, value)| (key.as_str(), value.0.as_slice()))
}

/// A mode of the API as the kernel's.
pub(super) fn mode(own: Option<i32>, default: Option<i32>) -> u32 {
    own.or(default).and_then(|mode| u32::try_from(mode).ok()).map_or(DEFAULT_MODE, |mode| mode & 0o7777)
}

/// The files for all keys, or those that `items` name. A named key that is missing is an error unless `optional`;
/// `missing` are upstream's words for it.
pub(super) fn keys(
    data: &Data<'_>,
    items: Option<&[KeyToPath]>,
    default_mode: Option<i32>,
    optional: bool,
    missing: &str,
) -> Result<Payload, String> {
    let file = |value: &[u8], own| File { data: value.to_vec(), mode: mode(own, default_mode), user: None };
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        return Ok(data.iter().map(|(key, value)| ((*key).to_owned(), file(value, None))).collect());
    };
    let mut payload = Payload::new();
    for item in items {
        match data.get(item.key.as_str()) {
            Some(value) => {
                payload.insert(checked(&item.path)?, file(value, item.mode));
            }
            None if optional => {}
            None => return Err(format!("{missing}: {}", item.key)),
        }
    }
    Ok(payload)
}

/// The files of a downward API volume.
pub(super) fn downward(
    pod: &Pod,
    items: Option<&[DownwardAPIVolumeFile]>,
    default_mode: Option<i32>,
    allocatable: &BTreeMap<String, i64>,
) -> Result<Payload, String> {
    let mut payload = Payload::new();
    for item in items.unwrap_or_default() {
        let text = if let Some(reference) = &item.field_ref {
            field(pod, &reference.field_path, &Addresses::default())?
        } else if let Some(reference) = &item.resource_field_ref {
            let name = reference.container_name.as_deref().unwrap_or_default();
            let (container, _) =
                find_container(pod, name).ok_or_else(|| format!("container {name} not found"))?;
            resources::resource_field(
                &container,
                &reference.resource,
                reference.divisor.as_ref(),
                allocatable,
            )
            .ok_or_else(|| format!("unsupported container resource : {}", reference.resource))?
        } else {
            continue;
        };
        let mode = mode(item.mode, default_mode);
        payload.insert(checked(&item.path)?, File { data: text.into_bytes(), mode, user: None });
    }
    Ok(payload)
}

/// A path inside a volume: relative, without `..`, in its shortest form.
pub(super) fn checked(path: &str) -> Result<String, String> {
    let mut parts = Vec::new();
    for part in Path::new(path).components() {
        match part {
            Component::Normal(name) => parts.push(name.to_string_lossy().into_owned()),
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => {
                return Err(format!("invalid path: must be relative path: {path}"));
            }
            Component::ParentDir => return Err(format!("invalid path: must not contain '..': {path}")),
        }
    }
    match parts.first() {
        None => Err("invalid path: must not be empty".to_owned()),
        Some(first) if first.starts_with("..") => {
            Err(format!("invalid path: must not start with '..': {path}"))
        }
        Some(_) => Ok(parts.join("/")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(key: &str, path: &str, mode: Option<i32>) -> KeyToPath {
        KeyToPath { key: key.into(), path: path.into(), mode }
    }

    #[test]
    fn items_choose_keys_paths_and_modes() {
        let data: Data<'_> = [("a", b"1".as_slice()), ("b", b"2".as_slice())].into();
        let show = |items: &[KeyToPath], default, optional| {
            keys(&data, Some(items), default, optional, "missing key").map(|payload| {
                let files = payload.iter().map(|(path, file)| format!("{path} {:o}", file.mode));
                files.collect::<Vec<_>>().join(", ")
            })
        };
        assert_eq!(show(&[], None, false).unwrap(), "a 644, b 644");
        assert_eq!(show(&[], Some(0o400), false).unwrap(), "a 400, b 400");
        assert_eq!(show(&[item("a", "x/y", Some(0o600))], Some(0o400), false).unwrap(), "x/y 600");
        assert_eq!(show(&[item("c", "c", None)], None, false).unwrap_err(), "missing key: c");
        assert_eq!(show(&[item("c", "c", None)], None, true).unwrap(), "");
    }

    #[test]
    fn a_path_stays_in_its_volume() {
        for (path, expected) in [("a/b", Some("a/b")), ("./a//b", Some("a/b")), ("a/..b", Some("a/..b"))] {
            assert_eq!(checked(path).ok().as_deref(), expected, "{path}");
        }
        for path in ["", "/a", "../a", "a/../b", "..a", "."] {
            assert!(checked(path).is_err(), "{path}");
        }
    }
}
