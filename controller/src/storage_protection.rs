//! Keeps claims for storage, volumes and classes of volume attributes until they are out of use, by their finalizers.
//!
//! The finalizers are set when the objects are made; one that was lost is set again. Before it is taken from an object
//! that goes, the API is asked who uses the object, so that nobody is overlooked that a cache does not show yet.

use client::{Cache, Cached, Client, Key};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::VolumeAttributesClass;
use kube::Api;
use kube::api::ListParams;
use serde::Serialize;

use crate::Config;
use crate::claim::controller_of;
use crate::harness::{self, Context, Error, Plan, Reconciler, Worker, Write};

pub(crate) const CLAIMS: &str = "pvc-protection-controller";
pub(crate) const VOLUMES: &str = "pv-protection-controller";
pub(crate) const CLASSES: &str = "volumeattributesclass-protection-controller";
const WORKERS: usize = 2;

/// Starts the controller of claims.
pub(crate) fn start_claims(context: &Context, _: &Config) {
    let (claims, pods) = (context.caches.of::<PersistentVolumeClaim>(), context.caches.pods());
    let mut worker = Worker::new(context, "pvcprotection", WORKERS);
    worker.watches(&claims, |claim| vec![Key::of(claim)]);
    worker.watches(&pods, claims_of);
    harness::start(context, worker, Claims { client: context.client.clone(), claims, pods });
}

/// Starts the controller of volumes.
pub(crate) fn start_volumes(context: &Context, _: &Config) {
    let volumes = context.caches.of::<PersistentVolume>();
    let mut worker = Worker::new(context, "pvprotection", WORKERS);
    worker.watches(&volumes, |volume| vec![Key::of(volume)]);
    harness::start(context, worker, Volumes { volumes });
}

/// Starts the controller of classes of volume attributes.
pub(crate) fn start_classes(context: &Context, _: &Config) {
    let caches = &context.caches;
    let classes = caches.of::<VolumeAttributesClass>();
    let (claims, volumes) = (caches.of::<PersistentVolumeClaim>(), caches.of::<PersistentVolume>());
    let mut worker = Worker::new(context, "vacprotection", WORKERS);
    worker.watches(&classes, |class| vec![Key::of(class)]);
    let keys = |names: Vec<&str>| names.into_iter().map(|name| Key::new("", name)).collect();
    worker.watches(&claims, move |claim| keys(classes_of_claim(claim)));
    worker.watches(&volumes, move |volume| keys(class_of_volume(volume).into_iter().collect()));
    harness::start(context, worker, Classes { client: context.client.clone(), classes, claims, volumes });
}

struct Claims {
    client: Client,
    claims: Cache<PersistentVolumeClaim>,
    pods: Cache<Pod>,
}

impl Reconciler for Claims {
    fn name(&self) -> &'static str {
        CLAIMS
    }

    async fn plan(&self, key: &Key) -> Result<Plan, Error> {
        let Some(claim) = self.claims.get_key(key) else { return Ok(Plan::nothing()) };
        let finalizer = "kubernetes.io/pvc-protection";
        let mut used = self.pods.in_namespace(&key.namespace).iter().any(|pod| uses(pod, &claim));
        if !used && goes(&*claim, finalizer) {
            let pods: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
            used = all(&pods).await?.iter().any(|pod| uses(pod, &claim));
        }
        Ok(plan(&*claim, finalizer, used))
    }
}

struct Volumes {
    volumes: Cache<PersistentVolume>,
}

impl Reconciler for Volumes {
    fn name(&self) -> &'static str {
        VOLUMES
    }

    async fn plan(&self, key: &Key) -> Result<Plan, Error> {
        let Some(volume) = self.volumes.get_key(key) else { return Ok(Plan::nothing()) };
        let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref());
        // The write fails if it is bound meanwhile.
        Ok(plan(&*volume, "kubernetes.io/pv-protection", phase == Some("Bound")))
    }
}

struct Classes {
    client: Client,
    classes: Cache<VolumeAttributesClass>,
    claims: Cache<PersistentVolumeClaim>,
    volumes: Cache<PersistentVolume>,
}

impl Reconciler for Classes {
    fn name(&self) -> &'static str {
        CLASSES
    }

    async fn plan(&self, key: &Key) -> Result<Plan, Error> {
        let Some(class) = self.classes.get_key(key) else { return Ok(Plan::nothing()) };
        let finalizer = "kubernetes.io/vac-protection";
        let named = key.name.as_str();
        let mut used = self.volumes.list().iter().any(|volume| class_of_volume(volume) == Some(named))
            || self.claims.list().iter().any(|claim| classes_of_claim(claim).contains(&named));
        if !used && goes(&*class, finalizer) {
            let volumes: Api<PersistentVolume> = Api::all(self.client.clone());
            let claims: Api<PersistentVolumeClaim> = Api::all(self.client.clone());
            used = all(&volumes).await?.iter().any(|volume| class_of_volume(volume) == Some(named))
                || all(&claims).await?.iter().any(|claim| classes_of_claim(claim).contains(&named));
        }
        Ok(plan(&*class, finalizer, used))
    }
}

/// All objects as they are now.
async fn all<K: Cached<DynamicType = ()>>(api: &Api<K>) -> Result<Vec<K>, Error> {
    let listed = api.list(&ListParams::default()).await;
    let listed = listed.map_err(|source| Error::Api { what: format!("list {}", K::plural(&())), source })?;
    Ok(listed.items)
}

fn has<K: Cached>(object: &K, finalizer: &str) -> bool {
    object.meta().finalizers.iter().flatten().any(|other| other == finalizer)
}

fn goes<K: Cached>(object: &K, finalizer: &str) -> bool {
    object.meta().deletion_timestamp.is_some() && has(object, finalizer)
}

/// Takes the finalizer from what goes and is not used; gives it to what stays.
fn plan<K: Cached<DynamicType = ()> + Serialize>(object: &K, finalizer: &str, used: bool) -> Plan {
    let mut plan = Plan::nothing();
    let mut object = object.clone();
    if goes(&object, finalizer) && !used {
        let finalizers = object.meta_mut().finalizers.get_or_insert_default();
        finalizers.retain(|other| other != finalizer);
        plan.then(Write::replace(&object));
    } else if object.meta().deletion_timestamp.is_none() && !has(&object, finalizer) {
        object.meta_mut().finalizers.get_or_insert_default().push(finalizer.to_owned());
        plan.then(Write::replace(&object));
    }
    plan
}

/// The claims that a pod's volumes name, and those that are made for them.
fn names(pod: &Pod) -> impl Iterator<Item = (String, bool)> {
    let of = pod.metadata.name.as_deref().unwrap_or_default();
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_ref());
    volumes.into_iter().flatten().filter_map(move |volume| {
        if let Some(source) = &volume.persistent_volume_claim {
            return Some((source.claim_name.clone(), false));
        }
        volume.ephemeral.as_ref().map(|_| (format!("{of}-{}", volume.name), true))
    })
}

fn claims_of(pod: &Pod) -> Vec<Key> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    names(pod).map(|(name, _)| Key::new(namespace, name)).collect()
}

/// A pod without a node does not count: no kubelet starts it with a claim that goes.
fn uses(pod: &Pod, claim: &PersistentVolumeClaim) -> bool {
    let is_bound =
        pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).is_some_and(|node| !node.is_empty());
    let is_made_for =
        || controller_of(claim).is_some_and(|owner| Some(&owner.uid) == pod.metadata.uid.as_ref());
    let is_done =
        pod.metadata.deletion_timestamp.is_some() && pod.metadata.deletion_grace_period_seconds == Some(0);
    is_bound
        && names(pod).any(|(name, is_ephemeral)| {
            Some(&name) == claim.metadata.name.as_ref() && (!is_ephemeral || !is_done && is_made_for())
        })
}

fn classes_of_claim(claim: &PersistentVolumeClaim) -> Vec<&str> {
    let (spec, status) = (claim.spec.as_ref(), claim.status.as_ref());
    let wanted = spec.and_then(|spec| spec.volume_attributes_class_name.as_deref());
    let current = status.and_then(|status| status.current_volume_attributes_class_name.as_deref());
    let target = status.and_then(|status| status.modify_volume_status.as_ref());
    let target = target.and_then(|target| target.target_volume_attributes_class_name.as_deref());
    [wanted, current, target].into_iter().flatten().collect()
}

fn class_of_volume(volume: &PersistentVolume) -> Option<&str> {
    volume.spec.as_ref()?.volume_attributes_class_name.as_deref()
}

#[cfg(test)]
mod tests {
    use serde::de::DeserializeOwned;
    use serde_json::{Value, json};

    use super::*;
    use crate::harness::What;

    fn of<T: DeserializeOwned>(value: Value) -> T {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn the_finalizer_goes_with_the_last_use_and_comes_back_if_it_was_lost() {
        let finalizer = "kubernetes.io/pv-protection";
        let volume = |deleted: bool, finalizers: &[&str]| -> PersistentVolume {
            of(json!({"metadata": {
                "name": "v", "finalizers": finalizers, "deletionTimestamp": deleted.then_some("2026-01-01T00:00:00Z"),
            }}))
        };
        for (deleted, before, used, after) in [
            (false, &[finalizer][..], false, None),
            (false, &["x"], false, Some(json!(["x", finalizer]))),
            (true, &["x", finalizer], true, None),
            (true, &["x", finalizer], false, Some(json!(["x"]))),
            (true, &["x"], false, None),
        ] {
            let plan = plan(&volume(deleted, before), finalizer, used);
            let written = plan.writes().next().map(|write| match &write.what {
                What::Replace(body) => body["metadata"]["finalizers"].clone(),
                other => panic!("{other:?}"),
            });
            assert_eq!(written, after, "{deleted} {before:?} {used}");
        }
    }

    #[test]
    fn a_claim_is_used_by_pods_on_nodes() {
        let claim = |name: &str| -> PersistentVolumeClaim {
            of(json!({"metadata": {"name": name, "ownerReferences": [
                {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "1", "controller": true}
            ]}}))
        };
        let pod = |node: Value, uid: &str| -> Pod {
            of(json!({
                "metadata": {"name": "p", "namespace": "a", "uid": uid},
                "spec": {"nodeName": node, "containers": [], "volumes": [
                    {"name": "data", "persistentVolumeClaim": {"claimName": "c"}}, {"name": "own", "ephemeral": {}}
                ]}
            }))
        };
        assert_eq!(claims_of(&pod(json!("n"), "1")), [Key::new("a", "c"), Key::new("a", "p-own")]);
        for (name, node, uid, wanted) in [
            ("c", json!("n"), "1", true),
            ("c", Value::Null, "1", false),
            ("other", json!("n"), "1", false),
            ("p-own", json!("n"), "1", true),
            ("p-own", json!("n"), "2", false),
        ] {
            assert_eq!(uses(&pod(node.clone(), uid), &claim(name)), wanted, "{name} {node} {uid}");
        }
    }
}
