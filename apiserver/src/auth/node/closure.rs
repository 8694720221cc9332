//! In a random cluster that changes at random, a node reaches exactly what its own pods need, and itself.
//!
//! What is expected is not read from the objects by the code that is tested: the test keeps what it put into them.

use base::Random;
use serde_json::{Value, json};

use super::tests::request;
use super::*;
use crate::auth::source::fixed::Fixed;

const NODES: [&str; 4] = ["n0", "n1", "n2", "n3"];
const NAMESPACES: [&str; 2] = ["ns0", "ns1"];
const TARGETS: [&str; 4] = ["o0", "o1", "o2", "o3"];
const REFERRED: [Refers; 5] =
    [Refers::Secret, Refers::ConfigMap, Refers::Claim, Refers::ServiceAccount, Refers::ResourceClaim];

type Key = (String, String);

/// What was put into a pod.
struct PodFacts {
    node: String,
    mirror: bool,
    refers: References,
}

/// What was put into a volume.
struct VolumeFacts {
    claim: Option<Key>,
    secrets: Vec<Key>,
}

#[derive(Default)]
struct Cluster {
    objects: Arc<Fixed>,
    pods: HashMap<Key, PodFacts>,
    volumes: HashMap<String, VolumeFacts>,
    /// Attachments and slices by kind and name: their nodes.
    of_nodes: HashMap<(Kind, String), String>,
}

fn one_of<'a>(random: &Random, of: &[&'a str]) -> &'a str {
    of[random.below(of.len() as u64) as usize]
}

/// Adds to a list, which may not be there yet.
fn push(at: &mut Value, item: Value) {
    if at.is_null() {
        *at = json!([]);
    }
    at.as_array_mut().unwrap().push(item);
}

/// A way to refer to an object of one kind from a pod; what is referred to, which the way may decide.
fn refer(pod: &mut Value, what: Refers, name: &str, way: u64) -> String {
    let pod_name = pod["metadata"]["name"].as_str().unwrap().to_owned();
    let status = &mut pod["status"];
    if what == Refers::ResourceClaim && way % 3 != 0 {
        if way % 3 == 1 {
            status["extendedResourceClaimStatus"] = json!({"resourceClaimName": name, "requestMappings": []});
        } else {
            let made = format!("from-template-{name}");
            push(&mut status["resourceClaimStatuses"], json!({"name": made, "resourceClaimName": name}));
            // One that no claim of the spec belongs to says nothing.
            push(&mut status["resourceClaimStatuses"], json!({"name": "stray", "resourceClaimName": "o3"}));
            push(&mut pod["spec"]["resourceClaims"], json!({"name": made, "resourceClaimTemplateName": "t"}));
        }
        return name.to_owned();
    }
    let spec = &mut pod["spec"];
    let in_volume = |source: Value| {
        let mut volume = json!({"name": name});
        volume.as_object_mut().unwrap().extend(source.as_object().unwrap().clone());
        volume
    };
    match (what, way % 8) {
        (Refers::ServiceAccount, _) => spec["serviceAccountName"] = name.into(),
        (Refers::ResourceClaim, _) => {
            push(
                &mut spec["resourceClaims"],
                json!({"name": format!("direct-{name}"), "resourceClaimName": name}),
            );
        }
        (Refers::Claim, 0..4) => {
            push(&mut spec["volumes"], in_volume(json!({"persistentVolumeClaim": {"claimName": name}})));
        }
        (Refers::Claim, _) => {
            push(&mut spec["volumes"], in_volume(json!({"ephemeral": {}})));
            return format!("{pod_name}-{name}");
        }
        (Refers::Secret, 0) => push(&mut spec["imagePullSecrets"], json!({"name": name})),
        (Refers::Secret, 1) => push(&mut spec["volumes"], in_volume(json!({"secret": {"secretName": name}}))),
        (Refers::Secret, 2) => push(
            &mut spec["containers"][0]["env"],
            json!({"name": "E", "valueFrom": {"secretKeyRef": {"name": name, "key": "k"}}}),
        ),
        (Refers::Secret, 3) => {
            push(&mut spec["initContainers"][0]["envFrom"], json!({"secretRef": {"name": name}}));
        }
        (Refers::Secret, 4) => {
            push(&mut spec["ephemeralContainers"][0]["envFrom"], json!({"secretRef": {"name": name}}));
        }
        (Refers::Secret, 5) => {
            let csi = json!({"csi": {"driver": "d", "nodePublishSecretRef": {"name": name}}});
            push(&mut spec["volumes"], in_volume(csi));
        }
        (Refers::Secret, 6) => {
            let azure = json!({"azureFile": {"secretName": name, "shareName": "s"}});
            push(&mut spec["volumes"], in_volume(azure));
        }
        (Refers::Secret, _) => {
            let projected = json!({"projected": {"sources": [{"secret": {"name": name}}]}});
            push(&mut spec["volumes"], in_volume(projected));
        }
        (Refers::ConfigMap, 0..2) => {
            push(&mut spec["volumes"], in_volume(json!({"configMap": {"name": name}})))
        }
        (Refers::ConfigMap, 2) => push(
            &mut spec["containers"][0]["env"],
            json!({"name": "E", "valueFrom": {"configMapKeyRef": {"name": name, "key": "k"}}}),
        ),
        (Refers::ConfigMap, 3) => {
            push(&mut spec["containers"][0]["envFrom"], json!({"configMapRef": {"name": name}}));
        }
        (Refers::ConfigMap, _) => {
            let projected = json!({"projected": {"sources": [{"configMap": {"name": name}}]}});
            push(&mut spec["volumes"], in_volume(projected));
        }
    }
    name.to_owned()
}

impl Cluster {
    fn change(&mut self, random: &Random) {
        match random.below(8) {
            0..4 => self.change_pod(random),
            4..6 => self.change_volume(random),
            6 => self.change_of_node(random, Kind::VolumeAttachment),
            _ => self.change_of_node(random, Kind::ResourceSlice),
        }
    }

    /// A pod comes, goes, is bound, or is another one.
    fn change_pod(&mut self, random: &Random) {
        let (namespace, name) = (one_of(random, &NAMESPACES), format!("pod{}", random.below(6)));
        let key = (namespace.to_owned(), name.clone());
        if random.below(4) == 0 {
            self.objects.remove(Kind::Pod, namespace, &name);
            self.pods.remove(&key);
            return;
        }
        let node = one_of(random, &["", "n0", "n1", "n2"]).to_owned();
        let mirror = random.below(6) == 0;
        let mut pod = json!({"metadata": {"namespace": namespace, "name": name},
            "spec": {"containers": [{}], "initContainers": [{}], "ephemeralContainers": [{}]}, "status": {}});
        if !node.is_empty() {
            pod["spec"]["nodeName"] = node.clone().into();
        }
        if mirror {
            pod["metadata"]["annotations"] = json!({MIRROR: "x"});
        }
        let mut refers = References::new();
        let mut extended = false;
        for _ in 0..random.below(5) {
            let what = REFERRED[random.below(5) as usize];
            let way = random.u64();
            // There is one account, and one claim for extended resources.
            if what == Refers::ServiceAccount {
                refers.retain(|(kind, _)| *kind != what);
            }
            let is_extended = what == Refers::ResourceClaim && way % 3 == 1;
            if is_extended && std::mem::replace(&mut extended, true) {
                continue;
            }
            refers.insert((what, refer(&mut pod, what, one_of(random, &TARGETS), way)));
        }
        self.objects.put(Kind::Pod, pod);
        self.pods.insert(key, PodFacts { node, mirror, refers });
    }

    /// A volume comes, goes, or is bound to another claim or to none.
    fn change_volume(&mut self, random: &Random) {
        let name = format!("pv{}", random.below(4));
        if random.below(5) == 0 {
            self.objects.remove(Kind::PersistentVolume, "", &name);
            self.volumes.remove(&name);
            return;
        }
        let (namespace, target) = (one_of(random, &NAMESPACES), one_of(random, &TARGETS));
        let bound = random.below(4) > 0;
        let mut spec = json!({});
        if bound {
            spec["claimRef"] = json!({"namespace": namespace, "name": target});
        }
        let (of, secret) = (one_of(random, &NAMESPACES), one_of(random, &TARGETS));
        let reference = json!({"namespace": of, "name": secret});
        let there = (of.to_owned(), secret.to_owned());
        let beside = (namespace.to_owned(), secret.to_owned());
        let secrets = match random.below(5) {
            0 => Vec::new(),
            1 => {
                spec["csi"] = json!({"driver": "d", "volumeHandle": "h", "nodeStageSecretRef": reference});
                vec![there]
            }
            2 => {
                // The controllers' secrets are no business of nodes.
                spec["csi"] =
                    json!({"driver": "d", "volumeHandle": "h", "controllerPublishSecretRef": reference});
                Vec::new()
            }
            3 => {
                spec["rbd"] = json!({"monitors": [], "image": "i", "secretRef": {"name": secret}});
                vec![beside]
            }
            _ => {
                spec["azureFile"] = json!({"shareName": "s", "secretName": secret, "secretNamespace": of});
                vec![there]
            }
        };
        let claim = bound.then(|| (namespace.to_owned(), target.to_owned()));
        self.objects.put(Kind::PersistentVolume, json!({"metadata": {"name": name}, "spec": spec}));
        self.volumes.insert(name, VolumeFacts { claim, secrets });
    }

    fn change_of_node(&mut self, random: &Random, kind: Kind) {
        let name = one_of(random, &TARGETS).to_owned();
        if random.below(4) == 0 {
            self.objects.remove(kind, "", &name);
            self.of_nodes.remove(&(kind, name));
            return;
        }
        let node = one_of(random, &NODES).to_owned();
        self.objects.put(kind, json!({"metadata": {"name": name}, "spec": {"nodeName": node}}));
        self.of_nodes.insert((kind, name), node);
    }

    fn needs(&self, node: &str, what: Refers, namespace: &str, name: &str) -> bool {
        let wanted = (what, name.to_owned());
        let mut pods = self.pods.iter().filter(|((of, _), _)| of == namespace);
        pods.any(|(_, pod)| pod.node == node && !pod.mirror && pod.refers.contains(&wanted))
    }

    fn needs_volume(&self, node: &str, volume: &VolumeFacts) -> bool {
        let claim = volume.claim.as_ref();
        claim.is_some_and(|(namespace, name)| self.needs(node, Refers::Claim, namespace, name))
    }

    /// Whether a node may do this with an object that has a name.
    fn expects(&self, node: &str, verb: &str, resource: &str, namespace: &str, name: &str) -> bool {
        let needs = |what| self.needs(node, what, namespace, name);
        let is_of_node = |kind| self.of_nodes.get(&(kind, name.to_owned())).is_some_and(|of| of == node);
        let changes = ["get", "create", "update", "patch", "delete"].contains(&verb);
        let reads = ["get", "list", "watch"].contains(&verb);
        match resource {
            "secrets" => {
                let key = (namespace.to_owned(), name.to_owned());
                let mut volumes = self.volumes.values().filter(|volume| volume.secrets.contains(&key));
                reads && (needs(Refers::Secret) || volumes.any(|volume| self.needs_volume(node, volume)))
            }
            "configmaps" => reads && needs(Refers::ConfigMap),
            "persistentvolumeclaims" => verb == "get" && needs(Refers::Claim),
            "persistentvolumeclaims/status" => ["update", "patch"].contains(&verb) && needs(Refers::Claim),
            "persistentvolumes" => {
                let volume = self.volumes.get(name);
                verb == "get" && volume.is_some_and(|volume| self.needs_volume(node, volume))
            }
            "resource.k8s.io:resourceclaims" => verb == "get" && needs(Refers::ResourceClaim),
            "serviceaccounts" => verb == "get" && needs(Refers::ServiceAccount),
            "serviceaccounts/token" => verb == "create" && needs(Refers::ServiceAccount),
            "storage.k8s.io:volumeattachments" => verb == "get" && is_of_node(Kind::VolumeAttachment),
            "resource.k8s.io:resourceslices" => {
                verb == "create"
                    || ["get", "update", "patch", "delete"].contains(&verb) && is_of_node(Kind::ResourceSlice)
            }
            "pods" => match verb {
                "create" | "delete" => true,
                "get" | "list" | "watch" => self
                    .pods
                    .get(&(namespace.to_owned(), name.to_owned()))
                    .is_some_and(|pod| pod.node == node),
                _ => false,
            },
            "nodes" => match verb {
                "create" | "update" | "patch" => true,
                "get" | "list" | "watch" => name == node,
                _ => false,
            },
            "storage.k8s.io:csinodes" => changes && (verb == "create" || name == node),
            "coordination.k8s.io:leases" => {
                changes && namespace == "kube-node-lease" && (verb == "create" || name == node)
            }
            _ => false,
        }
    }
}

/// The names that objects of a kind may have.
fn names(resource: &str) -> Vec<String> {
    let all = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    match resource {
        "pods" => (0..6).map(|i| format!("pod{i}")).collect(),
        "persistentvolumes" => (0..4).map(|i| format!("pv{i}")).collect(),
        "nodes" | "storage.k8s.io:csinodes" | "coordination.k8s.io:leases" => all(&NODES),
        "persistentvolumeclaims" | "persistentvolumeclaims/status" => {
            let made = (0..6).map(|i| format!("pod{i}-o{}", i % 4));
            all(&TARGETS).into_iter().chain(made).collect()
        }
        _ => all(&TARGETS),
    }
}

#[test]
fn a_node_reaches_exactly_the_closure_of_its_pods() {
    const VERBS: [&str; 8] =
        ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"];
    const RESOURCES: [(&str, bool); 14] = [
        ("secrets", true),
        ("configmaps", true),
        ("persistentvolumeclaims", true),
        ("persistentvolumeclaims/status", true),
        ("persistentvolumes", false),
        ("resource.k8s.io:resourceclaims", true),
        ("serviceaccounts", true),
        ("serviceaccounts/token", true),
        ("storage.k8s.io:volumeattachments", false),
        ("resource.k8s.io:resourceslices", false),
        ("pods", true),
        ("nodes", false),
        ("storage.k8s.io:csinodes", false),
        ("coordination.k8s.io:leases", true),
    ];
    let (mut granted, mut refused) = (0, 0);
    for seed in 0..8 {
        let random = Random::seeded(seed);
        let mut cluster = Cluster::default();
        let authorizer = NodeAuthorizer::new(cluster.objects.clone(), Vec::new());
        for step in 0..40 {
            cluster.change(&random);
            if step % 4 != 3 {
                continue;
            }
            for node in NODES {
                for (resource, namespaced) in RESOURCES {
                    let namespaces: &[&str] = match (resource, namespaced) {
                        ("coordination.k8s.io:leases", _) => &["ns0", "kube-node-lease"],
                        (_, true) => &NAMESPACES,
                        (_, false) => &[""],
                    };
                    for namespace in namespaces {
                        for name in names(resource) {
                            // What nodes do most, and something else.
                            for verb in ["get", one_of(&random, &VERBS)] {
                                let expect = cluster.expects(node, verb, resource, namespace, &name);
                                let asked = request(node, verb, resource, namespace, &name);
                                let allowed = authorizer.authorize(&asked) == Decision::Allow;
                                let what = format!("{node} {verb} {resource} {namespace}/{name}");
                                assert_eq!(allowed, expect, "seed {seed}, step {step}: {what}");
                                *if expect { &mut granted } else { &mut refused } += 1;
                            }
                        }
                    }
                }
            }
        }
    }
    assert!(granted > 1000 && refused > granted, "{granted} granted, {refused} refused");
}
