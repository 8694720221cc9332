//! The rules of core/v1 ResourceQuota.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ResourceQuota, ResourceQuotaSpec, ResourceQuotaStatus, ScopeSelector, ScopedResourceSelectorRequirement,
};
use serde_json::Value;

use super::{
    amount::{Amount, Amounts, canonical_list},
    cells::age,
    check::list,
    pod::resources,
};
use crate::{
    field::{BadValue, Errors, FieldError, Path, Whole},
    object::{Kind, name_cell},
    resource::Column,
};

const SCOPES: [&str; 7] = [
    "Terminating",
    "NotTerminating",
    "BestEffort",
    "NotBestEffort",
    "PriorityClass",
    "CrossNamespacePodAffinity",
    "VolumeAttributesClass",
];
/// Scopes that a pod either has or has not.
const PLAIN_SCOPES: [&str; 5] =
    ["BestEffort", "NotBestEffort", "Terminating", "NotTerminating", "CrossNamespacePodAffinity"];
const COMPUTE: [&str; 6] =
    ["cpu", "memory", "limits.cpu", "limits.memory", "requests.cpu", "requests.memory"];

impl Kind for ResourceQuota {
    const RETURNS_DELETED: bool = true;
    const COLUMNS: &'static [Column] = &[
        Column::name(),
        Column::text("Request").about(
            "Request represents a minimum amount of cpu/memory that a container may consume.",
        ),
        Column::text("Limit").about(
            "Limits control the maximum amount of cpu/memory that a container may use independent of contention on the \
             node.",
        ),
        Column::age(),
    ];

    fn set_defaults(&mut self) {
        canonical_list(&mut self.spec.get_or_insert_default().hard);
        let status = self.status.get_or_insert_default();
        canonical_list(&mut status.hard);
        canonical_list(&mut status.used);
    }

    fn prepare_create(&mut self) {
        self.status = Some(ResourceQuotaStatus::default());
    }

    fn prepare_update(&mut self, old: &Self) {
        self.status.clone_from(&old.status);
    }

    fn prepare_status(&mut self, old: &Self) {
        self.spec.clone_from(&old.spec);
    }

    fn validate(&self) -> Errors {
        let mut errors = Errors::new();
        let empty = ResourceQuotaSpec::default();
        let spec = self.spec.as_ref().unwrap_or(&empty);
        let path = Path::new("spec");
        amounts(&mut errors, spec.hard.as_ref(), &path.child("hard"));
        scopes(&mut errors, spec, &path.child("scopes"));
        if let Some(selector) = &spec.scope_selector {
            scope_selector(
                &mut errors,
                spec,
                selector,
                &path.child("scopeSelector").child("matchExpressions"),
            );
        }
        errors
    }

    fn validate_update(&self, old: &Self) -> Errors {
        let mut errors = self.validate();
        let scopes = |quota: &Self| -> BTreeSet<String> {
            quota.spec.iter().flat_map(|spec| list(&spec.scopes)).cloned().collect()
        };
        if scopes(self) != scopes(old) {
            let given = self.spec.as_ref().and_then(|spec| spec.scopes.clone());
            let at = Path::new("spec").child("scopes");
            errors.push(FieldError::invalid(&at, BadValue::of(&given), "field is immutable"));
        }
        errors
    }

    fn validate_status(&self, _old: &Self) -> Errors {
        let mut errors = Errors::new();
        if let Some(status) = &self.status {
            let path = Path::new("status");
            amounts(&mut errors, status.hard.as_ref(), &path.child("hard"));
            amounts(&mut errors, status.used.as_ref(), &path.child("used"));
        }
        errors
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        let status = self.status.as_ref();
        let used = status.and_then(|status| status.used.as_ref());
        let (mut requests, mut limits) = (Vec::new(), Vec::new());
        for (resource, hard) in status.and_then(|status| status.hard.as_ref()).into_iter().flatten() {
            let shown = |text| Amount::of(text).map_or_else(|| "0".to_owned(), |amount| amount.to_string());
            let used = used.and_then(|used| used.get(resource)).map_or_else(|| "0".to_owned(), shown);
            let column = if resource.starts_with("limits.") { &mut limits } else { &mut requests };
            column.push(format!("{resource}: {used}/{}", shown(hard)));
        }
        vec![
            name_cell(&self.metadata),
            requests.join(", ").into(),
            limits.join(", ").into(),
            age(&self.metadata, now),
        ]
    }
}

fn amounts(errors: &mut Errors, given: Option<&Amounts>, path: &Path) {
    for (resource, text) in given.into_iter().flatten() {
        let at = path.key(resource);
        resources::standard_name(errors, resource, &at);
        if !resource.contains('/') && !resources::is_standard_for_quota(resource) {
            let detail = "must be a standard resource for quota";
            errors.push(FieldError::invalid(&at, resource, detail));
        }
        if let Some(amount) = Amount::of(text) {
            resources::value(errors, resource, amount, &at);
        }
    }
}

/// Whether pods of a scope can have the resource at all.
fn is_valid_for(scope: &str, resource: &str) -> bool {
    match scope {
        "Terminating"
        | "NotTerminating"
        | "NotBestEffort"
        | "PriorityClass"
        | "CrossNamespacePodAffinity" => resource == "pods" || COMPUTE.contains(&resource),
        "BestEffort" => resource == "pods",
        "VolumeAttributesClass" => matches!(resource, "persistentvolumeclaims" | "requests.storage"),
        _ => true,
    }
}

/// How many of the limits are for resources that a scope does not have, for each scope that was asked about.
struct Misfits<'a> {
    spec: &'a ResourceQuotaSpec,
    known: BTreeMap<&'a str, usize>,
}

impl<'a> Misfits<'a> {
    fn new(spec: &'a ResourceQuotaSpec) -> Self {
        Self { spec, known: BTreeMap::new() }
    }

    fn of(&mut self, scope: &'a str) -> usize {
        // Scopes without a restriction fit all resources, whatever their name is.
        if !SCOPES.contains(&scope) {
            return 0;
        }
        let resources = self.spec.hard.iter().flatten().map(|(resource, _)| resource);
        let misfit = |r: &&String| resources::is_standard_for_quota(r) && !is_valid_for(scope, r);
        *self.known.entry(scope).or_insert_with(|| resources.filter(misfit).count())
    }
}

fn contradict(scopes: &BTreeSet<&str>) -> usize {
    let pairs = [["BestEffort", "NotBestEffort"], ["Terminating", "NotTerminating"]];
    pairs.iter().filter(|pair| pair.iter().all(|scope| scopes.contains(scope))).count()
}

fn scopes(errors: &mut Errors, spec: &ResourceQuotaSpec, path: &Path) {
    let given = list(&spec.scopes);
    let mut whole = Whole::new(BadValue::of(&given));
    let mut refuse = |detail: &str| whole.invalid(errors, path, detail);
    let mut misfits = Misfits::new(spec);
    for scope in given {
        if !SCOPES.contains(&scope.as_str()) {
            refuse("unsupported scope");
        }
        for _ in 0..misfits.of(scope) {
            if !refuse("unsupported scope applied to resource") {
                break;
            }
        }
    }
    for _ in 0..contradict(&given.iter().map(String::as_str).collect()) {
        refuse("conflicting scopes");
    }
}

fn scope_selector(errors: &mut Errors, spec: &ResourceQuotaSpec, selector: &ScopeSelector, path: &Path) {
    let requirements = list(&selector.match_expressions);
    let mut whole = Whole::new(BadValue::of(selector));
    let mut misfits = Misfits::new(spec);
    for requirement in requirements {
        let scope = requirement.scope_name.as_str();
        if !SCOPES.contains(&scope) {
            errors.push(FieldError::invalid(&path.child("scopeName"), scope, "unsupported scope"));
        }
        for _ in 0..misfits.of(scope) {
            if !whole.invalid(errors, path, "unsupported scope applied to resource") {
                break;
            }
        }
        scope_requirement(errors, requirement, path);
    }
    for _ in 0..contradict(&requirements.iter().map(|r| r.scope_name.as_str()).collect()) {
        errors.push(FieldError::invalid(path, BadValue::of(&spec.scopes), "conflicting scopes"));
    }
}

fn scope_requirement(errors: &mut Errors, requirement: &ScopedResourceSelectorRequirement, path: &Path) {
    let operator = requirement.operator.as_str();
    let values = list(&requirement.values);
    if PLAIN_SCOPES.contains(&requirement.scope_name.as_str()) && operator != "Exists" {
        let detail = "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, \
                      ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or \
                      ResourceQuotaScopeCrossNamespacePodAffinity";
        errors.push(FieldError::invalid(&path.child("operator"), operator, detail));
    }
    match operator {
        "In" | "NotIn" => {
            if values.is_empty() {
                let detail =
                    "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector";
                errors.push(FieldError::required(&path.child("values"), detail));
            }
        }
        "Exists" | "DoesNotExist" => {
            if !values.is_empty() {
                let detail =
                    "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector";
                errors.push(FieldError::invalid(&path.child("values"), BadValue::of(&values), detail));
            }
        }
        _ => {
            let at = path.child("operator");
            errors.push(FieldError::invalid(&at, operator, "not a valid selector operator"));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn quota(spec: Value) -> ResourceQuota {
        let value = json!({"metadata": {"name": "q", "namespace": "n"}, "spec": spec});
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_quota_is_checked_in_upstreams_words() {
        for (spec, wanted) in [
            (
                json!({"hard": {"pods": "10", "requests.cpu": "4", "count/deployments.apps": "2"}, "scopes": ["NotTerminating"]}),
                "",
            ),
            (
                json!({"hard": {"requests.example.org/gpu": "1", "gold.storageclass.storage.k8s.io/requests.storage": "1Gi"}}),
                "",
            ),
            (
                json!({"hard": {"bogus": "1"}}),
                "spec.hard[bogus]: Invalid value: \"bogus\": must be a standard resource type or fully qualified; \
                 spec.hard[bogus]: Invalid value: \"bogus\": must be a standard resource for quota",
            ),
            (
                json!({"hard": {"pods": "-1"}}),
                "spec.hard[pods]: Invalid value: \"-1\": must be greater than or equal to 0",
            ),
            (
                json!({"hard": {"pods": "1500m"}}),
                "spec.hard[pods]: Invalid value: \"1500m\": must be an integer",
            ),
            (json!({"scopes": ["x"]}), "spec.scopes: Invalid value: [\"x\"]: unsupported scope"),
            (
                json!({"hard": {"cpu": "1"}, "scopes": ["BestEffort"]}),
                "spec.scopes: Invalid value: [\"BestEffort\"]: unsupported scope applied to resource",
            ),
            (
                json!({"scopes": ["BestEffort", "NotBestEffort"]}),
                "spec.scopes: Invalid value: [\"BestEffort\",\"NotBestEffort\"]: conflicting scopes",
            ),
            (
                json!({"scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "In"}]}}),
                "spec.scopeSelector.matchExpressions.values: Required value: must be at least one value when `operator` is \
                 'In' or 'NotIn' for scope selector",
            ),
        ] {
            let found = quota(spec).validate();
            assert_eq!(found.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "), wanted);
        }
    }

    #[test]
    fn scopes_stay() {
        let old = quota(json!({"scopes": ["Terminating", "BestEffort"]}));
        assert!(quota(json!({"scopes": ["BestEffort", "Terminating"]})).validate_update(&old).is_empty());
        assert_eq!(quota(json!({"scopes": ["BestEffort"]})).validate_update(&old).len(), 1);
    }

    #[test]
    fn what_is_used_is_shown_beside_what_may_be() {
        let value = json!({
            "metadata": {"name": "q"},
            "status": {
                "hard": {"pods": "10", "limits.cpu": "4", "requests.cpu": "2000m"},
                "used": {"pods": "1", "limits.cpu": "500m"}
            }
        });
        let quota: ResourceQuota = serde_json::from_value(value).unwrap();
        let cells = quota.cells(Timestamp::UNIX_EPOCH);
        assert_eq!(cells[1], "pods: 1/10, requests.cpu: 0/2");
        assert_eq!(cells[2], "limits.cpu: 500m/4");
    }
}
