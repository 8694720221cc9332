//! Scopes: which pods and claims a quota is about.

use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, Pod, PodAffinityTerm, ResourceQuota, ScopedResourceSelectorRequirement,
};

use crate::kinds::{list, qos_class};

/// All scopes of a quota, of both fields.
pub(super) fn of(quota: &ResourceQuota) -> Vec<ScopedResourceSelectorRequirement> {
    let Some(spec) = &quota.spec else { return Vec::new() };
    let plain = list(&spec.scopes).iter().map(|scope| ScopedResourceSelectorRequirement {
        scope_name: scope.clone(),
        operator: "Exists".to_owned(),
        values: None,
    });
    let selected = spec.scope_selector.iter().flat_map(|selector| list(&selector.match_expressions));
    plain.chain(selected.cloned()).collect()
}

/// Whether one of the names is selected; without names, what asks for none.
fn selects(scope: &ScopedResourceSelectorRequirement, names: &[&str]) -> bool {
    let listed = |name: &&&str| list(&scope.values).iter().any(|value| value == **name);
    match scope.operator.as_str() {
        "Exists" => !names.is_empty(),
        "DoesNotExist" => names.is_empty(),
        "In" => names.iter().any(|name| listed(&name)),
        "NotIn" => names.is_empty() || names.iter().any(|name| !listed(&name)),
        _ => false,
    }
}

pub(super) fn has_pod(scope: &ScopedResourceSelectorRequirement, pod: &Pod) -> bool {
    let Some(spec) = &pod.spec else { return false };
    let ends = spec.active_deadline_seconds.is_some_and(|seconds| seconds >= 0);
    let best_effort = qos_class(spec) == "BestEffort";
    match scope.scope_name.as_str() {
        "Terminating" => ends,
        "NotTerminating" => !ends,
        "BestEffort" => best_effort,
        "NotBestEffort" => !best_effort,
        "PriorityClass" => {
            let class = spec.priority_class_name.as_deref().filter(|class| !class.is_empty());
            selects(scope, &class.into_iter().collect::<Vec<_>>())
        }
        "CrossNamespacePodAffinity" => looks_elsewhere(pod),
        _ => false,
    }
}

/// Whether a pod looks at pods of other namespaces to find its node.
fn looks_elsewhere(pod: &Pod) -> bool {
    let elsewhere =
        |term: &PodAffinityTerm| !list(&term.namespaces).is_empty() || term.namespace_selector.is_some();
    let Some(affinity) = pod.spec.as_ref().and_then(|spec| spec.affinity.as_ref()) else { return false };
    let near = affinity.pod_affinity.iter().any(|near| {
        list(&near.required_during_scheduling_ignored_during_execution).iter().any(elsewhere)
            || list(&near.preferred_during_scheduling_ignored_during_execution)
                .iter()
                .any(|term| elsewhere(&term.pod_affinity_term))
    });
    near || affinity.pod_anti_affinity.iter().any(|far| {
        list(&far.required_during_scheduling_ignored_during_execution).iter().any(elsewhere)
            || list(&far.preferred_during_scheduling_ignored_during_execution)
                .iter()
                .any(|term| elsewhere(&term.pod_affinity_term))
    })
}

pub(super) fn has_claim(scope: &ScopedResourceSelectorRequirement, claim: &PersistentVolumeClaim) -> bool {
    if scope.scope_name != "VolumeAttributesClass" {
        return false;
    }
    let (spec, status) = (claim.spec.as_ref(), claim.status.as_ref());
    let names: Vec<&str> = [
        spec.and_then(|spec| spec.volume_attributes_class_name.as_deref()),
        status.and_then(|status| status.current_volume_attributes_class_name.as_deref()),
        status
            .and_then(|status| status.modify_volume_status.as_ref())
            .and_then(|modify| modify.target_volume_attributes_class_name.as_deref()),
    ]
    .into_iter()
    .flatten()
    .filter(|name| !name.is_empty())
    .collect();
    selects(scope, &names)
}
