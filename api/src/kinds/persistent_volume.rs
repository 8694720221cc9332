//! The rules of core/v1 PersistentVolume.

mod sources;

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{PersistentVolume, PersistentVolumeSpec, PersistentVolumeStatus, VolumeNodeAffinity},
    apimachinery::pkg::apis::meta::v1::Time,
};
use serde_json::Value;

use super::{
    amount::{Amount, canonical_list},
    cells::age,
    check::{dns_subdomain, immutable, immutable_struct, is_empty, list, meaning, one_of, same, text},
    pod::{affinity::node_selector, update::difference, warnings},
    volume,
};
use crate::{
    field::{BadValue, Errors, FieldError, Path},
    object::{Kind, name_cell},
    resource::Column,
};

const MOUNT_ANNOTATION: &str = "volume.beta.kubernetes.io/mount-options";

impl Kind for PersistentVolume {
    const RETURNS_DELETED: bool = true;
    const COLUMNS: &'static [Column] = &[
        Column::name(),
        Column::text("Capacity").about(
            "capacity is the description of the persistent volume's resources and capacity. More info: \
             https://kubernetes.io/docs/concepts/storage/persistent-volumes#capacity",
        ),
        Column::text("Access Modes").about(
            "accessModes contains all ways the volume can be mounted. More info: \
             https://kubernetes.io/docs/concepts/storage/persistent-volumes#access-modes",
        ),
        Column::text("Reclaim Policy")
            .about(
            "persistentVolumeReclaimPolicy defines what happens to a persistent volume when released from its claim. \
             Valid options are Retain (default for manually created PersistentVolumes), Delete (default for \
             dynamically provisioned PersistentVolumes), and Recycle (deprecated). Recycle must be supported by the \
             volume plugin underlying this PersistentVolume. More info: \
             https://kubernetes.io/docs/concepts/storage/persistent-volumes#reclaiming",
        ),
        Column::text("Status").about(
            "phase indicates if a volume is available, bound to a claim, or released by a claim. More info: \
             https://kubernetes.io/docs/concepts/storage/persistent-volumes#phase",
        ),
        Column::text("Claim").about(
            "claimRef is part of a bi-directional binding between PersistentVolume and PersistentVolumeClaim. \
             Expected to be non-nil when bound. claim.VolumeName is the authoritative bind between PV and PVC. More \
             info: https://kubernetes.io/docs/concepts/storage/persistent-volumes#binding",
        ),
        Column::text("StorageClass").about("StorageClass of the pv"),
        Column::text("VolumeAttributesClass").about("VolumeAttributesClass of the pv"),
        Column::text("Reason").about(
            "reason is a brief CamelCase string that describes any failure and is meant for machine parsing and tidy \
             display in the CLI.",
        ),
        Column::age(),
        Column::text("VolumeMode").wide().about(
            "volumeMode defines if a volume is intended to be used with a formatted filesystem or to remain in raw \
             block state. Value of Filesystem is implied when not included in spec.",
        ),
    ];

    fn set_defaults(&mut self) {
        let status = self.status.get_or_insert_default();
        if text(&status.phase).is_empty() {
            status.phase = Some("Pending".to_owned());
        }
        let spec = self.spec.get_or_insert_default();
        if text(&spec.persistent_volume_reclaim_policy).is_empty() {
            spec.persistent_volume_reclaim_policy = Some("Retain".to_owned());
        }
        spec_defaults(spec);
    }

    fn prepare_create(&mut self) {
        self.status = Some(PersistentVolumeStatus {
            phase: Some("Pending".to_owned()),
            ..PersistentVolumeStatus::default()
        });
    }

    fn prepare_update(&mut self, old: &Self) {
        self.status.clone_from(&old.status);
    }

    fn prepare_status(&mut self, old: &Self) {
        self.spec.clone_from(&old.spec);
    }

    fn stamp(&mut self, old: Option<&Self>, now: Timestamp) {
        let empty = PersistentVolumeStatus::default();
        let status = self.status.get_or_insert_default();
        let Some(old) = old else {
            status.last_phase_transition_time = Some(Time(now));
            return;
        };
        let old = old.status.as_ref().unwrap_or(&empty);
        let (given, before) = (&status.last_phase_transition_time, &old.last_phase_transition_time);
        if status.phase == old.phase {
            if given.is_none() {
                status.last_phase_transition_time.clone_from(before);
            }
        } else if given.is_none() || given == before {
            status.last_phase_transition_time = Some(Time(now));
        }
    }

    fn validate(&self) -> Errors {
        let mut errors = Errors::new();
        let empty = PersistentVolumeSpec::default();
        let spec = self.spec.as_ref().unwrap_or(&empty);
        validate_spec(&mut errors, spec, Some(text(&self.metadata.name)), &Path::new("spec"));
        errors
    }

    fn validate_update(&self, old: &Self) -> Errors {
        let mut errors = self.validate();
        let empty = PersistentVolumeSpec::default();
        let (new, old) = (self.spec.as_ref().unwrap_or(&empty), old.spec.as_ref().unwrap_or(&empty));
        let path = Path::new("spec");
        let (mut source, before) = (sources::of(new), sources::of(old));
        // A secret for expansion may be added later.
        if let (Some(csi), Some(old)) = (&mut source.csi, &before.csi)
            && old.controller_expand_secret_ref.is_none()
        {
            csi.controller_expand_secret_ref = None;
        }
        if !same(&source, &before) {
            let detail = format!(
                "spec.persistentvolumesource is immutable after creation\n{}",
                difference(&meaning(&before), &meaning(&source))
            );
            errors.push(FieldError::forbidden(&path.child("persistentvolumesource"), detail));
        }
        immutable(&mut errors, &Path::new("volumeMode"), &new.volume_mode, &old.volume_mode);
        if let Some(was) = &old.node_affinity {
            let was = Some(renamed(was.clone(), new.node_affinity.as_ref()));
            let name = "api/core/v1.VolumeNodeAffinity";
            immutable_struct(&mut errors, &Path::new("nodeAffinity"), &new.node_affinity, &was, name);
        }
        if old.volume_attributes_class_name.is_some() && new.volume_attributes_class_name.is_none() {
            let detail = "update from non-nil value to nil is forbidden";
            errors.push(FieldError::forbidden(&path.child("volumeAttributesClassName"), detail));
        }
        errors
    }

    fn warnings(&self, _old: Option<&Self>) -> Vec<String> {
        let mut out = Vec::new();
        let path = Path::new("metadata").child("annotations");
        for (key, message) in [
            (volume::CLASS_ANNOTATION, volume::CLASS_ANNOTATION_IS_OLD),
            (MOUNT_ANNOTATION, "deprecated since v1.31; use \"mountOptions\" attribute instead"),
        ] {
            if self.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(key)) {
                out.push(format!("{}: {message}", path.key(key)));
            }
        }
        let Some(spec) = &self.spec else { return out };
        let path = Path::new("spec");
        if text(&spec.persistent_volume_reclaim_policy) == "Recycle" {
            out.push(format!(
                "{}: The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic \
                 provisioning.",
                path.child("persistentVolumeReclaimPolicy")
            ));
        }
        let terms = spec.node_affinity.as_ref().and_then(|a| a.required.as_ref());
        let at = path.child("nodeAffinity").child("required").child("nodeSelectorTerms");
        for (i, term) in terms.into_iter().flat_map(|s| &s.node_selector_terms).enumerate() {
            warnings::node_term(&mut out, term, &at.index(i));
        }
        sources::warnings(&mut out, spec, &path);
        out
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        let (empty_spec, empty_status) = (PersistentVolumeSpec::default(), PersistentVolumeStatus::default());
        let spec = self.spec.as_ref().unwrap_or(&empty_spec);
        let status = self.status.as_ref().unwrap_or(&empty_status);
        let capacity = spec.capacity.as_ref().and_then(|c| c.get("storage")).and_then(Amount::of);
        let claim = spec.claim_ref.as_ref().map(|c| format!("{}/{}", text(&c.namespace), text(&c.name)));
        let ends = self.metadata.deletion_timestamp.is_some();
        vec![
            name_cell(&self.metadata),
            capacity.map_or_else(|| "0".to_owned(), |amount| amount.to_string()).into(),
            volume::short_modes(list(&spec.access_modes)).into(),
            text(&spec.persistent_volume_reclaim_policy).into(),
            if ends { "Terminating".into() } else { text(&status.phase).into() },
            claim.unwrap_or_default().into(),
            volume::class_of(&self.metadata, spec.storage_class_name.as_ref()).into(),
            spec.volume_attributes_class_name.as_deref().unwrap_or("<unset>").into(),
            text(&status.reason).into(),
            age(&self.metadata, now),
            spec.volume_mode.as_deref().unwrap_or("<unset>").into(),
        ]
    }
}

/// What a spec has where nothing is said.
pub(crate) fn spec_defaults(spec: &mut PersistentVolumeSpec) {
    spec.volume_mode.get_or_insert_with(|| "Filesystem".to_owned());
    canonical_list(&mut spec.capacity);
    sources::set_defaults(spec);
}

/// A spec that stands in another object: it has a driver, and nothing that only a volume of its own can have.
pub(crate) fn validate_inline(errors: &mut Errors, spec: &PersistentVolumeSpec, path: &Path) {
    validate_spec(errors, spec, None, path);
}

/// Checks the spec of the volume `name`, or one that stands in another object.
fn validate_spec(errors: &mut Errors, spec: &PersistentVolumeSpec, name: Option<&str>, path: &Path) {
    let inline = name.is_none();
    if inline {
        only_a_source(errors, spec, path);
    }
    let at = path.child("accessModes");
    if list(&spec.access_modes).is_empty() {
        errors.push(FieldError::required(&at, ""));
    }
    volume::access_modes(errors, list(&spec.access_modes), &at);
    if !inline {
        capacity(errors, spec, &path.child("capacity"));
    }
    let policy = text(&spec.persistent_volume_reclaim_policy);
    let at = path.child("persistentVolumeReclaimPolicy");
    if inline && !policy.is_empty() && policy != "Retain" {
        errors.push(FieldError::forbidden(&at, "may only be Retain in the context of inline volumes"));
    } else if !inline && !policy.is_empty() {
        one_of(errors, &at, policy, &["Delete", "Recycle", "Retain"]);
    }
    if let Some(affinity) = &spec.node_affinity {
        let at = path.child("nodeAffinity");
        if inline {
            errors.push(not_inline(&at));
        } else if let Some(selector) = &affinity.required {
            node_selector(errors, selector, &at.child("required"));
        } else {
            let detail = "must specify required node constraints";
            errors.push(FieldError::required(&at.child("required"), detail));
        }
    }
    sources::validate(errors, spec, name.unwrap_or_default(), path);
    let root = spec.host_path.as_ref().is_some_and(|host| is_root(&host.path));
    if root && policy == "Recycle" {
        let detail = "may not be 'recycle' for a hostPath mount of '/'";
        errors.push(FieldError::forbidden(&path.child("persistentVolumeReclaimPolicy"), detail));
    }
    let class = text(&spec.storage_class_name);
    if !class.is_empty() {
        let at = path.child("storageClassName");
        if inline {
            errors.push(not_inline(&at));
        } else {
            dns_subdomain(errors, &at, class);
        }
    }
    let at = path.child("volumeMode");
    if !inline {
        volume::volume_mode(errors, spec.volume_mode.as_ref(), &at);
    } else if spec.volume_mode.as_ref().is_some_and(|mode| mode != "Filesystem") {
        let detail = "may not specify volumeMode other than Filesystem in the context of inline volumes";
        errors.push(FieldError::forbidden(&at, detail));
    }
    if let Some(class) = spec.volume_attributes_class_name.as_ref().filter(|_| !inline) {
        let at = path.child("volumeAttributesClassName");
        if class.is_empty() {
            errors.push(FieldError::required(&at, "an empty string is disallowed"));
        } else {
            dns_subdomain(errors, &at, class);
        }
        if spec.csi.is_none() {
            let detail = "has to be specified when using volumeAttributesClassName";
            errors.push(FieldError::required(&path.child("csi"), detail));
        }
    }
}

fn not_inline(path: &Path) -> FieldError {
    FieldError::forbidden(path, "may not be specified in the context of inline volumes")
}

fn only_a_source(errors: &mut Errors, spec: &PersistentVolumeSpec, path: &Path) {
    if spec.claim_ref.is_some() {
        errors.push(not_inline(&path.child("claimRef")));
    }
    if !is_empty(&spec.capacity) {
        errors.push(not_inline(&path.child("capacity")));
    }
    if spec.csi.is_none() {
        let detail = "has to be specified in the context of inline volumes";
        errors.push(FieldError::required(&path.child("csi"), detail));
    }
}

fn capacity(errors: &mut Errors, spec: &PersistentVolumeSpec, path: &Path) {
    if is_empty(&spec.capacity) {
        errors.push(FieldError::required(path, ""));
    }
    let only_storage = spec.capacity.as_ref().is_some_and(|c| c.len() == 1 && c.contains_key("storage"));
    if !only_storage {
        errors.push(FieldError::not_supported(path, BadValue::of(&spec.capacity), &["storage"]));
    }
    for (resource, text) in spec.capacity.iter().flatten() {
        let Some(amount) = Amount::of(text) else { continue };
        volume::basic_amount(errors, amount, &path.key(resource));
        volume::positive_amount(errors, amount, &path.key(resource));
    }
}

/// Whether a path is the root, however it is written.
fn is_root(path: &str) -> bool {
    path.starts_with('/') && path.split('/').all(|part| matches!(part, "" | "." | ".."))
}

/// The old affinity with the labels that have a newer name renamed where the new one does so.
fn renamed(mut old: VolumeNodeAffinity, new: Option<&VolumeNodeAffinity>) -> VolumeNodeAffinity {
    let newer = |key: &str| match key {
        "beta.kubernetes.io/os" => "kubernetes.io/os",
        "beta.kubernetes.io/arch" => "kubernetes.io/arch",
        "failure-domain.beta.kubernetes.io/zone" => "topology.kubernetes.io/zone",
        "failure-domain.beta.kubernetes.io/region" => "topology.kubernetes.io/region",
        "beta.kubernetes.io/instance-type" => "node.kubernetes.io/instance-type",
        _ => "",
    };
    let new = new.and_then(|affinity| affinity.required.as_ref());
    let terms = old.required.iter_mut().flat_map(|selector| &mut selector.node_selector_terms);
    for (i, term) in terms.enumerate() {
        for (j, requirement) in term.match_expressions.iter_mut().flatten().enumerate() {
            let now = new
                .and_then(|selector| selector.node_selector_terms.get(i))
                .and_then(|term| list(&term.match_expressions).get(j));
            if let Some(now) = now.filter(|now| now.key == newer(&requirement.key)) {
                requirement.key.clone_from(&now.key);
            }
        }
    }
    old
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn volume(spec: Value) -> PersistentVolume {
        let mut volume: PersistentVolume =
            serde_json::from_value(json!({"metadata": {"name": "v"}, "spec": spec})).unwrap();
        volume.set_defaults();
        volume
    }

    fn sound() -> Value {
        json!({"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/x"}})
    }

    fn problems(errors: Errors) -> Vec<String> {
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_volume_is_checked_in_upstreams_words() {
        for (field, value, wanted) in [
            ("accessModes", json!([]), "spec.accessModes: Required value"),
            (
                "capacity",
                json!({"storage": "0"}),
                "spec.capacity[storage]: Invalid value: \"0\": must be greater than zero",
            ),
            (
                "capacity",
                json!({"storage": "1", "cpu": "1"}),
                "spec.capacity: Unsupported value: {\"cpu\":\"1\",\"storage\":\"1\"}: supported values: \"storage\"",
            ),
            (
                "persistentVolumeReclaimPolicy",
                json!("x"),
                "spec.persistentVolumeReclaimPolicy: Unsupported value: \"x\": supported values: \"Delete\", \
                 \"Recycle\", \"Retain\"",
            ),
            (
                "nfs",
                json!({"server": "s", "path": "/"}),
                "spec.nfs: Forbidden: may not specify more than 1 volume type",
            ),
            (
                "hostPath",
                json!({"path": "/a/../b"}),
                "spec.hostPath.path: Invalid value: \"/a/../b\": must not contain '..'",
            ),
            (
                "nodeAffinity",
                json!({}),
                "spec.nodeAffinity.required: Required value: must specify required node constraints",
            ),
            (
                "volumeAttributesClassName",
                json!("gold"),
                "spec.csi: Required value: has to be specified when using volumeAttributesClassName",
            ),
        ] {
            let mut spec = sound();
            spec[field] = value;
            assert_eq!(problems(volume(spec).validate()), [wanted]);
        }
        assert!(volume(sound()).validate().is_empty());
    }

    #[test]
    fn a_local_volume_says_where_it_is() {
        let spec =
            json!({"capacity": {"storage": "1"}, "accessModes": ["ReadWriteOnce"], "local": {"path": "/d"}});
        let wanted = "spec.nodeAffinity: Required value: Local volume requires node affinity";
        assert_eq!(problems(volume(spec).validate()), [wanted]);
    }

    #[test]
    fn what_a_volume_is_made_of_stays() {
        let old = volume(sound());
        let mut spec = sound();
        spec["hostPath"]["path"] = json!("/y");
        let errors = volume(spec).validate_update(&old);
        assert!(
            errors[0].to_string().starts_with(
                "spec.persistentvolumesource: Forbidden: spec.persistentvolumesource is immutable after creation\n"
            ),
            "{errors:?}"
        );
        assert!(old.validate_update(&old).is_empty());
    }

    #[test]
    fn an_affinity_may_be_added_and_old_labels_may_be_renamed() {
        let with = |key: &str| {
            let mut spec = sound();
            let term = json!({"matchExpressions": [{"key": key, "operator": "In", "values": ["a"]}]});
            spec["nodeAffinity"] = json!({"required": {"nodeSelectorTerms": [term]}});
            volume(spec)
        };
        let old = with("failure-domain.beta.kubernetes.io/zone");
        assert!(with("topology.kubernetes.io/zone").validate_update(&old).is_empty());
        assert!(old.validate_update(&volume(sound())).is_empty());
        assert_eq!(with("other").validate_update(&old).len(), 1);
    }

    #[test]
    fn the_time_of_a_new_phase_is_noted() {
        let now = Timestamp::from_second(1000).unwrap();
        let mut old = volume(sound());
        old.stamp(None, now);
        let at =
            |volume: &PersistentVolume| volume.status.as_ref().unwrap().last_phase_transition_time.clone();
        assert_eq!(at(&old), Some(Time(now)));
        let later = Timestamp::from_second(2000).unwrap();
        let mut new = old.clone();
        new.stamp(Some(&old), later);
        assert_eq!(at(&new), Some(Time(now)));
        new.status.as_mut().unwrap().phase = Some("Bound".to_owned());
        new.stamp(Some(&old), later);
        assert_eq!(at(&new), Some(Time(later)));
    }
}
