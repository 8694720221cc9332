//! Sandboxes are run, stopped, removed, and adopted after a restart.

use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cri::{ContainerEventType, NamespaceMode, PodSandboxConfig};
use futures::future::join_all;
use tokio::process::Command;
use tracing::warn;

use super::namespaces::{self, Wanted, unmount};
use super::{Live, Record, Sandbox, files, network};
use crate::core::Core;
use crate::error::{Error, IoContext};
use crate::network::SandboxNetwork;
use crate::process::ProcessId;
use crate::record;

/// How long killed processes may take to disappear.
const KILL_LIMIT: Duration = Duration::from_secs(10);

impl Core {
    /// Makes a sandbox that is ready for containers.
    pub(crate) async fn run_sandbox(
        self: &Arc<Self>,
        config: PodSandboxConfig,
        runtime_handler: String,
    ) -> Result<Arc<Sandbox>, Error> {
        check(&config)?;
        if !matches!(runtime_handler.as_str(), "" | "skiff") {
            return Err(Error::Invalid(format!("no runtime for {runtime_handler:?} is configured")));
        }
        let id = self.new_id();
        let parent = config.linux.as_ref().map(|linux| linux.cgroup_parent.as_str()).unwrap_or_default();
        let cgroup_parent = match parent {
            "" => self.own_cgroup(&id),
            parent => format!("/{}", parent.trim_matches('/')),
        };
        let sandbox = Arc::new(Sandbox {
            id,
            config,
            runtime_handler,
            created_at: self.now(),
            cgroup_parent,
            live: Mutex::default(),
            changing: tokio::sync::Mutex::default(),
        });
        let wanted = wanted(&sandbox);
        if let Some(name) = wanted.sysctls.keys().find(|name| !namespaces::is_own(&wanted, name)) {
            return Err(Error::Invalid(format!("sysctl {name:?} is not in a namespace of the pod's own")));
        }
        if let Err(error) = self.build_sandbox(&sandbox).await {
            if let Err(left) = self.dismantle_sandbox(&sandbox).await {
                warn!(sandbox = %sandbox.id, error = %left, "a sandbox that failed to start left something behind");
            }
            return Err(error);
        }
        self.sandboxes.insert(sandbox.clone());
        self.emit(&sandbox.id, &sandbox, ContainerEventType::ContainerCreatedEvent);
        self.emit(&sandbox.id, &sandbox, ContainerEventType::ContainerStartedEvent);
        Ok(sandbox)
    }

    async fn build_sandbox(self: &Arc<Self>, sandbox: &Arc<Sandbox>) -> Result<(), Error> {
        let wanted = wanted(sandbox);
        let (directory, dns) = (self.paths.sandbox_state(&sandbox.id), sandbox.config.dns_config.clone());
        let (hostname, private_shm) = (sandbox.hostname(), !sandbox.host_ipc());
        self.tasks
            .blocking(move || {
                namespaces::make(wanted, &directory.join("ns"))?;
                files::write(&directory, &hostname, dns.as_ref())?;
                if private_shm { files::mount_shm(&directory) } else { Ok(()) }
            })
            .await?;
        if !sandbox.host_network() {
            sandbox.live().attached = true;
            let ips = self.config.network.attach(&sandbox.network(&self.paths)).await.map_err(|error| {
                Error::failed(&format!("attach sandbox {} to the pod network", sandbox.id), error)
            })?;
            sandbox.live().ips = ips;
        }
        if sandbox.shared_pid() {
            let pause = self.start_pause(sandbox).await?;
            sandbox.live().pause = Some(pause);
        }
        sandbox.live().ready = true;
        self.save_sandbox(sandbox).await
    }

    async fn start_pause(&self, sandbox: &Sandbox) -> Result<ProcessId, Error> {
        let executable = self.paths.executable();
        let output = Command::new(&executable)
            .arg("pause")
            .arg(format!("{}/{}", sandbox.cgroup_parent, sandbox.id))
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .output()
            .await
            .at("start", &executable)?;
        String::from_utf8_lossy(&output.stdout).trim().parse().ok().and_then(ProcessId::of).ok_or_else(|| {
            Error::failed("start the pid namespace of the pod", String::from_utf8_lossy(&output.stderr))
        })
    }

    async fn save_sandbox(self: &Arc<Self>, sandbox: &Arc<Sandbox>) -> Result<(), Error> {
        let (core, sandbox) = (self.clone(), sandbox.clone());
        self.tasks.blocking(move || Record::save(&sandbox, &core.paths)).await
    }

    /// Ends what runs in a sandbox and gives back its network. An unknown or stopped one is no error.
    pub(crate) async fn stop_sandbox(self: &Arc<Self>, id: &str) -> Result<(), Error> {
        let Ok(sandbox) = self.sandboxes.get(id) else { return Ok(()) };
        let _changing = sandbox.changing.lock().await;
        self.stop_locked(&sandbox).await
    }

    async fn stop_locked(self: &Arc<Self>, sandbox: &Arc<Sandbox>) -> Result<(), Error> {
        // From here on no container can be added, so the list below is complete.
        let was_ready = std::mem::replace(&mut sandbox.live().ready, false);
        let containers = self.containers.of_sandbox(&sandbox.id);
        let stops = containers.iter().map(|each| async {
            each.settled().await;
            self.stop_container(each, Duration::ZERO).await
        });
        for result in join_all(stops).await {
            result?;
        }
        self.release_sandbox(sandbox).await?;
        if was_ready {
            self.save_sandbox(sandbox).await?;
            self.emit(&sandbox.id, sandbox, ContainerEventType::ContainerStoppedEvent);
        }
        Ok(())
    }

    /// Gives back network and namespaces.
    async fn release_sandbox(&self, sandbox: &Sandbox) -> Result<(), Error> {
        if sandbox.live().attached {
            self.config.network.detach(&sandbox.network(&self.paths)).await.map_err(|error| {
                Error::failed(&format!("detach sandbox {} from the pod network", sandbox.id), error)
            })?;
            let mut live = sandbox.live();
            live.attached = false;
            live.ips.clear();
        }
        let (pause, directory) = (sandbox.live().pause, self.paths.sandbox_state(&sandbox.id));
        self.tasks
            .blocking(move || {
                if let Some(pause) = pause.and_then(ProcessId::open) {
                    pause.signal(libc::SIGKILL).at("kill", "the pause process")?;
                    pause.wait(KILL_LIMIT);
                }
                unmount_namespaces(&directory)
            })
            .await?;
        sandbox.live().pause = None;
        Ok(())
    }

    /// Removes a sandbox with its containers. An unknown one is no error.
    pub(crate) async fn remove_sandbox(self: &Arc<Self>, id: &str) -> Result<(), Error> {
        let Ok(sandbox) = self.sandboxes.get(id) else { return Ok(()) };
        let _changing = sandbox.changing.lock().await;
        self.stop_locked(&sandbox).await?;
        let containers = self.containers.of_sandbox(&sandbox.id);
        for result in join_all(containers.iter().map(|each| self.remove_container(each))).await {
            result?;
        }
        self.dismantle_sandbox(&sandbox).await?;
        self.sandboxes.take(&sandbox.id);
        self.emit(&sandbox.id, &sandbox, ContainerEventType::ContainerDeletedEvent);
        Ok(())
    }

    /// Removes everything a sandbox without containers has.
    async fn dismantle_sandbox(self: &Arc<Self>, sandbox: &Arc<Sandbox>) -> Result<(), Error> {
        self.release_sandbox(sandbox).await?;
        let (core, sandbox) = (self.clone(), sandbox.clone());
        self.tasks
            .blocking(move || {
                remove_directory(&core.paths.sandbox_state(&sandbox.id))?;
                if sandbox.shared_pid() {
                    core.cgroups.remove(&format!("{}/{}", sandbox.cgroup_parent, sandbox.id))?;
                }
                if sandbox.cgroup_parent == core.own_cgroup(&sandbox.id) {
                    core.cgroups.remove(&sandbox.cgroup_parent)?;
                }
                record::remove_file(&core.paths.sandbox_record(&sandbox.id))
            })
            .await
    }

    /// Takes over the sandboxes on disk, and clears away what has no record.
    pub(crate) async fn adopt_sandboxes(self: &Arc<Self>) -> Result<(), Error> {
        for name in record::names(&self.paths.sandbox_records())? {
            let Some(id) = name.strip_suffix(".json") else { continue };
            let restored = match record::read::<Record>(&self.paths.sandbox_record(id)) {
                Ok(record) => record.map(Record::restore).transpose(),
                Err(error) => Err(error),
            };
            match restored {
                Ok(Some(sandbox)) => {
                    if sandbox.ready() && !self.holds(&sandbox) {
                        let mut live = sandbox.live();
                        live.ready = false;
                        live.ips.clear();
                    }
                    self.sandboxes.insert(Arc::new(sandbox));
                }
                Ok(None) => {}
                // One unreadable record must not keep the node down; what it held is cleared below.
                Err(error) => warn!(sandbox = id, %error, "unreadable sandbox record"),
            }
        }
        for id in record::names(&self.paths.sandbox_states())? {
            if self.sandboxes.get(&id).is_err() {
                self.clear_stray_sandbox(id).await;
            }
        }
        Ok(())
    }

    /// Whether everything that makes a sandbox ready is still there.
    fn holds(&self, sandbox: &Sandbox) -> bool {
        let wanted = wanted(sandbox);
        let kind =
            |wanted: bool, kind: &str| !wanted || namespaces::holds(&self.paths.namespace(&sandbox.id, kind));
        let pause = sandbox.live().pause;
        kind(wanted.net, "net")
            && kind(wanted.ipc, "ipc")
            && kind(wanted.uts, "uts")
            && pause.is_none_or(|pause| pause.open().is_some())
            && self.paths.sandbox_state(&sandbox.id).is_dir()
    }

    async fn clear_stray_sandbox(self: &Arc<Self>, id: String) {
        let network = SandboxNetwork {
            sandbox_id: id.clone(),
            namespace: String::new(),
            name: String::new(),
            uid: String::new(),
            netns: self.paths.namespace(&id, "net"),
            host_ports: Vec::new(),
        };
        if let Err(error) = self.config.network.detach(&network).await {
            warn!(sandbox = %id, %error, "detach a sandbox without a record");
        }
        let core = self.clone();
        let removed = self
            .tasks
            .blocking(move || {
                core.cgroups.kill(&core.own_cgroup(&id), KILL_LIMIT)?;
                core.cgroups.remove(&core.own_cgroup(&id))?;
                remove_directory(&core.paths.sandbox_state(&id))
            })
            .await;
        if let Err(error) = removed {
            warn!(%error, "clear away a sandbox without a record");
        }
    }
}

/// Unmounts what a sandbox has below its directory, and removes that.
pub(crate) fn remove_directory(directory: &Path) -> Result<(), Error> {
    unmount_namespaces(directory)?;
    unmount(&directory.join("shm"))?;
    record::remove_dir_all(directory)
}

fn unmount_namespaces(directory: &Path) -> Result<(), Error> {
    for kind in record::names(&directory.join("ns"))? {
        unmount(&directory.join("ns").join(kind))?;
    }
    Ok(())
}

/// Refuses what can't be done, before anything is made.
fn check(config: &PodSandboxConfig) -> Result<(), Error> {
    if config.metadata.is_none() {
        return Err(Error::Invalid("sandbox config must include metadata".to_owned()));
    }
    let options =
        config.linux.as_ref().and_then(|linux| linux.security_context.as_ref()?.namespace_options.as_ref());
    let user_namespace = options.and_then(|options| options.userns_options.as_ref());
    if user_namespace.is_some_and(|user| user.mode != NamespaceMode::Node as i32) {
        return Err(Error::Invalid("user namespaces are not supported by this runtime".to_owned()));
    }
    network::host_ports(&config.port_mappings).map(drop)
}

fn wanted(sandbox: &Sandbox) -> Wanted {
    let sysctls = sandbox.config.linux.as_ref().map(|linux| linux.sysctls.clone()).unwrap_or_default();
    Wanted {
        net: !sandbox.host_network(),
        ipc: !sandbox.host_ipc(),
        // With the node's network comes the node's name.
        uts: !sandbox.host_network(),
        hostname: sandbox.hostname(),
        sysctls: sysctls.into_iter().collect(),
    }
}

impl Live {
    /// The pid namespace the containers of the pod join.
    pub(crate) fn pid_namespace(&self) -> Option<String> {
        self.pause.map(|pause| format!("/proc/{}/ns/pid", pause.pid))
    }
}
