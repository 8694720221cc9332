//! The rules of admissionregistration.k8s.io/v1 MutatingWebhookConfiguration.

use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use serde_json::Value;

use super::{
    cells::age,
    check::{generation, list, same},
    webhook::{self, Defaults, Hook},
};
use crate::{
    field::Errors,
    object::{Kind, name_cell},
    resource::Column,
    schema::given::Given,
};

impl Kind for MutatingWebhookConfiguration {
    const GIVEN: &'static [Given] = webhook::GIVEN;
    const UNCONDITIONAL_UPDATE: bool = false;
    const COLUMNS: &'static [Column] = &[
        Column::name(),
        Column::integer("Webhooks")
            .about("Webhooks indicates the number of webhooks registered in this configuration"),
        Column::age(),
    ];

    fn set_defaults(&mut self) {
        for hook in self.webhooks.iter_mut().flatten() {
            Defaults {
                failure_policy: &mut hook.failure_policy,
                match_policy: &mut hook.match_policy,
                namespace_selector: &mut hook.namespace_selector,
                object_selector: &mut hook.object_selector,
                timeout: &mut hook.timeout_seconds,
                client: &mut hook.client_config,
                rules: &mut hook.rules,
            }
            .set();
            hook.reinvocation_policy.get_or_insert_with(|| "Never".to_owned());
        }
    }

    fn prepare_create(&mut self) {
        self.metadata.generation = Some(1);
    }

    fn prepare_update(&mut self, old: &Self) {
        generation(&mut self.metadata, &old.metadata, !same(&self.webhooks, &old.webhooks));
    }

    fn validate(&self) -> Errors {
        webhook::hooks(&hooks(self), None)
    }

    fn validate_update(&self, old: &Self) -> Errors {
        webhook::hooks(&hooks(self), Some(&hooks(old)))
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        vec![name_cell(&self.metadata), list(&self.webhooks).len().into(), age(&self.metadata, now)]
    }
}

fn hooks(configuration: &MutatingWebhookConfiguration) -> Vec<Hook<'_>> {
    list(&configuration.webhooks).iter().map(Hook::from).collect()
}
