//! The rules of core/v1 Node.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Node, NodeSpec, NodeStatus, NodeSystemInfo, Taint},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use serde_json::{Value, json};

use super::{
    amount::{Amount, canonical_list},
    cells::{age, or_unknown},
    check::{cidr, is_dual_stack, list, qualified_name, same, text},
    pod::{affinity::taint_effect, resources, warnings::deprecated_label},
};
use crate::{
    field::{BadValue, Errors, FieldError, Path},
    name,
    object::{Kind, name_cell},
    resource::Column,
};

impl Kind for Node {
    const COLUMNS: &'static [Column] = &[
        Column::name(),
        Column::text("Status").about("The status of the node"),
        Column::text("Roles").about("The roles of the node"),
        Column::age(),
        Column::text("Version").about("Kubelet Version reported by the node."),
        Column::text("Internal-IP").wide().about("List of addresses reachable to the node."),
        Column::text("External-IP").wide().about("List of addresses reachable to the node."),
        Column::text("OS-Image")
            .wide()
            .about("OS Image reported by the node from /etc/os-release (e.g. Debian GNU/Linux 7 (wheezy))."),
        Column::text("Kernel-Version")
            .wide()
            .about("Kernel Version reported by the node from 'uname -r' (e.g. 3.16.0-0.bpo.4-amd64)."),
        Column::text("Container-Runtime").wide().about(
            "ContainerRuntime Version reported by the node through runtime remote API (e.g. containerd://1.4.2).",
        ),
    ];
    const FIELDS: &'static [&'static str] = &["spec.unschedulable"];

    fn set_defaults(&mut self) {
        let spec = self.spec.get_or_insert_default();
        // The prefix and the list of prefixes agree.
        let first = list(&spec.pod_cidrs).first().cloned();
        match spec.pod_cidr.clone().filter(|c| !c.is_empty()) {
            Some(prefix) if first.as_ref() != Some(&prefix) => spec.pod_cidrs = Some(vec![prefix]),
            Some(_) => {}
            None => spec.pod_cidr = first,
        }
        let status = self.status.get_or_insert_default();
        canonical_list(&mut status.capacity);
        if status.allocatable.is_none() {
            status.allocatable.clone_from(&status.capacity);
        }
        canonical_list(&mut status.allocatable);
        status.node_info.get_or_insert_default();
        let endpoints = status.daemon_endpoints.get_or_insert_default();
        endpoints.kubelet_endpoint.get_or_insert_default();
    }

    fn prepare_update(&mut self, old: &Self) {
        self.status.clone_from(&old.status);
    }

    fn prepare_status(&mut self, old: &Self) {
        self.spec.clone_from(&old.spec);
    }

    fn validate(&self) -> Errors {
        let mut errors = Errors::new();
        let (empty_spec, empty_status) = (NodeSpec::default(), NodeStatus::default());
        let spec = self.spec.as_ref().unwrap_or(&empty_spec);
        // The place is upstream's.
        taints(&mut errors, list(&spec.taints), &Path::new("metadata").child("taints"));
        amounts(&mut errors, self.status.as_ref().unwrap_or(&empty_status));
        pod_cidrs(&mut errors, list(&spec.pod_cidrs), &Path::new("spec").child("podCIDRs"));
        errors
    }

    fn validate_update(&self, old: &Self) -> Errors {
        let mut errors = self.validate();
        errors.extend(self.validate_status(old));
        errors
    }

    fn validate_status(&self, old: &Self) -> Errors {
        let mut errors = Errors::new();
        let (empty_spec, empty_status) = (NodeSpec::default(), NodeStatus::default());
        let (spec, old_spec) =
            (self.spec.as_ref().unwrap_or(&empty_spec), old.spec.as_ref().unwrap_or(&empty_spec));
        let status = self.status.as_ref().unwrap_or(&empty_status);
        amounts(&mut errors, status);
        let mut seen = BTreeSet::new();
        for (i, address) in list(&status.addresses).iter().enumerate() {
            if !seen.insert((&address.type_, &address.address)) {
                let at = Path::new("status").child("addresses").index(i);
                let shown = json!({"Type": address.type_, "Address": address.address});
                errors.push(FieldError::duplicate(&at, shown));
            }
        }
        let at = Path::new("spec");
        let (new, had) = (list(&spec.pod_cidrs), list(&old_spec.pod_cidrs));
        if !had.is_empty() && new != had {
            let detail = "node updates may not change podCIDR except from \"\" to valid";
            errors.push(FieldError::forbidden(&at.child("podCIDRs"), detail));
        }
        let provider = text(&old_spec.provider_id);
        if !provider.is_empty() && provider != text(&spec.provider_id) {
            let detail = "node updates may not change providerID except from \"\" to valid";
            errors.push(FieldError::forbidden(&at.child("providerID"), detail));
        }
        taints(&mut errors, list(&spec.taints), &Path::new("metadata").child("taints"));
        if text(&spec.external_id) != text(&old_spec.external_id) {
            errors.push(FieldError::forbidden(&at.child("externalID"), "may not be updated"));
        }
        errors
    }

    fn warnings(&self, old: Option<&Self>) -> Vec<String> {
        let mut out = Vec::new();
        let spec = self.spec.as_ref();
        let old_spec = old.and_then(|o| o.spec.as_ref());
        let changed = old.is_none_or(|o| !same(&self.spec, &o.spec));
        if changed
            && spec.is_some_and(|s| s.config_source.is_some())
            && old_spec.is_none_or(|s| s.config_source.is_none())
        {
            out.push("spec.configSource: the feature is removed, and the field is ignored".to_owned());
        }
        if changed && spec.is_some_and(|s| !text(&s.external_id).is_empty()) && old.is_none() {
            out.push("spec.externalID: this field is deprecated, and is unused by Kubernetes".to_owned());
        }
        for key in self.metadata.labels.iter().flatten().map(|(k, _)| k) {
            let known = old.and_then(|o| o.metadata.labels.as_ref()).is_some_and(|l| l.contains_key(key));
            if let Some(message) = deprecated_label(key).filter(|_| old.is_none() && !known) {
                out.push(format!("metadata.labels[{key}]: {message}"));
            }
        }
        out
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        let unschedulable = self.spec.as_ref().and_then(|s| s.unschedulable).unwrap_or_default();
        vec![("spec.unschedulable", unschedulable.to_string())]
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        let (empty_status, empty_info) = (NodeStatus::default(), NodeSystemInfo::default());
        let status = self.status.as_ref().unwrap_or(&empty_status);
        let info = status.node_info.as_ref().unwrap_or(&empty_info);
        let ready = list(&status.conditions).iter().find(|c| c.type_ == "Ready");
        let mut state = match ready.map(|c| c.status.as_str()) {
            Some("True") => "Ready",
            Some(_) => "NotReady",
            None => "Unknown",
        }
        .to_owned();
        if self.spec.as_ref().is_some_and(|s| s.unschedulable == Some(true)) {
            state.push_str(",SchedulingDisabled");
        }
        let address = |of: &str| -> Value {
            let found = list(&status.addresses).iter().find(|a| a.type_ == of);
            found.map_or("<none>", |a| a.address.as_str()).into()
        };
        vec![
            name_cell(&self.metadata),
            state.into(),
            roles(&self.metadata).into(),
            age(&self.metadata, now),
            info.kubelet_version.as_str().into(),
            address("InternalIP"),
            address("ExternalIP"),
            or_unknown(&info.os_image),
            or_unknown(&info.kernel_version),
            or_unknown(&info.container_runtime_version),
        ]
    }
}

/// The roles of a node are in its labels.
fn roles(meta: &ObjectMeta) -> String {
    let role = |(key, value): (&String, &String)| match key.strip_prefix("node-role.kubernetes.io/") {
        Some(role) => Some(role.to_owned()),
        None if key == "kubernetes.io/role" => Some(value.clone()),
        None => None,
    };
    let roles: BTreeSet<String> =
        meta.labels.iter().flatten().filter_map(role).filter(|role| !role.is_empty()).collect();
    if roles.is_empty() { "<none>".to_owned() } else { roles.into_iter().collect::<Vec<_>>().join(",") }
}

fn taints(errors: &mut Errors, taints: &[Taint], path: &Path) {
    let mut seen = BTreeSet::new();
    for (i, taint) in taints.iter().enumerate() {
        let at = path.index(i);
        qualified_name(errors, &at.child("key"), &taint.key);
        let found = name::label_value(text(&taint.value));
        if !found.is_empty() {
            errors.push(FieldError::invalid(&at.child("value"), text(&taint.value), found.join(";")));
        }
        taint_effect(errors, &taint.effect, &at.child("effect"));
        if !seen.insert((&taint.effect, &taint.key)) {
            let mut error = FieldError::duplicate(&at, BadValue::of(taint));
            error.detail = "taints must be unique by key and effect pair".to_owned();
            errors.push(error);
        }
    }
}

fn amounts(errors: &mut Errors, status: &NodeStatus) {
    for (field, amounts) in [("capacity", &status.capacity), ("allocatable", &status.allocatable)] {
        for (resource, text) in amounts.iter().flatten() {
            if let Some(amount) = Amount::of(text) {
                let at = Path::new("status").child(field).child(resource);
                resources::value(errors, resource, amount, &at);
            }
        }
    }
}

fn pod_cidrs(errors: &mut Errors, cidrs: &[String], path: &Path) {
    for (i, value) in cidrs.iter().enumerate() {
        cidr(errors, &path.index(i), value);
    }
    if cidrs.len() < 2 {
        return;
    }
    if !is_dual_stack(cidrs.iter().map(String::as_str)) || cidrs.len() > 2 {
        let detail = "may specify no more than one CIDR for each IP family";
        errors.push(FieldError::invalid(path, BadValue::of(&cidrs), detail));
    }
    let mut seen = BTreeSet::new();
    for (i, value) in cidrs.iter().enumerate() {
        if !seen.insert(value) {
            errors.push(FieldError::duplicate(&path.index(i), value));
        }
    }
}
