//! The rules of core/v1 ServiceAccount.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ObjectReference, ServiceAccount};
use serde_json::Value;

use super::{
    cells::age,
    check::{list, text},
};
use crate::{
    object::{Kind, Null, name_cell},
    resource::Column,
};

const MOUNTABLE: &str = "kubernetes.io/enforce-mountable-secrets";

impl Kind for ServiceAccount {
    const RETURNS_DELETED: bool = true;
    const LEFT_OUT: &'static [Null<Self>] = &[("imagePullSecrets[].name", |it| {
        list(&it.image_pull_secrets).iter().any(|secret| secret.name.is_empty())
    })];
    const COLUMNS: &'static [Column] = &[
        Column::name(),
        Column::text("Secrets").about(
            "Secrets is a list of the secrets in the same namespace that pods running using this ServiceAccount are \
             allowed to use. Pods are only limited to this list if this service account has a \
             \"kubernetes.io/enforce-mountable-secrets\" annotation set to \"true\". The \
             \"kubernetes.io/enforce-mountable-secrets\" annotation is deprecated since v1.32. Prefer separate namespaces \
             to isolate access to mounted secrets. This field should not be used to find auto-generated service account \
             token secrets for use outside of pods. Instead, tokens can be requested directly using the TokenRequest API, \
             or service account token secrets can be manually created. More info: \
             https://kubernetes.io/docs/concepts/configuration/secret",
        ),
        Column::age(),
    ];

    fn prepare_create(&mut self) {
        names_only(self);
    }

    fn prepare_update(&mut self, _old: &Self) {
        names_only(self);
    }

    fn warnings(&self, old: Option<&Self>) -> Vec<String> {
        let has =
            |account: &Self| account.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(MOUNTABLE));
        if !has(self) || old.is_some_and(has) {
            return Vec::new();
        }
        vec![format!(
            "metadata.annotations[{MOUNTABLE}]: deprecated in v1.32+; prefer separate namespaces to isolate access to \
             mounted secrets"
        )]
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        vec![name_cell(&self.metadata), list(&self.secrets).len().into(), age(&self.metadata, now)]
    }
}

/// Secrets are of the same namespace; nothing but their names means anything.
fn names_only(account: &mut ServiceAccount) {
    for secret in account.secrets.iter_mut().flatten() {
        let name = Some(text(&secret.name).to_owned()).filter(|n| !n.is_empty());
        *secret = ObjectReference { name, ..ObjectReference::default() };
    }
}
