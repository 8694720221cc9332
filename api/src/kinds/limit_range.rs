//! The rules of core/v1 LimitRange.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{LimitRange, LimitRangeItem};
use serde_json::Value;

use super::{
    amount::{Amount, Amounts, canonical_list},
    check::{problems, text},
    pod::resources,
};
use crate::{
    field::{Errors, FieldError, Path},
    name,
    object::{Kind, Null, creation_cell, name_cell},
};

const POD: &str = "Pod";
const CONTAINER: &str = "Container";
const CLAIM: &str = "PersistentVolumeClaim";
/// Above this, amounts are not compared in thousandths.
const MOST_MILLI: i64 = i64::MAX / 1000;

impl Kind for LimitRange {
    const CREATE_ON_UPDATE: bool = true;
    const NULLS: &'static [Null<Self>] =
        &[("spec.limits", |it| it.spec.as_ref().is_some_and(|spec| spec.limits.is_empty()))];

    fn set_defaults(&mut self) {
        for limit in self.spec.iter_mut().flat_map(|spec| &mut spec.limits) {
            for amounts in [
                &mut limit.max,
                &mut limit.min,
                &mut limit.default,
                &mut limit.default_request,
                &mut limit.max_limit_request_ratio,
            ] {
                canonical_list(amounts);
            }
            if limit.type_ == CONTAINER {
                container_defaults(limit);
            }
        }
    }

    fn prepare_create(&mut self) {
        // Upstream names what has no name.
        if text(&self.metadata.name).is_empty() {
            self.metadata.name.clone_from(&self.metadata.uid);
        }
    }

    fn validate(&self) -> Errors {
        let mut errors = Errors::new();
        let path = Path::new("spec").child("limits");
        let mut types = BTreeSet::new();
        for (i, limit) in self.spec.iter().flat_map(|spec| &spec.limits).enumerate() {
            let at = path.index(i);
            limit_type(&mut errors, &limit.type_, &at.child("type"));
            if !types.insert(&limit.type_) {
                errors.push(FieldError::duplicate(&at.child("type"), &limit.type_));
            }
            validate_limit(&mut errors, limit, &at);
        }
        errors
    }

    fn cells(&self, _now: Timestamp) -> Vec<Value> {
        vec![name_cell(&self.metadata), creation_cell(&self.metadata)]
    }
}

/// What is not said of containers follows from the rest: the default from the maximum, the request from both.
fn container_defaults(limit: &mut LimitRangeItem) {
    fn fill(target: &mut Option<Amounts>, source: Option<&Amounts>) {
        let target = target.get_or_insert_default();
        for (resource, amount) in source.into_iter().flatten() {
            target.entry(resource.clone()).or_insert_with(|| amount.clone());
        }
    }
    fill(&mut limit.default, limit.max.as_ref());
    fill(&mut limit.default_request, limit.default.as_ref());
    fill(&mut limit.default_request, limit.min.as_ref());
    for amounts in [&mut limit.default, &mut limit.default_request] {
        *amounts = amounts.take().filter(|amounts| !amounts.is_empty());
    }
}

fn limit_type(errors: &mut Errors, value: &str, path: &Path) {
    let found = name::qualified_name(value);
    if !found.is_empty() {
        problems(errors, path, value, found);
    } else if !value.contains('/') && ![POD, CONTAINER, CLAIM].contains(&value) {
        let detail = "must be a standard limit type or fully qualified";
        errors.push(FieldError::invalid(path, value, detail));
    }
}

/// The amounts of one resource, where they are given.
#[derive(Default)]
struct Bounds {
    max: Option<Amount>,
    min: Option<Amount>,
    default: Option<Amount>,
    request: Option<Amount>,
    ratio: Option<Amount>,
}

fn validate_limit(errors: &mut Errors, limit: &LimitRangeItem, path: &Path) {
    let mut all: BTreeMap<String, Bounds> = BTreeMap::new();
    let is_pod = limit.type_ == POD;
    type Field = fn(&mut Bounds) -> &mut Option<Amount>;
    let mut collect = |errors: &mut Errors, field: &str, given: Option<&Amounts>, of: Field| {
        for (resource, text) in given.into_iter().flatten() {
            resource_name(errors, &limit.type_, resource, &path.child(field).key(resource));
            *of(all.entry(resource.clone()).or_default()) = Amount::of(text);
        }
    };
    collect(errors, "max", limit.max.as_ref(), |b| &mut b.max);
    collect(errors, "min", limit.min.as_ref(), |b| &mut b.min);
    if is_pod {
        for (field, given) in [("default", &limit.default), ("defaultRequest", &limit.default_request)] {
            if given.as_ref().is_some_and(|given| !given.is_empty()) {
                let detail = "may not be specified when `type` is 'Pod'";
                errors.push(FieldError::forbidden(&path.child(field), detail));
            }
        }
    } else {
        collect(errors, "default", limit.default.as_ref(), |b| &mut b.default);
        collect(errors, "defaultRequest", limit.default_request.as_ref(), |b| &mut b.request);
    }
    let has = |given: &Option<Amounts>| given.as_ref().is_some_and(|given| given.contains_key("storage"));
    if limit.type_ == CLAIM && !has(&limit.min) && !has(&limit.max) {
        let detail = "either minimum or maximum storage value is required, but neither was provided";
        errors.push(FieldError::required(&path.child("limits"), detail));
    }
    let ratios = limit.max_limit_request_ratio.as_ref();
    collect(errors, "maxLimitRequestRatio", ratios, |b| &mut b.ratio);
    for (resource, bounds) in &all {
        validate_bounds(errors, resource, bounds, path);
    }
}

fn resource_name(errors: &mut Errors, limit_type: &str, resource: &str, path: &Path) {
    if matches!(limit_type, POD | CONTAINER) {
        resources::name_of(errors, resource, resources::Owner::Container, path);
    } else {
        resources::standard_name(errors, resource, path);
    }
}

/// The amounts of one resource do not contradict each other.
fn validate_bounds(errors: &mut Errors, resource: &str, bounds: &Bounds, path: &Path) {
    let Bounds { max, min, default, request, ratio } = bounds;
    let at = |field: &str| path.child(field).key(resource);
    let mut ordered =
        |small: Option<Amount>, large: Option<Amount>, names: [&str; 2], at: Path, shown: Shown| {
            if let (Some(a), Some(b)) = (small, large)
                && a > b
            {
                let detail = format!("{} value {} is greater than {} value {}", names[0], *a, names[1], *b);
                let shown = if shown == Shown::Small { a } else { b };
                errors.push(FieldError::invalid(&at, shown.to_string(), detail));
            }
        };
    use Shown::{Large, Small};
    ordered(*min, *max, ["min", "max"], at("min"), Small);
    ordered(*min, *request, ["min", "default request"], at("defaultRequest"), Large);
    ordered(*request, *max, ["default request", "max"], at("defaultRequest"), Small);
    ordered(*request, *default, ["default request", "default limit"], at("defaultRequest"), Small);
    ordered(*min, *default, ["min", "default"], at("default"), Small);
    ordered(*default, *max, ["default", "max"], at("default"), Large);
    if let Some(ratio) = ratio {
        let at = at("maxLimitRequestRatio");
        if ratio.milli_value() < 1000 {
            let detail = format!("ratio {} is less than 1", **ratio);
            errors.push(FieldError::invalid(&at, ratio.to_string(), detail));
        }
        if let (Some(min), Some(max)) = (min, max) {
            let milli = [ratio, min, max].iter().all(|amount| amount.value() < MOST_MILLI);
            let (wanted, min, max) = if milli {
                (ratio.milli_value() as f64 / 1000.0, min.milli_value(), max.milli_value())
            } else {
                (ratio.value() as f64, min.value(), max.value())
            };
            let most = max as f64 / min as f64;
            if wanted > most {
                let detail = format!("ratio {} is greater than max/min = {most:.6}", **ratio);
                errors.push(FieldError::invalid(&at, ratio.to_string(), detail));
            }
        }
    }
    if let (Some(default), Some(request)) = (default, request)
        && !resources::may_overcommit(resource)
        && default != request
    {
        let detail = format!(
            "default value {} must equal to defaultRequest value {} in {resource}",
            **default, **request
        );
        errors.push(FieldError::invalid(&at("defaultRequest"), request.to_string(), detail));
    }
}

/// Which of two amounts a message shows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shown {
    Small,
    Large,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn range(limit: Value) -> LimitRange {
        let value = json!({"metadata": {"name": "r", "namespace": "n"}, "spec": {"limits": [limit]}});
        let mut range: LimitRange = serde_json::from_value(value).unwrap();
        range.set_defaults();
        range
    }

    #[test]
    fn defaults_of_containers_follow_from_their_bounds() {
        for (given, default, request) in [
            (json!({"max": {"cpu": "2"}}), json!({"cpu": "2"}), json!({"cpu": "2"})),
            (json!({"min": {"cpu": "1000m"}}), Value::Null, json!({"cpu": "1"})),
            (
                json!({"default": {"cpu": "200m"}, "max": {"cpu": "2"}}),
                json!({"cpu": "200m"}),
                json!({"cpu": "200m"}),
            ),
            (
                json!({"defaultRequest": {"cpu": "1"}, "max": {"cpu": "2"}}),
                json!({"cpu": "2"}),
                json!({"cpu": "1"}),
            ),
        ] {
            let mut limit = given;
            limit["type"] = json!("Container");
            let value = serde_json::to_value(range(limit)).unwrap();
            assert_eq!(value["spec"]["limits"][0]["default"], default);
            assert_eq!(value["spec"]["limits"][0]["defaultRequest"], request);
        }
    }

    #[test]
    fn bounds_that_contradict_each_other_are_refused() {
        let of = |limit: Value| {
            range(limit).validate().iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
        };
        for (limit, wanted) in [
            (json!({"type": "Container", "max": {"cpu": "2"}, "min": {"cpu": "1"}}), ""),
            (
                json!({"type": "Container", "max": {"cpu": "2"}, "default": {"cpu": "7"}, "defaultRequest": {"cpu": "1"}}),
                "spec.limits[0].default[cpu]: Invalid value: \"2\": default value 7 is greater than max value 2",
            ),
            (
                json!({"type": "Pod", "max": {"cpu": "1"}, "min": {"cpu": "2"}}),
                "spec.limits[0].min[cpu]: Invalid value: \"2\": min value 2 is greater than max value 1",
            ),
            (
                json!({"type": "Pod", "default": {"cpu": "1"}}),
                "spec.limits[0].default: Forbidden: may not be specified when `type` is 'Pod'",
            ),
            (
                json!({"type": "Pod", "max": {"cpu": "2"}, "min": {"cpu": "1"}, "maxLimitRequestRatio": {"cpu": "4"}}),
                "spec.limits[0].maxLimitRequestRatio[cpu]: Invalid value: \"4\": ratio 4 is greater than max/min = 2.000000",
            ),
            (
                json!({"type": "Pod", "maxLimitRequestRatio": {"cpu": "500m"}}),
                "spec.limits[0].maxLimitRequestRatio[cpu]: Invalid value: \"500m\": ratio 500m is less than 1",
            ),
            (
                json!({"type": "PersistentVolumeClaim"}),
                "spec.limits[0].limits: Required value: either minimum or maximum storage value is required, but neither was provided",
            ),
            (json!({"type": "PersistentVolumeClaim", "max": {"storage": "1Gi"}}), ""),
            (
                json!({"type": "Pod", "max": {"storage": "1"}}),
                "spec.limits[0].max[storage]: Invalid value: \"storage\": must be a standard resource for containers",
            ),
            (
                json!({"type": "Other", "max": {"cpu": "1"}}),
                "spec.limits[0].type: Invalid value: \"Other\": must be a standard limit type or fully qualified",
            ),
        ] {
            assert_eq!(of(limit), wanted);
        }
    }
}
