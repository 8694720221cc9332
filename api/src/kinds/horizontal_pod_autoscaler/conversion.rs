//! How autoscalers of autoscaling/v1 become those of v2 and back. What v1 has no field for is in its annotations, as
//! JSON text.

mod behavior;
mod text;

use k8s_openapi::{
    api::autoscaling::v2::{
        HorizontalPodAutoscalerBehavior, HorizontalPodAutoscalerCondition, MetricSpec, MetricStatus,
        MetricValueStatus, ResourceMetricStatus,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use self::behavior::Behavior;
use super::average_cpu;
use crate::resource::Conversion;

pub(super) const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
pub(super) const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
pub(super) const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
pub(super) const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";

const TARGET_CPU: &str = "targetCPUUtilizationPercentage";
const CURRENT_CPU: &str = "currentCPUUtilizationPercentage";

/// The view that autoscaling/v1 is of v2.
pub(in crate::kinds) const HPA: Conversion = Conversion { to_storage, from_storage };

const ALL: [&str; 4] = [METRICS, BEHAVIOR, CONDITIONS, CURRENT_METRICS];

/// Removes the annotations that stand for fields.
pub(super) fn drop_annotations(metadata: &mut ObjectMeta) {
    if let Some(mut annotations) = metadata.annotations.take() {
        annotations.retain(|name, _| !ALL.contains(&name.as_str()));
        metadata.annotations = Some(annotations).filter(|annotations| !annotations.is_empty());
    }
}

/// What is wrong with an annotation that says what v1 cannot.
pub(super) fn problem(annotation: &str, value: &str) -> Option<String> {
    let problem = match annotation {
        METRICS => serde_json::from_str::<Vec<text::Metric>>(value).err(),
        BEHAVIOR => serde_json::from_str::<Behavior>(value).err(),
        CONDITIONS => serde_json::from_str::<Vec<HorizontalPodAutoscalerCondition>>(value).err(),
        CURRENT_METRICS => serde_json::from_str::<Vec<text::Current>>(value).err(),
        _ => None,
    };
    problem.map(|error| error.to_string())
}

fn to_storage(autoscaler: &mut Map<String, Value>) {
    let [metrics, behavior, conditions, current] = take_annotations(autoscaler);

    let mut spec = taken(autoscaler, "spec");
    let mut wanted: Vec<MetricSpec> =
        parsed::<Vec<text::Metric>>(metrics).into_iter().map(Into::into).collect();
    wanted.extend(percent(spec.remove(TARGET_CPU)).map(average_cpu));
    if wanted.is_empty() {
        wanted.push(average_cpu(80));
    }
    put(&mut spec, "metrics", &wanted);
    if behavior.is_some() {
        let behavior: HorizontalPodAutoscalerBehavior = parsed::<Behavior>(behavior).into();
        put(&mut spec, "behavior", &behavior);
    }
    put(autoscaler, "spec", &spec);

    let mut status = taken(autoscaler, "status");
    let mut now: Vec<MetricStatus> =
        percent(status.remove(CURRENT_CPU)).map(current_cpu).into_iter().collect();
    let told: Vec<text::Current> = parsed(current);
    if !told.is_empty() {
        now = told.into_iter().map(Into::into).collect();
    }
    if !now.is_empty() {
        put(&mut status, "currentMetrics", &now);
    }
    let conditions: Vec<HorizontalPodAutoscalerCondition> = parsed(conditions);
    if !conditions.is_empty() {
        put(&mut status, "conditions", &conditions);
    }
    // v1 always has a number, v2 only if it isn't 0.
    if status.get("currentReplicas").and_then(Value::as_i64) == Some(0) {
        status.remove("currentReplicas");
    }
    put(autoscaler, "status", &status);
}

fn from_storage(autoscaler: &mut Map<String, Value>) {
    take_annotations(autoscaler);
    let mut said = Vec::new();

    let mut spec = taken(autoscaler, "spec");
    let wanted: Vec<MetricSpec> = read(spec.remove("metrics"));
    if let Some(percent) = wanted.iter().find_map(cpu_target) {
        spec.insert(TARGET_CPU.to_owned(), percent.into());
    }
    let others: Vec<text::Metric> =
        wanted.into_iter().filter(|metric| cpu_target(metric).is_none()).map(Into::into).collect();
    if !others.is_empty() {
        said.push((METRICS, written(&others)));
    }
    let behavior: Option<HorizontalPodAutoscalerBehavior> = read(spec.remove("behavior"));
    if let Some(behavior) = behavior {
        said.push((BEHAVIOR, written(&Behavior::from(behavior))));
    }
    put(autoscaler, "spec", &spec);

    let mut status = taken(autoscaler, "status");
    for count in ["currentReplicas", "desiredReplicas"] {
        status.entry(count).or_insert_with(|| 0.into());
    }
    let now: Vec<MetricStatus> = read(status.remove("currentMetrics"));
    if let Some(percent) = now.iter().find_map(cpu_now) {
        status.insert(CURRENT_CPU.to_owned(), percent.into());
    }
    if !now.is_empty() {
        let now: Vec<text::Current> = now.into_iter().map(Into::into).collect();
        said.push((CURRENT_METRICS, written(&now)));
    }
    let conditions: Vec<HorizontalPodAutoscalerCondition> = read(status.remove("conditions"));
    if !conditions.is_empty() {
        let conditions: Vec<text::Condition> = conditions.into_iter().map(Into::into).collect();
        said.push((CONDITIONS, written(&conditions)));
    }
    put(autoscaler, "status", &status);

    if !said.is_empty() {
        let mut metadata = taken(autoscaler, "metadata");
        let mut annotations = taken(&mut metadata, "annotations");
        annotations.extend(said.into_iter().map(|(name, text)| (name.to_owned(), text.into())));
        put(&mut metadata, "annotations", &annotations);
        put(autoscaler, "metadata", &metadata);
    }
}

/// The annotations that stand for fields, which are removed.
fn take_annotations(autoscaler: &mut Map<String, Value>) -> [Option<String>; 4] {
    let Some(metadata) = autoscaler.get_mut("metadata").and_then(Value::as_object_mut) else {
        return ALL.map(|_| None);
    };
    let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) else {
        return ALL.map(|_| None);
    };
    let taken = ALL.map(|name| match annotations.remove(name) {
        Some(Value::String(value)) => Some(value),
        _ => None,
    });
    if annotations.is_empty() {
        metadata.remove("annotations");
    }
    taken
}

/// Takes out the object in a field; an empty one if there is none.
fn taken(object: &mut Map<String, Value>, field: &str) -> Map<String, Value> {
    match object.remove(field) {
        Some(Value::Object(fields)) => fields,
        _ => Map::new(),
    }
}

fn percent(value: Option<Value>) -> Option<i32> {
    value?.as_i64()?.try_into().ok()
}

/// What an annotation says. That it can be read was asked before ([`problem`]).
fn parsed<T: DeserializeOwned + Default>(annotation: Option<String>) -> T {
    annotation.and_then(|value| serde_json::from_str(&value).ok()).unwrap_or_default()
}

fn read<T: DeserializeOwned + Default>(value: Option<Value>) -> T {
    value.and_then(|value| serde_json::from_value(value).ok()).unwrap_or_default()
}

fn put(object: &mut Map<String, Value>, field: &str, value: &impl Serialize) {
    // Typed structs become values without fail.
    object.insert(field.to_owned(), serde_json::to_value(value).unwrap_or_default());
}

/// JSON as Go writes it, which keeps text from being taken for HTML.
fn written(value: &impl Serialize) -> String {
    let text = serde_json::to_string(value).unwrap_or_default();
    text.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

/// The percentage that v1 has a field for.
fn cpu_target(metric: &MetricSpec) -> Option<i32> {
    let source = metric.resource.as_ref().filter(|_| metric.type_ == "Resource")?;
    source.target.average_utilization.filter(|_| source.name == "cpu")
}

fn cpu_now(metric: &MetricStatus) -> Option<i32> {
    let source = metric.resource.as_ref().filter(|_| metric.type_ == "Resource")?;
    source.current.average_utilization.filter(|_| source.name == "cpu")
}

fn current_cpu(percent: i32) -> MetricStatus {
    let current = MetricValueStatus { average_utilization: Some(percent), ..MetricValueStatus::default() };
    let resource = ResourceMetricStatus { name: "cpu".to_owned(), current };
    MetricStatus { type_: "Resource".to_owned(), resource: Some(resource), ..MetricStatus::default() }
}
