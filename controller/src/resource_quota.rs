//! Counts what the objects of a namespace use of its quotas.
//!
//! The API server charges a quota when it stores an object. This controller sets the limits that it goes by, and
//! counts again when objects go or use less. It never writes less than there is: what a cache does not show yet was
//! charged already, so before an amount goes down the API is asked for the objects, and the write fails if the quota
//! was charged since.

use std::sync::Arc;
use std::time::Duration;

use api::object::Object;
use api::quota::{self, Amounts, Counted};
use base::Clock;
use client::{Cache, Cached, Change, Client, Key};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ConfigMap, PersistentVolumeClaim, Pod, ResourceQuota, ResourceQuotaStatus, Service,
};
use k8s_openapi::api::resource::v1::ResourceClaim;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::Config;
use crate::harness::{self, Context, Error, Plan, Reconciler, WorkQueue, Worker, Write};
use crate::resources::{Kind, Resources};

/// The service account of this controller.
pub(crate) const ACCOUNT: &str = "resourcequota-controller";
const WORKERS: usize = 2;
/// Pods stop to count when their time is over, of which nothing tells.
const RECOUNT: Duration = Duration::from_secs(300);

const PODS: Counted<'static> = Counted { group: "", plural: "pods" };
const SERVICES: Counted<'static> = Counted { group: "", plural: "services" };
const CLAIMS: Counted<'static> = Counted { group: "", plural: "persistentvolumeclaims" };
const DEVICES: Counted<'static> = Counted { group: "resource.k8s.io", plural: "resourceclaims" };

struct Quotas {
    client: Client,
    clock: Clock,
    quotas: Cache<ResourceQuota>,
    pods: Cache<Pod>,
    services: Cache<Service>,
    claims: Cache<PersistentVolumeClaim>,
    devices: Cache<ResourceClaim>,
    /// All kinds; the others are just numbers of objects.
    resources: Resources,
}

/// Starts the controller.
pub(crate) fn start(context: &Context, _: &Config) {
    let caches = &context.caches;
    let quotas = Quotas {
        client: context.client.clone(),
        clock: context.clock.clone(),
        quotas: caches.of(),
        pods: caches.pods(),
        services: caches.of(),
        claims: caches.of(),
        devices: caches.of(),
        resources: Resources::follow(caches),
    };
    let mut worker = Worker::new(context, "resourcequota_primary", WORKERS);
    worker.watches(&quotas.quotas, |quota| vec![Key::of(quota)]);
    let concerned =
        Concerned { queue: worker.queue(), quotas: quotas.quotas.clone(), clock: context.clock.clone() };
    concerned.measured(&mut worker, PODS, &quotas.pods);
    concerned.measured(&mut worker, SERVICES, &quotas.services);
    concerned.measured(&mut worker, CLAIMS, &quotas.claims);
    concerned.measured(&mut worker, DEVICES, &quotas.devices);
    for kind in quotas.resources.kinds.iter().filter(|kind| plain(kind).is_some()) {
        worker.reads_as(&kind.row.plural, &kind.cache);
        let (concerned, row) = (concerned.clone(), kind.row.clone());
        kind.cache.on_change(move |change| {
            let object = match change {
                Change::Applied(new, None) => new,
                Change::Deleted(last) => last,
                Change::Applied(..) | Change::Missed => return,
            };
            let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
            concerned.look(namespace, Counted { group: &row.group, plural: &row.plural });
        });
    }
    harness::start(context, worker, quotas);
}

/// How objects of a kind are counted of which only the number matters.
fn plain(kind: &Kind) -> Option<Counted<'_>> {
    let counted = Counted::of(&kind.row.group, &kind.row.plural)?;
    (kind.row.namespaced() && !counted.is_measured()).then_some(counted)
}

/// Finds the quotas that a change concerns.
#[derive(Clone)]
struct Concerned {
    queue: Arc<WorkQueue>,
    quotas: Cache<ResourceQuota>,
    clock: Clock,
}

impl Concerned {
    fn look(&self, namespace: &str, counted: Counted<'_>) {
        for quota in self.quotas.in_namespace(namespace) {
            if hard(&quota).keys().any(|name| counted.uses(name)) {
                self.queue.add(Key::of(&*quota));
            }
        }
    }

    fn measured<K>(&self, worker: &mut Worker, counted: Counted<'static>, cache: &Cache<K>)
    where
        K: Cached<DynamicType = ()> + Object,
    {
        worker.reads(cache);
        let concerned = self.clone();
        cache.on_change(move |change| {
            let object = match change {
                Change::Applied(new, Some(old)) if concerned.is_same(counted, &**new, &**old) => return,
                Change::Applied(new, _) => new,
                Change::Deleted(last) => last,
                Change::Missed => return,
            };
            concerned.look(
                client::kube::ResourceExt::namespace(&**object).as_deref().unwrap_or_default(),
                counted,
            );
        });
    }

    fn is_same<K: Object>(&self, counted: Counted<'_>, new: &K, old: &K) -> bool {
        let now = self.clock.now();
        let scope = |object: &K| {
            let pod = (object as &dyn Object).downcast_ref::<Pod>().and_then(|pod| pod.spec.as_ref());
            pod.map(|spec| (spec.active_deadline_seconds, spec.priority_class_name.clone()))
        };
        counted.usage(new, now) == counted.usage(old, now) && scope(new) == scope(old)
    }
}

fn hard(quota: &ResourceQuota) -> Amounts {
    quota::read(quota.spec.as_ref().and_then(|spec| spec.hard.as_ref()))
}

/// Sums up what objects use.
struct Sum<'a> {
    quota: &'a ResourceQuota,
    now: Timestamp,
    used: Amounts,
}

impl Sum<'_> {
    fn add(&mut self, counted: Counted<'_>, object: &dyn Object) {
        if counted.in_scopes(self.quota, object) {
            quota::add(&mut self.used, &counted.usage(object, self.now));
        }
    }

    /// Many objects of a kind of which only the number matters: it is the same what they are.
    fn add_plain(&mut self, counted: Counted<'_>, count: usize) {
        for _ in 0..count {
            self.add(counted, &ConfigMap::default());
        }
    }
}

impl Reconciler for Quotas {
    fn name(&self) -> &'static str {
        ACCOUNT
    }

    async fn plan(&self, key: &Key) -> Result<Plan, Error> {
        let Some(quota) = self.quotas.get_key(key) else { return Ok(Plan::nothing()) };
        let now = self.clock.now();
        let mut status = status(&quota, &self.counted(&quota, now));
        let before = read(quota.status.as_ref());
        let after = quota::read(status.used.as_ref());
        if before.iter().any(|(name, used)| after.get(name).is_some_and(|less| less < used)) {
            status = self::status(&quota, &self.counted_now(&quota, now).await?);
        }
        let mut plan = plan(&quota, status);
        plan.look_again(RECOUNT);
        Ok(plan)
    }
}

fn read(status: Option<&ResourceQuotaStatus>) -> Amounts {
    quota::read(status.and_then(|status| status.used.as_ref()))
}

impl Quotas {
    /// What is used of each name that the quota limits, and that anything can use, as the caches show it.
    fn counted(&self, quota: &ResourceQuota, now: Timestamp) -> Amounts {
        let mut sum = Sum { quota, now, used: Amounts::new() };
        let hard = hard(quota);
        let namespace = quota.metadata.namespace.as_deref().unwrap_or_default();
        let wanted = |counted: &Counted<'_>| hard.keys().any(|name| counted.uses(name));
        if wanted(&PODS) {
            self.pods.in_namespace(namespace).iter().for_each(|pod| sum.add(PODS, &**pod));
        }
        if wanted(&SERVICES) {
            self.services.in_namespace(namespace).iter().for_each(|service| sum.add(SERVICES, &**service));
        }
        if wanted(&CLAIMS) {
            self.claims.in_namespace(namespace).iter().for_each(|claim| sum.add(CLAIMS, &**claim));
        }
        if wanted(&DEVICES) {
            self.devices.in_namespace(namespace).iter().for_each(|claim| sum.add(DEVICES, &**claim));
        }
        for kind in &self.resources.kinds {
            if let Some(counted) = plain(kind).filter(wanted) {
                sum.add_plain(counted, kind.cache.in_namespace(namespace).len());
            }
        }
        self.limited(&hard, sum.used)
    }

    /// The same as the API shows it now.
    async fn counted_now(&self, quota: &ResourceQuota, now: Timestamp) -> Result<Amounts, Error> {
        let mut sum = Sum { quota, now, used: Amounts::new() };
        let hard = hard(quota);
        let namespace = quota.metadata.namespace.as_deref().unwrap_or_default();
        for kind in self.resources.kinds.iter().filter(|kind| kind.row.namespaced()) {
            let Some(counted) = Counted::of(&kind.row.group, &kind.row.plural) else { continue };
            if !hard.keys().any(|name| counted.uses(name)) {
                continue;
            }
            match (counted.group, counted.plural) {
                ("", "pods") => {
                    self.live::<Pod>(kind, namespace).await?.iter().for_each(|pod| sum.add(PODS, pod));
                }
                ("", "services") => {
                    let services: Vec<Service> = self.live(kind, namespace).await?;
                    services.iter().for_each(|service| sum.add(SERVICES, service));
                }
                ("", "persistentvolumeclaims") => {
                    let claims: Vec<PersistentVolumeClaim> = self.live(kind, namespace).await?;
                    claims.iter().for_each(|claim| sum.add(CLAIMS, claim));
                }
                ("resource.k8s.io", "resourceclaims") => {
                    let claims: Vec<ResourceClaim> = self.live(kind, namespace).await?;
                    claims.iter().for_each(|claim| sum.add(DEVICES, claim));
                }
                _ => sum.add_plain(counted, self.live::<Value>(kind, namespace).await?.len()),
            }
        }
        Ok(self.limited(&hard, sum.used))
    }

    async fn live<T: DeserializeOwned>(&self, kind: &Kind, namespace: &str) -> Result<Vec<T>, Error> {
        let what = || format!("list {} in {namespace}", kind.name());
        let request = http::Request::get(kind.collection(namespace)).body(Vec::new());
        let request = request.map_err(|failure| Error::Other(format!("{}: {failure}", what())))?;
        let answer = self.client.request::<Value>(request).await;
        let mut answer = answer.map_err(|source| Error::Api { what: what(), source })?;
        serde_json::from_value(answer["items"].take())
            .map_err(|failure| Error::Other(format!("{}: {failure}", what())))
    }

    /// Of what is used, that which the quota limits. What nothing uses is zero.
    fn limited(&self, hard: &Amounts, used: Amounts) -> Amounts {
        let others =
            |name: &str| self.resources.kinds.iter().filter_map(plain).any(|counted| counted.uses(name));
        let known = |name: &str| {
            [PODS, SERVICES, CLAIMS, DEVICES].iter().any(|counted| counted.uses(name)) || others(name)
        };
        let zero = api::quantity::Quantity::from_value(0, api::quantity::Format::DecimalSi);
        let names = hard.keys().filter(|name| known(name));
        names.map(|name| (name.clone(), used.get(name).copied().unwrap_or(zero))).collect()
    }
}

/// The status that a quota should have. Of names that nobody counts it keeps what it says.
fn status(quota: &ResourceQuota, counted: &Amounts) -> ResourceQuotaStatus {
    let hard = hard(quota);
    let mut used = read(quota.status.as_ref());
    used.extend(counted.clone());
    used.retain(|name, _| hard.contains_key(name));
    ResourceQuotaStatus { hard: Some(quota::write(&hard)), used: Some(quota::write(&used)) }
}

fn plan(quota: &ResourceQuota, status: ResourceQuotaStatus) -> Plan {
    let mut plan = Plan::nothing();
    let is_right = quota.status.as_ref().is_some_and(|before| {
        let same = |a: &Option<_>, b: &Option<_>| quota::read(a.as_ref()) == quota::read(b.as_ref());
        same(&before.hard, &status.hard) && same(&before.used, &status.used)
    });
    if !is_right {
        let mut quota = quota.clone();
        quota.status = Some(status);
        plan.then(Write::replace_status(&quota));
    }
    plan
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::harness::What;

    fn amounts(texts: &[(&str, &str)]) -> Amounts {
        texts.iter().map(|(name, text)| ((*name).to_owned(), text.parse().unwrap())).collect()
    }

    #[test]
    fn the_status_has_the_limits_and_what_is_used_of_them() {
        let quota = |status: Value| -> ResourceQuota {
            serde_json::from_value(json!({
                "metadata": {"name": "q"}, "spec": {"hard": {"pods": "5", "example.org/thing": "1"}}, "status": status,
            }))
            .unwrap()
        };
        let written = |before: Value, counted: &Amounts| {
            let quota = quota(before);
            let plan = plan(&quota, status(&quota, counted));
            plan.writes().next().map(|write| match &write.what {
                What::ReplaceStatus(body) => body["status"].clone(),
                other => panic!("{other:?}"),
            })
        };
        let hard = json!({"pods": "5", "example.org/thing": "1"});
        let counted = amounts(&[("pods", "3")]);
        let right = json!({"hard": hard, "used": {"pods": "3"}});
        assert_eq!(written(json!({}), &counted), Some(right.clone()));
        assert_eq!(written(right, &counted), None);
        assert_eq!(
            written(
                json!({"hard": {"pods": "9"}, "used": {"pods": "3", "services": "1", "example.org/thing": "1"}}),
                &counted
            ),
            Some(json!({"hard": hard, "used": {"pods": "3", "example.org/thing": "1"}})),
        );
        assert_eq!(written(json!({"hard": hard, "used": {"pods": "3000m"}}), &counted), None);
    }

    #[test]
    fn only_what_is_in_scope_is_summed_up() {
        let quota: ResourceQuota = serde_json::from_value(json!({
            "metadata": {"name": "q"}, "spec": {"hard": {"pods": "5"}, "scopes": ["BestEffort"]},
        }))
        .unwrap();
        let mut sum = Sum { quota: &quota, now: Timestamp::UNIX_EPOCH, used: Amounts::new() };
        let pod = |requests: Value| -> Pod {
            serde_json::from_value(
                json!({"spec": {"containers": [{"name": "c", "resources": {"requests": requests}}]}}),
            )
            .unwrap()
        };
        sum.add(PODS, &pod(json!({})));
        sum.add(PODS, &pod(json!({"cpu": "1"})));
        sum.add_plain(Counted { group: "", plural: "configmaps" }, 3);
        assert_eq!(sum.used.get("pods"), amounts(&[("pods", "1")]).get("pods"));
        assert_eq!(sum.used.get("configmaps"), None);
    }
}
