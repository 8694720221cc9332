//! What the containers of a pod see of files: made before they start, kept up to date, removed at the end.
//!
//! - [`payload`]: PURE, from objects to the files of a volume; [`atomic`] writes them in one step;
//! - [`watches`]: the ConfigMaps and Secrets that pods of this node use; a change is written into their volumes;
//! - [`tokens`]: tokens of service accounts, renewed before they end;
//! - [`disk`], [`host_path`], [`subpath`]: directories, mounts and binds, safe against what containers do in them;
//! - [`mounts`]: what the runtime is told for one container.

mod atomic;
mod build;
mod disk;
mod host_path;
mod layout;
mod mounts;
mod payload;
mod subpath;
mod tokens;
mod watches;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base::{Clock, Random, Tasks};
use client::Key;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Container, Pod, Secret};
use kube::Api;

use crate::pod::environment::Addresses;
use crate::pod::network::hosts_file;
use crate::pod::{uid, uses_host_network};
use layout::Layout;
use tokens::{Tokens, api_words};
use watches::{Outdated, Shown, Watches};

/// Something that failed for good or for now is tried again after this time.
const RETRY: Duration = Duration::from_secs(60);

/// A volume could not be made. The text is what the pod's `FailedMount` event says.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    #[error("MountVolume.SetUp failed for volume \"{volume}\" : {reason}")]
    SetUp { volume: String, reason: String },
    #[error("volume mount \"{volume}\" of container \"{container}\": {reason}")]
    Mount { container: String, volume: String, reason: String },
    #[error("{what}: {source}")]
    Io { what: String, source: io::Error },
    /// The API did not answer, with its words.
    #[error("{0}")]
    Api(String),
}

impl VolumeError {
    fn io(what: impl Into<String>, source: io::Error) -> Self {
        Self::Io { what: what.into(), source }
    }
}

/// The volumes of all pods of the node.
pub struct Volumes {
    shared: Arc<Shared>,
    /// The task that keeps volumes current ends with this.
    _tasks: Tasks,
}

struct Shared {
    layout: Layout,
    client: kube::Client,
    node_ip: String,
    cluster_domain: Mutex<String>,
    allocatable: Mutex<BTreeMap<String, i64>>,
    clock: Clock,
    random: Random,
    /// Runs what blocks.
    io: Tasks,
    config_maps: Watches<ConfigMap>,
    secrets: Watches<Secret>,
    outdated: Arc<Outdated>,
    pods: Mutex<HashMap<String, Arc<Entry>>>,
    /// When a token of the pod is to be renewed.
    due: Mutex<HashMap<String, Timestamp>>,
}

#[derive(Debug, Default)]
struct Entry {
    ips: Mutex<Vec<String>>,
    /// Locked while the pod's volumes are written.
    state: tokio::sync::Mutex<PodState>,
}

#[derive(Debug, Default)]
struct PodState {
    /// As of the last call; `None` before the first and after the pod is torn down.
    pod: Option<Arc<Pod>>,
    tokens: Tokens,
    /// The versions of the objects that the volumes show; `None` until all volumes are made.
    shows: Option<Vec<String>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Unmounts and removes the files of all pods below an agent's data directory.
pub(crate) fn remove_all(data_dir: &Path) -> std::io::Result<()> {
    disk::remove(Layout::new(data_dir).pods())
}

impl Volumes {
    /// Volumes below `data_dir`. Those of an earlier process are taken over as they are.
    pub fn new(
        data_dir: &Path,
        client: kube::Client,
        node_name: &str,
        node_ip: IpAddr,
        clock: Clock,
        random: Random,
        tasks: &Tasks,
    ) -> Self {
        let outdated = Arc::new(Outdated::default());
        let watching = tasks.child(&format!("volume sources of {node_name}"));
        let shared = Arc::new(Shared {
            layout: Layout::new(data_dir),
            node_ip: node_ip.to_string(),
            cluster_domain: Mutex::new("cluster.local".to_owned()),
            allocatable: Mutex::new(machine()),
            io: tasks.child("volume files"),
            config_maps: Watches::new(
                client.clone(),
                clock.clone(),
                random.clone(),
                watching.clone(),
                outdated.clone(),
            ),
            secrets: Watches::new(client.clone(), clock.clone(), random.clone(), watching, outdated.clone()),
            client,
            clock,
            random,
            outdated,
            pods: Mutex::default(),
            due: Mutex::default(),
        });
        let tasks = tasks.child("volumes");
        tasks.spawn("keep current", keep_current(shared.clone()));
        Self { shared, _tasks: tasks }
    }

    /// The domain of the names in `/etc/hosts`; `cluster.local` unless it is set.
    pub fn set_cluster_domain(&self, domain: &str) {
        domain.clone_into(&mut lock(&self.shared.cluster_domain));
    }

    /// What the node offers (thousandths for CPU): the value of limits that a container doesn't have. The machine's
    /// whole capacity unless it is set.
    pub fn set_allocatable(&self, allocatable: BTreeMap<String, i64>) {
        *lock(&self.shared.allocatable) = allocatable;
    }

    /// Makes (or refreshes) every volume that a container of the pod mounts, and its `/etc/hosts` once it has
    /// addresses. From then on they follow their ConfigMaps, Secrets and tokens until [`Volumes::tear_down`].
    ///
    /// It is cheap to call again, and must be when the pod's labels, annotations or addresses change.
    pub async fn set_up(&self, pod: &Arc<Pod>, pod_ips: &[String]) -> Result<(), VolumeError> {
        let uid = uid(pod);
        if !is_name(uid) {
            let source = io::Error::new(io::ErrorKind::InvalidInput, "not a name of a directory");
            return Err(VolumeError::io(format!("pod uid {uid:?}"), source));
        }
        let entry = lock(&self.shared.pods).entry(uid.to_owned()).or_default().clone();
        pod_ips.clone_into(&mut lock(&entry.ips));
        let mut state = entry.state.lock().await;
        state.pod = Some(pod.clone());
        self.shared.set_up(pod, pod_ips, &mut state).await
    }

    /// The CRI mounts of one container: its volume mounts, `/etc/hosts` and its termination log. After
    /// [`Volumes::set_up`]. Variables in a `subPathExpr` are those of the container's `env` with a value or a field
    /// of the pod; a caller that has resolved the others passes a container with their values.
    pub fn mounts(
        &self,
        pod: &Pod,
        container: &Container,
        container_attempt: u32,
    ) -> Result<Vec<cri::Mount>, VolumeError> {
        let entry = lock(&self.shared.pods).get(uid(pod)).cloned();
        let addresses = Addresses {
            pod: entry.map(|entry| lock(&entry.ips).clone()).unwrap_or_default(),
            host: vec![self.shared.node_ip.clone()],
        };
        mounts::of_container(&self.shared.layout, pod, container, container_attempt, &addresses)
    }

    /// The file on the node that a container writes its last message to.
    pub fn termination_log(&self, pod_uid: &str, container: &str, attempt: u32) -> PathBuf {
        self.shared.layout.termination_log(pod_uid, container, attempt)
    }

    /// Unmounts and removes everything of a pod, also what an earlier process made. Its containers must have ended.
    pub async fn tear_down(&self, pod_uid: &str) -> Result<(), VolumeError> {
        if !is_name(pod_uid) {
            return Ok(());
        }
        let entry = lock(&self.shared.pods).remove(pod_uid);
        if let Some(entry) = entry {
            // A refresh that runs now comes to its end first, and none begins after.
            *entry.state.lock().await = PodState::default();
        }
        lock(&self.shared.due).remove(pod_uid);
        self.shared.config_maps.used_by(pod_uid, &Default::default());
        self.shared.secrets.used_by(pod_uid, &Default::default());
        let directory = self.shared.layout.pod(pod_uid);
        let removed = self.shared.io.blocking(move || disk::remove(&directory)).await;
        removed.map_err(|source| VolumeError::io(format!("removing the volumes of pod {pod_uid}"), source))
    }

    /// The uids of the pods that have files here, for the removal of what an earlier process left.
    pub fn pods_on_disk(&self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.shared.layout.pods()) else { return Vec::new() };
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        names.filter(|name| is_name(name) && !name.starts_with('.')).collect()
    }

    /// A ConfigMap of the API: from memory when a volume shows it, else asked for.
    pub async fn config_map(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Arc<ConfigMap>>, VolumeError> {
        self.shared.object(&self.shared.config_maps, namespace, name).await
    }

    /// A Secret of the API: from memory when a volume shows it, else asked for.
    pub async fn secret(&self, namespace: &str, name: &str) -> Result<Option<Arc<Secret>>, VolumeError> {
        self.shared.object(&self.shared.secrets, namespace, name).await
    }
}

impl std::fmt::Debug for Volumes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Volumes").field("pods", &self.shared.layout.pods()).finish_non_exhaustive()
    }
}

impl Shared {
    async fn object<K>(
        &self,
        watches: &Watches<K>,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Arc<K>>, VolumeError>
    where
        K: Shown + kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>,
    {
        if let Some(found) = watches.get(&Key::new(namespace, name)).await {
            return found.map_err(VolumeError::Api);
        }
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        let found = api.get_opt(name).await.map_err(|error| VolumeError::Api(api_words(&error)))?;
        Ok(found.map(Arc::new))
    }

    async fn set_up(&self, pod: &Arc<Pod>, ips: &[String], state: &mut PodState) -> Result<(), VolumeError> {
        state.shows = None;
        let result = async {
            let (work, shows) = self.plan(pod, &mut state.tokens).await?;
            let hosts = (!ips.is_empty() || uses_host_network(pod)).then(|| self.hosts(pod, ips));
            let (layout, uid) = (self.layout.clone(), uid(pod).to_owned());
            let done = self.io.blocking(move || {
                disk::make_directory(&layout.pod(&uid), 0o750, None)
                    .map_err(|source| VolumeError::io("pod directory", source))?;
                if let Some(text) = hosts {
                    let path = layout.hosts(&uid);
                    // In place: running containers have this very file mounted.
                    std::fs::write(&path, text)
                        .map_err(|error| VolumeError::io("hosts file", disk::at(&path, error)))?;
                }
                work.into_iter().try_for_each(build::Work::run)
            });
            done.await?;
            Ok(shows)
        }
        .await;
        let due = match &result {
            Ok(_) => state.tokens.due(),
            // The worker tries again itself; this is for a refresh that nobody waits for.
            Err(_) => state.tokens.due().map(|_| self.clock.now() + self.random.jitter(RETRY, 0.5)),
        };
        self.set_due(uid(pod), due);
        state.shows = Some(result?);
        Ok(())
    }

    fn hosts(&self, pod: &Pod, ips: &[String]) -> String {
        let of_host = if uses_host_network(pod) {
            std::fs::read_to_string("/etc/hosts").unwrap_or_default()
        } else {
            String::new()
        };
        hosts_file(pod, ips, &lock(&self.cluster_domain), &of_host)
    }

    fn set_due(&self, uid: &str, due: Option<Timestamp>) {
        let mut all = lock(&self.due);
        match due {
            Some(at) => {
                if all.insert(uid.to_owned(), at) != Some(at) {
                    self.outdated.wake.notify_one();
                }
            }
            None => drop(all.remove(uid)),
        }
    }

    /// Writes a pod's volumes anew if what they show has changed.
    async fn refresh(&self, uid: &str) {
        let Some(entry) = lock(&self.pods).get(uid).cloned() else { return };
        let mut state = entry.state.lock().await;
        // Before the first success the pod's worker is at it.
        let (Some(pod), Some(shows)) = (state.pod.clone(), state.shows.clone()) else { return };
        let renew = state.tokens.due().is_some_and(|due| due <= self.clock.now());
        if !renew && self.versions(&pod).await == Some(shows.clone()) {
            return;
        }
        let ips = lock(&entry.ips).clone();
        if let Err(error) = self.set_up(&pod, &ips, &mut state).await {
            // The old files stay, as the kubelet leaves them; the next change is tried again.
            tracing::warn!(pod = %crate::pod::title(&pod), %error, "volumes were not refreshed");
            state.shows = Some(shows);
        }
    }
}

/// Follows changes of what volumes show, and renews tokens.
async fn keep_current(shared: Arc<Shared>) {
    loop {
        let next = lock(&shared.due).values().min().copied();
        let token = async {
            match next {
                Some(at) => {
                    let left = at.duration_since(shared.clock.now());
                    shared.clock.wait(Duration::try_from(left).unwrap_or_default()).await;
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = shared.outdated.wake.notified() => {}
            () = token => {}
        }
        let mut pods = shared.outdated.take();
        let now = shared.clock.now();
        pods.extend(lock(&shared.due).iter().filter(|(_, at)| **at <= now).map(|(uid, _)| uid.clone()));
        for uid in pods {
            shared.refresh(&uid).await;
            // Whatever came of it, the same moment doesn't come twice.
            let mut due = lock(&shared.due);
            if let Some(at) = due.get_mut(&uid).filter(|at| **at <= now) {
                *at = now + shared.random.jitter(RETRY, 0.5);
            }
        }
    }
}

/// A uid comes from the API and becomes the name of a directory.
fn is_name(uid: &str) -> bool {
    !uid.is_empty() && !uid.contains('/') && uid != "." && uid != ".."
}

/// What the machine has: thousandths of cores, and bytes of memory.
fn machine() -> BTreeMap<String, i64> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut found = BTreeMap::from([("cpu".to_owned(), i64::try_from(cores).unwrap_or(1) * 1000)]);
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    if let Some(kib) = total.and_then(|rest| rest.split_whitespace().next()?.parse::<i64>().ok()) {
        found.insert("memory".to_owned(), kib * 1024);
    }
    found
}
