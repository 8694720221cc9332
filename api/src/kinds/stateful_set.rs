//! The rules of apps/v1 StatefulSet.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::api::{
    apps::v1::{
        RollingUpdateStatefulSetStrategy, StatefulSet, StatefulSetSpec, StatefulSetStatus,
        StatefulSetUpdateStrategy,
    },
    core::v1::{PersistentVolumeClaimStatus, PersistentVolumeClaimVolumeSource, PodTemplateSpec, Volume},
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};

use super::{
    amount::Amount,
    cells::{age, containers},
    check::{
        at_most_100_percent, dns_label, generation, int_or_percent, int_or_percent_value, list, nonnegative,
        one_of, same, selector_text, text,
    },
    pod::{defaults, spec, storage},
    workload,
};
use crate::{
    field::{BadValue, Errors, FieldError, Path, quote},
    name::{NameRule, label_name},
    object::{Kind, Replicas, name_cell},
    resource::Column,
    schema::given::Given,
};

impl Kind for StatefulSet {
    const GIVEN: &'static [Given] = workload::GIVEN;
    // Its pods are named after it, and have the names as their hostnames.
    const NAME: Option<NameRule> = Some(label_name);
    const COLUMNS: &'static [Column] = &[
        Column::name(),
        Column::text("Ready").about("Number of the pod with ready state"),
        Column::age(),
        Column::text("Containers").wide().about("Names of each container in the template."),
        Column::text("Images").wide().about("Images referenced by each container in the template."),
    ];

    fn set_defaults(&mut self) {
        let spec = self.spec.get_or_insert_default();
        set(&mut spec.pod_management_policy, "OrderedReady");
        let strategy = spec.update_strategy.get_or_insert_default();
        if text(&strategy.type_).is_empty() {
            strategy.type_ = Some("RollingUpdate".to_owned());
            strategy.rolling_update.get_or_insert_default();
        }
        if text(&strategy.type_) == "RollingUpdate"
            && let Some(rolling) = &mut strategy.rolling_update
        {
            rolling.partition.get_or_insert(0);
            rolling.max_unavailable.get_or_insert(IntOrString::Int(1));
        }
        let retention = spec.persistent_volume_claim_retention_policy.get_or_insert_default();
        set(&mut retention.when_deleted, "Retain");
        set(&mut retention.when_scaled, "Retain");
        spec.replicas.get_or_insert(1);
        spec.revision_history_limit.get_or_insert(10);
        // Written even if it says nothing.
        spec.service_name.get_or_insert_default();
        defaults::template(&mut spec.template);
        for claim in spec.volume_claim_templates.iter_mut().flatten() {
            defaults::claim_spec(claim.spec.get_or_insert_default());
            let status = claim.status.get_or_insert_with(PersistentVolumeClaimStatus::default);
            set(&mut status.phase, "Pending");
        }
        zeros(self.status.get_or_insert_default());
    }

    fn prepare_create(&mut self) {
        zeros(self.status.insert(StatefulSetStatus::default()));
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
        let spec = self.spec.clone().unwrap_or_default();
        validate_spec(&spec, Tolerate::default())
    }

    fn validate_update(&self, old: &Self) -> Errors {
        let (new, old) = (self.spec.clone().unwrap_or_default(), old.spec.clone().unwrap_or_default());
        // What can't change is not asked again, and a template is tolerated in a set that never was in order.
        let fixed = Tolerate { service_name: true, claims: true, template: false };
        let template = !validate_spec(&old, fixed).is_empty();
        let mut errors = validate_spec(&new, Tolerate { template, ..fixed });
        let rest = StatefulSetSpec {
            replicas: old.replicas,
            ordinals: old.ordinals.clone(),
            template: old.template.clone(),
            update_strategy: old.update_strategy.clone(),
            revision_history_limit: old.revision_history_limit,
            persistent_volume_claim_retention_policy: old.persistent_volume_claim_retention_policy.clone(),
            min_ready_seconds: old.min_ready_seconds,
            ..new
        };
        if !same(&rest, &old) {
            let detail = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', \
                          'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and \
                          'minReadySeconds' are forbidden";
            errors.push(FieldError::forbidden(&Path::new("spec"), detail));
        }
        errors
    }

    fn validate_status(&self, old: &Self) -> Errors {
        let mut errors = Errors::new();
        let empty = StatefulSetStatus::default();
        let (new, old) = (self.status.as_ref().unwrap_or(&empty), old.status.as_ref().unwrap_or(&empty));
        let at = Path::new("status");
        let parts = [
            ("readyReplicas", new.ready_replicas),
            ("currentReplicas", new.current_replicas),
            ("updatedReplicas", new.updated_replicas),
            ("availableReplicas", new.available_replicas),
        ];
        nonnegative(&mut errors, &at.child("replicas"), Some(new.replicas));
        for (field, value) in parts {
            nonnegative(&mut errors, &at.child(field), value);
        }
        nonnegative(&mut errors, &at.child("observedGeneration"), new.observed_generation);
        nonnegative(&mut errors, &at.child("collisionCount"), new.collision_count);
        for (field, value) in parts {
            if let Some(value) = value.filter(|v| *v > new.replicas) {
                let detail = "cannot be greater than status.replicas";
                errors.push(FieldError::invalid(&at.child(field), value, detail));
            }
        }
        let ready = new.ready_replicas.unwrap_or_default();
        if let Some(available) = new.available_replicas.filter(|available| *available > ready) {
            let detail = "cannot be greater than status.readyReplicas";
            errors.push(FieldError::invalid(&at.child("availableReplicas"), available, detail));
        }
        let at = at.child("collisionCount");
        workload::not_decremented(&mut errors, &at, new.collision_count, old.collision_count);
        errors
    }

    fn warnings(&self, old: Option<&Self>) -> Vec<String> {
        let spec = |set: &Self| set.spec.clone().unwrap_or_default();
        let (new, old) = (spec(self), old.map(spec));
        if old.as_ref().is_some_and(|old| same(&new, old)) {
            return Vec::new();
        }
        let at = Path::new("spec");
        let old_template = old.as_ref().map(|old| &old.template);
        let mut out = workload::template_warnings(&new.template, old_template, &at.child("template"));
        for (i, claim) in list(&new.volume_claim_templates).iter().enumerate() {
            let requests = claim.spec.as_ref().and_then(|s| s.resources.as_ref()?.requests.as_ref());
            let storage = requests.and_then(|amounts| amounts.get("storage")).and_then(Amount::of);
            if let Some(amount) = storage.filter(|amount| !amount.is_integer()) {
                let at = at.child("volumeClaimTemplates").index(i).child("resources").child("requests");
                let shown = quote(&amount.to_string());
                out.push(format!(
                    "{}: fractional byte value {shown} is invalid, must be an integer",
                    at.key("storage")
                ));
            }
        }
        if new.revision_history_limit.is_some_and(|limit| limit < 0) {
            out.push(
                "spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is \
                 recommended"
                    .to_owned(),
            );
        }
        out
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        let empty = StatefulSetSpec::default();
        let spec = self.spec.as_ref().unwrap_or(&empty);
        let ready = self.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or_default();
        let [names, images] = containers(workload::pods(Some(&spec.template)));
        vec![
            name_cell(&self.metadata),
            format!("{ready}/{}", spec.replicas.unwrap_or_default()).into(),
            age(&self.metadata, now),
            names,
            images,
        ]
    }

    fn replicas(&self) -> Option<Replicas> {
        let spec = self.spec.as_ref()?;
        Some(Replicas {
            wanted: spec.replicas.unwrap_or_default(),
            current: self.status.as_ref().map(|s| s.replicas).unwrap_or_default(),
            selector: selector_text(Some(&spec.selector)),
        })
    }

    fn set_replicas(&mut self, wanted: i32) {
        self.spec.get_or_insert_default().replicas = Some(wanted);
    }
}

fn set(field: &mut Option<String>, value: &str) {
    if text(field).is_empty() {
        *field = Some(value.to_owned());
    }
}

/// The count that is always written.
fn zeros(status: &mut StatefulSetStatus) {
    status.available_replicas.get_or_insert(0);
}

/// What is not looked at in a set that is there already.
#[derive(Clone, Copy, Default)]
struct Tolerate {
    service_name: bool,
    claims: bool,
    template: bool,
}

fn validate_spec(spec: &StatefulSetSpec, tolerate: Tolerate) -> Errors {
    let mut errors = Errors::new();
    let path = Path::new("spec");
    let policy = text(&spec.pod_management_policy);
    let at = path.child("podManagementPolicy");
    match policy {
        "" => errors.push(FieldError::required(&at, "")),
        "OrderedReady" | "Parallel" => {}
        _ => errors.push(FieldError::invalid(&at, policy, "must be 'OrderedReady' or 'Parallel'")),
    }
    let empty = StatefulSetUpdateStrategy::default();
    let strategy = spec.update_strategy.as_ref().unwrap_or(&empty);
    update_strategy(&mut errors, strategy, &path.child("updateStrategy"));
    if let Some(retention) = &spec.persistent_volume_claim_retention_policy {
        let at = path.child("persistentVolumeClaimRetentionPolicy");
        for (field, value) in
            [("whenDeleted", &retention.when_deleted), ("whenScaled", &retention.when_scaled)]
        {
            one_of(&mut errors, &at.child(field), text(value), &["Retain", "Delete"]);
        }
    }
    if !tolerate.claims {
        for (i, claim) in list(&spec.volume_claim_templates).iter().enumerate() {
            let at = path.child("volumeClaimTemplates").index(i).child("spec");
            storage::claim_spec(&mut errors, &claim.spec.clone().unwrap_or_default(), &at);
        }
    }
    nonnegative(&mut errors, &path.child("replicas"), spec.replicas);
    nonnegative(&mut errors, &path.child("minReadySeconds"), spec.min_ready_seconds);
    if let Some(ordinals) = &spec.ordinals {
        nonnegative(&mut errors, &path.child("ordinals").child("start"), ordinals.start);
    }
    let service = text(&spec.service_name);
    if !tolerate.service_name && !service.is_empty() {
        dns_label(&mut errors, &path.child("serviceName"), service);
    }
    let (at, at_template) = (path.child("selector"), path.child("template"));
    workload::required_selector(&mut errors, &spec.selector, "statefulset", &at);
    match workload::selects(&spec.selector, &spec.template) {
        None => errors.push(FieldError::invalid(&at, BadValue::of(&spec.selector), "")),
        Some(matches) => {
            if !matches {
                errors.push(workload::mismatch(&spec.template, &at_template));
            }
            if !tolerate.template {
                spec::validate_template(&mut errors, &with_claims(spec), &at_template);
            }
        }
    }
    spec::validate_always(&mut errors, &spec.template, "StatefulSet", &at_template);
    errors
}

/// The template with a volume for each claim, as its pods will have them: a claim takes the place of a volume of its
/// name.
fn with_claims(spec: &StatefulSetSpec) -> PodTemplateSpec {
    let mut template = spec.template.clone();
    let claims = list(&spec.volume_claim_templates);
    if claims.is_empty() {
        return template;
    }
    let names: BTreeSet<&str> = claims.iter().map(|claim| text(&claim.metadata.name)).collect();
    let volumes = template.spec.get_or_insert_default().volumes.get_or_insert_default();
    volumes.retain(|volume| !names.contains(volume.name.as_str()));
    volumes.extend(names.into_iter().map(|name| Volume {
        name: name.to_owned(),
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
            claim_name: name.to_owned(),
            read_only: None,
        }),
        ..Volume::default()
    }));
    template
}

fn update_strategy(errors: &mut Errors, strategy: &StatefulSetUpdateStrategy, path: &Path) {
    let rolling = strategy.rolling_update.as_ref();
    match text(&strategy.type_) {
        "" => errors.push(FieldError::required(path, "")),
        "OnDelete" => {
            if let Some(rolling) = rolling {
                let detail = "only allowed for updateStrategy 'RollingUpdate'";
                let shown = BadValue::Plain(shown(rolling));
                errors.push(FieldError::invalid(&path.child("rollingUpdate"), shown, detail));
            }
        }
        "RollingUpdate" => {
            if let Some(rolling) = rolling {
                rolling_update(errors, rolling, &path.child("rollingUpdate"));
            }
        }
        other => {
            let rolling = rolling.map_or("null".to_owned(), shown);
            let shown = format!(r#"{{"Type":{},"RollingUpdate":{rolling}}}"#, quote(other));
            let detail = "must be 'RollingUpdate' or 'OnDelete'";
            errors.push(FieldError::invalid(path, BadValue::Plain(shown), detail));
        }
    }
}

/// As upstream shows its own struct.
fn shown(rolling: &RollingUpdateStatefulSetStrategy) -> String {
    let partition = rolling.partition.unwrap_or_default();
    format!(r#"{{"Partition":{partition},"MaxUnavailable":{}}}"#, json!(rolling.max_unavailable))
}

fn rolling_update(errors: &mut Errors, rolling: &RollingUpdateStatefulSetStrategy, path: &Path) {
    nonnegative(errors, &path.child("partition"), rolling.partition);
    let Some(unavailable) = &rolling.max_unavailable else { return };
    let at = path.child("maxUnavailable");
    int_or_percent(errors, &at, unavailable);
    if int_or_percent_value(unavailable) == 0 {
        errors.push(FieldError::invalid(&at, BadValue::of(unavailable), "cannot be 0"));
    }
    at_most_100_percent(errors, &at, unavailable);
}

#[cfg(test)]
mod tests;
