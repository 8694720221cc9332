//! A container is made: root file system, bundle, record. Nothing of it runs yet.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use cri::{ContainerConfig, ContainerEventType, NamespaceMode, PodSandboxConfig};
use tracing::warn;

use super::record::Parts;
use super::rootfs::make_directory;
use super::signal::stop_signal;
use super::spec::Ingredients;
use super::{Container, ImageNames, Record};
use crate::core::Core;
use crate::error::{Error, IoContext};
use crate::image::Image;
use crate::record;
use crate::sandbox::Sandbox;
use crate::shim::{self, ShimConfig};

impl Core {
    /// Makes a container in a sandbox that is ready.
    pub(crate) async fn create_container(
        self: &Arc<Self>,
        sandbox: &str,
        config: ContainerConfig,
        sandbox_config: Option<PodSandboxConfig>,
    ) -> Result<Arc<Container>, Error> {
        let sandbox = self.sandboxes.get(sandbox)?;
        let not_ready = || Error::Precondition(format!("sandbox {:?} is not ready", sandbox.id));
        if !sandbox.ready() {
            return Err(not_ready());
        }
        let reference = config.image.as_ref().map(|image| image.image.clone()).unwrap_or_default();
        let image = self
            .images
            .resolve(&reference)
            .ok_or_else(|| Error::NotFound { kind: "image", id: reference.clone() })?;
        if config.metadata.is_none() {
            return Err(Error::Invalid("container config must include metadata".to_owned()));
        }
        let id = self.new_id();
        let rootfs = self
            .images
            .mount_rootfs(&image, &id)
            .await
            .map_err(|error| Error::failed(&format!("root file system of image {reference}"), error))?;
        let (core, of, named) = (self.clone(), sandbox.clone(), id.clone());
        let log_directory = sandbox_config.map(|config| config.log_directory).unwrap_or_default();
        let built = self
            .tasks
            .blocking(move || {
                core.build_container(named, &of, config, &reference, &image, &rootfs, &log_directory)
            })
            .await;
        let container = match built {
            Ok(container) => Arc::new(container),
            Err(error) => {
                self.forget_container(&id).await;
                return Err(error);
            }
        };
        self.containers.insert(container.clone());
        // Whoever stopped the sandbox meanwhile may not have seen this container.
        if !sandbox.ready() {
            self.containers.take(&container.id);
            self.forget_container(&container.id).await;
            return Err(not_ready());
        }
        self.emit(&container.id, &sandbox, ContainerEventType::ContainerCreatedEvent);
        Ok(container)
    }

    async fn forget_container(self: &Arc<Self>, id: &str) {
        if let Err(error) = self.erase_container(id).await {
            warn!(container = id, %error, "a container that could not be created left something behind");
        }
    }

    #[expect(clippy::too_many_arguments, reason = "one call, all of it read here")]
    fn build_container(
        &self,
        id: String,
        sandbox: &Sandbox,
        config: ContainerConfig,
        reference: &str,
        image: &Image,
        rootfs: &Path,
        log_directory: &str,
    ) -> Result<Container, Error> {
        let cgroup = format!("{}/{id}", sandbox.cgroup_parent);
        let (join, own_pid) = self.namespaces(sandbox, &config)?;
        let sandbox_state = self.paths.sandbox_state(&sandbox.id);
        let spec = Ingredients {
            config: &config,
            image: &image.config,
            rootfs,
            cgroup: &cgroup,
            cgroups: &self.cgroups,
            sandbox: &sandbox_state,
            hostname: &sandbox.hostname(),
            host_ipc: sandbox.host_ipc(),
            join,
            own_pid,
        }
        .spec()?;
        if let Some(cwd) = spec.json["process"]["cwd"].as_str() {
            make_directory(rootfs, cwd)?;
        }
        let container = Container::new(Parts {
            sandbox_id: sandbox.id.clone(),
            image: names(image, reference),
            log_path: log_path(sandbox, log_directory, &config.log_path),
            cgroup,
            created_at: self.now(),
            user: spec.user,
            stop_signal: stop_signal(config.stop_signal(), image.config.stop_signal.as_deref()),
            own_pid,
            config,
            id,
        });
        self.write_bundle(&container, &spec.json)?;
        Record::save(&container, &self.paths)?;
        Ok(container)
    }

    /// The namespaces to join, and whether the container has a pid namespace of its own.
    fn namespaces(
        &self,
        sandbox: &Sandbox,
        config: &ContainerConfig,
    ) -> Result<(Vec<(&'static str, String)>, bool), Error> {
        let mut join = Vec::new();
        let file = |kind| self.paths.namespace(&sandbox.id, kind).to_string_lossy().into_owned();
        if !sandbox.host_network() {
            join.push(("network", file("net")));
            join.push(("uts", file("uts")));
        }
        if !sandbox.host_ipc() {
            join.push(("ipc", file("ipc")));
        }
        let security = config.linux.as_ref().and_then(|linux| linux.security_context.as_ref());
        let options = security.and_then(|security| security.namespace_options.clone()).unwrap_or_default();
        match options.pid() {
            NamespaceMode::Container => return Ok((join, true)),
            NamespaceMode::Node => {}
            NamespaceMode::Pod => {
                let path = sandbox.live().pid_namespace().ok_or_else(|| {
                    Error::Invalid(format!("sandbox {:?} has no pid namespace to share", sandbox.id))
                })?;
                join.push(("pid", path));
            }
            NamespaceMode::Target => {
                let target = self.containers.get(&options.target_id)?;
                join.push(("pid", format!("/proc/{}/ns/pid", target.must_run()?.init.pid)));
            }
        }
        Ok((join, false))
    }

    fn write_bundle(&self, container: &Container, spec: &serde_json::Value) -> Result<(), Error> {
        let directory = self.paths.container_state(&container.id);
        std::fs::create_dir_all(&directory).at("create", &directory)?;
        let path = directory.join("config.json");
        std::fs::write(&path, spec.to_string()).at("write", &path)?;
        let shim = ShimConfig {
            id: container.id.clone(),
            log_path: container.log_path.clone(),
            stdin: container.config.stdin,
            stdin_once: container.config.stdin_once,
            tty: container.config.tty,
            cgroup: container.cgroup.clone(),
            shim_cgroup: self.shim_cgroup(),
            kill_all: !container.own_pid,
            started: self.paths.started(&container.id),
            exit: self.paths.exit(&container.id),
        };
        record::write(&directory.join(shim::CONFIG), &shim)
    }
}

fn log_path(sandbox: &Sandbox, given: &str, name: &str) -> PathBuf {
    let directory = if given.is_empty() { sandbox.config.log_directory.as_str() } else { given };
    match (directory, name) {
        ("", _) | (_, "") => PathBuf::new(),
        (directory, name) => Path::new(directory).join(name),
    }
}

fn names(image: &Image, reference: &str) -> ImageNames {
    let tagged = image.repo_tags.iter().find(|tag| *tag == reference).or(image.repo_tags.first());
    ImageNames {
        id: image.id.clone(),
        reference: image.repo_digests.first().unwrap_or(&image.id).clone(),
        name: tagged.map_or_else(|| reference.to_owned(), Clone::clone),
    }
}
