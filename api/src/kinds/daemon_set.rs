//! The rules of apps/v1 DaemonSet.

use jiff::Timestamp;
use k8s_openapi::{
    api::apps::v1::{
        DaemonSet, DaemonSetSpec, DaemonSetStatus, DaemonSetUpdateStrategy, RollingUpdateDaemonSet,
    },
    apimachinery::pkg::util::intstr::IntOrString,
};
use serde_json::{Value, json};

use super::{
    cells::{age, containers, labels, or_none},
    check::{
        at_most_100_percent, generation, immutable, int_or_percent, int_or_percent_value, nonnegative, same,
        selector, selector_is_empty, selector_text, text,
    },
    pod::{defaults, spec},
    workload,
};
use crate::{
    field::{BadValue, Errors, FieldError, Path},
    object::{Kind, name_cell},
    resource::Column,
    schema::given::Given,
};

/// How often the template changed. Upstream keeps the count in its spec, and shows it in this annotation.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

impl Kind for DaemonSet {
    const CONVERTED_ANNOTATIONS: &'static [&'static str] = &[TEMPLATE_GENERATION];
    const GIVEN: &'static [Given] = workload::GIVEN;
    const COLUMNS: &'static [Column] = &[
        Column::name(),
        Column::integer("Desired").about(
            "The total number of nodes that should be running the daemon pod (including nodes correctly running the \
             daemon pod). More info: https://kubernetes.io/docs/concepts/workloads/controllers/daemonset/",
        ),
        Column::integer("Current").about(
            "The number of nodes that are running at least 1 daemon pod and are supposed to run the daemon pod. More \
             info: https://kubernetes.io/docs/concepts/workloads/controllers/daemonset/",
        ),
        Column::integer("Ready").about(
            "numberReady is the number of nodes that should be running the daemon pod and have one or more of the daemon \
             pod running with a Ready Condition.",
        ),
        Column::integer("Up-to-date")
            .about("The total number of nodes that are running updated daemon pod"),
        Column::integer("Available").about(
            "The number of nodes that should be running the daemon pod and have one or more of the daemon pod running \
             and available (ready for at least spec.minReadySeconds)",
        ),
        Column::text("Node Selector").about(
            "NodeSelector is a selector which must be true for the pod to fit on a node. Selector which must match a \
             node's labels for the pod to be scheduled on that node. More info: \
             https://kubernetes.io/docs/concepts/configuration/assign-pod-node/",
        ),
        Column::age(),
        Column::text("Containers").wide().about("Names of each container in the template."),
        Column::text("Images").wide().about("Images referenced by each container in the template."),
        Column::text("Selector").wide().about(
            "A label query over pods that are managed by the daemon set. Must match in order to be controlled. It must \
             match the pod template's labels. More info: \
             https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors",
        ),
    ];

    fn set_defaults(&mut self) {
        let spec = self.spec.get_or_insert_default();
        let strategy = spec.update_strategy.get_or_insert_default();
        if text(&strategy.type_).is_empty() {
            strategy.type_ = Some("RollingUpdate".to_owned());
        }
        if text(&strategy.type_) == "RollingUpdate" {
            let rolling = strategy.rolling_update.get_or_insert_default();
            rolling.max_unavailable.get_or_insert(IntOrString::Int(1));
            rolling.max_surge.get_or_insert(IntOrString::Int(0));
        }
        spec.revision_history_limit.get_or_insert(10);
        defaults::template(&mut spec.template);
        self.status.get_or_insert_default();
        // To upstream it is a field, which every object has as soon as it is read; so who writes the object owns it.
        let given = template_generation(self);
        set_template_generation(self, given);
    }

    fn prepare_create(&mut self) {
        self.status = Some(DaemonSetStatus::default());
        self.metadata.generation = Some(1);
        let given = template_generation(self).max(1);
        set_template_generation(self, given);
    }

    fn prepare_update(&mut self, old: &Self) {
        self.status.clone_from(&old.status);
        let template = |ds: &Self| ds.spec.as_ref().map(|spec| spec.template.clone());
        let changed = !same(&template(self), &template(old));
        set_template_generation(self, template_generation(old) + i64::from(changed));
        generation(&mut self.metadata, &old.metadata, !same(&self.spec, &old.spec));
    }

    fn prepare_status(&mut self, old: &Self) {
        self.spec.clone_from(&old.spec);
        set_template_generation(self, template_generation(old));
        self.metadata.generation = old.metadata.generation;
    }

    fn validate(&self) -> Errors {
        let mut errors = Errors::new();
        let empty = DaemonSetSpec::default();
        let spec = self.spec.as_ref().unwrap_or(&empty);
        let path = Path::new("spec");
        let (at, at_template) = (path.child("selector"), path.child("template"));
        selector(&mut errors, &at, Some(&spec.selector));
        if workload::selects(&spec.selector, &spec.template) == Some(false) {
            errors.push(workload::mismatch(&spec.template, &at_template));
        }
        if selector_is_empty(&spec.selector) && !workload::is_absent(&spec.selector) {
            let detail = "empty selector is invalid for daemonset";
            errors.push(FieldError::invalid(&at, BadValue::Json(json!({})), detail));
        }
        spec::validate_template(&mut errors, &spec.template, &at_template);
        spec::validate_always(&mut errors, &spec.template, "DaemonSet", &at_template);
        nonnegative(&mut errors, &path.child("minReadySeconds"), spec.min_ready_seconds);
        nonnegative(&mut errors, &path.child("templateGeneration"), Some(template_generation(self)));
        let empty = DaemonSetUpdateStrategy::default();
        let strategy = spec.update_strategy.as_ref().unwrap_or(&empty);
        update_strategy(&mut errors, strategy, &path.child("updateStrategy"));
        nonnegative(&mut errors, &path.child("revisionHistoryLimit"), spec.revision_history_limit);
        errors
    }

    fn validate_update(&self, old: &Self) -> Errors {
        // Upstream checks it as a new one, and as a changed one.
        let mut errors = Kind::validate(self);
        errors.extend(errors.clone());
        let selector = |ds: &Self| ds.spec.as_ref().map(|spec| spec.selector.clone()).unwrap_or_default();
        immutable(&mut errors, &Path::new("spec").child("selector"), &selector(self), &selector(old));
        errors
    }

    fn validate_status(&self, old: &Self) -> Errors {
        let mut errors = Errors::new();
        let empty = DaemonSetStatus::default();
        let (new, old) = (self.status.as_ref().unwrap_or(&empty), old.status.as_ref().unwrap_or(&empty));
        let at = Path::new("status");
        for (field, value) in [
            ("currentNumberScheduled", Some(new.current_number_scheduled)),
            ("numberMisscheduled", Some(new.number_misscheduled)),
            ("desiredNumberScheduled", Some(new.desired_number_scheduled)),
            ("numberReady", Some(new.number_ready)),
        ] {
            nonnegative(&mut errors, &at.child(field), value);
        }
        nonnegative(&mut errors, &at.child("observedGeneration"), new.observed_generation);
        for (field, value) in [
            ("updatedNumberScheduled", new.updated_number_scheduled),
            ("numberAvailable", new.number_available),
            ("numberUnavailable", new.number_unavailable),
            ("collisionCount", new.collision_count),
        ] {
            nonnegative(&mut errors, &at.child(field), value);
        }
        let at = at.child("collisionCount");
        workload::not_decremented(&mut errors, &at, new.collision_count, old.collision_count);
        errors
    }

    fn warnings(&self, old: Option<&Self>) -> Vec<String> {
        let template = |ds: &Self| ds.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default();
        let at = Path::new("spec").child("template");
        workload::template_warnings(&template(self), old.map(template).as_ref(), &at)
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        let (empty_spec, empty_status) = (DaemonSetSpec::default(), DaemonSetStatus::default());
        let spec = self.spec.as_ref().unwrap_or(&empty_spec);
        let status = self.status.as_ref().unwrap_or(&empty_status);
        let [names, images] = containers(workload::pods(Some(&spec.template)));
        vec![
            name_cell(&self.metadata),
            status.desired_number_scheduled.into(),
            status.current_number_scheduled.into(),
            status.number_ready.into(),
            status.updated_number_scheduled.unwrap_or_default().into(),
            status.number_available.unwrap_or_default().into(),
            labels(spec.template.spec.as_ref().and_then(|pod| pod.node_selector.as_ref())),
            age(&self.metadata, now),
            names,
            images,
            or_none(&selector_text(Some(&spec.selector))),
        ]
    }
}

fn template_generation(ds: &DaemonSet) -> i64 {
    let annotations = ds.metadata.annotations.as_ref();
    annotations.and_then(|a| a.get(TEMPLATE_GENERATION)?.parse().ok()).unwrap_or_default()
}

fn set_template_generation(ds: &mut DaemonSet, count: i64) {
    let annotations = ds.metadata.annotations.get_or_insert_default();
    annotations.insert(TEMPLATE_GENERATION.to_owned(), count.to_string());
}

fn update_strategy(errors: &mut Errors, strategy: &DaemonSetUpdateStrategy, path: &Path) {
    let at = path.child("rollingUpdate");
    match text(&strategy.type_) {
        "OnDelete" => {}
        "RollingUpdate" => match &strategy.rolling_update {
            None => errors.push(FieldError::required(&at, "")),
            Some(rolling) => rolling_update(errors, rolling, &at),
        },
        other => {
            let rolling = strategy.rolling_update.as_ref();
            let rolling = rolling.map(|rolling| (&rolling.max_unavailable, &rolling.max_surge));
            let shown = workload::strategy_text(other, rolling);
            let supported = &["RollingUpdate", "OnDelete"];
            errors.push(FieldError::not_supported(path, shown, supported));
        }
    }
}

fn rolling_update(errors: &mut Errors, rolling: &RollingUpdateDaemonSet, path: &Path) {
    let zero = IntOrString::Int(0);
    let unavailable = rolling.max_unavailable.as_ref().unwrap_or(&zero);
    let surge = rolling.max_surge.as_ref().unwrap_or(&zero);
    let (at_unavailable, at_surge) = (path.child("maxUnavailable"), path.child("maxSurge"));
    int_or_percent(errors, &at_unavailable, unavailable);
    int_or_percent(errors, &at_surge, surge);
    at_most_100_percent(errors, &at_unavailable, unavailable);
    at_most_100_percent(errors, &at_surge, surge);
    match (int_or_percent_value(unavailable) != 0, int_or_percent_value(surge) != 0) {
        (true, true) => {
            let detail = "may not be set when maxUnavailable is non-zero";
            errors.push(FieldError::invalid(&at_surge, BadValue::of(surge), detail));
        }
        (false, false) => {
            errors.push(FieldError::required(&at_unavailable, "cannot be 0 when maxSurge is 0"));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::field::aggregate;

    fn daemon_set(strategy: Value) -> DaemonSet {
        let mut ds: DaemonSet = serde_json::from_value(json!({
            "metadata": {"name": "ds"},
            "spec": {
                "selector": {"matchLabels": {"app": "a"}}, "updateStrategy": strategy,
                "template": {
                    "metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}
                }
            }
        }))
        .unwrap_or_default();
        ds.set_defaults();
        ds
    }

    #[test]
    fn an_update_takes_nodes_down_or_adds_pods_but_not_both() {
        let at = "spec.updateStrategy";
        for (strategy, text) in [
            (json!({}), String::new()),
            (json!({"type": "OnDelete"}), String::new()),
            (json!({"rollingUpdate": {"maxUnavailable": 0, "maxSurge": "10%"}}), String::new()),
            (
                json!({"rollingUpdate": {"maxUnavailable": 0}}),
                format!("{at}.rollingUpdate.maxUnavailable: Required value: cannot be 0 when maxSurge is 0"),
            ),
            (
                json!({"rollingUpdate": {"maxSurge": "10%"}}),
                format!(
                    "{at}.rollingUpdate.maxSurge: Invalid value: \"10%\": may not be set when maxUnavailable is non-zero"
                ),
            ),
            (
                json!({"type": "x"}),
                format!(
                    "{at}: Unsupported value: {{\"Type\":\"x\",\"RollingUpdate\":null}}: supported values: \
                     \"RollingUpdate\", \"OnDelete\""
                ),
            ),
        ] {
            assert_eq!(aggregate(&Kind::validate(&daemon_set(strategy))), text);
        }
    }

    #[test]
    fn changes_of_the_template_are_counted() {
        let mut old = daemon_set(json!({}));
        old.prepare_create();
        assert_eq!(template_generation(&old), 1);
        let mut new = daemon_set(json!({"rollingUpdate": {"maxUnavailable": 2}}));
        new.prepare_update(&old);
        assert_eq!((template_generation(&new), new.metadata.generation), (1, Some(2)));
        let mut newer = new.clone();
        let spec = newer.spec.get_or_insert_default();
        spec.template.spec.get_or_insert_default().host_network = Some(true);
        newer.prepare_update(&new);
        assert_eq!((template_generation(&newer), newer.metadata.generation), (2, Some(3)));
    }
}
