//! Keeps the cluster's root certificate in a ConfigMap `kube-root-ca.crt` in each namespace, where pods find it.

use client::{Cache, CacheConfig, Key};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};

use crate::Config;
use crate::harness::{self, Context, Error, Plan, Reconciler, Worker, Write};
use crate::service_account::is_active;

const NAME: &str = "kube-root-ca.crt";
const ENTRY: &str = "ca.crt";
const DESCRIBED: &str = "kubernetes.io/description";
const DESCRIPTION: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters.";

/// Starts the controller.
pub(crate) fn start(context: &Context, config: &Config) {
    let namespaces = context.caches.of::<Namespace>();
    let maps = context.caches.own::<ConfigMap>(CacheConfig {
        fields: Some(format!("metadata.name={NAME}")),
        ..CacheConfig::default()
    });
    let mut worker = Worker::new(context, "root_ca_cert_publisher", 2);
    worker.watches(&namespaces, |namespace| vec![Key::of(namespace)]);
    worker.watches(&maps, |map| vec![Key::new("", Key::of(map).namespace)]);
    harness::start(context, worker, Publisher { namespaces, maps, certificate: config.root_ca.clone() });
}

struct Publisher {
    namespaces: Cache<Namespace>,
    maps: Cache<ConfigMap>,
    certificate: String,
}

impl Reconciler for Publisher {
    fn name(&self) -> &'static str {
        "root-ca-certificate-publisher"
    }

    async fn plan(&self, key: &Key) -> Result<Plan, Error> {
        let Some(namespace) = self.namespaces.get_key(key) else { return Ok(Plan::nothing()) };
        Ok(plan(&namespace, self.maps.get(&key.name, NAME).as_deref(), &self.certificate))
    }
}

fn plan(namespace: &Namespace, map: Option<&ConfigMap>, certificate: &str) -> Plan {
    let mut plan = Plan::nothing();
    if !is_active(namespace) {
        return plan;
    }
    let mut wanted = map.cloned().unwrap_or_default();
    wanted.data = Some([(ENTRY.to_owned(), certificate.to_owned())].into());
    wanted.metadata.annotations.get_or_insert_default().insert(DESCRIBED.to_owned(), DESCRIPTION.to_owned());
    match map {
        Some(map) if *map == wanted => {}
        Some(_) => plan.then(Write::replace(&wanted)),
        None => {
            wanted.metadata.name = Some(NAME.to_owned());
            wanted.metadata.namespace.clone_from(&namespace.metadata.name);
            plan.then(Write::create(&wanted));
        }
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::harness::What;

    #[test]
    fn the_map_is_made_and_put_right_but_not_written_without_need() {
        let mut namespace = Namespace::default();
        namespace.metadata.name = Some("web".into());
        let made = plan(&namespace, None, "PEM");
        let Some(What::Create(body)) = made.writes().next().map(|write| write.what.clone()) else {
            panic!("{made:?}")
        };
        assert_eq!((&body["metadata"]["namespace"], &body["data"]["ca.crt"]), (&"web".into(), &"PEM".into()));
        let right: ConfigMap = serde_json::from_value(body).unwrap();
        assert!(plan(&namespace, Some(&right), "PEM").is_empty());

        let mut wrong = right.clone();
        wrong.data.get_or_insert_default().insert("more".into(), "x".into());
        wrong.metadata.annotations.get_or_insert_default().insert("mine".into(), "kept".into());
        for (map, certificate) in [(&right, "NEW"), (&wrong, "PEM")] {
            let plan = plan(&namespace, Some(map), certificate);
            let Some(What::Replace(body)) = plan.writes().next().map(|write| write.what.clone()) else {
                panic!("{plan:?}")
            };
            assert_eq!(body["data"], serde_json::json!({"ca.crt": certificate}));
            let before = serde_json::to_value(map.metadata.annotations.as_ref()).unwrap();
            assert_eq!(body["metadata"]["annotations"], before);
        }
    }

    #[test]
    fn nothing_is_written_into_a_namespace_that_goes() {
        let mut namespace = Namespace::default();
        namespace.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(
            "2026-01-01T00:00:00Z".parse().unwrap(),
        ));
        assert!(plan(&namespace, None, "PEM").is_empty());
    }
}
