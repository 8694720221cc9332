//! The rules of core/v1 PersistentVolumeClaim.

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{
        PersistentVolumeClaim, PersistentVolumeClaimSpec, PersistentVolumeClaimStatus,
        TypedLocalObjectReference, TypedObjectReference,
    },
    apimachinery::pkg::api::resource::Quantity,
};
use serde_json::Value;

use super::{
    amount::{Amount, Amounts, canonical_list},
    cells::age,
    check::{immutable, list, meaning, one_of, problems, same, text},
    pod::{defaults, storage, update::difference},
    volume,
};
use crate::{
    field::{Errors, FieldError, Path, quote},
    name,
    object::{Kind, name_cell},
    resource::Column,
};

const MAY_CHANGE: &str = "spec is immutable after creation except resources.requests and \
                          volumeAttributesClassName for bound claims";
const RESIZE_STATES: &[&str] = &[
    "ControllerResizeInProgress",
    "ControllerResizeInfeasible",
    "NodeResizeInProgress",
    "NodeResizeInfeasible",
    "NodeResizePending",
];

impl Kind for PersistentVolumeClaim {
    const RETURNS_DELETED: bool = true;
    const COLUMNS: &'static [Column] = &[
        Column::name(),
        Column::text("Status").about("phase represents the current phase of PersistentVolumeClaim."),
        Column::text("Volume").about("volumeName is the binding reference to the PersistentVolume backing this claim."),
        Column::text("Capacity").about("capacity represents the actual resources of the underlying volume."),
        Column::text("Access Modes").about(
            "accessModes contains the actual access modes the volume backing the PVC has. More info: \
             https://kubernetes.io/docs/concepts/storage/persistent-volumes#access-modes-1",
        ),
        Column::text("StorageClass").about("StorageClass of the pvc"),
        Column::text("VolumeAttributesClass").about("VolumeAttributesClass of the pvc"),
        Column::age(),
        Column::text("VolumeMode").wide().about(
            "volumeMode defines what type of volume is required by the claim. Value of Filesystem is implied when \
             not included in claim spec.",
        ),
    ];

    fn set_defaults(&mut self) {
        let status = self.status.get_or_insert_default();
        if text(&status.phase).is_empty() {
            status.phase = Some("Pending".to_owned());
        }
        canonical_list(&mut status.capacity);
        canonical_list(&mut status.allocated_resources);
        defaults::claim_spec(self.spec.get_or_insert_default());
    }

    fn prepare_create(&mut self) {
        self.status = Some(PersistentVolumeClaimStatus {
            phase: Some("Pending".to_owned()),
            ..PersistentVolumeClaimStatus::default()
        });
        if let Some(spec) = &mut self.spec {
            sources(spec, None);
        }
    }

    fn prepare_update(&mut self, old: &Self) {
        self.status.clone_from(&old.status);
        if let Some(spec) = &mut self.spec {
            sources(spec, old.spec.as_ref());
        }
    }

    fn prepare_status(&mut self, old: &Self) {
        self.spec.clone_from(&old.spec);
    }

    fn validate(&self) -> Errors {
        let mut errors = Errors::new();
        let empty = PersistentVolumeClaimSpec::default();
        storage::claim_spec(&mut errors, self.spec.as_ref().unwrap_or(&empty), &Path::new("spec"));
        errors
    }

    fn validate_update(&self, old: &Self) -> Errors {
        let mut errors = self.validate();
        let empty = PersistentVolumeClaimSpec::default();
        let (new, was) = (self.spec.as_ref().unwrap_or(&empty), old.spec.as_ref().unwrap_or(&empty));
        let path = Path::new("spec");
        self.class_annotation(&mut errors, old);
        let munged = self.munged(old, new, was);
        if !same(&munged, &comparable(was, new)) {
            let change = difference(&meaning(&comparable(was, new)), &meaning(&munged));
            errors.push(FieldError::forbidden(&path, format!("{MAY_CHANGE}\n{change}")));
        }
        self.size(&mut errors, old, &path);
        immutable(&mut errors, &Path::new("volumeMode"), &new.volume_mode, &was.volume_mode);
        if was.volume_attributes_class_name.is_some() {
            let at = path.child("volumeAttributesClassName");
            let detail = match new.volume_attributes_class_name.as_deref() {
                None => Some("update from non-nil value to nil is forbidden"),
                Some("") if !text(&was.volume_attributes_class_name).is_empty() => {
                    Some("update from non-nil value to an empty string is forbidden")
                }
                Some(_) => None,
            };
            errors.extend(detail.map(|detail| FieldError::forbidden(&at, detail)));
        }
        errors
    }

    fn validate_status(&self, _old: &Self) -> Errors {
        let mut errors = Errors::new();
        let empty = PersistentVolumeClaimStatus::default();
        let status = self.status.as_ref().unwrap_or(&empty);
        let path = Path::new("status");
        for (resource, amount) in amounts(&status.capacity) {
            volume::basic_amount(&mut errors, amount, &path.child("capacity").key(resource));
        }
        // The name is upstream's.
        let at = path.child("allocatedResourceStatus");
        for (resource, state) in status.allocated_resource_statuses.iter().flatten() {
            resource_key(&mut errors, resource, &at);
            if !RESIZE_STATES.contains(&state.as_str()) {
                let mut known = RESIZE_STATES.to_vec();
                known.sort_unstable();
                errors.push(FieldError::not_supported(&at, resource, &known));
            }
        }
        let at = path.child("allocatedResources");
        for (resource, amount) in amounts(&status.allocated_resources) {
            if resource_key(&mut errors, resource, &at) {
                volume::basic_amount(&mut errors, amount, &at.key(resource));
            }
        }
        errors
    }

    fn warnings(&self, _old: Option<&Self>) -> Vec<String> {
        let mut out = Vec::new();
        if self.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(volume::CLASS_ANNOTATION)) {
            let at = Path::new("metadata").child("annotations").key(volume::CLASS_ANNOTATION);
            out.push(format!("{at}: {}", volume::CLASS_ANNOTATION_IS_OLD));
        }
        let resources = self.spec.as_ref().and_then(|spec| spec.resources.as_ref());
        let path = Path::new("spec").child("resources");
        for (field, given) in [
            ("requests", resources.and_then(|r| r.requests.as_ref())),
            ("limits", resources.and_then(|r| r.limits.as_ref())),
        ] {
            let size = given.and_then(|given| given.get("storage")).and_then(Amount::of);
            if let Some(size) = size.filter(|size| !size.is_integer()) {
                let (at, shown) = (path.child(field).key("storage"), quote(&size.to_string()));
                out.push(format!("{at}: fractional byte value {shown} is invalid, must be an integer"));
            }
        }
        out
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        let (empty_spec, empty_status) =
            (PersistentVolumeClaimSpec::default(), PersistentVolumeClaimStatus::default());
        let spec = self.spec.as_ref().unwrap_or(&empty_spec);
        let status = self.status.as_ref().unwrap_or(&empty_status);
        let bound = !text(&spec.volume_name).is_empty();
        let capacity = storage_of(&status.capacity).map_or_else(|| "0".to_owned(), |c| c.to_string());
        let modes = volume::short_modes(list(&status.access_modes));
        let ends = self.metadata.deletion_timestamp.is_some();
        vec![
            name_cell(&self.metadata),
            if ends { "Terminating".into() } else { text(&status.phase).into() },
            text(&spec.volume_name).into(),
            if bound { capacity.into() } else { "".into() },
            if bound { modes.into() } else { "".into() },
            volume::class_of(&self.metadata, spec.storage_class_name.as_ref()).into(),
            spec.volume_attributes_class_name.as_deref().unwrap_or("<unset>").into(),
            age(&self.metadata, now),
            spec.volume_mode.as_deref().unwrap_or("<unset>").into(),
        ]
    }
}

fn amounts(given: &Option<Amounts>) -> impl Iterator<Item = (&String, Amount)> {
    given.iter().flatten().filter_map(|(resource, text)| Some((resource, Amount::of(text)?)))
}

fn storage_of(given: &Option<Amounts>) -> Option<Amount> {
    given.as_ref()?.get("storage").and_then(Amount::of)
}

/// A resource whose amount a claim's status may name: storage, or one with a domain of its own.
fn resource_key(errors: &mut Errors, resource: &str, path: &Path) -> bool {
    let found = name::qualified_name(resource);
    if !found.is_empty() {
        problems(errors, path, resource, found);
        return false;
    }
    let native = !resource.contains('/') || resource.contains("kubernetes.io/");
    if native && resource != "storage" {
        one_of(errors, path, resource, &["storage"]);
        return false;
    }
    true
}

/// The old spec, as far as it counts: the volume's name may be set once.
fn comparable(old: &PersistentVolumeClaimSpec, new: &PersistentVolumeClaimSpec) -> PersistentVolumeClaimSpec {
    let mut old = old.clone();
    same_sources(&mut old);
    if text(&old.volume_name).is_empty() {
        old.volume_name.clone_from(&new.volume_name);
    }
    old
}

trait Claim {
    fn class_annotation(&self, errors: &mut Errors, old: &Self);
    fn munged(
        &self,
        old: &Self,
        new: &PersistentVolumeClaimSpec,
        was: &PersistentVolumeClaimSpec,
    ) -> PersistentVolumeClaimSpec;
    fn size(&self, errors: &mut Errors, old: &Self, path: &Path);
    fn annotated_class(&self) -> Option<&String>;
    fn moves_class_to_field(&self, old: &Self) -> bool;
}

impl Claim for PersistentVolumeClaim {
    fn annotated_class(&self) -> Option<&String> {
        self.metadata.annotations.as_ref()?.get(volume::CLASS_ANNOTATION)
    }

    /// Whether the class goes from the old annotation to the field, and stays the same.
    fn moves_class_to_field(&self, old: &Self) -> bool {
        let class = |claim: &Self| claim.spec.as_ref().and_then(|spec| spec.storage_class_name.clone());
        let (Some(before), Some(now)) = (old.annotated_class(), class(self)) else { return false };
        class(old).is_none() && now == *before && self.annotated_class().is_none_or(|a| a == before)
    }

    fn class_annotation(&self, errors: &mut Errors, old: &Self) {
        let (now, before) = (self.annotated_class(), old.annotated_class());
        let value = |class: Option<&String>| class.cloned().unwrap_or_default();
        if !self.moves_class_to_field(old) && value(now) != value(before) {
            let at = Path::new("metadata").child("annotations").key(volume::CLASS_ANNOTATION);
            errors.push(FieldError::invalid(&at, value(now), "field is immutable"));
        }
    }

    /// The new spec with what may change put back.
    fn munged(
        &self,
        old: &Self,
        new: &PersistentVolumeClaimSpec,
        was: &PersistentVolumeClaimSpec,
    ) -> PersistentVolumeClaimSpec {
        let mut spec = new.clone();
        let bound = self.status.as_ref().is_some_and(|status| text(&status.phase) == "Bound");
        // A claim without a class may get one later; the old annotation and the field agree then.
        let agree = old.annotated_class().is_none_or(|class| Some(class) == new.storage_class_name.as_ref());
        if self.moves_class_to_field(old) || was.storage_class_name.is_none() && agree {
            spec.storage_class_name = None;
        }
        if bound {
            let before = was.resources.as_ref().and_then(|r| r.requests.as_ref()?.get("storage"));
            if let Some(requests) = spec.resources.as_mut().and_then(|r| r.requests.as_mut()) {
                let before = before.cloned().unwrap_or_else(|| Quantity("0".to_owned()));
                requests.insert("storage".to_owned(), before);
            }
            if spec.volume_attributes_class_name.is_some() {
                spec.volume_attributes_class_name.clone_from(&was.volume_attributes_class_name);
            }
        }
        spec
    }

    /// A claim may grow; it may shrink only while it did not grow yet.
    fn size(&self, errors: &mut Errors, old: &Self, path: &Path) {
        let wanted = |claim: &Self| storage_of(&claim.spec.as_ref()?.resources.as_ref()?.requests);
        let zero = Amount::of(&Quantity("0".to_owned()));
        let (new, before) = (wanted(self).or(zero), wanted(old).or(zero));
        let actual = old.status.as_ref().and_then(|status| storage_of(&status.capacity)).or(zero);
        if new < before && new <= actual {
            let at = path.child("resources").child("requests").child("storage");
            let detail = "field can not be less than status.capacity";
            errors.push(FieldError::forbidden(&at, detail));
        }
    }
}

/// Drops what the old field for sources never could name, and says in both fields what one of them says.
fn sources(spec: &mut PersistentVolumeClaimSpec, old: Option<&PersistentVolumeClaimSpec>) {
    let foreign = spec.data_source_ref.as_ref().is_some_and(|source| !text(&source.namespace).is_empty());
    if foreign && old.is_none_or(|old| old.data_source_ref.is_none()) {
        spec.data_source_ref = None;
    }
    let in_use = old.is_some_and(|old| old.data_source.is_some() || old.data_source_ref.is_some());
    if !in_use && spec.data_source_ref.is_none() {
        spec.data_source = spec.data_source.take().filter(|source| {
            matches!(
                (source.kind.as_str(), text(&source.api_group)),
                ("PersistentVolumeClaim", "") | ("VolumeSnapshot", "snapshot.storage.k8s.io")
            )
        });
    }
    same_sources(spec);
}

fn same_sources(spec: &mut PersistentVolumeClaimSpec) {
    match (&spec.data_source, &spec.data_source_ref) {
        (Some(source), None) => {
            let TypedLocalObjectReference { api_group, kind, name } = source.clone();
            spec.data_source_ref = Some(TypedObjectReference { api_group, kind, name, namespace: None });
        }
        (None, Some(reference)) if text(&reference.namespace).is_empty() => {
            let TypedObjectReference { api_group, kind, name, .. } = reference.clone();
            spec.data_source = Some(TypedLocalObjectReference { api_group, kind, name });
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn claim(spec: Value, status: Value) -> PersistentVolumeClaim {
        let value = json!({"metadata": {"name": "c", "namespace": "n"}, "spec": spec, "status": status});
        let mut claim: PersistentVolumeClaim = serde_json::from_value(value).unwrap();
        claim.set_defaults();
        claim
    }

    fn of_size(size: &str) -> Value {
        json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}})
    }

    fn texts(errors: &Errors) -> Vec<String> {
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_claim_grows_when_it_is_bound() {
        let bound = || json!({"phase": "Bound", "capacity": {"storage": "1Gi"}});
        let old = claim(of_size("2Gi"), bound());
        for (size, wanted) in [
            ("2Gi", ""),
            ("3Gi", ""),
            // An expansion that failed can be taken back, not more.
            ("1.5Gi", ""),
            ("1Gi", "spec.resources.requests.storage: Forbidden: field can not be less than status.capacity"),
        ] {
            let errors = claim(of_size(size), bound()).validate_update(&old);
            assert_eq!(texts(&errors).join("; "), wanted, "{size}");
        }
        let pending = claim(of_size("2Gi"), json!({}));
        let errors = claim(of_size("3Gi"), json!({})).validate_update(&pending);
        assert!(texts(&errors)[0].starts_with(&format!("spec: Forbidden: {MAY_CHANGE}\n")), "{errors:?}");
    }

    #[test]
    fn a_class_and_a_volume_can_be_set_once() {
        let old = claim(of_size("1"), json!({}));
        let with = |field: &str, value: &str| {
            let mut spec = of_size("1");
            spec[field] = json!(value);
            claim(spec, json!({}))
        };
        for field in ["storageClassName", "volumeName"] {
            let first = with(field, "a");
            assert!(first.validate_update(&old).is_empty(), "{field}");
            assert_eq!(with(field, "b").validate_update(&first).len(), 1, "{field}");
        }
    }

    #[test]
    fn both_fields_for_a_source_say_the_same() {
        let reference = json!({"kind": "PersistentVolumeClaim", "name": "other"});
        for field in ["dataSource", "dataSourceRef"] {
            let mut spec = of_size("1");
            spec[field] = reference.clone();
            let mut claim = claim(spec, json!({}));
            claim.prepare_create();
            let value = serde_json::to_value(&claim).unwrap();
            assert_eq!(value["spec"]["dataSource"], reference);
            assert_eq!(value["spec"]["dataSourceRef"], reference);
            assert!(claim.validate().is_empty());
            let old = claim.clone();
            claim.prepare_update(&old);
            assert!(claim.validate_update(&old).is_empty());
        }
        let mut spec = of_size("1");
        spec["dataSource"] = json!({"apiGroup": "x.example.org", "kind": "Thing", "name": "t"});
        let mut claim = claim(spec, json!({}));
        claim.prepare_create();
        assert_eq!(claim.spec.unwrap().data_source, None);
    }

    #[test]
    fn the_state_of_an_expansion_is_one_of_upstreams() {
        let old = claim(of_size("1"), json!({}));
        let status = json!({"allocatedResourceStatuses": {"storage": "x", "cpu": "NodeResizePending"}});
        assert_eq!(
            texts(&claim(of_size("1"), status).validate_status(&old)),
            [
                "status.allocatedResourceStatus: Unsupported value: \"cpu\": supported values: \"storage\"",
                "status.allocatedResourceStatus: Unsupported value: \"storage\": supported values: \
                 \"ControllerResizeInProgress\", \"ControllerResizeInfeasible\", \"NodeResizeInProgress\", \
                 \"NodeResizeInfeasible\", \"NodeResizePending\"",
            ]
        );
    }
}
