//! The row that `kubectl get pods` shows.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Container, ContainerStateTerminated, ContainerStatus, Pod, PodSpec, PodStatus},
    apimachinery::pkg::apis::meta::v1::Time,
};
use serde_json::Value;

use super::containers::is_sidecar;
use crate::{
    kinds::{
        cells::{age, or_none, since},
        check::{list, text},
    },
    object::name_cell,
};

/// Name, Ready, Status, Restarts, Age; IP, Node, Nominated Node, Readiness Gates.
pub(super) fn cells(pod: &Pod, now: Timestamp) -> Vec<Value> {
    let (empty_spec, empty_status) = (PodSpec::default(), PodStatus::default());
    let spec = pod.spec.as_ref().unwrap_or(&empty_spec);
    let status = pod.status.as_ref().unwrap_or(&empty_status);
    let summary = Summary::of(pod, spec, status);
    let restarts = match &summary.last_restart {
        Some(time) if summary.restarts != 0 => {
            format!("{} ({} ago)", summary.restarts, since(Some(time), now))
        }
        _ => summary.restarts.to_string(),
    };
    let gates = list(&spec.readiness_gates);
    let open = gates.iter().filter(|gate| is_true(status, &gate.condition_type)).count();
    let gates = if gates.is_empty() { String::new() } else { format!("{open}/{}", gates.len()) };
    let ip = list(&status.pod_ips).first().map(|ip| ip.ip.as_str()).unwrap_or_default();
    vec![
        name_cell(&pod.metadata),
        format!("{}/{}", summary.ready, summary.total).into(),
        summary.reason.into(),
        restarts.into(),
        age(&pod.metadata, now),
        or_none(ip),
        or_none(text(&spec.node_name)),
        or_none(text(&status.nominated_node_name)),
        or_none(&gates),
    ]
}

fn is_true(status: &PodStatus, condition: &str) -> bool {
    list(&status.conditions).iter().find(|c| c.type_ == condition).is_some_and(|c| c.status == "True")
}

struct Summary {
    reason: String,
    ready: usize,
    total: usize,
    restarts: i32,
    last_restart: Option<Time>,
}

impl Summary {
    fn of(pod: &Pod, spec: &PodSpec, status: &PodStatus) -> Self {
        let init = list(&spec.init_containers);
        let sidecars: BTreeSet<&str> =
            init.iter().filter(|c| is_sidecar(c)).map(|c| c.name.as_str()).collect();
        let sidecar = |name: &str| sidecars.contains(name);
        let phase = text(&status.phase);
        let mut reason =
            if text(&status.reason).is_empty() { phase } else { text(&status.reason) }.to_owned();
        let gated = |c: &k8s_openapi::api::core::v1::PodCondition| {
            c.type_ == "PodScheduled" && c.reason.as_deref() == Some("SchedulingGated")
        };
        if list(&status.conditions).iter().any(gated) {
            reason = "SchedulingGated".to_owned();
        }
        let mut summary = Self {
            reason,
            ready: 0,
            total: spec.containers.len() + init.iter().filter(|c: &&Container| is_sidecar(c)).count(),
            restarts: 0,
            last_restart: None,
        };
        let (mut sidecar_restarts, mut sidecar_restart) = (0, None);
        let mut initializing = false;
        for (i, container) in list(&status.init_container_statuses).iter().enumerate() {
            summary.restarts += container.restart_count;
            later(&mut summary.last_restart, container);
            if sidecar(&container.name) {
                sidecar_restarts += container.restart_count;
                later(&mut sidecar_restart, container);
            }
            if terminated(container).is_some_and(|t| t.exit_code == 0) {
                continue;
            }
            if sidecar(&container.name) && container.started == Some(true) {
                summary.ready += usize::from(container.ready);
                continue;
            }
            initializing = true;
            let waiting = waiting_for(container);
            summary.reason = if let Some(end) = terminated(container) {
                format!("Init:{}", how_it_ended(end))
            } else if !waiting.is_empty() && waiting != "PodInitializing" {
                format!("Init:{waiting}")
            } else {
                format!("Init:{i}/{}", init.len())
            };
            break;
        }
        if !initializing || is_true(status, "Initialized") {
            summary.restarts = sidecar_restarts;
            summary.last_restart = sidecar_restart;
            summary.containers(status);
        }
        if pod.metadata.deletion_timestamp.is_some() {
            if text(&status.reason) == "NodeLost" {
                summary.reason = "Unknown".to_owned();
            } else if !matches!(phase, "Succeeded" | "Failed") {
                summary.reason = "Terminating".to_owned();
            }
        }
        summary
    }

    fn containers(&mut self, status: &PodStatus) {
        let mut running = false;
        let mut error = None;
        for container in list(&status.container_statuses).iter().rev() {
            self.restarts += container.restart_count;
            later(&mut self.last_restart, container);
            let waiting = waiting_for(container);
            if !waiting.is_empty() {
                self.reason = waiting.to_owned();
            } else if let Some(end) = terminated(container) {
                self.reason = how_it_ended(end);
                if end.exit_code != 0 {
                    error = Some(self.reason.clone());
                }
            } else if container.ready && container.state.as_ref().is_some_and(|s| s.running.is_some()) {
                running = true;
                self.ready += 1;
            }
        }
        // A pod with a container that still runs is not completed.
        if self.reason == "Completed" {
            if running && is_true(status, "Ready") {
                self.reason = "Running".to_owned();
            } else if let Some(error) = error {
                self.reason = error;
            } else if running {
                self.reason = "NotReady".to_owned();
            }
        }
    }
}

fn terminated(container: &ContainerStatus) -> Option<&ContainerStateTerminated> {
    container.state.as_ref()?.terminated.as_ref()
}

fn waiting_for(container: &ContainerStatus) -> &str {
    let waiting = container.state.as_ref().and_then(|s| s.waiting.as_ref());
    waiting.map(|w| text(&w.reason)).unwrap_or_default()
}

fn how_it_ended(end: &ContainerStateTerminated) -> String {
    match (text(&end.reason), end.signal.unwrap_or_default()) {
        ("", 0) => format!("ExitCode:{}", end.exit_code),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

fn later(time: &mut Option<Time>, container: &ContainerStatus) {
    let ended = container.last_state.as_ref().and_then(|s| s.terminated.as_ref());
    if let Some(ended) = ended.and_then(|t| t.finished_at.clone())
        && time.as_ref().is_none_or(|t| t.0 < ended.0)
    {
        *time = Some(ended);
    }
}
