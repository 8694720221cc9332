//! The rules of policy/v1 PodDisruptionBudget.

use jiff::Timestamp;
use k8s_openapi::{
    api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus},
    apimachinery::pkg::util::intstr::IntOrString,
};
use serde_json::Value;

use super::{
    cells::age,
    check::{
        at_most_100_percent, generation, int_or_percent, nonnegative, one_of, same, selector,
        selector_is_empty,
    },
    role,
};
use crate::{
    field::{BadValue, Errors, FieldError, Path},
    name::NameRule,
    object::{Kind, name_cell},
    resource::Column,
};

impl Kind for PodDisruptionBudget {
    const NAME: Option<NameRule> = Some(role::any_path_segment);
    const UNCONDITIONAL_UPDATE: bool = false;
    const COLUMNS: &'static [Column] = &[
        Column::name(),
        Column::text("Min Available").about("The minimum number of pods that must be available."),
        Column::text("Max Unavailable").about("The maximum number of pods that may be unavailable."),
        Column::integer("Allowed Disruptions")
            .about("Calculated number of pods that may be disrupted at this time."),
        Column::age(),
    ];

    fn set_defaults(&mut self) {
        self.spec.get_or_insert_default();
        zeros(self.status.get_or_insert_default());
    }

    fn prepare_create(&mut self) {
        zeros(self.status.insert(PodDisruptionBudgetStatus::default()));
        self.metadata.generation = Some(1);
    }

    fn prepare_update(&mut self, old: &Self) {
        self.status.clone_from(&old.status);
        generation(&mut self.metadata, &old.metadata, !same(&self.spec, &old.spec));
    }

    fn prepare_status(&mut self, old: &Self) {
        self.spec.clone_from(&old.spec);
        self.metadata.generation = old.metadata.generation;
    }

    fn validate(&self) -> Errors {
        let mut errors = Errors::new();
        let Some(spec) = &self.spec else { return errors };
        let path = Path::new("spec");
        if spec.min_available.is_some() && spec.max_unavailable.is_some() {
            let detail = "minAvailable and maxUnavailable cannot be both set";
            errors.push(FieldError::invalid(&path, BadValue::of(spec), detail));
        }
        for (field, value) in
            [("minAvailable", &spec.min_available), ("maxUnavailable", &spec.max_unavailable)]
        {
            if let Some(value) = value {
                int_or_percent(&mut errors, &path.child(field), value);
                at_most_100_percent(&mut errors, &path.child(field), value);
            }
        }
        selector(&mut errors, &path.child("selector"), spec.selector.as_ref());
        if let Some(policy) = &spec.unhealthy_pod_eviction_policy {
            let at = path.child("unhealthyPodEvictionPolicy");
            one_of(&mut errors, &at, policy, &["AlwaysAllow", "IfHealthyBudget"]);
        }
        errors
    }

    fn validate_status(&self, _old: &Self) -> Errors {
        let mut errors = Errors::new();
        let Some(status) = &self.status else { return errors };
        let path = Path::new("status");
        for (field, value) in [
            ("disruptionsAllowed", status.disruptions_allowed),
            ("currentHealthy", status.current_healthy),
            ("desiredHealthy", status.desired_healthy),
            ("expectedPods", status.expected_pods),
        ] {
            nonnegative(&mut errors, &path.child(field), value);
        }
        errors
    }

    fn warnings(&self, _old: Option<&Self>) -> Vec<String> {
        let selector = self.spec.as_ref().and_then(|s| s.selector.as_ref());
        if selector.is_some_and(selector_is_empty) {
            return vec![
                "spec.selector: an empty spec.selector matches all pods in the namespace (v1beta1 behavior matched no \
                 pods)"
                    .to_owned(),
            ];
        }
        Vec::new()
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        let shown = |value: Option<&IntOrString>| match value {
            Some(IntOrString::Int(number)) => number.to_string(),
            Some(IntOrString::String(text)) => text.clone(),
            None => "N/A".to_owned(),
        };
        let spec = self.spec.as_ref();
        vec![
            name_cell(&self.metadata),
            shown(spec.and_then(|s| s.min_available.as_ref())).into(),
            shown(spec.and_then(|s| s.max_unavailable.as_ref())).into(),
            self.status.as_ref().and_then(|s| s.disruptions_allowed).unwrap_or_default().into(),
            age(&self.metadata, now),
        ]
    }
}

/// Counts that are always written.
fn zeros(status: &mut PodDisruptionBudgetStatus) {
    status.current_healthy.get_or_insert(0);
    status.desired_healthy.get_or_insert(0);
    status.disruptions_allowed.get_or_insert(0);
    status.expected_pods.get_or_insert(0);
}
