//! What the annotations of autoscaling/v1 say of metrics and conditions, field by field in upstream's order.

use k8s_openapi::{
    api::autoscaling::v2::{
        ContainerResourceMetricSource, ContainerResourceMetricStatus, CrossVersionObjectReference,
        ExternalMetricSource, ExternalMetricStatus, HorizontalPodAutoscalerCondition, MetricIdentifier,
        MetricSpec, MetricStatus, MetricTarget, MetricValueStatus, ObjectMetricSource, ObjectMetricStatus,
        PodsMetricSource, PodsMetricStatus, ResourceMetricSource, ResourceMetricStatus,
    },
    apimachinery::pkg::{
        api::resource::Quantity,
        apis::meta::v1::{LabelSelector, Time},
    },
};
use serde::{Deserialize, Serialize};

/// A metric that is wanted.
#[derive(Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Metric {
    #[serde(rename = "type")]
    type_: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    object: Option<Object>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pods: Option<Pods>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource: Option<Resource>,
    #[serde(skip_serializing_if = "Option::is_none")]
    container_resource: Option<Resource>,
    #[serde(skip_serializing_if = "Option::is_none")]
    external: Option<External>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Object {
    target: Reference,
    metric_name: String,
    target_value: Amount,
    #[serde(skip_serializing_if = "Option::is_none")]
    selector: Option<LabelSelector>,
    #[serde(skip_serializing_if = "Option::is_none")]
    average_value: Option<Quantity>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Pods {
    metric_name: String,
    target_average_value: Amount,
    #[serde(skip_serializing_if = "Option::is_none")]
    selector: Option<LabelSelector>,
}

/// A resource of pods, or of one container of them.
#[derive(Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Resource {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_average_utilization: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_average_value: Option<Quantity>,
    #[serde(skip_serializing_if = "Option::is_none")]
    container: Option<String>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct External {
    metric_name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    metric_selector: Option<LabelSelector>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_value: Option<Quantity>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_average_value: Option<Quantity>,
}

/// A metric as it is.
#[derive(Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Current {
    #[serde(rename = "type")]
    type_: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    object: Option<CurrentObject>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pods: Option<CurrentPods>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource: Option<CurrentResource>,
    #[serde(skip_serializing_if = "Option::is_none")]
    container_resource: Option<CurrentResource>,
    #[serde(skip_serializing_if = "Option::is_none")]
    external: Option<CurrentExternal>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct CurrentObject {
    target: Reference,
    metric_name: String,
    current_value: Amount,
    #[serde(skip_serializing_if = "Option::is_none")]
    selector: Option<LabelSelector>,
    #[serde(skip_serializing_if = "Option::is_none")]
    average_value: Option<Quantity>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct CurrentPods {
    metric_name: String,
    current_average_value: Amount,
    #[serde(skip_serializing_if = "Option::is_none")]
    selector: Option<LabelSelector>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct CurrentResource {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    current_average_utilization: Option<i32>,
    current_average_value: Amount,
    #[serde(skip_serializing_if = "Option::is_none")]
    container: Option<String>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct CurrentExternal {
    metric_name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    metric_selector: Option<LabelSelector>,
    current_value: Amount,
    #[serde(skip_serializing_if = "Option::is_none")]
    current_average_value: Option<Quantity>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Reference {
    kind: String,
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    api_version: Option<String>,
}

/// An amount that v1 always has, and v2 has not where it is 0.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
struct Amount(Quantity);

impl Default for Amount {
    fn default() -> Self {
        Self(Quantity("0".to_owned()))
    }
}

impl From<Option<Quantity>> for Amount {
    fn from(value: Option<Quantity>) -> Self {
        value.map_or_else(Self::default, Self)
    }
}

impl Amount {
    fn unless_nothing(self) -> Option<Quantity> {
        Some(self.0).filter(|value| value.0 != "0")
    }
}

/// A condition, in upstream's order.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Condition {
    #[serde(rename = "type")]
    type_: String,
    status: String,
    last_transition_time: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
}

impl From<Metric> for MetricSpec {
    fn from(metric: Metric) -> Self {
        Self {
            type_: metric.type_,
            object: metric.object.map(Into::into),
            pods: metric.pods.map(|pods| PodsMetricSource {
                metric: identifier(pods.metric_name, pods.selector),
                target: target(None, Some(pods.target_average_value.0), None),
            }),
            resource: metric.resource.map(|resource| ResourceMetricSource {
                name: resource.name,
                target: target(None, resource.target_average_value, resource.target_average_utilization),
            }),
            container_resource: metric.container_resource.map(|resource| ContainerResourceMetricSource {
                name: resource.name,
                container: resource.container.unwrap_or_default(),
                target: target(None, resource.target_average_value, resource.target_average_utilization),
            }),
            external: metric.external.map(|external| ExternalMetricSource {
                metric: identifier(external.metric_name, external.metric_selector),
                target: target(external.target_value, external.target_average_value, None),
            }),
        }
    }
}

impl From<Object> for ObjectMetricSource {
    fn from(object: Object) -> Self {
        let value = match object.average_value {
            Some(_) => object.target_value.unless_nothing(),
            None => Some(object.target_value.0),
        };
        let mut target = target(value, object.average_value, None);
        if target.average_value.is_some() {
            "AverageValue".clone_into(&mut target.type_);
        }
        Self {
            described_object: object.target.into(),
            metric: identifier(object.metric_name, object.selector),
            target,
        }
    }
}

/// A target; v1 has no type of it, so what is given says it.
fn target(value: Option<Quantity>, average: Option<Quantity>, utilization: Option<i32>) -> MetricTarget {
    let type_ = match () {
        () if utilization.is_some() => "Utilization",
        () if value.is_some() => "Value",
        () => "AverageValue",
    };
    MetricTarget { type_: type_.to_owned(), value, average_value: average, average_utilization: utilization }
}

fn identifier(name: String, selector: Option<LabelSelector>) -> MetricIdentifier {
    MetricIdentifier { name, selector }
}

impl From<MetricSpec> for Metric {
    fn from(metric: MetricSpec) -> Self {
        Self {
            type_: metric.type_,
            object: metric.object.map(|object| Object {
                target: object.described_object.into(),
                metric_name: object.metric.name,
                target_value: object.target.value.into(),
                selector: object.metric.selector,
                average_value: object.target.average_value,
            }),
            pods: metric.pods.map(|pods| Pods {
                metric_name: pods.metric.name,
                target_average_value: pods.target.average_value.into(),
                selector: pods.metric.selector,
            }),
            resource: metric.resource.map(|resource| Resource {
                name: resource.name,
                target_average_utilization: resource.target.average_utilization,
                target_average_value: resource.target.average_value,
                container: None,
            }),
            container_resource: metric.container_resource.map(|resource| Resource {
                name: resource.name,
                target_average_utilization: resource.target.average_utilization,
                target_average_value: resource.target.average_value,
                container: Some(resource.container),
            }),
            external: metric.external.map(|external| External {
                metric_name: external.metric.name,
                metric_selector: external.metric.selector,
                target_value: external.target.value,
                target_average_value: external.target.average_value,
            }),
        }
    }
}

impl From<Current> for MetricStatus {
    fn from(current: Current) -> Self {
        Self {
            type_: current.type_,
            object: current.object.map(|object| ObjectMetricStatus {
                described_object: object.target.into(),
                metric: identifier(object.metric_name, object.selector),
                current: value(Some(object.current_value.0), object.average_value, None),
            }),
            pods: current.pods.map(|pods| PodsMetricStatus {
                metric: identifier(pods.metric_name, pods.selector),
                current: value(None, Some(pods.current_average_value.0), None),
            }),
            resource: current.resource.map(|resource| ResourceMetricStatus {
                name: resource.name,
                current: value(
                    None,
                    Some(resource.current_average_value.0),
                    resource.current_average_utilization,
                ),
            }),
            container_resource: current.container_resource.map(|resource| ContainerResourceMetricStatus {
                name: resource.name,
                container: resource.container.unwrap_or_default(),
                current: value(
                    None,
                    Some(resource.current_average_value.0),
                    resource.current_average_utilization,
                ),
            }),
            external: current.external.map(|external| ExternalMetricStatus {
                metric: identifier(external.metric_name, external.metric_selector),
                current: value(Some(external.current_value.0), external.current_average_value, None),
            }),
        }
    }
}

fn value(
    value: Option<Quantity>,
    average_value: Option<Quantity>,
    average_utilization: Option<i32>,
) -> MetricValueStatus {
    MetricValueStatus { value, average_value, average_utilization }
}

impl From<MetricStatus> for Current {
    fn from(status: MetricStatus) -> Self {
        Self {
            type_: status.type_,
            object: status.object.map(|object| CurrentObject {
                target: object.described_object.into(),
                metric_name: object.metric.name,
                current_value: object.current.value.into(),
                selector: object.metric.selector,
                average_value: object.current.average_value,
            }),
            pods: status.pods.map(|pods| CurrentPods {
                metric_name: pods.metric.name,
                current_average_value: pods.current.average_value.into(),
                selector: pods.metric.selector,
            }),
            resource: status.resource.map(|resource| CurrentResource {
                name: resource.name,
                current_average_utilization: resource.current.average_utilization,
                current_average_value: resource.current.average_value.into(),
                container: None,
            }),
            container_resource: status.container_resource.map(|resource| CurrentResource {
                name: resource.name,
                current_average_utilization: resource.current.average_utilization,
                current_average_value: resource.current.average_value.into(),
                container: Some(resource.container),
            }),
            external: status.external.map(|external| CurrentExternal {
                metric_name: external.metric.name,
                metric_selector: external.metric.selector,
                current_value: external.current.value.into(),
                current_average_value: external.current.average_value,
            }),
        }
    }
}

impl From<Reference> for CrossVersionObjectReference {
    fn from(it: Reference) -> Self {
        Self { kind: it.kind, name: it.name, api_version: it.api_version }
    }
}

impl From<CrossVersionObjectReference> for Reference {
    fn from(it: CrossVersionObjectReference) -> Self {
        Self { kind: it.kind, name: it.name, api_version: it.api_version }
    }
}

impl From<HorizontalPodAutoscalerCondition> for Condition {
    fn from(it: HorizontalPodAutoscalerCondition) -> Self {
        Self {
            type_: it.type_,
            status: it.status,
            last_transition_time: it.last_transition_time,
            reason: it.reason,
            message: it.message,
        }
    }
}
