//! Keeps a ServiceAccount `default` in each namespace.

use std::sync::Arc;

use client::{Cache, CacheConfig, Key};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};

use crate::Config;
use crate::harness::{self, Context, Error, Plan, Reconciler, Worker, Write};

const NAME: &str = "default";

/// Starts the controller.
pub(crate) fn start(context: &Context, _: &Config) {
    let namespaces = context.caches.of::<Namespace>();
    let accounts = context.caches.own::<ServiceAccount>(CacheConfig {
        fields: Some(format!("metadata.name={NAME}")),
        ..CacheConfig::default()
    });
    let mut worker = Worker::new(context, "serviceaccount", 2);
    worker.watches(&namespaces, |namespace| vec![Key::of(namespace)]);
    worker.watches(&accounts, |account| vec![Key::new("", Key::of(account).namespace)]);
    harness::start(context, worker, Accounts { namespaces, accounts });
}

struct Accounts {
    namespaces: Cache<Namespace>,
    accounts: Cache<ServiceAccount>,
}

impl Reconciler for Accounts {
    fn name(&self) -> &'static str {
        "service-account-controller"
    }

    async fn plan(&self, key: &Key) -> Result<Plan, Error> {
        let Some(namespace) = self.namespaces.get_key(key) else { return Ok(Plan::nothing()) };
        Ok(plan(&namespace, self.accounts.get(&key.name, NAME)))
    }
}

fn plan(namespace: &Namespace, account: Option<Arc<ServiceAccount>>) -> Plan {
    let mut plan = Plan::nothing();
    if account.is_none() && is_active(namespace) {
        let mut account = ServiceAccount::default();
        account.metadata.namespace.clone_from(&namespace.metadata.name);
        account.metadata.name = Some(NAME.to_owned());
        plan.then(Write::create(&account));
    }
    plan
}

/// Nothing can be created in a namespace that is going.
pub(crate) fn is_active(namespace: &Namespace) -> bool {
    let phase = namespace.status.as_ref().and_then(|status| status.phase.as_deref());
    namespace.metadata.deletion_timestamp.is_none() && phase != Some("Terminating")
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::NamespaceStatus;

    use super::*;

    fn namespace(phase: &str) -> Namespace {
        let mut namespace = Namespace::default();
        namespace.metadata.name = Some("web".into());
        namespace.status = Some(NamespaceStatus { phase: Some(phase.into()), ..NamespaceStatus::default() });
        namespace
    }

    #[test]
    fn an_account_is_made_only_where_it_is_missing_and_the_namespace_stays() {
        for (phase, exists, made) in
            [("Active", false, true), ("Active", true, false), ("Terminating", false, false)]
        {
            let plan = plan(&namespace(phase), exists.then(Arc::default));
            let keys: Vec<String> = plan.writes().map(|write| write.key.to_string()).collect();
            assert_eq!(keys, if made { vec!["web/default"] } else { vec![] }, "{phase} {exists}");
        }
    }
}
