//! A node under test and the calls that the tests make.

use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cri::runtime_service_client::RuntimeServiceClient;
use cri::*;
use tonic::transport::Channel;

use crate::{image, server};

pub(crate) type Runtime = RuntimeServiceClient<Channel>;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// A runtime below a temporary directory.
#[derive(Clone)]
pub(crate) struct Node(Arc<Inner>);

struct Inner {
    directory: tempfile::TempDir,
    server: Mutex<Option<Child>>,
    names: AtomicU32,
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(mut child) = self.server.get_mut().unwrap().take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Node {
    pub(crate) async fn start() -> Self {
        let directory = tempfile::Builder::new().prefix("node").tempdir_in("/var/tmp").unwrap();
        image::write(&directory.path().join("busybox.tar"));
        let child = server::spawn(directory.path()).await;
        Self(Arc::new(Inner { directory, server: Mutex::new(Some(child)), names: AtomicU32::new(0) }))
    }

    pub(crate) fn directory(&self) -> &Path {
        self.0.directory.path()
    }

    /// Kills the server as a crash would.
    pub(crate) fn kill_server(&self) {
        let mut child = self.0.server.lock().unwrap().take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    pub(crate) async fn start_server(&self) {
        let child = server::spawn(self.directory()).await;
        *self.0.server.lock().unwrap() = Some(child);
    }

    pub(crate) async fn runtime(&self) -> Runtime {
        let socket = self.directory().join("cri.sock");
        let channel = cri::dial(&socket.to_string_lossy()).await.unwrap();
        RuntimeServiceClient::new(channel).max_decoding_message_size(16 << 20)
    }

    /// A directory for a volume.
    pub(crate) fn volume(&self, name: &str) -> PathBuf {
        let path = self.directory().join("volumes").join(name);
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    pub(crate) fn sandbox_config(&self) -> PodSandboxConfig {
        let name = format!("pod-{}", self.0.names.fetch_add(1, Ordering::Relaxed));
        PodSandboxConfig {
            metadata: Some(PodSandboxMetadata {
                uid: format!("uid-{name}"),
                namespace: "default".to_owned(),
                attempt: 0,
                name: name.clone(),
            }),
            hostname: name.clone(),
            log_directory: self.directory().join("logs").join(&name).to_string_lossy().into_owned(),
            dns_config: Some(DnsConfig { servers: vec!["10.96.0.10".to_owned()], ..DnsConfig::default() }),
            linux: Some(LinuxPodSandboxConfig {
                security_context: Some(LinuxSandboxSecurityContext {
                    namespace_options: Some(NamespaceOption {
                        pid: NamespaceMode::Container as i32,
                        ..NamespaceOption::default()
                    }),
                    ..LinuxSandboxSecurityContext::default()
                }),
                ..LinuxPodSandboxConfig::default()
            }),
            ..PodSandboxConfig::default()
        }
    }

    pub(crate) async fn pod(&self) -> Pod {
        self.pod_with(self.sandbox_config()).await
    }

    pub(crate) async fn pod_with(&self, config: PodSandboxConfig) -> Pod {
        let mut runtime = self.runtime().await;
        let request = RunPodSandboxRequest { config: Some(config.clone()), runtime_handler: String::new() };
        let id = runtime.run_pod_sandbox(request).await.unwrap().into_inner().pod_sandbox_id;
        Pod { runtime, id, config }
    }

    /// Ends everything and looks for what is left.
    pub(crate) async fn clean_up(self) {
        self.kill_server();
        let config = server::config(self.directory());
        runtime::cleanup(&config).await.unwrap();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let directory = self.directory().to_string_lossy().into_owned();
        let left: Vec<&str> = mounts.lines().filter(|line| line.contains(&directory)).collect();
        assert!(left.is_empty(), "{left:?}");
        for hierarchy in std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
            let path = hierarchy.path().join(config.cgroup_root.trim_start_matches('/'));
            assert!(!path.exists(), "{}", path.display());
        }
        for process in std::fs::read_dir("/proc").unwrap().flatten() {
            let line = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).into_owned();
            assert!(!line.contains(&directory), "{line}");
        }
        assert!(!config.socket.exists());
        // Once more, and on nothing.
        runtime::cleanup(&config).await.unwrap();
    }
}

/// A sandbox under test.
pub(crate) struct Pod {
    pub(crate) runtime: Runtime,
    pub(crate) id: String,
    pub(crate) config: PodSandboxConfig,
}

impl Pod {
    /// A shell script as a container.
    pub(crate) fn script(&self, name: &str, script: &str) -> ContainerConfig {
        ContainerConfig {
            metadata: Some(ContainerMetadata { name: name.to_owned(), attempt: 0 }),
            image: Some(ImageSpec { image: image::NAME.to_owned(), ..ImageSpec::default() }),
            command: vec!["sh".to_owned(), "-c".to_owned(), script.to_owned()],
            log_path: format!("{name}/0.log"),
            linux: Some(LinuxContainerConfig {
                resources: Some(LinuxContainerResources::default()),
                security_context: Some(LinuxContainerSecurityContext {
                    namespace_options: Some(NamespaceOption {
                        pid: NamespaceMode::Container as i32,
                        ..NamespaceOption::default()
                    }),
                    seccomp: Some(SecurityProfile::default()),
                    masked_paths: vec!["/proc/kcore".to_owned(), "/sys/firmware".to_owned()],
                    readonly_paths: vec!["/proc/sys".to_owned(), "/proc/irq".to_owned()],
                    ..LinuxContainerSecurityContext::default()
                }),
            }),
            ..ContainerConfig::default()
        }
    }

    pub(crate) async fn create(&self, config: ContainerConfig) -> String {
        let request = CreateContainerRequest {
            pod_sandbox_id: self.id.clone(),
            config: Some(config),
            sandbox_config: Some(self.config.clone()),
        };
        self.runtime.clone().create_container(request).await.unwrap().into_inner().container_id
    }

    pub(crate) async fn start(&self, config: ContainerConfig) -> String {
        let container_id = self.create(config).await;
        let request = StartContainerRequest { container_id: container_id.clone() };
        self.runtime.clone().start_container(request).await.unwrap();
        container_id
    }

    pub(crate) async fn status(&self, id: &str) -> ContainerStatus {
        let request = ContainerStatusRequest { container_id: id.to_owned(), verbose: false };
        self.runtime.clone().container_status(request).await.unwrap().into_inner().status.unwrap()
    }

    /// The status once the container has ended.
    pub(crate) async fn ended(&self, id: &str) -> ContainerStatus {
        let mut events =
            self.runtime.clone().get_container_events(GetEventsRequest {}).await.unwrap().into_inner();
        loop {
            let status = self.status(id).await;
            if status.state() == ContainerState::ContainerExited {
                return status;
            }
            tokio::time::timeout(PATIENCE, events.message()).await.expect("container does not end").unwrap();
        }
    }

    /// Runs a script to its end and returns its log without times and tags.
    pub(crate) async fn output(&self, config: ContainerConfig) -> String {
        let name = config.metadata.as_ref().unwrap().name.clone();
        let id = self.start(config).await;
        self.ended(&id).await;
        self.log(&name)
    }

    pub(crate) fn log(&self, name: &str) -> String {
        let path = Path::new(&self.config.log_directory).join(name).join("0.log");
        let text = std::fs::read_to_string(path).unwrap();
        text.lines().map(|line| line.splitn(4, ' ').nth(3).unwrap_or_default().to_owned() + "\n").collect()
    }

    pub(crate) async fn exec(
        &self,
        id: &str,
        words: &[&str],
        timeout: i64,
    ) -> Result<ExecSyncResponse, tonic::Status> {
        let cmd = words.iter().map(|word| (*word).to_owned()).collect();
        let request = ExecSyncRequest { container_id: id.to_owned(), cmd, timeout };
        Ok(self.runtime.clone().exec_sync(request).await?.into_inner())
    }

    pub(crate) async fn stop(&self, id: &str, timeout: i64) {
        let request = StopContainerRequest { container_id: id.to_owned(), timeout };
        self.runtime.clone().stop_container(request).await.unwrap();
    }

    pub(crate) async fn remove(mut self) {
        let request = StopPodSandboxRequest { pod_sandbox_id: self.id.clone() };
        self.runtime.stop_pod_sandbox(request).await.unwrap();
        let request = RemovePodSandboxRequest { pod_sandbox_id: self.id.clone() };
        self.runtime.remove_pod_sandbox(request).await.unwrap();
    }
}

/// The security context of a configuration.
pub(crate) fn security(config: &mut ContainerConfig) -> &mut LinuxContainerSecurityContext {
    config.linux.as_mut().unwrap().security_context.as_mut().unwrap()
}

/// The limits of a configuration.
pub(crate) fn resources(config: &mut ContainerConfig) -> &mut LinuxContainerResources {
    config.linux.as_mut().unwrap().resources.as_mut().unwrap()
}

/// A pipe in a volume: reading it waits for the container to write.
pub(crate) async fn signalled(pipe: PathBuf) -> String {
    let read = tokio::task::spawn_blocking(move || std::fs::read_to_string(pipe).unwrap());
    tokio::time::timeout(PATIENCE, read).await.expect("the container says nothing").unwrap()
}

/// Makes such a pipe in a volume and mounts it at `/v`.
pub(crate) fn with_pipe(node: &Node, name: &str, config: &mut ContainerConfig) -> PathBuf {
    let volume = node.volume(name);
    let pipe = volume.join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::from_bits_truncate(0o666)).unwrap();
    config.mounts.push(Mount {
        container_path: "/v".to_owned(),
        host_path: volume.to_string_lossy().into_owned(),
        ..Mount::default()
    });
    pipe
}
