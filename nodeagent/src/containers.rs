//! From a container of a pod to what the runtime is told to run.

mod environment;

use std::collections::HashMap;

use k8s_openapi::api::core::v1::{Container, EnvVar, Pod, VolumeMount};

use crate::context::Context;
use crate::host::HostError;
use crate::images::Image;
use crate::pod::{self, environment::expand, resources, sandbox, security};

/// A container can't be made from its spec and what the spec refers to.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error("{0}")]
    Spec(String),
    #[error(transparent)]
    Host(#[from] HostError),
}

/// The place of a container in its pod.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    pub(crate) attempt: u32,
    pub(crate) pod_ips: &'a [String],
    /// The container whose process namespace it joins.
    pub(crate) target: Option<&'a str>,
}

/// The configuration of a container. Its pod's volumes are made already.
pub(crate) async fn config(
    context: &Context,
    pod: &Pod,
    container: &Container,
    image: &Image,
    place: Place<'_>,
) -> Result<cri::ContainerConfig, ConfigError> {
    security::verify_non_root(pod, container, image.uid, &image.user).map_err(ConfigError::Spec)?;
    let variables = environment::variables(context, pod, container, place.pod_ips).await?;
    let by_name: HashMap<String, String> = variables.iter().cloned().collect();
    let expanded = |texts: &Option<Vec<String>>| {
        texts.iter().flatten().map(|text| expand(text, &by_name)).collect::<Vec<_>>()
    };
    let mounts = context.host.mounts(pod, &with_values(container, &by_name), place.attempt)?;
    let limits = resources::container_limits(container);
    let oom_score_adj = resources::oom_score_adj(pod, container, context.memory_capacity);
    let stop_signal = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.stop_signal.as_deref());
    Ok(cri::ContainerConfig {
        metadata: Some(cri::ContainerMetadata { name: container.name.clone(), attempt: place.attempt }),
        image: Some(cri::ImageSpec {
            image: image.id.clone(),
            user_specified_image: container.image.clone().unwrap_or_default(),
            ..Default::default()
        }),
        command: expanded(&container.command),
        args: expanded(&container.args),
        working_dir: container.working_dir.clone().unwrap_or_default(),
        envs: variables
            .into_iter()
            .map(|(key, value)| cri::KeyValue { key, value: value.into_bytes() })
            .collect(),
        mounts,
        labels: sandbox::container_labels(pod, container),
        annotations: sandbox::container_annotations(pod, container, place.attempt),
        log_path: sandbox::log_path(&container.name, place.attempt),
        stdin: container.stdin == Some(true),
        stdin_once: container.stdin_once == Some(true),
        tty: container.tty == Some(true),
        linux: Some(cri::LinuxContainerConfig {
            resources: Some(sandbox::linux_resources(&limits, oom_score_adj)),
            security_context: Some(security::container_context(
                pod,
                container,
                image.uid,
                &image.user,
                place.target,
            )),
        }),
        stop_signal: stop_signal.and_then(cri::Signal::from_str_name).unwrap_or_default().into(),
        ..Default::default()
    })
}

/// The container with the values of its variables in place of where they come from, if a mount needs them.
fn with_values(container: &Container, variables: &HashMap<String, String>) -> Container {
    let mut resolved = container.clone();
    let has_expression = |mount: &VolumeMount| mount.sub_path_expr.is_some();
    if container.volume_mounts.iter().flatten().any(has_expression) {
        let known = |(name, value): (&String, &String)| EnvVar {
            name: name.clone(),
            value: Some(value.clone()),
            value_from: None,
        };
        resolved.env = Some(variables.iter().map(known).collect());
    }
    resolved
}

/// The configuration of a pod's sandbox, as the runtime was or will be told.
pub(crate) fn sandbox_config(
    context: &Context,
    pod: &Pod,
    attempt: u32,
    cgroup_parent: &str,
) -> cri::PodSandboxConfig {
    let logs = context.host.log_directory(pod);
    let root = logs.parent().unwrap_or(&logs).to_string_lossy();
    pod::sandbox::sandbox_config(pod, attempt, &context.dns, &context.node_name, &root, cgroup_parent)
}
