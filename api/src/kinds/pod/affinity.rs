//! Rules for where a pod may run: affinity, tolerations, topology spread.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::{
    api::core::v1::{
        Affinity, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodAffinityTerm,
        Toleration, TopologySpreadConstraint, WeightedPodAffinityTerm,
    },
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};

use crate::{
    field::{Errors, FieldError, Path},
    kinds::check::{list, one_of, problems, qualified_name, selector, text},
    name,
};

const EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];
const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

pub(super) fn validate(errors: &mut Errors, affinity: &Affinity, path: &Path) {
    if let Some(node) = &affinity.node_affinity {
        node_affinity(errors, node, &path.child("nodeAffinity"));
    }
    if let Some(pod) = &affinity.pod_affinity {
        let at = path.child("podAffinity");
        terms(errors, list(&pod.required_during_scheduling_ignored_during_execution), &at.child(REQUIRED));
        weighted(
            errors,
            list(&pod.preferred_during_scheduling_ignored_during_execution),
            &at.child(PREFERRED),
        );
    }
    if let Some(pod) = &affinity.pod_anti_affinity {
        let at = path.child("podAntiAffinity");
        terms(errors, list(&pod.required_during_scheduling_ignored_during_execution), &at.child(REQUIRED));
        weighted(
            errors,
            list(&pod.preferred_during_scheduling_ignored_during_execution),
            &at.child(PREFERRED),
        );
    }
}

fn node_affinity(errors: &mut Errors, affinity: &NodeAffinity, path: &Path) {
    if let Some(selector) = &affinity.required_during_scheduling_ignored_during_execution {
        node_selector(errors, selector, &path.child(REQUIRED));
    }
    let preferred = path.child(PREFERRED);
    for (i, term) in list(&affinity.preferred_during_scheduling_ignored_during_execution).iter().enumerate() {
        let at = preferred.index(i);
        weight(errors, term.weight, &at);
        // Values that no label can have are harmless where they are only preferred.
        node_term(errors, &term.preference, false, &at.child("preference"));
    }
}

fn weight(errors: &mut Errors, weight: i32, path: &Path) {
    if !(1..=100).contains(&weight) {
        errors.push(FieldError::invalid(&path.child("weight"), weight, "must be in the range 1-100"));
    }
}

/// A node selector.
pub(crate) fn node_selector(errors: &mut Errors, selector: &NodeSelector, path: &Path) {
    let at = path.child("nodeSelectorTerms");
    if selector.node_selector_terms.is_empty() {
        errors.push(FieldError::required(&at, "must have at least one node selector term"));
    }
    for (i, term) in selector.node_selector_terms.iter().enumerate() {
        node_term(errors, term, true, &at.index(i));
    }
}

fn node_term(errors: &mut Errors, term: &NodeSelectorTerm, check_values: bool, path: &Path) {
    for (i, requirement) in list(&term.match_expressions).iter().enumerate() {
        node_requirement(errors, requirement, check_values, &path.child("matchExpressions").index(i));
    }
    for (i, requirement) in list(&term.match_fields).iter().enumerate() {
        field_requirement(errors, requirement, &path.child("matchFields").index(i));
    }
}

fn node_requirement(
    errors: &mut Errors,
    requirement: &NodeSelectorRequirement,
    check_values: bool,
    path: &Path,
) {
    let values = list(&requirement.values);
    let at = path.child("values");
    match requirement.operator.as_str() {
        "In" | "NotIn" => {
            if values.is_empty() {
                errors
                    .push(FieldError::required(&at, "must be specified when `operator` is 'In' or 'NotIn'"));
            }
        }
        "Exists" | "DoesNotExist" => {
            if !values.is_empty() {
                let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                errors.push(FieldError::forbidden(&at, detail));
            }
        }
        "Gt" | "Lt" => {
            if values.len() != 1 {
                let detail = "must be specified single value when `operator` is 'Lt' or 'Gt'";
                errors.push(FieldError::required(&at, detail));
            }
        }
        other => {
            errors.push(FieldError::invalid(&path.child("operator"), other, "not a valid selector operator"));
        }
    }
    qualified_name(errors, &path.child("key"), &requirement.key);
    if check_values {
        for (i, value) in values.iter().enumerate() {
            problems(errors, &at.index(i), value, name::label_value(value));
        }
    }
}

fn field_requirement(errors: &mut Errors, requirement: &NodeSelectorRequirement, path: &Path) {
    let values = list(&requirement.values);
    match requirement.operator.as_str() {
        "In" | "NotIn" => {
            if values.len() != 1 {
                let detail =
                    "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
                errors.push(FieldError::required(&path.child("values"), detail));
            }
        }
        other => {
            errors.push(FieldError::invalid(&path.child("operator"), other, "not a valid selector operator"));
        }
    }
    if requirement.key != "metadata.name" {
        let detail = "not a valid field selector key";
        errors.push(FieldError::invalid(&path.child("key"), &requirement.key, detail));
        return;
    }
    for (i, value) in values.iter().enumerate() {
        problems(errors, &path.child("values").index(i), value, name::dns1123_subdomain(value));
    }
}

fn terms(errors: &mut Errors, terms: &[PodAffinityTerm], path: &Path) {
    for (i, term) in terms.iter().enumerate() {
        pod_term(errors, term, &path.index(i));
    }
}

fn weighted(errors: &mut Errors, terms: &[WeightedPodAffinityTerm], path: &Path) {
    for (i, term) in terms.iter().enumerate() {
        let at = path.index(i);
        weight(errors, term.weight, &at);
        pod_term(errors, &term.pod_affinity_term, &at.child("podAffinityTerm"));
    }
}

fn pod_term(errors: &mut Errors, term: &PodAffinityTerm, path: &Path) {
    selector(errors, &path.child("labelSelector"), term.label_selector.as_ref());
    selector(errors, &path.child("namespaceSelector"), term.namespace_selector.as_ref());
    for namespace in list(&term.namespaces) {
        problems(errors, &path.child("namespace"), namespace, name::dns1123_label(namespace));
    }
    term_keys(errors, term, path);
    let at = path.child("topologyKey");
    if term.topology_key.is_empty() {
        errors.push(FieldError::required(&at, "can not be empty"));
    }
    qualified_name(errors, &at, &term.topology_key);
}

fn term_keys(errors: &mut Errors, term: &PodAffinityTerm, path: &Path) {
    let (keys, others) = (list(&term.match_label_keys), list(&term.mismatch_label_keys));
    for (field, keys) in [("matchLabelKeys", keys), ("mismatchLabelKeys", others)] {
        let at = path.child(field);
        if !keys.is_empty() && term.label_selector.is_none() {
            errors.push(FieldError::forbidden(&at, "must not be specified when labelSelector is not set"));
            continue;
        }
        for (i, key) in keys.iter().enumerate() {
            qualified_name(errors, &at.index(i), key);
        }
    }
    if let Some(selector) = &term.label_selector {
        // Creation has merged the keys into the selector; what is there a second time came from the user.
        let mut seen: BTreeSet<&String> = selector.match_labels.iter().flatten().map(|(k, _)| k).collect();
        // The first place of each key.
        let places: BTreeMap<&String, usize> =
            keys.iter().enumerate().rev().map(|(i, key)| (key, i)).collect();
        for expression in list(&selector.match_expressions) {
            let again = !seen.insert(&expression.key);
            if let Some(i) = places.get(&expression.key).filter(|_| again) {
                let detail = "exists in both matchLabelKeys and labelSelector";
                errors.push(FieldError::invalid(&path.index(*i), &expression.key, detail));
            }
        }
    }
    let others: BTreeSet<&String> = others.iter().collect();
    for (i, key) in keys.iter().enumerate().filter(|(_, key)| others.contains(key)) {
        let detail = "exists in both matchLabelKeys and mismatchLabelKeys";
        errors.push(FieldError::invalid(&path.child("matchLabelKeys").index(i), key, detail));
    }
}

/// What a pod tolerates.
pub(crate) fn validate_tolerations(errors: &mut Errors, tolerations: &[Toleration], path: &Path) {
    for (i, toleration) in tolerations.iter().enumerate() {
        let at = path.index(i);
        let operator_at = at.child("operator");
        let (key, operator) = (text(&toleration.key), text(&toleration.operator));
        let (value, effect) = (text(&toleration.value), text(&toleration.effect));
        if !key.is_empty() {
            qualified_name(errors, &at.child("key"), key);
        } else if operator != "Exists" {
            let detail =
                "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            errors.push(FieldError::invalid(&operator_at, operator, detail));
        }
        if toleration.toleration_seconds.is_some() && effect != "NoExecute" {
            let detail = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            errors.push(FieldError::invalid(&at.child("effect"), effect, detail));
        }
        match operator {
            "" | "Equal" => {
                let found = name::label_value(value);
                if !found.is_empty() {
                    errors.push(FieldError::invalid(&operator_at, value, found.join(";")));
                }
            }
            "Exists" => {
                if !value.is_empty() {
                    let detail = "value must be empty when `operator` is 'Exists'";
                    errors.push(FieldError::invalid(&operator_at, value, detail));
                }
            }
            other => one_of(errors, &operator_at, other, &["Equal", "Exists"]),
        }
        if !effect.is_empty() {
            one_of(errors, &at.child("effect"), effect, EFFECTS);
        }
    }
}

/// The effect of a taint.
pub(crate) fn taint_effect(errors: &mut Errors, effect: &str, path: &Path) {
    crate::kinds::check::required_one_of(errors, path, effect, EFFECTS);
}

/// How a pod is spread over domains.
pub(super) fn validate_spread(errors: &mut Errors, constraints: &[TopologySpreadConstraint], path: &Path) {
    let pair = |of: &TopologySpreadConstraint| (of.topology_key.clone(), of.when_unsatisfiable.clone());
    let mut later: BTreeMap<(String, String), usize> = BTreeMap::new();
    for constraint in constraints {
        *later.entry(pair(constraint)).or_default() += 1;
    }
    for (i, constraint) in constraints.iter().enumerate() {
        let at = path.index(i);
        if constraint.max_skew <= 0 {
            let detail = "must be greater than zero";
            errors.push(FieldError::invalid(&at.child("maxSkew"), constraint.max_skew, detail));
        }
        if constraint.topology_key.is_empty() {
            errors.push(FieldError::required(&at.child("topologyKey"), "can not be empty"));
        }
        let action = constraint.when_unsatisfiable.as_str();
        one_of(errors, &at.child("whenUnsatisfiable"), action, &["DoNotSchedule", "ScheduleAnyway"]);
        let count = later.entry(pair(constraint)).or_default();
        *count = count.saturating_sub(1);
        if *count > 0 {
            let at = at.child("{topologyKey, whenUnsatisfiable}");
            errors.push(FieldError::duplicate(&at, format!("{{{}, {action}}}", constraint.topology_key)));
        }
        if let Some(domains) = constraint.min_domains {
            let at = at.child("minDomains");
            if domains <= 0 {
                errors.push(FieldError::invalid(&at, domains, "must be greater than zero"));
            }
            if action != "DoNotSchedule" {
                let detail =
                    format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}");
                errors.push(FieldError::invalid(&at, domains, detail));
            }
        }
        for (field, policy) in [
            ("nodeAffinityPolicy", &constraint.node_affinity_policy),
            ("nodeTaintsPolicy", &constraint.node_taints_policy),
        ] {
            if let Some(policy) = policy {
                one_of(errors, &at.child(field), policy, &["Honor", "Ignore"]);
            }
        }
        let keys = list(&constraint.match_label_keys);
        spread_keys(errors, keys, constraint.label_selector.as_ref(), &at.child("matchLabelKeys"));
        selector(errors, &at.child("labelSelector"), constraint.label_selector.as_ref());
    }
}

fn spread_keys(errors: &mut Errors, keys: &[String], selector: Option<&LabelSelector>, path: &Path) {
    if keys.is_empty() {
        return;
    }
    let Some(selector) = selector else {
        errors.push(FieldError::forbidden(path, "must not be specified when labelSelector is not set"));
        return;
    };
    let mut counts: BTreeMap<&String, u32> = BTreeMap::new();
    for (key, _) in selector.match_labels.iter().flatten() {
        *counts.entry(key).or_default() += 1;
    }
    for expression in list(&selector.match_expressions) {
        *counts.entry(&expression.key).or_default() += 1;
    }
    for (i, key) in keys.iter().enumerate() {
        qualified_name(errors, &path.index(i), key);
        // Once: creation merged the key into the selector.
        if counts.get(key).is_some_and(|n| *n > 1) {
            let detail = "exists in both matchLabelKeys and labelSelector";
            errors.push(FieldError::invalid(&path.index(i), key, detail));
        }
    }
}
