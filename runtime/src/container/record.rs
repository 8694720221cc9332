//! A container on disk.

use std::path::PathBuf;
use std::sync::Mutex;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use cri::ContainerConfig;
use prost::Message;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::user::User;
use super::{Container, ImageNames, Phase};
use crate::error::Error;
use crate::paths::Paths;
use crate::record;

/// What is needed to adopt a container. How far it is, its shim writes down.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    id: String,
    sandbox_id: String,
    /// For a person who reads the file.
    name: String,
    image: ImageNames,
    log_path: PathBuf,
    cgroup: String,
    created_at: i64,
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
    stop_signal: i32,
    own_pid: bool,
    /// The CRI configuration in its protobuf encoding: the one form that loses nothing.
    config: String,
}

impl Record {
    /// Writes down a container.
    pub(super) fn save(container: &Container, paths: &Paths) -> Result<(), Error> {
        // Limits may have been changed since it was made.
        let mut config = container.config.clone();
        config.linux.get_or_insert_default().resources = Some(container.resources().clone());
        let record = Self {
            id: container.id.clone(),
            sandbox_id: container.sandbox_id.clone(),
            name: config.metadata.as_ref().map(|metadata| metadata.name.clone()).unwrap_or_default(),
            image: container.image.clone(),
            log_path: container.log_path.clone(),
            cgroup: container.cgroup.clone(),
            created_at: container.created_at,
            uid: container.user.uid,
            gid: container.user.gid,
            groups: container.user.groups.clone(),
            stop_signal: container.stop_signal,
            own_pid: container.own_pid,
            config: BASE64_STANDARD.encode(config.encode_to_vec()),
        };
        record::write(&paths.container_record(&container.id), &record)
    }

    /// The container that was written down, as if it had just been created.
    pub(super) fn restore(self) -> Result<Container, Error> {
        let config = BASE64_STANDARD
            .decode(&self.config)
            .map_err(|error| error.to_string())
            .and_then(|bytes| ContainerConfig::decode(bytes.as_slice()).map_err(|error| error.to_string()))
            .map_err(|error| Error::failed(&format!("record of container {}", self.id), error))?;
        let user = User { uid: self.uid, gid: self.gid, groups: self.groups };
        Ok(Container::new(Parts {
            id: self.id,
            sandbox_id: self.sandbox_id,
            config,
            image: self.image,
            log_path: self.log_path,
            cgroup: self.cgroup,
            created_at: self.created_at,
            user,
            stop_signal: self.stop_signal,
            own_pid: self.own_pid,
        }))
    }
}

/// What never changes of a container.
pub(super) struct Parts {
    pub(super) id: String,
    pub(super) sandbox_id: String,
    pub(super) config: ContainerConfig,
    pub(super) image: ImageNames,
    pub(super) log_path: PathBuf,
    pub(super) cgroup: String,
    pub(super) created_at: i64,
    pub(super) user: User,
    pub(super) stop_signal: i32,
    pub(super) own_pid: bool,
}

impl Container {
    /// A container that has not been started.
    pub(super) fn new(parts: Parts) -> Self {
        let resources =
            parts.config.linux.as_ref().and_then(|linux| linux.resources.clone()).unwrap_or_default();
        Self {
            id: parts.id,
            sandbox_id: parts.sandbox_id,
            config: parts.config,
            image: parts.image,
            log_path: parts.log_path,
            cgroup: parts.cgroup,
            created_at: parts.created_at,
            user: parts.user,
            stop_signal: parts.stop_signal,
            own_pid: parts.own_pid,
            phase: watch::Sender::new(Phase::Created),
            shim_gone: watch::Sender::new(true),
            resources: Mutex::new(resources),
            changing: tokio::sync::Mutex::default(),
        }
    }
}
