//! The rules of node.k8s.io/v1 RuntimeClass.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::api::{
    core::v1::{ResourceRequirements, Toleration},
    node::v1::RuntimeClass,
};
use serde_json::Value;

use super::{
    amount::canonical_list,
    cells::age,
    check::{dns_label, immutable, list, text},
    pod::{affinity::validate_tolerations, resources},
};
use crate::{
    field::{BadValue, Errors, FieldError, Path},
    meta,
    object::{Kind, name_cell},
    resource::Column,
};

impl Kind for RuntimeClass {
    const UNCONDITIONAL_UPDATE: bool = false;
    const COLUMNS: &'static [Column] = &[
        Column::name(),
        Column::text("Handler").about(
            "handler specifies the underlying runtime and configuration that the CRI implementation will use to handle \
             pods of this class. The possible values are specific to the node & CRI configuration.  It is assumed that \
             all handlers are available on every node, and handlers of the same name are equivalent on every node. For \
             example, a handler called \"runc\" might specify that the runc OCI runtime (using native Linux containers) \
             will be used to run the containers in a pod. The Handler must be lowercase, conform to the DNS Label (RFC \
             1123) requirements, and is immutable.",
        ),
        Column::age(),
    ];

    fn set_defaults(&mut self) {
        if let Some(overhead) = &mut self.overhead {
            canonical_list(&mut overhead.pod_fixed);
        }
    }

    fn validate(&self) -> Errors {
        let mut errors = Errors::new();
        dns_label(&mut errors, &Path::new("handler"), &self.handler);
        if let Some(overhead) = &self.overhead {
            let limits = ResourceRequirements { limits: overhead.pod_fixed.clone(), ..Default::default() };
            let owner = resources::Owner::Container;
            resources::validate(
                &mut errors,
                &limits,
                owner,
                &resources::Claims::default(),
                &Path::new("overhead"),
            );
        }
        if let Some(scheduling) = &self.scheduling {
            let path = Path::new("scheduling");
            if let Some(labels) = &scheduling.node_selector {
                errors.extend(meta::validate_labels(labels, &path.child("nodeSelector")));
            }
            let at = path.child("tolerations");
            validate_tolerations(&mut errors, list(&scheduling.tolerations), &at);
            let mut seen = BTreeSet::new();
            for (i, toleration) in list(&scheduling.tolerations).iter().enumerate() {
                let Toleration { key, operator, value, effect, .. } = toleration;
                if !seen.insert([key, operator, value, effect].map(text)) {
                    errors.push(FieldError::duplicate(&at.index(i), BadValue::of(toleration)));
                }
            }
        }
        errors
    }

    fn validate_update(&self, old: &Self) -> Errors {
        let mut errors = self.validate();
        immutable(&mut errors, &Path::new("handler"), &self.handler, &old.handler);
        errors
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        vec![name_cell(&self.metadata), self.handler.as_str().into(), age(&self.metadata, now)]
    }
}
