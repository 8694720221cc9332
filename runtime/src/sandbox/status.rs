//! Sandboxes in CRI's words.

use cri::{
    LinuxPodSandboxStatus, Namespace, PodIp, PodSandbox, PodSandboxFilter, PodSandboxNetworkStatus,
    PodSandboxState, PodSandboxStatus,
};

use super::Sandbox;

impl Sandbox {
    fn state(&self) -> PodSandboxState {
        if self.ready() { PodSandboxState::SandboxReady } else { PodSandboxState::SandboxNotready }
    }

    /// The line of a list.
    pub(crate) fn item(&self) -> PodSandbox {
        PodSandbox {
            id: self.id.clone(),
            metadata: self.config.metadata.clone(),
            state: self.state() as i32,
            created_at: self.created_at,
            labels: self.config.labels.clone(),
            annotations: self.config.annotations.clone(),
            runtime_handler: self.runtime_handler.clone(),
        }
    }

    /// All that CRI tells of a sandbox.
    pub(crate) fn status(&self) -> PodSandboxStatus {
        let mut ips = self.live().ips.clone().into_iter().map(|ip| ip.to_string());
        let mut options = self.namespaces();
        options.target_id.clear();
        PodSandboxStatus {
            id: self.id.clone(),
            metadata: self.config.metadata.clone(),
            state: self.state() as i32,
            created_at: self.created_at,
            network: Some(PodSandboxNetworkStatus {
                ip: ips.next().unwrap_or_default(),
                additional_ips: ips.map(|ip| PodIp { ip }).collect(),
            }),
            linux: Some(LinuxPodSandboxStatus { namespaces: Some(Namespace { options: Some(options) }) }),
            labels: self.config.labels.clone(),
            annotations: self.config.annotations.clone(),
            runtime_handler: self.runtime_handler.clone(),
        }
    }

    /// Whether a list with this filter shows the sandbox.
    pub(crate) fn matches(&self, filter: &PodSandboxFilter) -> bool {
        (filter.id.is_empty() || self.id.starts_with(&filter.id))
            && filter.state.is_none_or(|wanted| wanted.state == self.state() as i32)
            && filter.label_selector.iter().all(|(key, value)| self.config.labels.get(key) == Some(value))
    }
}
