//! The rules of autoscaling/v2 HorizontalPodAutoscaler, and of autoscaling/v1, which is another view of the same.

pub(super) mod conversion;
mod metrics;
mod v1;

use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::{
    CrossVersionObjectReference, HPAScalingPolicy, HPAScalingRules, HorizontalPodAutoscaler,
    HorizontalPodAutoscalerSpec, HorizontalPodAutoscalerStatus, MetricSpec, MetricTarget,
    ResourceMetricSource,
};
use serde_json::Value;

use super::{
    amount::{Amount, canonical},
    cells::age,
    check::{list, nonnegative, one_of, problems, text},
};
use crate::{
    field::{Errors, FieldError, Path},
    name,
    object::{Kind, Null, name_cell},
    resource::Column,
    schema::given::{Given, Way},
};

const LONGEST_WINDOW: i32 = 3600;
const LONGEST_PERIOD: i32 = 1800;

/// Both versions show the same.
const COLUMNS: &[Column] = &[
    Column::name(),
    Column::text("Reference").about(
        "scaleTargetRef points to the target resource to scale, and is used to the pods for which metrics should be \
         collected, as well as to actually change the replica count.",
    ),
    Column::text("Targets").about(
        "metrics contains the specifications for which to use to calculate the desired replica count (the maximum \
         replica count across all metrics will be used).  The desired replica count is calculated multiplying the ratio \
         between the target value and the current value by the current number of pods.  Ergo, metrics used must decrease \
         as the pod count is increased, and vice-versa.  See the individual metric source types for more information \
         about how each type of metric must respond. If not set, the default metric will be set to 80% average CPU \
         utilization.",
    ),
    Column::text("MinPods").about(
        "minReplicas is the lower limit for the number of replicas to which the autoscaler can scale down.  It defaults \
         to 1 pod.  minReplicas is allowed to be 0 if the alpha feature gate HPAScaleToZero is enabled and at least one \
         Object or External metric is configured.  Scaling is active as long as at least one metric value is available.",
    ),
    Column::text("MaxPods").about(
        "maxReplicas is the upper limit for the number of replicas to which the autoscaler can scale up. It cannot be \
         less that minReplicas.",
    ),
    Column::text("Replicas").about(
        "currentReplicas is current number of replicas of pods managed by this autoscaler, as last seen by the \
         autoscaler.",
    ),
    Column::age(),
];

impl Kind for HorizontalPodAutoscaler {
    const GIVEN: &'static [Given] =
        &[("spec.behavior.scaleUp.policies", Way::Kept), ("spec.behavior.scaleDown.policies", Way::Kept)];
    const NULLS: &'static [Null<Self>] = &[("status.currentMetrics", |it| {
        it.status.as_ref().is_some_and(|status| status.current_metrics.is_none())
    })];
    const COLUMNS: &'static [Column] = COLUMNS;

    fn set_defaults(&mut self) {
        // They are v1's way to say what has fields here.
        conversion::drop_annotations(&mut self.metadata);
        let spec = &mut self.spec;
        spec.min_replicas.get_or_insert(1);
        if list(&spec.metrics).is_empty() {
            spec.metrics = Some(vec![average_cpu(80)]);
        }
        for metric in spec.metrics.iter_mut().flatten() {
            for target in targets(metric) {
                target.value.iter_mut().chain(&mut target.average_value).for_each(canonical);
            }
        }
        if let Some(behavior) = &mut spec.behavior {
            let (pods, percent) = (("Pods", 4), ("Percent", 100));
            rules(behavior.scale_up.get_or_insert_default(), Some(0), &[pods, percent]);
            rules(behavior.scale_down.get_or_insert_default(), None, &[percent]);
        }
        self.status.get_or_insert_default();
    }

    fn prepare_create(&mut self) {
        self.status = Some(HorizontalPodAutoscalerStatus::default());
    }

    fn prepare_update(&mut self, old: &Self) {
        self.status.clone_from(&old.status);
    }

    fn prepare_status(&mut self, old: &Self) {
        self.spec.clone_from(&old.spec);
    }

    fn validate(&self) -> Errors {
        validate_spec(&self.spec, None)
    }

    fn validate_update(&self, old: &Self) -> Errors {
        validate_spec(&self.spec, Some(&old.spec))
    }

    fn validate_status(&self, _old: &Self) -> Errors {
        let mut errors = Errors::new();
        let Some(status) = &self.status else { return errors };
        let at = Path::new("status");
        nonnegative(&mut errors, &at.child("currentReplicas"), status.current_replicas);
        nonnegative(&mut errors, &at.child("desiredReplicas"), Some(status.desired_replicas));
        errors
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        let (spec, target) = (&self.spec, &self.spec.scale_target_ref);
        let empty = HorizontalPodAutoscalerStatus::default();
        let status = self.status.as_ref().unwrap_or(&empty);
        vec![
            name_cell(&self.metadata),
            format!("{}/{}", target.kind, target.name).into(),
            metrics::shown(list(&spec.metrics), list(&status.current_metrics)).into(),
            spec.min_replicas.map_or_else(|| "<unset>".to_owned(), |min| min.to_string()).into(),
            spec.max_replicas.into(),
            status.current_replicas.unwrap_or_default().into(),
            age(&self.metadata, now),
        ]
    }
}

/// The metric of an autoscaler that is given none.
fn average_cpu(percent: i32) -> MetricSpec {
    let target = MetricTarget {
        type_: "Utilization".to_owned(),
        average_utilization: Some(percent),
        ..MetricTarget::default()
    };
    let resource = ResourceMetricSource { name: "cpu".to_owned(), target };
    MetricSpec { type_: "Resource".to_owned(), resource: Some(resource), ..MetricSpec::default() }
}

fn targets(metric: &mut MetricSpec) -> impl Iterator<Item = &mut MetricTarget> {
    let object = metric.object.as_mut().map(|source| &mut source.target);
    let pods = metric.pods.as_mut().map(|source| &mut source.target);
    let resource = metric.resource.as_mut().map(|source| &mut source.target);
    let container = metric.container_resource.as_mut().map(|source| &mut source.target);
    let external = metric.external.as_mut().map(|source| &mut source.target);
    [object, pods, resource, container, external].into_iter().flatten()
}

/// What was left out of rules for one direction.
fn rules(rules: &mut HPAScalingRules, window: Option<i32>, policies: &[(&str, i32)]) {
    rules.select_policy.get_or_insert_with(|| "Max".to_owned());
    rules.stabilization_window_seconds = rules.stabilization_window_seconds.or(window);
    let policy = |&(type_, value): &(&str, i32)| HPAScalingPolicy {
        type_: type_.to_owned(),
        value,
        period_seconds: 15,
    };
    rules.policies.get_or_insert_with(|| policies.iter().map(policy).collect());
    rules.tolerance.iter_mut().for_each(canonical);
}

fn validate_spec(spec: &HorizontalPodAutoscalerSpec, old: Option<&HorizontalPodAutoscalerSpec>) -> Errors {
    let mut errors = Errors::new();
    let path = Path::new("spec");
    let lowest = i32::from(old.is_none_or(|old| old.min_replicas != Some(0)));
    let (min, max) = (spec.min_replicas, spec.max_replicas);
    if let Some(min) = min.filter(|min| *min < lowest) {
        let detail = format!("must be greater than or equal to {lowest}");
        errors.push(FieldError::invalid(&path.child("minReplicas"), min, detail));
    }
    let at = path.child("maxReplicas");
    if max == 0 {
        errors.push(FieldError::required(&at, "must be set and greater than 0"));
    } else if max < 0 {
        errors.push(FieldError::invalid(&at, max, "must be greater than 0"));
    }
    if min.is_some_and(|min| max < min) {
        errors.push(FieldError::invalid(&at, max, "must be greater than or equal to `minReplicas`"));
    }
    scale_target(&mut errors, &spec.scale_target_ref, old, &path.child("scaleTargetRef"));
    metrics::validate(&mut errors, spec, old, &path.child("metrics"));
    if let Some(behavior) = &spec.behavior {
        let at = path.child("behavior");
        for (field, rules) in [("scaleUp", &behavior.scale_up), ("scaleDown", &behavior.scale_down)] {
            if let Some(rules) = rules {
                scaling_rules(&mut errors, rules, &at.child(field));
            }
        }
    }
    errors
}

fn scale_target(
    errors: &mut Errors,
    target: &CrossVersionObjectReference,
    old: Option<&HorizontalPodAutoscalerSpec>,
    path: &Path,
) {
    let unchanged = old.is_some_and(|old| {
        let old = &old.scale_target_ref;
        text(&old.api_version) == text(&target.api_version) && old.kind == target.kind
    });
    let group = match () {
        () if unchanged => ApiVersion::Any,
        // The only kind of the core that can be scaled.
        () if target.kind == "ReplicationController" => ApiVersion::Valid,
        () => ApiVersion::WithGroup,
    };
    reference(errors, target, group, path);
}

/// What the `apiVersion` of a reference has to be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ApiVersion {
    Any,
    Valid,
    WithGroup,
}

fn reference(errors: &mut Errors, target: &CrossVersionObjectReference, wanted: ApiVersion, path: &Path) {
    for (field, value) in [("kind", &target.kind), ("name", &target.name)] {
        let at = path.child(field);
        if value.is_empty() {
            errors.push(FieldError::required(&at, ""));
        } else {
            problems(errors, &at, value, name::path_segment(value));
        }
    }
    let version = text(&target.api_version);
    let detail = match version.matches('/').count() {
        _ if wanted == ApiVersion::Any => return,
        0 | 1 if wanted == ApiVersion::Valid => return,
        1 if !version.starts_with('/') => return,
        0 | 1 => "apiVersion must specify API group".to_owned(),
        _ => format!("unexpected GroupVersion string: {version}"),
    };
    errors.push(FieldError::invalid(&path.child("apiVersion"), version, detail));
}

fn scaling_rules(errors: &mut Errors, rules: &HPAScalingRules, path: &Path) {
    if let Some(window) = rules.stabilization_window_seconds {
        let at = path.child("stabilizationWindowSeconds");
        if window < 0 {
            errors.push(FieldError::invalid(&at, window, "must be greater than or equal to zero"));
        }
        if window > LONGEST_WINDOW {
            let detail = format!("must be less than or equal to {LONGEST_WINDOW}");
            errors.push(FieldError::invalid(&at, window, detail));
        }
    }
    if let Some(select) = &rules.select_policy {
        one_of(errors, &path.child("selectPolicy"), select, &["Disabled", "Max", "Min"]);
    }
    let at = path.child("policies");
    let policies = list(&rules.policies);
    if policies.is_empty() {
        errors.push(FieldError::required(&at, "must specify at least one Policy"));
    }
    for (i, policy) in policies.iter().enumerate() {
        scaling_policy(errors, policy, &at.index(i));
    }
    if let Some(tolerance) = rules.tolerance.as_ref().and_then(Amount::of).filter(|t| t.is_negative()) {
        let detail = "must be greater than or equal to 0";
        errors.push(FieldError::invalid(&path.child("tolerance"), tolerance.to_string(), detail));
    }
}

fn scaling_policy(errors: &mut Errors, policy: &HPAScalingPolicy, path: &Path) {
    one_of(errors, &path.child("type"), &policy.type_, &["Percent", "Pods"]);
    let at = path.child("periodSeconds");
    for (at, value) in [(&path.child("value"), policy.value), (&at, policy.period_seconds)] {
        if value <= 0 {
            errors.push(FieldError::invalid(at, value, "must be greater than zero"));
        }
    }
    if policy.period_seconds > LONGEST_PERIOD {
        let detail = format!("must be less than or equal to {LONGEST_PERIOD}");
        errors.push(FieldError::invalid(&at, policy.period_seconds, detail));
    }
}

#[cfg(test)]
mod tests;
