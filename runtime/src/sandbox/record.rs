//! A sandbox on disk.

use std::net::IpAddr;
use std::sync::Mutex;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use cri::PodSandboxConfig;
use prost::Message;
use serde::{Deserialize, Serialize};

use super::{Live, Sandbox};
use crate::error::Error;
use crate::paths::Paths;
use crate::process::ProcessId;
use crate::record;

/// What is needed to adopt a sandbox.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    id: String,
    /// Of the pod, for a person who reads the file.
    name: String,
    /// Of the pod, for a person who reads the file.
    namespace: String,
    runtime_handler: String,
    created_at: i64,
    cgroup_parent: String,
    ready: bool,
    ips: Vec<IpAddr>,
    pause: Option<ProcessId>,
    attached: bool,
    /// The CRI configuration in its protobuf encoding: the one form that loses nothing.
    config: String,
}

impl Record {
    /// Writes down how a sandbox is now.
    pub(crate) fn save(sandbox: &Sandbox, paths: &Paths) -> Result<(), Error> {
        let live = sandbox.live().clone();
        let metadata = sandbox.config.metadata.clone().unwrap_or_default();
        let record = Self {
            id: sandbox.id.clone(),
            name: metadata.name,
            namespace: metadata.namespace,
            runtime_handler: sandbox.runtime_handler.clone(),
            created_at: sandbox.created_at,
            cgroup_parent: sandbox.cgroup_parent.clone(),
            ready: live.ready,
            ips: live.ips,
            pause: live.pause,
            attached: live.attached,
            config: BASE64_STANDARD.encode(sandbox.config.encode_to_vec()),
        };
        record::write(&paths.sandbox_record(&sandbox.id), &record)
    }

    /// The sandbox that was written down, to be checked against what is there now.
    pub(crate) fn restore(self) -> Result<Sandbox, Error> {
        let config = BASE64_STANDARD
            .decode(&self.config)
            .map_err(|error| error.to_string())
            .and_then(|bytes| PodSandboxConfig::decode(bytes.as_slice()).map_err(|error| error.to_string()))
            .map_err(|error| Error::failed(&format!("record of sandbox {}", self.id), error))?;
        Ok(Sandbox {
            id: self.id,
            config,
            runtime_handler: self.runtime_handler,
            created_at: self.created_at,
            cgroup_parent: self.cgroup_parent,
            live: Mutex::new(Live {
                ready: self.ready,
                ips: self.ips,
                pause: self.pause,
                attached: self.attached,
            }),
            changing: tokio::sync::Mutex::default(),
        })
    }
}
