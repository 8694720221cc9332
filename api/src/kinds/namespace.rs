//! The rules of core/v1 Namespace.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, NamespaceStatus};
use serde_json::Value;

use super::{
    cells::age,
    check::{list, problems, text},
};
use crate::{
    field::{Errors, FieldError, Path},
    name::{self, NameRule},
    object::{Kind, name_cell},
    resource::Column,
};

const NAME_LABEL: &str = "kubernetes.io/metadata.name";
const FINALIZER: &str = "kubernetes";

impl Kind for Namespace {
    const OWN_DELETION: bool = true;
    const NAME: Option<NameRule> = Some(name::label_name);
    const COLUMNS: &'static [Column] =
        &[Column::name(), Column::text("Status").about("The status of the namespace"), Column::age()];
    const FIELDS: &'static [&'static str] = &["status.phase"];

    fn set_defaults(&mut self) {
        label_with_name(self);
        self.spec.get_or_insert_default();
        let status = self.status.get_or_insert_default();
        if text(&status.phase).is_empty() {
            status.phase = Some("Active".to_owned());
        }
    }

    fn prepare_create(&mut self) {
        self.status =
            Some(NamespaceStatus { phase: Some("Active".to_owned()), ..NamespaceStatus::default() });
        let finalizers = self.spec.get_or_insert_default().finalizers.get_or_insert_default();
        if !finalizers.iter().any(|f| f == FINALIZER) {
            finalizers.push(FINALIZER.to_owned());
        }
        // The name may have been generated after the defaults were set.
        label_with_name(self);
    }

    fn prepare_update(&mut self, old: &Self) {
        self.spec.clone_from(&old.spec);
        self.status.clone_from(&old.status);
        label_with_name(self);
    }

    fn prepare_status(&mut self, old: &Self) {
        self.spec.clone_from(&old.spec);
    }

    fn prepare_subresource(&mut self, _subresource: &str, old: &Self) {
        self.status.clone_from(&old.status);
    }

    fn held(&self) -> bool {
        self.spec.as_ref().is_some_and(|spec| !list(&spec.finalizers).is_empty())
    }

    fn prepare_delete(&mut self) {
        self.status.get_or_insert_default().phase = Some("Terminating".to_owned());
        // A namespace goes when it is empty, not after a time.
        self.metadata.deletion_grace_period_seconds = None;
    }

    fn validate(&self) -> Errors {
        finalizers(self, false)
    }

    fn validate_update(&self, _old: &Self) -> Errors {
        Errors::new()
    }

    fn validate_status(&self, _old: &Self) -> Errors {
        let phase = self.status.as_ref().map(|s| text(&s.phase)).unwrap_or_default();
        let (wanted, detail) = if self.metadata.deletion_timestamp.is_none() {
            ("Active", "may only be 'Active' if `deletionTimestamp` is empty")
        } else {
            ("Terminating", "may only be 'Terminating' if `deletionTimestamp` is not empty")
        };
        if phase == wanted {
            return Errors::new();
        }
        vec![FieldError::invalid(&Path::new("status").child("Phase"), phase, detail)]
    }

    fn validate_subresource(&self, _subresource: &str, _old: &Self) -> Errors {
        finalizers(self, true)
    }

    fn warnings(&self, _old: Option<&Self>) -> Vec<String> {
        let old: Vec<&String> = list(&self.metadata.finalizers)
            .iter()
            .filter(|f| !f.contains('/') && *f != "orphan" && *f != "foregroundDeletion")
            .collect();
        old.into_iter().map(|f| format!("metadata.finalizers: {f:?}: prefer a domain-qualified finalizer name including a path (/) to avoid accidental conflicts with other finalizer writers")).collect()
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        let phase = self.status.as_ref().map(|s| text(&s.phase)).unwrap_or_default();
        vec![("status.phase", phase.to_owned())]
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        let phase = self.status.as_ref().map(|s| text(&s.phase)).unwrap_or_default();
        vec![name_cell(&self.metadata), phase.into(), age(&self.metadata, now)]
    }
}

fn label_with_name(namespace: &mut Namespace) {
    let meta = &mut namespace.metadata;
    if let Some(name) = meta.name.clone().filter(|n| !n.is_empty()) {
        meta.labels.get_or_insert_default().insert(NAME_LABEL.to_owned(), name);
    }
}

fn finalizers(namespace: &Namespace, with_index: bool) -> Errors {
    let mut errors = Errors::new();
    let path = Path::new("spec").child("finalizers");
    let finalizers = namespace.spec.as_ref().map(|s| list(&s.finalizers)).unwrap_or_default();
    for (i, finalizer) in finalizers.iter().enumerate() {
        let at = if with_index { path.index(i) } else { path.clone() };
        problems(&mut errors, &at, finalizer, name::qualified_name(finalizer));
        super::check::kube_finalizer(&mut errors, &at, finalizer);
    }
    errors
}
