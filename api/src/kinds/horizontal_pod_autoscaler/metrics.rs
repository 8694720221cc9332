//! The metrics of an autoscaler: what is refused of them, and how a table shows them.

use k8s_openapi::{
    api::autoscaling::v2::{
        HorizontalPodAutoscalerSpec, MetricIdentifier, MetricSpec, MetricStatus, MetricTarget,
        MetricValueStatus,
    },
    apimachinery::pkg::api::resource::Quantity,
};

use super::{ApiVersion, reference};
use crate::{
    field::{Errors, FieldError, Path},
    kinds::{
        amount::Amount,
        check::{dns_label, list, problems},
        pod::resources,
    },
    name,
};

const TYPES: &[&str] = &["ContainerResource", "External", "Object", "Pods", "Resource"];

/// Checks the metrics.
pub(super) fn validate(
    errors: &mut Errors,
    spec: &HorizontalPodAutoscalerSpec,
    old: Option<&HorizontalPodAutoscalerSpec>,
    path: &Path,
) {
    let metrics = list(&spec.metrics);
    // An odd version that was stored once may stay, as long as there are such.
    let odd = |metric: &MetricSpec| {
        let mut found = Errors::new();
        if let Some(object) = &metric.object {
            reference(&mut found, &object.described_object, ApiVersion::Valid, &Path::root());
        }
        found.iter().any(|error| error.field == Path::new("apiVersion"))
    };
    let tolerated = old.is_some_and(|old| list(&old.metrics).iter().any(odd));
    let version = if tolerated { ApiVersion::Any } else { ApiVersion::Valid };
    for (i, metric) in metrics.iter().enumerate() {
        validate_metric(errors, metric, version, &path.index(i));
    }
    let from_outside = metrics.iter().any(|metric| matches!(metric.type_.as_str(), "Object" | "External"));
    if spec.min_replicas == Some(0) && !from_outside {
        let detail =
            "must specify at least one Object or External metric to support scaling to zero replicas";
        errors.push(FieldError::forbidden(path, detail));
    }
}

fn validate_metric(errors: &mut Errors, metric: &MetricSpec, version: ApiVersion, path: &Path) {
    let at_type = path.child("type");
    if metric.type_.is_empty() {
        errors.push(FieldError::required(&at_type, "must specify a metric source type"));
    }
    let known = TYPES.contains(&metric.type_.as_str());
    let unknown = FieldError::not_supported(&at_type, &metric.type_, TYPES);
    if !known {
        errors.push(unknown.clone());
    }
    let given = [
        ("object", metric.object.is_some()),
        ("external", metric.external.is_some()),
        ("pods", metric.pods.is_some()),
        ("resource", metric.resource.is_some()),
        ("containerResource", metric.container_resource.is_some()),
    ];
    let given: Vec<&str> = given.into_iter().filter(|(_, given)| *given).map(|(field, _)| field).collect();
    if let Some(first) = given.first() {
        // Only one is looked at.
        source(errors, metric, first, version, &path.child(first));
    }
    let expected = match metric.type_.as_str() {
        "Object" => "object",
        "Pods" => "pods",
        "Resource" => "resource",
        "External" => "external",
        "ContainerResource" => "containerResource",
        _ => "",
    };
    if !known {
        errors.push(unknown);
    } else if !given.contains(&expected) {
        let detail = "must populate information for the given metric source";
        errors.push(FieldError::required(&path.child(expected), detail));
    }
    if given.len() > 1 {
        for field in given.into_iter().filter(|field| *field != expected) {
            let detail = "must populate the given metric source only";
            errors.push(FieldError::forbidden(&path.child(field), detail));
        }
    }
}

fn source(errors: &mut Errors, metric: &MetricSpec, field: &str, version: ApiVersion, path: &Path) {
    let at = path.child("target");
    let missing = |field: &str, detail: &str| FieldError::required(&at.child(field), detail);
    if let Some(source) = metric.object.as_ref().filter(|_| field == "object") {
        reference(errors, &source.described_object, version, &path.child("describedObject"));
        identifier(errors, &source.metric, &path.child("metric"));
        target(errors, &source.target, &at);
        if source.target.value.is_none() && source.target.average_value.is_none() {
            errors.push(missing("averageValue", "must set either a target value or averageValue"));
        }
    }
    if let Some(source) = metric.external.as_ref().filter(|_| field == "external") {
        identifier(errors, &source.metric, &path.child("metric"));
        target(errors, &source.target, &at);
        match (&source.target.value, &source.target.average_value) {
            (None, None) => {
                let detail = "must set either a target value for metric or a per-pod target";
                errors.push(missing("averageValue", detail));
            }
            (Some(_), Some(_)) => {
                let detail = "may not set both a target value for metric and a per-pod target";
                errors.push(FieldError::forbidden(&at.child("value"), detail));
            }
            _ => {}
        }
    }
    if let Some(source) = metric.pods.as_ref().filter(|_| field == "pods") {
        identifier(errors, &source.metric, &path.child("metric"));
        target(errors, &source.target, &at);
        if source.target.average_value.is_none() {
            errors.push(missing("averageValue", "must specify a positive target averageValue"));
        }
    }
    if let Some(source) = metric.resource.as_ref().filter(|_| field == "resource") {
        if source.name.is_empty() {
            errors.push(FieldError::required(&path.child("name"), "must specify a resource name"));
        }
        resource_target(errors, &source.target, &at);
    }
    if let Some(source) = metric.container_resource.as_ref().filter(|_| field == "containerResource") {
        if source.name.is_empty() {
            errors.push(FieldError::required(&path.child("name"), "must specify a resource name"));
        } else {
            resources::name_of(errors, &source.name, resources::Owner::Container, &path.child("name"));
        }
        if source.container.is_empty() {
            errors.push(FieldError::required(&path.child("container"), "must specify a container"));
        } else {
            dns_label(errors, &path.child("container"), &source.container);
        }
        resource_target(errors, &source.target, &at);
    }
}

fn resource_target(errors: &mut Errors, wanted: &MetricTarget, path: &Path) {
    target(errors, wanted, path);
    match (wanted.average_utilization, &wanted.average_value) {
        (None, None) => {
            let detail = "must set either a target raw value or a target utilization";
            errors.push(FieldError::required(&path.child("averageUtilization"), detail));
        }
        (Some(_), Some(_)) => {
            let detail = "may not set both a target raw value and a target utilization";
            errors.push(FieldError::forbidden(&path.child("averageValue"), detail));
        }
        _ => {}
    }
}

fn target(errors: &mut Errors, target: &MetricTarget, path: &Path) {
    let at = path.child("type");
    if target.type_.is_empty() {
        errors.push(FieldError::required(&at, "must specify a metric target type"));
    }
    if !matches!(target.type_.as_str(), "Utilization" | "Value" | "AverageValue") {
        let detail = "must be either Utilization, Value, or AverageValue";
        errors.push(FieldError::invalid(&at, &target.type_, detail));
    }
    for (field, value) in [("value", &target.value), ("averageValue", &target.average_value)] {
        let amount = value.as_ref().and_then(Amount::of);
        if let Some(amount) = amount.filter(|amount| amount.is_zero() || amount.is_negative()) {
            errors.push(FieldError::invalid(&path.child(field), amount.to_string(), "must be positive"));
        }
    }
    if let Some(percent) = target.average_utilization.filter(|percent| *percent < 1) {
        let at = path.child("averageUtilization");
        errors.push(FieldError::invalid(&at, percent, "must be greater than 0"));
    }
}

fn identifier(errors: &mut Errors, metric: &MetricIdentifier, path: &Path) {
    let at = path.child("name");
    if metric.name.is_empty() {
        errors.push(FieldError::required(&at, "must specify a metric name"));
    } else {
        problems(errors, &at, &metric.name, name::path_segment(&metric.name));
    }
}

/// The first two metrics as `current/target`, and how many more there are.
pub(super) fn shown(metrics: &[MetricSpec], statuses: &[MetricStatus]) -> String {
    if metrics.is_empty() {
        return "<none>".to_owned();
    }
    let one = |(i, metric): (usize, &MetricSpec)| shown_metric(metric, statuses.get(i));
    let first: Vec<String> = metrics.iter().enumerate().take(2).map(one).collect();
    let first = first.join(", ");
    match metrics.len() - metrics.len().min(2) {
        0 => first,
        more => format!("{first} + {more} more..."),
    }
}

fn shown_metric(metric: &MetricSpec, status: Option<&MetricStatus>) -> String {
    // Go shows nothing in this way.
    let amount =
        |value: &Option<Quantity>| value.as_ref().map_or("<nil>".to_owned(), |value| value.0.clone());
    let unknown = || "<unknown>".to_owned();
    let value_or_average = |current: Option<&MetricValueStatus>, target: &MetricTarget| {
        if target.average_value.is_some() {
            let current = current.filter(|c| c.average_value.is_some());
            let current = current.map_or_else(unknown, |c| amount(&c.average_value));
            return format!("{current}/{} (avg)", amount(&target.average_value));
        }
        format!("{}/{}", current.map_or_else(unknown, |c| amount(&c.value)), amount(&target.value))
    };
    let utilization = |name: &str, current: Option<&MetricValueStatus>, target: &MetricTarget| {
        if target.average_value.is_some() {
            let current = current.map_or_else(unknown, |c| amount(&c.average_value));
            return format!("{name}: {current}/{}", amount(&target.average_value));
        }
        let percent = |value: Option<i32>| value.map(|value| format!("{value}%"));
        let current = current.and_then(|c| percent(c.average_utilization)).unwrap_or_else(unknown);
        let target = percent(target.average_utilization).unwrap_or_else(|| "<auto>".to_owned());
        format!("{name}: {current}/{target}")
    };
    let source = match metric.type_.as_str() {
        "External" => metric.external.as_ref().map(|source| {
            let current = status.and_then(|s| s.external.as_ref()).map(|s| &s.current);
            value_or_average(current, &source.target)
        }),
        "Object" => metric.object.as_ref().map(|source| {
            let current = status.and_then(|s| s.object.as_ref()).map(|s| &s.current);
            value_or_average(current, &source.target)
        }),
        "Pods" => metric.pods.as_ref().map(|source| {
            let current = status.and_then(|s| s.pods.as_ref()).map(|s| &s.current);
            let current = current.map_or_else(unknown, |c| amount(&c.average_value));
            format!("{current}/{}", amount(&source.target.average_value))
        }),
        "Resource" => metric.resource.as_ref().map(|source| {
            let current = status.and_then(|s| s.resource.as_ref()).map(|s| &s.current);
            utilization(&source.name, current, &source.target)
        }),
        "ContainerResource" => metric.container_resource.as_ref().map(|source| {
            let current = status.and_then(|s| s.container_resource.as_ref()).map(|s| &s.current);
            utilization(&source.name, current, &source.target)
        }),
        _ => None,
    };
    source.unwrap_or_else(|| "<unknown type>".to_owned())
}
