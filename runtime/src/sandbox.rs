//! Sandboxes: what the containers of a pod share.
//!
//! The namespaces are held by bind-mounted files, so no process is needed, except where the pod shares its pid
//! namespace: that one lives only as long as its init ([`pause`]).

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cri::{NamespaceMode, NamespaceOption, PodSandboxConfig};

use crate::error::Error;
use crate::process::ProcessId;

pub(crate) use namespaces::{connect_socket, unmount};
pub(crate) use record::Record;

mod files;
mod lifecycle;
mod namespaces;
mod network;
pub(crate) mod pause;
mod record;
mod status;

/// One sandbox.
#[derive(Debug)]
pub(crate) struct Sandbox {
    pub(crate) id: String,
    pub(crate) config: PodSandboxConfig,
    pub(crate) runtime_handler: String,
    /// Nanoseconds of Unix time.
    pub(crate) created_at: i64,
    /// The cgroup below which the containers are put.
    pub(crate) cgroup_parent: String,
    live: Mutex<Live>,
    /// Held while the sandbox is being stopped or removed.
    changing: tokio::sync::Mutex<()>,
}

/// What changes of a sandbox.
#[derive(Clone, Debug, Default)]
pub(crate) struct Live {
    pub(crate) ready: bool,
    pub(crate) ips: Vec<IpAddr>,
    /// Holder of the shared pid namespace.
    pub(crate) pause: Option<ProcessId>,
    /// Whether the network may hold an address for it.
    pub(crate) attached: bool,
}

impl Sandbox {
    pub(crate) fn live(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn ready(&self) -> bool {
        self.live().ready
    }

    /// The namespaces the pod asked for.
    pub(crate) fn namespaces(&self) -> NamespaceOption {
        self.config
            .linux
            .as_ref()
            .and_then(|linux| linux.security_context.as_ref()?.namespace_options.clone())
            .unwrap_or_default()
    }

    /// Whether the pod uses the node's network.
    pub(crate) fn host_network(&self) -> bool {
        self.namespaces().network == NamespaceMode::Node as i32
    }

    /// Whether the pod uses the node's IPC namespace.
    pub(crate) fn host_ipc(&self) -> bool {
        self.namespaces().ipc == NamespaceMode::Node as i32
    }

    /// Whether the containers see each other's processes.
    pub(crate) fn shared_pid(&self) -> bool {
        self.namespaces().pid == NamespaceMode::Pod as i32
    }

    /// The name containers of the pod see as theirs.
    pub(crate) fn hostname(&self) -> String {
        if !self.config.hostname.is_empty() {
            return self.config.hostname.clone();
        }
        nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default()
    }
}

/// All sandboxes, by id.
#[derive(Debug, Default)]
pub(crate) struct Sandboxes(Mutex<HashMap<String, Arc<Sandbox>>>);

impl Sandboxes {
    fn map(&self) -> MutexGuard<'_, HashMap<String, Arc<Sandbox>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn insert(&self, sandbox: Arc<Sandbox>) {
        self.map().insert(sandbox.id.clone(), sandbox);
    }

    pub(crate) fn take(&self, id: &str) {
        self.map().remove(id);
    }

    /// The sandbox with this id or with the only id that begins so.
    pub(crate) fn get(&self, id: &str) -> Result<Arc<Sandbox>, Error> {
        by_prefix(&self.map(), id).ok_or_else(|| Error::sandbox_not_found(id))
    }

    pub(crate) fn all(&self) -> Vec<Arc<Sandbox>> {
        self.map().values().cloned().collect()
    }
}

/// The value of a key, or of the only key that begins so.
pub(crate) fn by_prefix<T: Clone>(map: &HashMap<String, T>, id: &str) -> Option<T> {
    if let Some(exact) = map.get(id) {
        return Some(exact.clone());
    }
    let mut matching = map.iter().filter(|(key, _)| !id.is_empty() && key.starts_with(id));
    match (matching.next(), matching.next()) {
        (Some((_, only)), None) => Some(only.clone()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_may_be_shortened_while_it_is_unique() {
        let map = HashMap::from([("abc".to_owned(), 1), ("abd".to_owned(), 2), ("ab".to_owned(), 3)]);
        for (id, expected) in
            [("abc", Some(1)), ("ab", Some(3)), ("a", None), ("", None), ("abd", Some(2)), ("x", None)]
        {
            assert_eq!(by_prefix(&map, id), expected, "{id}");
        }
    }
}
