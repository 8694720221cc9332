//! What objects use of a quota: who counts, by which names, and how much.
//!
//! The API server asks before it stores an object, the quota controller asks about all that there are. So both count
//! alike. Names are upstream's: `pods`, `requests.cpu`, `count/deployments.apps`, `services.nodeports`,
//! `gold.storageclass.storage.k8s.io/requests.storage` …

mod claims;
mod pods;
mod scopes;

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{PersistentVolumeClaim, Pod, ResourceQuota, Service},
    apimachinery::pkg::api::resource::Quantity as Text,
};

pub use self::pods::{limits as pod_limits, requests as pod_requests};
use crate::{
    kinds::list,
    object::Object,
    quantity::{Format, Quantity},
};

/// Amounts by name.
pub type Amounts = BTreeMap<String, Quantity>;

/// Amounts of an object; what can't be read is left out.
pub fn read(given: Option<&BTreeMap<String, Text>>) -> Amounts {
    let amounts = given.into_iter().flatten();
    amounts.filter_map(|(name, text)| Some((name.clone(), Quantity::parse(text.0.trim()).ok()?))).collect()
}

/// Amounts as an object holds them.
pub fn write(amounts: &Amounts) -> BTreeMap<String, Text> {
    amounts.iter().map(|(name, amount)| (name.clone(), Text(amount.to_string()))).collect()
}

/// Adds amounts to others.
pub fn add(sum: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        sum.entry(name.clone()).and_modify(|sum| *sum = sum.plus(amount)).or_insert(*amount);
    }
}

fn whole(count: i64) -> Quantity {
    Quantity::from_value(count, Format::DecimalSi)
}

/// The objects of a resource, as quotas see them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted<'a> {
    pub group: &'a str,
    pub plural: &'a str,
}

/// What is not counted: it is not stored, or there is too much of it.
const IGNORED: [&str; 9] = [
    "bindings",
    "componentstatuses",
    "events",
    "localsubjectaccessreviews",
    "selfsubjectaccessreviews",
    "selfsubjectreviews",
    "selfsubjectrulesreviews",
    "subjectaccessreviews",
    "tokenreviews",
];
/// Resources of the core that had a name before there was `count/`.
const OLD_NAMES: [&str; 4] = ["configmaps", "replicationcontrollers", "resourcequotas", "secrets"];

impl<'a> Counted<'a> {
    /// None for what quotas never count.
    pub fn of(group: &'a str, plural: &'a str) -> Option<Self> {
        let core = matches!(group, "" | "events.k8s.io" | "authentication.k8s.io" | "authorization.k8s.io");
        (!core || !IGNORED.contains(&plural)).then_some(Self { group, plural })
    }

    fn is(self, group: &str, plural: &str) -> bool {
        self.group == group && self.plural == plural
    }

    /// Whether an update of the object, or of this subresource, can change what it uses.
    pub fn changes_on_update(self, subresource: &str) -> bool {
        match subresource {
            "" => {
                self.is("", "services")
                    || self.is("", "persistentvolumeclaims")
                    || self.is("resource.k8s.io", "resourceclaims")
            }
            "resize" => self.is("", "pods"),
            "status" => self.is("", "persistentvolumeclaims"),
            _ => false,
        }
    }

    /// The name under which each object counts as one.
    pub fn count_name(self) -> String {
        match self.group {
            "" => format!("count/{}", self.plural),
            group => format!("count/{}.{group}", self.plural),
        }
    }

    /// Whether objects of the resource use what this name stands for.
    pub fn uses(self, name: &str) -> bool {
        let counts = || name == self.count_name();
        match (self.group, self.plural) {
            ("", "pods") => counts() || pods::uses(name),
            ("", "services") => {
                counts() || matches!(name, "services" | "services.nodeports" | "services.loadbalancers")
            }
            ("", "persistentvolumeclaims") => counts() || claims::storage_uses(name),
            ("resource.k8s.io", "resourceclaims") => counts() || claims::device_uses(name),
            ("", plural) => counts() || name == plural && OLD_NAMES.contains(&plural),
            _ => counts(),
        }
    }

    /// Whether the amounts depend on more than that the object is there.
    pub fn is_measured(self) -> bool {
        self.is("", "pods")
            || self.is("", "services")
            || self.is("", "persistentvolumeclaims")
            || self.is("resource.k8s.io", "resourceclaims")
    }

    /// What an object uses.
    pub fn usage(self, object: &dyn Object, now: Timestamp) -> Amounts {
        let mut used = Amounts::from([(self.count_name(), whole(1))]);
        if let Some(pod) = object.downcast_ref::<Pod>() {
            pods::usage(&mut used, pod, now);
        } else if let Some(service) = object.downcast_ref::<Service>() {
            service_usage(&mut used, service);
        } else if let Some(claim) = object.downcast_ref::<PersistentVolumeClaim>() {
            claims::storage_usage(&mut used, claim);
        } else if let Some(claim) = object.downcast_ref() {
            claims::device_usage(&mut used, claim);
        } else if self.group.is_empty() && OLD_NAMES.contains(&self.plural) {
            used.insert(self.plural.to_owned(), whole(1));
        }
        used
    }

    /// Whether an object is in all scopes of a quota.
    pub fn in_scopes(self, quota: &ResourceQuota, object: &dyn Object) -> bool {
        scopes::of(quota).iter().all(|scope| match object.downcast_ref::<Pod>() {
            Some(pod) => scopes::has_pod(scope, pod),
            None => object
                .downcast_ref::<PersistentVolumeClaim>()
                .is_some_and(|claim| scopes::has_claim(scope, claim)),
        })
    }

    /// What an object has to say about the resources that a quota limits, and does not: `must specify …`.
    pub fn missing<'n>(self, limited: impl Iterator<Item = &'n str>, object: &dyn Object) -> Option<String> {
        pods::missing(limited, object.downcast_ref::<Pod>()?)
    }
}

/// Whether a quota has scopes, so that most kinds are in none of them.
pub fn has_scopes(quota: &ResourceQuota) -> bool {
    !scopes::of(quota).is_empty()
}

fn service_usage(used: &mut Amounts, service: &Service) {
    let Some(spec) = &service.spec else { return };
    let ports = list(&spec.ports);
    let kind = spec.type_.as_deref().unwrap_or_default();
    // The numbers are not given out yet: the wish counts.
    let node_ports = match kind {
        "LoadBalancer" if spec.allocate_load_balancer_node_ports == Some(false) => {
            ports.iter().filter(|port| port.node_port.unwrap_or_default() != 0).count()
        }
        "NodePort" | "LoadBalancer" => ports.len(),
        _ => 0,
    };
    used.insert("services".to_owned(), whole(1));
    used.insert("services.nodeports".to_owned(), whole(i64::try_from(node_ports).unwrap_or(i64::MAX)));
    used.insert("services.loadbalancers".to_owned(), whole((kind == "LoadBalancer").into()));
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn shown(counted: Counted<'_>, object: &dyn Object) -> String {
        let used = counted.usage(object, Timestamp::UNIX_EPOCH);
        used.iter().map(|(name, amount)| format!("{name}={amount}")).collect::<Vec<_>>().join(",")
    }

    fn of<T: serde::de::DeserializeOwned>(value: Value) -> T {
        serde_json::from_value(value).unwrap()
    }

    const PODS: Counted<'static> = Counted { group: "", plural: "pods" };

    #[test]
    fn pods_use_what_they_ask_for() {
        let pod = |phase: &str| -> Pod {
            of(json!({
                "metadata": {"name": "p"},
                "spec": {
                    "overhead": {"cpu": "10m"},
                    "initContainers": [{"name": "i", "resources": {"requests": {"cpu": "2"}}}],
                    "containers": [
                        {"name": "a", "resources": {"requests": {"cpu": "500m", "memory": "1Gi", "x.org/gpu": "1"}, "limits": {"cpu": "1"}}},
                        {"name": "b", "resources": {"requests": {"cpu": "500m", "hugepages-2Mi": "4Mi"}}}
                    ]
                },
                "status": {"phase": phase}
            }))
        };
        assert_eq!(
            shown(PODS, &pod("Running")),
            "count/pods=1,cpu=2010m,hugepages-2Mi=4Mi,limits.cpu=1010m,memory=1Gi,pods=1,requests.cpu=2010m,\
             requests.hugepages-2Mi=4Mi,requests.memory=1Gi,requests.x.org/gpu=1"
        );
        assert_eq!(shown(PODS, &pod("Succeeded")), "count/pods=1");
    }

    #[test]
    fn other_kinds_use_what_they_are() {
        let service = |spec: Value| of::<Service>(json!({"metadata": {"name": "s"}, "spec": spec}));
        let services = Counted { group: "", plural: "services" };
        for (spec, wanted) in [
            (json!({}), "count/services=1,services=1,services.loadbalancers=0,services.nodeports=0"),
            (
                json!({"type": "NodePort", "ports": [{"port": 1}, {"port": 2}]}),
                "count/services=1,services=1,services.loadbalancers=0,services.nodeports=2",
            ),
            (
                json!({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false, "ports": [{"port": 1}]}),
                "count/services=1,services=1,services.loadbalancers=1,services.nodeports=0",
            ),
        ] {
            assert_eq!(shown(services, &service(spec)), wanted);
        }
        let claim: PersistentVolumeClaim = of(json!({
            "metadata": {"name": "c"},
            "spec": {"storageClassName": "gold", "resources": {"requests": {"storage": "1500m"}}}
        }));
        assert_eq!(
            shown(Counted { group: "", plural: "persistentvolumeclaims" }, &claim),
            "count/persistentvolumeclaims=1,gold.storageclass.storage.k8s.io/persistentvolumeclaims=1,\
             gold.storageclass.storage.k8s.io/requests.storage=2,persistentvolumeclaims=1,requests.storage=2"
        );
        let map: k8s_openapi::api::core::v1::ConfigMap = of(json!({"metadata": {"name": "m"}}));
        assert_eq!(
            shown(Counted { group: "", plural: "configmaps" }, &map),
            "configmaps=1,count/configmaps=1"
        );
        let claim: k8s_openapi::api::resource::v1::ResourceClaim = of(json!({
            "metadata": {"name": "c"},
            "spec": {"devices": {"requests": [
                {"name": "a", "exactly": {"deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 2}},
                {"name": "b", "exactly": {"deviceClassName": "gpu", "allocationMode": "All"}}
            ]}}
        }));
        assert_eq!(
            shown(Counted { group: "resource.k8s.io", plural: "resourceclaims" }, &claim),
            "count/resourceclaims.resource.k8s.io=1,gpu.deviceclass.resource.k8s.io/devices=34"
        );
    }

    #[test]
    fn scopes_choose_pods() {
        let pod = |spec: Value| of::<Pod>(json!({"metadata": {"name": "p"}, "spec": spec}));
        let quota = |spec: Value| of::<ResourceQuota>(json!({"metadata": {"name": "q"}, "spec": spec}));
        let plain = json!({"containers": [{"name": "c"}]});
        let ends = json!({"containers": [{"name": "c"}], "activeDeadlineSeconds": 5});
        let high = json!({"containers": [{"name": "c"}], "priorityClassName": "high"});
        let select = |operator: &str, values: Value| {
            json!({"scopeSelector": {"matchExpressions": [
                {"scopeName": "PriorityClass", "operator": operator, "values": values}
            ]}})
        };
        for (scopes, spec, is) in [
            (json!({"scopes": ["BestEffort"]}), &plain, true),
            (json!({"scopes": ["NotBestEffort"]}), &plain, false),
            (json!({"scopes": ["Terminating"]}), &ends, true),
            (json!({"scopes": ["NotTerminating"]}), &ends, false),
            (json!({"scopes": ["BestEffort", "NotTerminating"]}), &plain, true),
            (select("In", json!(["high"])), &high, true),
            (select("In", json!(["high"])), &plain, false),
            (select("NotIn", json!(["high"])), &plain, true),
            (select("Exists", Value::Null), &high, true),
            (select("DoesNotExist", Value::Null), &plain, true),
        ] {
            assert_eq!(PODS.in_scopes(&quota(scopes.clone()), &pod(spec.clone())), is, "{scopes} {spec}");
        }
        let service: Service = of(json!({"metadata": {"name": "s"}}));
        let services = Counted { group: "", plural: "services" };
        assert!(!services.in_scopes(&quota(json!({"scopes": ["BestEffort"]})), &service));
        assert!(services.in_scopes(&quota(json!({})), &service));
    }

    #[test]
    fn a_pod_must_say_what_is_limited() {
        let pod: Pod = of(json!({
            "metadata": {"name": "p"},
            "spec": {"containers": [
                {"name": "b"}, {"name": "a", "resources": {"requests": {"cpu": "1"}}}
            ]}
        }));
        let limited = ["requests.cpu", "limits.memory", "pods", "ephemeral-storage"];
        assert_eq!(
            PODS.missing(limited.into_iter(), &pod).unwrap(),
            "must specify limits.memory for: a,b; requests.cpu for: b"
        );
        assert_eq!(PODS.missing(["pods"].into_iter(), &pod), None);
    }

    #[test]
    fn names_belong_to_one_kind() {
        for (group, plural, name, is) in [
            ("", "pods", "requests.cpu", true),
            ("", "pods", "requests.example.org/gpu", true),
            ("", "pods", "count/pods", true),
            ("", "pods", "requests.storage", false),
            ("apps", "deployments", "count/deployments.apps", true),
            ("", "persistentvolumeclaims", "gold.storageclass.storage.k8s.io/requests.storage", true),
            ("", "secrets", "secrets", true),
            ("", "limitranges", "limitranges", false),
        ] {
            assert_eq!(Counted { group, plural }.uses(name), is, "{plural} {name}");
        }
        assert!(Counted::of("", "events").is_none());
        assert!(Counted::of("apps", "deployments").is_some());
    }
}
