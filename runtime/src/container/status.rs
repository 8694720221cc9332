//! Containers in CRI's words.

use cri::{
    Container as Item, ContainerFilter, ContainerResources, ContainerState, ContainerStatus, ContainerUser,
    ImageSpec, LinuxContainerUser,
};

use super::signal;
use super::{Container, Phase};

impl Container {
    fn state(&self) -> ContainerState {
        match self.phase() {
            Phase::Created => ContainerState::ContainerCreated,
            Phase::Running(_) => ContainerState::ContainerRunning,
            Phase::Exited { .. } => ContainerState::ContainerExited,
        }
    }

    fn image(&self) -> ImageSpec {
        ImageSpec {
            image: self.image.name.clone(),
            user_specified_image: self
                .config
                .image
                .as_ref()
                .map(|image| image.user_specified_image.clone())
                .unwrap_or_default(),
            ..ImageSpec::default()
        }
    }

    /// The line of a list.
    pub(crate) fn item(&self) -> Item {
        Item {
            id: self.id.clone(),
            pod_sandbox_id: self.sandbox_id.clone(),
            metadata: self.config.metadata.clone(),
            image: Some(self.image()),
            image_ref: self.image.reference.clone(),
            state: self.state() as i32,
            created_at: self.created_at,
            labels: self.config.labels.clone(),
            annotations: self.config.annotations.clone(),
            image_id: self.image.id.clone(),
        }
    }

    /// All that CRI tells of a container.
    pub(crate) fn status(&self) -> ContainerStatus {
        let (mut started_at, mut finished_at, mut exit_code) = (0, 0, 0);
        let (mut reason, mut message) = (String::new(), String::new());
        match self.phase() {
            Phase::Created => {}
            Phase::Running(started) => started_at = started.at,
            Phase::Exited { started, exited } => {
                started_at = started.map_or(0, |started| started.at);
                finished_at = exited.at;
                exit_code = exited.code;
                reason = exited.reason;
                message = exited.message;
            }
        }
        ContainerStatus {
            id: self.id.clone(),
            metadata: self.config.metadata.clone(),
            state: self.state() as i32,
            created_at: self.created_at,
            started_at,
            finished_at,
            exit_code,
            image: Some(self.image()),
            image_ref: self.image.reference.clone(),
            reason,
            message,
            labels: self.config.labels.clone(),
            annotations: self.config.annotations.clone(),
            mounts: self.config.mounts.clone(),
            log_path: self.log_path.to_string_lossy().into_owned(),
            resources: Some(ContainerResources { linux: Some(self.resources().clone()), windows: None }),
            image_id: self.image.id.clone(),
            user: Some(ContainerUser {
                linux: Some(LinuxContainerUser {
                    uid: self.user.uid.into(),
                    gid: self.user.gid.into(),
                    supplemental_groups: self.user.groups.iter().copied().map(i64::from).collect(),
                }),
            }),
            stop_signal: signal::name(self.stop_signal) as i32,
        }
    }

    /// Whether a list with this filter shows the container.
    pub(crate) fn matches(&self, filter: &ContainerFilter) -> bool {
        (filter.id.is_empty() || self.id.starts_with(&filter.id))
            && (filter.pod_sandbox_id.is_empty() || self.sandbox_id.starts_with(&filter.pod_sandbox_id))
            && filter.state.is_none_or(|wanted| wanted.state == self.state() as i32)
            && self.has_labels(&filter.label_selector)
    }

    /// Whether every label of a selector is there.
    pub(crate) fn has_labels(&self, selector: &std::collections::HashMap<String, String>) -> bool {
        selector.iter().all(|(key, value)| self.config.labels.get(key) == Some(value))
    }
}
