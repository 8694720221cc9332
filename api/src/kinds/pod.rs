//! The rules of core/v1 Pod.

pub(crate) mod affinity;
pub(crate) mod containers;
pub(crate) mod defaults;
mod env;
mod probes;
pub(crate) mod qos;
pub(crate) mod resources;
mod security;
pub(crate) mod spec;
pub(crate) mod storage;
mod table;
pub(crate) mod update;
pub(crate) mod volumes;
pub(crate) mod warnings;

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{
        AppArmorProfile, Pod, PodAffinityTerm, PodCondition, PodSpec, PodStatus, TopologySpreadConstraint,
    },
    apimachinery::pkg::apis::meta::v1::{LabelSelectorRequirement, ObjectMeta},
};
use serde_json::Value;

use super::check::{generation, keep_metadata, list, same, text};
use crate::{
    field::{Errors, FieldError, Path, quote},
    name,
    object::Kind,
    resource::Column,
};

impl Kind for Pod {
    const RETURNS_DELETED: bool = true;
    const COLUMNS: &'static [Column] = &[
        Column::name(),
        Column::text("Ready").about(
            "The aggregate readiness state of this pod for accepting traffic.",
        ),
        Column::text("Status").about("The aggregate status of the containers in this pod."),
        Column::text("Restarts").about(
            "The number of times the containers in this pod have been restarted and when the last container in this pod \
             has restarted.",
        ),
        Column::age(),
        Column::text("IP").wide().about(
            "podIP address allocated to the pod. Routable at least within the cluster. Empty if not yet allocated.",
        ),
        Column::text("Node").wide().about(
            "NodeName indicates in which node this pod is scheduled. If empty, this pod is a candidate for scheduling by \
             the scheduler defined in schedulerName. Once this field is set, the kubelet for this node becomes \
             responsible for the lifecycle of this pod. This field should not be used to express a desire for the pod to \
             be scheduled on a specific node. \
             https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/#nodename",
        ),
        Column::text("Nominated Node").wide().about(
            "nominatedNodeName is set only when this pod preempts other pods on the node, but it cannot be scheduled \
             right away as preemption victims receive their graceful termination periods. This field does not guarantee \
             that the pod will be scheduled on this node. Scheduler may decide to place the pod elsewhere if other nodes \
             become available sooner. Scheduler may also decide to give the resources on this node to a higher priority \
             pod that is created after preemption. As a result, this field may be different than PodSpec.nodeName when \
             the pod is scheduled.",
        ),
        Column::text("Readiness Gates").wide().about(
            "If specified, all readiness gates will be evaluated for pod readiness. A pod is ready when all its \
             containers are ready AND all conditions specified in the readiness gates have status equal to \"True\" More \
             info: https://git.k8s.io/enhancements/keps/sig-network/580-pod-readiness-gates",
        ),
    ];
    const STATUS_RESETS: &'static [&'static [&'static str]] =
        &[&["spec"], &["metadata", "deletionTimestamp"], &["metadata", "ownerReferences"]];
    const FIELDS: &'static [&'static str] = &[
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "spec.hostNetwork",
        "status.phase",
        "status.podIP",
        "status.podIPs",
        "status.nominatedNodeName",
    ];

    fn set_defaults(&mut self) {
        defaults::pod(self);
    }

    fn prepare_create(&mut self) {
        let Some(spec) = &mut self.spec else { return };
        self.metadata.generation = Some(1);
        let mut status = PodStatus {
            phase: Some("Pending".to_owned()),
            qos_class: Some(qos::class(spec).to_owned()),
            ..PodStatus::default()
        };
        if !list(&spec.scheduling_gates).is_empty() {
            status.conditions = Some(vec![PodCondition {
                type_: "PodScheduled".to_owned(),
                status: "False".to_owned(),
                reason: Some("SchedulingGated".to_owned()),
                message: Some("Scheduling is blocked due to non-empty scheduling gates".to_owned()),
                ..PodCondition::default()
            }]);
        }
        self.status = Some(status);
        merge_label_keys(spec, &self.metadata);
        apparmor_fields(spec, &self.metadata);
    }

    fn prepare_update(&mut self, old: &Self) {
        self.status.clone_from(&old.status);
        generation(&mut self.metadata, &old.metadata, !same(&self.spec, &old.spec));
    }

    fn prepare_status(&mut self, old: &Self) {
        self.spec.clone_from(&old.spec);
        let meta = &mut self.metadata;
        meta.deletion_timestamp.clone_from(&old.metadata.deletion_timestamp);
        meta.deletion_grace_period_seconds = old.metadata.deletion_grace_period_seconds;
        meta.owner_references.clone_from(&old.metadata.owner_references);
        meta.generation = old.metadata.generation;
        let (Some(new), Some(old)) = (&mut self.status, &old.status) else { return };
        if text(&new.qos_class).is_empty() {
            new.qos_class.clone_from(&old.qos_class);
        }
        keep_observed_generation(new, old);
    }

    fn prepare_subresource(&mut self, subresource: &str, old: &Self) {
        if subresource == "binding" {
            // Made from the stored pod, not from what a client sent: a node, a condition, annotations, labels.
            return;
        }
        let Some(given) = self.spec.take() else { return };
        self.spec.clone_from(&old.spec);
        self.status.clone_from(&old.status);
        keep_metadata(&mut self.metadata, &old.metadata);
        let Some(spec) = &mut self.spec else { return };
        match subresource {
            "ephemeralcontainers" => spec.ephemeral_containers = given.ephemeral_containers,
            "resize" => {
                let init = (list(&given.init_containers), list(&spec.init_containers));
                // Validation reports containers that were added, removed or renamed.
                let same_names =
                    given.containers.iter().map(|c| &c.name).eq(spec.containers.iter().map(|c| &c.name))
                        && init.0.iter().map(|c| &c.name).eq(init.1.iter().map(|c| &c.name));
                if !same_names {
                    *spec = given;
                } else {
                    let new = given.containers.into_iter().chain(given.init_containers.into_iter().flatten());
                    let old = spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten());
                    for (old, new) in old.zip(new) {
                        old.resources = new.resources;
                        old.resize_policy = new.resize_policy;
                    }
                }
            }
            _ => *spec = given,
        }
        generation(&mut self.metadata, &old.metadata, !same(&self.spec, &old.spec));
    }

    fn validate(&self) -> Errors {
        let mut errors = Errors::new();
        let empty = PodSpec::default();
        let spec = self.spec.as_ref().unwrap_or(&empty);
        spec::validate_pod(&mut errors, self, spec);
        spec::validate_create(&mut errors, self, spec);
        errors
    }

    fn validate_update(&self, old: &Self) -> Errors {
        let mut errors = Errors::new();
        update::validate(&mut errors, self, old);
        errors
    }

    fn validate_status(&self, old: &Self) -> Errors {
        let mut errors = Errors::new();
        update::validate_status(&mut errors, self, old);
        errors
    }

    fn validate_subresource(&self, subresource: &str, old: &Self) -> Errors {
        let mut errors = Errors::new();
        match subresource {
            "ephemeralcontainers" => update::validate_ephemeral(&mut errors, self, old),
            "resize" => update::validate_resize(&mut errors, self, old),
            "binding" => {}
            other => errors
                .push(FieldError::internal(&Path::root(), format_args!("pods have no {}", quote(other)))),
        }
        errors
    }

    fn warnings(&self, old: Option<&Self>) -> Vec<String> {
        // People change workloads, not pods; updates come from machines.
        if old.is_some() {
            return Vec::new();
        }
        let mut out = Vec::new();
        let problems = name::dns1123_label(text(&self.metadata.name));
        if !problems.is_empty() {
            out.push(format!(
                "metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; a DNS label \
                 is recommended: [{}]",
                problems.join(" ")
            ));
        }
        if let Some(spec) = &self.spec {
            out.extend(warnings::of(spec, &self.metadata, &Path::root()));
        }
        out
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        let (empty_spec, empty_status) = (PodSpec::default(), PodStatus::default());
        let spec = self.spec.as_ref().unwrap_or(&empty_spec);
        let status = self.status.as_ref().unwrap_or(&empty_status);
        let ip = list(&status.pod_ips).first().map(|ip| ip.ip.clone()).unwrap_or_default();
        vec![
            ("spec.nodeName", text(&spec.node_name).to_owned()),
            ("spec.restartPolicy", text(&spec.restart_policy).to_owned()),
            ("spec.schedulerName", text(&spec.scheduler_name).to_owned()),
            ("spec.serviceAccountName", text(&spec.service_account_name).to_owned()),
            ("spec.hostNetwork", (spec.host_network == Some(true)).to_string()),
            ("status.phase", text(&status.phase).to_owned()),
            ("status.podIP", ip.clone()),
            ("status.podIPs", ip),
            ("status.nominatedNodeName", text(&status.nominated_node_name).to_owned()),
        ]
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        table::cells(self, now)
    }

    fn grace_period(&self, requested: Option<i64>) -> Option<i64> {
        let spec = self.spec.as_ref();
        let wanted =
            requested.or_else(|| spec.and_then(|s| s.termination_grace_period_seconds)).unwrap_or_default();
        let unscheduled = spec.is_none_or(|s| text(&s.node_name).is_empty());
        let ended = self.status.as_ref().is_some_and(|s| matches!(text(&s.phase), "Failed" | "Succeeded"));
        Some(match wanted {
            _ if unscheduled || ended => 0,
            seconds if seconds < 0 => 1,
            seconds => seconds,
        })
    }
}

/// Agents that know nothing of observedGeneration don't clear it.
fn keep_observed_generation(new: &mut PodStatus, old: &PodStatus) {
    if new.observed_generation.unwrap_or_default() == 0 {
        new.observed_generation = old.observed_generation;
    }
    let mut seen: BTreeMap<&str, std::collections::VecDeque<Option<i64>>> = BTreeMap::new();
    for condition in list(&old.conditions) {
        seen.entry(&condition.type_).or_default().push_back(condition.observed_generation);
    }
    for condition in new.conditions.iter_mut().flatten() {
        let before = seen.get_mut(condition.type_.as_str()).and_then(|g| g.pop_front()).flatten();
        if condition.observed_generation.unwrap_or_default() == 0 {
            condition.observed_generation = before;
        }
    }
}

/// The values that the pod has for label keys become part of the selectors that name the keys.
fn merge_label_keys(spec: &mut PodSpec, meta: &ObjectMeta) {
    let empty = BTreeMap::new();
    let labels = meta.labels.as_ref().unwrap_or(&empty);
    let requirements = |keys: &[String], operator: &str| -> Vec<LabelSelectorRequirement> {
        let of = |key: &String| {
            Some(LabelSelectorRequirement {
                key: key.clone(),
                operator: operator.to_owned(),
                values: Some(vec![labels.get(key)?.clone()]),
            })
        };
        keys.iter().filter_map(of).collect()
    };
    let merge_term = |term: &mut PodAffinityTerm| {
        let mut added = requirements(list(&term.match_label_keys), "In");
        added.extend(requirements(list(&term.mismatch_label_keys), "NotIn"));
        if let Some(selector) = term.label_selector.as_mut().filter(|_| !added.is_empty()) {
            selector.match_expressions.get_or_insert_default().extend(added);
        }
    };
    if let Some(affinity) = &mut spec.affinity {
        if let Some(pod) = &mut affinity.pod_affinity {
            let preferred = pod.preferred_during_scheduling_ignored_during_execution.iter_mut().flatten();
            preferred.for_each(|term| merge_term(&mut term.pod_affinity_term));
            pod.required_during_scheduling_ignored_during_execution.iter_mut().flatten().for_each(merge_term);
        }
        if let Some(pod) = &mut affinity.pod_anti_affinity {
            let preferred = pod.preferred_during_scheduling_ignored_during_execution.iter_mut().flatten();
            preferred.for_each(|term| merge_term(&mut term.pod_affinity_term));
            pod.required_during_scheduling_ignored_during_execution.iter_mut().flatten().for_each(merge_term);
        }
    }
    let merge_constraint = |constraint: &mut TopologySpreadConstraint| {
        let added = requirements(list(&constraint.match_label_keys), "In");
        if let Some(selector) = constraint.label_selector.as_mut().filter(|_| !added.is_empty()) {
            selector.match_expressions.get_or_insert_default().extend(added);
        }
    };
    spec.topology_spread_constraints.iter_mut().flatten().for_each(merge_constraint);
}

/// An AppArmor annotation becomes the field that replaced it.
fn apparmor_fields(spec: &mut PodSpec, meta: &ObjectMeta) {
    let Some(annotations) = &meta.annotations else { return };
    if spec.os.as_ref().is_some_and(|os| os.name == "windows") {
        return;
    }
    let whole = spec.security_context.as_ref().is_some_and(|c| c.app_armor_profile.is_some());
    let containers = spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten());
    for container in containers {
        let key = format!("{}{}", security::APPARMOR_CONTAINER, container.name);
        let own = container.security_context.as_ref().is_some_and(|c| c.app_armor_profile.is_some());
        let Some(value) = annotations.get(&key).filter(|_| !own && !whole) else { continue };
        let (type_, localhost_profile) = match value.strip_prefix("localhost/") {
            Some(profile) if !profile.is_empty() => ("Localhost", Some(profile.to_owned())),
            _ if value == "runtime/default" => ("RuntimeDefault", None),
            _ if value == "unconfined" => ("Unconfined", None),
            _ => continue,
        };
        let context = container.security_context.get_or_insert_default();
        context.app_armor_profile = Some(AppArmorProfile { type_: type_.to_owned(), localhost_profile });
    }
}
