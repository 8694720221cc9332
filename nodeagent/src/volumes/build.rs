//! From the volumes of a pod's spec to what is to be done on the node.

use std::collections::HashSet;
use std::path::PathBuf;

use api::quantity::Quantity;
use client::Key;
use k8s_openapi::api::core::v1::{
    ConfigMap, EmptyDirVolumeSource, Pod, ProjectedVolumeSource, Secret, Volume, VolumeMount,
    VolumeProjection,
};

use super::payload::{self, File, Payload};
use super::tokens::Tokens;
use super::watches::Shown;
use super::{Shared, VolumeError, atomic, disk, host_path, lock};
use crate::pod::{ephemeral_containers, init_containers, main_containers, namespace, resources, spec, uid};

/// One volume, with all that is needed to make it without asking anybody.
#[derive(Debug)]
pub(super) struct Work {
    volume: String,
    path: PathBuf,
    group: Option<u32>,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Directory,
    Tmpfs {
        size: Option<u64>,
    },
    HostPath {
        kind: String,
    },
    /// `name` is that of a new directory. What must not reach the disk is held in memory.
    Files {
        payload: Payload,
        name: String,
        in_memory: bool,
    },
}

impl Work {
    /// Makes the volume, or brings its files up to date.
    pub(super) fn run(self) -> Result<(), VolumeError> {
        let Self { volume, path, group, kind } = self;
        let failed = |reason: String| VolumeError::SetUp { volume: volume.clone(), reason };
        // New files in a directory that belongs to a group belong to it too.
        let mode = if group.is_some() { 0o2777 } else { 0o777 };
        match kind {
            Kind::Directory => {
                disk::make_directory(&path, mode, group).map_err(|error| failed(error.to_string()))
            }
            Kind::Tmpfs { size } => {
                disk::make_tmpfs(&path, mode, group, size).map_err(|error| failed(error.to_string()))
            }
            Kind::HostPath { kind } => host_path::prepare(&path, &kind).map_err(failed),
            Kind::Files { payload, name, in_memory } => {
                let made = if in_memory {
                    disk::make_tmpfs(&path, mode, group, None)
                } else {
                    disk::make_directory(&path, mode, group)
                };
                let written = made.and_then(|()| {
                    atomic::write(&path, &payload, group, &name, |_| Ok(()))
                        .map_err(|error| disk::at(&path, error))
                });
                written.map(drop).map_err(|error| failed(error.to_string()))
            }
        }
    }
}

/// The volumes that a container mounts; the others are not made.
fn mounted(pod: &Pod) -> Vec<&Volume> {
    let containers = init_containers(pod).iter().chain(main_containers(pod));
    let mounts = containers.filter_map(|container| container.volume_mounts.as_ref());
    let of_ephemeral =
        ephemeral_containers(pod).iter().filter_map(|container| container.volume_mounts.as_ref());
    let names: HashSet<&str> =
        mounts.chain(of_ephemeral).flatten().map(|mount: &VolumeMount| mount.name.as_str()).collect();
    spec(pod).volumes.iter().flatten().filter(|volume| names.contains(volume.name.as_str())).collect()
}

/// The ConfigMaps and Secrets that the pod's volumes show.
fn objects(pod: &Pod) -> (HashSet<Key>, HashSet<Key>) {
    let (mut maps, mut secrets) = (HashSet::new(), HashSet::new());
    let key = |name: &str| Key::new(namespace(pod), name);
    for volume in mounted(pod) {
        if let Some(source) = &volume.config_map {
            maps.insert(key(&source.name));
        }
        if let Some(name) = volume.secret.as_ref().and_then(|source| source.secret_name.as_deref()) {
            secrets.insert(key(name));
        }
        for source in volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten()) {
            maps.extend(source.config_map.as_ref().map(|source| key(&source.name)));
            secrets.extend(source.secret.as_ref().map(|source| key(&source.name)));
        }
    }
    (maps, secrets)
}

/// The user of all containers, if it is one and the same.
fn common_user(pod: &Pod) -> Option<u32> {
    let mut users = init_containers(pod)
        .iter()
        .chain(main_containers(pod))
        .map(|container| crate::pod::security::run_as_user(pod, container));
    let first = users.next()??;
    if users.all(|user| user == Some(first)) { u32::try_from(first).ok() } else { None }
}

fn group(pod: &Pod) -> Option<u32> {
    u32::try_from(spec(pod).security_context.as_ref()?.fs_group?).ok()
}

impl Shared {
    /// What is to be done for the pod, and the versions of the objects that this is made from.
    pub(super) async fn plan(
        &self,
        pod: &Pod,
        tokens: &mut Tokens,
    ) -> Result<(Vec<Work>, Vec<String>), VolumeError> {
        let (maps, secrets) = objects(pod);
        // All are asked for before the first is waited for.
        self.config_maps.used_by(uid(pod), &maps);
        self.secrets.used_by(uid(pod), &secrets);
        // Taken before the objects are read: what changes meanwhile is then seen as a change.
        let shows = self.versions(pod).await.unwrap_or_default();
        let mut work = Vec::new();
        for volume in mounted(pod) {
            let failed = |reason: String| VolumeError::SetUp { volume: volume.name.clone(), reason };
            let kind = self.kind(pod, volume, tokens).await.map_err(failed)?;
            let own = volume.host_path.as_ref().map(|source| PathBuf::from(&source.path));
            work.push(Work {
                volume: volume.name.clone(),
                path: own.unwrap_or_else(|| self.layout.volume(uid(pod), &volume.name)),
                group: group(pod),
                kind,
            });
        }
        Ok((work, shows))
    }

    /// The versions of the objects that the pod's volumes show; `None` if the API doesn't tell.
    pub(super) async fn versions(&self, pod: &Pod) -> Option<Vec<String>> {
        let (maps, secrets) = objects(pod);
        let mut versions = Vec::new();
        for key in maps {
            let found = self.config_maps.get(&key).await?.ok()?;
            versions.push(version::<ConfigMap>(&key, found.as_deref()));
        }
        for key in secrets {
            let found = self.secrets.get(&key).await?.ok()?;
            versions.push(version::<Secret>(&key, found.as_deref()));
        }
        versions.sort_unstable();
        Some(versions)
    }

    async fn kind(&self, pod: &Pod, volume: &Volume, tokens: &mut Tokens) -> Result<Kind, String> {
        if let Some(source) = &volume.empty_dir {
            return empty_dir(pod, source);
        }
        if let Some(source) = &volume.host_path {
            return Ok(Kind::HostPath { kind: source.type_.clone().unwrap_or_default() });
        }
        if let Some(source) = &volume.config_map {
            let optional = source.optional == Some(true);
            let (items, mode) = (source.items.as_deref(), source.default_mode);
            let payload = self.config_map_files(pod, &source.name, items, mode, optional).await?;
            return Ok(self.files(payload, false));
        }
        if let Some(source) = &volume.secret {
            let optional = source.optional == Some(true);
            let name = source.secret_name.as_deref().unwrap_or_default();
            let (items, mode) = (source.items.as_deref(), source.default_mode);
            let payload = self.secret_files(pod, name, items, mode, optional).await?;
            return Ok(self.files(payload, true));
        }
        if let Some(source) = &volume.downward_api {
            let allocatable = lock(&self.allocatable).clone();
            let items = source.items.as_deref();
            return Ok(self.files(payload::downward(pod, items, source.default_mode, &allocatable)?, false));
        }
        if let Some(source) = &volume.projected {
            return Ok(self.files(self.projected(pod, source, tokens).await?, true));
        }
        Err(format!("volumes of type {} are not supported on this node", type_of(volume)))
    }

    fn files(&self, payload: Payload, in_memory: bool) -> Kind {
        let stamp = self.clock.now().strftime("%Y_%m_%d_%H_%M_%S").to_string();
        let name = format!("..{stamp}.{}", self.random.name_suffix(8));
        Kind::Files { payload, name, in_memory }
    }

    async fn config_map_files(
        &self,
        pod: &Pod,
        name: &str,
        items: Option<&[k8s_openapi::api::core::v1::KeyToPath]>,
        mode: Option<i32>,
        optional: bool,
    ) -> Result<Payload, String> {
        let found = self.config_maps.get(&Key::new(namespace(pod), name)).await;
        match found.unwrap_or(Ok(None))? {
            Some(map) => {
                let data = payload::config_map_data(&map);
                payload::keys(&data, items, mode, optional, "configmap references non-existent config key")
            }
            None if optional => Ok(Payload::new()),
            None => Err(format!("configmap \"{name}\" not found")),
        }
    }

    async fn secret_files(
        &self,
        pod: &Pod,
        name: &str,
        items: Option<&[k8s_openapi::api::core::v1::KeyToPath]>,
        mode: Option<i32>,
        optional: bool,
    ) -> Result<Payload, String> {
        let found = self.secrets.get(&Key::new(namespace(pod), name)).await;
        match found.unwrap_or(Ok(None))? {
            Some(secret) => {
                let data = payload::secret_data(&secret);
                payload::keys(&data, items, mode, optional, "references non-existent secret key")
            }
            None if optional => Ok(Payload::new()),
            None => Err(format!("secret \"{name}\" not found")),
        }
    }

    /// All sources in one directory; every one that fails is named.
    async fn projected(
        &self,
        pod: &Pod,
        projected: &ProjectedVolumeSource,
        tokens: &mut Tokens,
    ) -> Result<Payload, String> {
        let mut payload = Payload::new();
        let mut errors = Vec::new();
        for source in projected.sources.iter().flatten() {
            match self.projection(pod, source, projected.default_mode, tokens).await {
                Ok(files) => payload.extend(files),
                Err(error) => errors.push(error),
            }
        }
        match errors.as_slice() {
            [] => Ok(payload),
            [only] => Err(only.clone()),
            several => Err(format!("[{}]", several.join(", "))),
        }
    }

    async fn projection(
        &self,
        pod: &Pod,
        source: &VolumeProjection,
        mode: Option<i32>,
        tokens: &mut Tokens,
    ) -> Result<Payload, String> {
        if let Some(source) = &source.config_map {
            let optional = source.optional == Some(true);
            return self.config_map_files(pod, &source.name, source.items.as_deref(), mode, optional).await;
        }
        if let Some(source) = &source.secret {
            let optional = source.optional == Some(true);
            return self.secret_files(pod, &source.name, source.items.as_deref(), mode, optional).await;
        }
        if let Some(source) = &source.downward_api {
            let allocatable = lock(&self.allocatable).clone();
            return payload::downward(pod, source.items.as_deref(), mode, &allocatable);
        }
        if let Some(source) = &source.service_account_token {
            let token = tokens.get(&self.client, pod, source, &self.clock, &self.random).await?;
            // Only who needs it can read a token, where it is known who that is.
            let user = common_user(pod);
            let is_private = user.is_some() || group(pod).is_some();
            let mode = if is_private { 0o600 } else { payload::mode(None, mode) };
            let file = File { data: token.into_bytes(), mode, user };
            return Ok(Payload::from([(payload::checked(&source.path)?, file)]));
        }
        let kind = if source.cluster_trust_bundle.is_some() { "clusterTrustBundle" } else { "this type" };
        Err(format!("projected sources of {kind} are not supported on this node"))
    }
}

fn version<K: Shown>(key: &Key, object: Option<&K>) -> String {
    let version = object.and_then(|object| object.meta().resource_version.as_deref()).unwrap_or("none");
    format!("{} {key} {version}", K::KIND)
}

fn empty_dir(pod: &Pod, source: &EmptyDirVolumeSource) -> Result<Kind, String> {
    match source.medium.as_deref().unwrap_or_default() {
        "" => Ok(Kind::Directory),
        "Memory" => {
            let limit = source.size_limit.as_ref().and_then(|limit| Quantity::parse(&limit.0).ok());
            let limit = limit.map(|limit| limit.value()).filter(|limit| *limit > 0);
            // What a tmpfs holds counts as the pod's memory, so more than the pod may have is of no use.
            let size = limit.into_iter().chain(resources::pod_limits(pod).memory).min();
            Ok(Kind::Tmpfs { size: size.and_then(|size| u64::try_from(size).ok()) })
        }
        other => Err(format!("emptyDir volumes of medium {other} are not supported on this node")),
    }
}

/// The name of the volume's type in the API.
fn type_of(volume: &Volume) -> String {
    let fields = serde_json::to_value(volume).unwrap_or_default();
    let mut names = fields.as_object().into_iter().flat_map(|fields| fields.keys());
    names.find(|name| *name != "name").cloned().unwrap_or_else(|| "unknown".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::testing::{container, pod};

    #[test]
    fn a_token_belongs_to_the_one_user_of_all_containers() {
        let mut web = pod().with(container("a")).with(container("b")).build();
        assert_eq!(common_user(&web), None);
        let user = |uid| {
            let context = serde_json::json!({ "runAsUser": uid });
            serde_json::from_value(context).unwrap()
        };
        let spec = web.spec.get_or_insert_default();
        spec.containers[0].security_context = user(1000);
        assert_eq!(common_user(&web), None);
        web.spec.get_or_insert_default().containers[1].security_context = user(1000);
        assert_eq!(common_user(&web), Some(1000));
    }

    #[test]
    fn an_empty_dir_in_memory_is_no_larger_than_its_limit_and_its_pod() {
        let web = pod().with(container("c").resources("l.cpu=1 l.memory=64Mi")).build();
        let free = pod().with(container("c")).build();
        for (pod, limit, expected) in [
            (&web, Some("1Gi"), Some(64 << 20)),
            (&web, Some("1Mi"), Some(1 << 20)),
            (&web, None, Some(64 << 20)),
            (&free, None, None),
        ] {
            let json = serde_json::json!({ "medium": "Memory", "sizeLimit": limit });
            let Ok(Kind::Tmpfs { size }) = empty_dir(pod, &serde_json::from_value(json).unwrap()) else {
                panic!("not a tmpfs");
            };
            assert_eq!(size, expected, "{limit:?}");
        }
    }

    #[test]
    fn the_type_of_a_volume_is_named_as_in_the_api() {
        let json = serde_json::json!({ "name": "v", "persistentVolumeClaim": { "claimName": "c" } });
        assert_eq!(type_of(&serde_json::from_value(json).unwrap()), "persistentVolumeClaim");
    }
}
