//! What a node may do: its own objects, and what its pods need.
//!
//! A secret, config map, claim or service account token is given to a node exactly if a pod bound to it refers to it.
//! The pods of a node come from an index of the watch cache, and what each refers to is remembered per node as long
//! as the pod does not change; there is no graph that could lag behind.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::core::v1::{EnvFromSource, EnvVar, LocalObjectReference, Volume};
use k8s_openapi::api::rbac::v1::PolicyRule;
use serde::Deserialize;

use super::source::{Item, Kind, Objects};
use super::{Decision, rules};
use crate::{Attributes, UserInfo};

/// The group that, with a name of the right form, makes a user a node.
pub const NODES: &str = "system:nodes";
const PREFIX: &str = "system:node:";
/// Marks the API's image of a pod that a node runs by itself. It lends the node no rights.
pub(crate) const MIRROR: &str = "kubernetes.io/config.mirror";

/// The node that the user is; `Some("")` for a node without a name.
pub fn node_name(user: &UserInfo) -> Option<&str> {
    user.name.strip_prefix(PREFIX).filter(|_| user.in_group(NODES))
}

/// What a pod may refer to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Refers {
    Claim,
    ConfigMap,
    Secret,
    ServiceAccount,
}

/// Everything in the pod's namespace that a pod refers to.
pub(crate) type References = BTreeSet<(Refers, String)>;

/// The parts of a pod that refer to other objects; the rest is not even decoded.
#[derive(Debug, Default, Deserialize)]
struct PodPart {
    metadata: MetaPart,
    #[serde(default)]
    spec: SpecPart,
}

#[derive(Debug, Default, Deserialize)]
struct MetaPart {
    #[serde(default)]
    name: String,
    #[serde(default)]
    annotations: Option<HashMap<String, String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SpecPart {
    service_account_name: Option<String>,
    image_pull_secrets: Option<Vec<LocalObjectReference>>,
    volumes: Option<Vec<Volume>>,
    containers: Option<Vec<ContainerPart>>,
    init_containers: Option<Vec<ContainerPart>>,
    ephemeral_containers: Option<Vec<ContainerPart>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ContainerPart {
    env: Option<Vec<EnvVar>>,
    env_from: Option<Vec<EnvFromSource>>,
}

/// What the pod in this JSON refers to. Nothing if it is a mirror pod.
pub(crate) fn references(item: &Item) -> References {
    match item.read::<PodPart>() {
        Some(pod) if !pod.metadata.annotations.as_ref().is_some_and(|all| all.contains_key(MIRROR)) => {
            all_references(pod)
        }
        _ => References::new(),
    }
}

/// What a pod's JSON refers to, mirror pods included: what NodeRestriction forbids them.
pub(crate) fn references_of_any(json: &[u8]) -> References {
    serde_json::from_slice::<PodPart>(json).map(all_references).unwrap_or_default()
}

fn all_references(pod: PodPart) -> References {
    let mut found = References::new();
    let mut add = |kind, name: String| {
        if !name.is_empty() {
            found.insert((kind, name));
        }
    };
    let PodPart { metadata, spec } = pod;
    add(Refers::ServiceAccount, spec.service_account_name.unwrap_or_default());
    for secret in spec.image_pull_secrets.unwrap_or_default() {
        add(Refers::Secret, secret.name);
    }
    let containers = [spec.init_containers, spec.containers, spec.ephemeral_containers];
    for container in containers.into_iter().flatten().flatten() {
        for from in container.env_from.unwrap_or_default() {
            add(Refers::ConfigMap, from.config_map_ref.map(|r| r.name).unwrap_or_default());
            add(Refers::Secret, from.secret_ref.map(|r| r.name).unwrap_or_default());
        }
        for source in container.env.unwrap_or_default().into_iter().filter_map(|variable| variable.value_from)
        {
            add(Refers::ConfigMap, source.config_map_key_ref.map(|r| r.name).unwrap_or_default());
            add(Refers::Secret, source.secret_key_ref.map(|r| r.name).unwrap_or_default());
        }
    }
    for volume in spec.volumes.unwrap_or_default() {
        let local = |reference: Option<LocalObjectReference>| reference.map(|r| r.name).unwrap_or_default();
        add(Refers::ConfigMap, volume.config_map.map(|v| v.name).unwrap_or_default());
        add(Refers::Secret, volume.secret.and_then(|v| v.secret_name).unwrap_or_default());
        for source in volume.projected.and_then(|v| v.sources).unwrap_or_default() {
            add(Refers::ConfigMap, source.config_map.map(|v| v.name).unwrap_or_default());
            add(Refers::Secret, source.secret.map(|v| v.name).unwrap_or_default());
        }
        add(Refers::Claim, volume.persistent_volume_claim.map(|v| v.claim_name).unwrap_or_default());
        if volume.ephemeral.is_some() {
            add(Refers::Claim, format!("{}-{}", metadata.name, volume.name));
        }
        add(Refers::Secret, volume.azure_file.map(|v| v.secret_name).unwrap_or_default());
        add(Refers::Secret, local(volume.cephfs.and_then(|v| v.secret_ref)));
        add(Refers::Secret, local(volume.cinder.and_then(|v| v.secret_ref)));
        add(Refers::Secret, local(volume.csi.and_then(|v| v.node_publish_secret_ref)));
        add(Refers::Secret, local(volume.flex_volume.and_then(|v| v.secret_ref)));
        add(Refers::Secret, local(volume.iscsi.and_then(|v| v.secret_ref)));
        add(Refers::Secret, local(volume.rbd.and_then(|v| v.secret_ref)));
        add(Refers::Secret, volume.scale_io.map(|v| v.secret_ref.name).unwrap_or_default());
        add(Refers::Secret, local(volume.storageos.and_then(|v| v.secret_ref)));
    }
    found
}

/// Of one node: pod (namespace and name) → revision and references.
type Known = HashMap<(String, String), (i64, Arc<References>)>;

/// The Node authorizer.
#[derive(Debug)]
pub struct NodeAuthorizer {
    objects: Objects,
    /// What every node may do alike.
    common: Vec<PolicyRule>,
    known: Mutex<HashMap<String, Known>>,
}

impl NodeAuthorizer {
    /// Decides by these objects; `common` are the rules of the cluster role `system:node`.
    pub fn new(objects: Objects, common: Vec<PolicyRule>) -> Self {
        Self { objects, common, known: Mutex::default() }
    }

    /// Answers for nodes; has no opinion of others. It never denies for good: RBAC may grant a node more.
    pub fn authorize(&self, request: &Attributes) -> Decision {
        let Some(node) = node_name(&request.user) else { return Decision::NoOpinion(String::new()) };
        if node.is_empty() {
            return no(format!("unknown node for user {}", api::field::quote(&request.user.name)));
        }
        if request.resource_request {
            match (request.group.as_str(), request.resource.as_str()) {
                ("", "secrets") => return self.read(node, Refers::Secret, request),
                ("", "configmaps") => return self.read(node, Refers::ConfigMap, request),
                ("", "persistentvolumeclaims") => return self.claim(node, request),
                ("", "persistentvolumes") => return self.volume(node, request),
                ("", "serviceaccounts") => return self.account(node, request),
                ("", "nodes") => return own_node(node, request),
                ("", "pods") => return self.pod(node, request),
                ("coordination.k8s.io", "leases") => return lease(node, request),
                ("storage.k8s.io", "csinodes") => return csi_node(node, request),
                ("resource.k8s.io", "resourceslices") => return self.slice(node, request),
                // Kinds of later versions of this server: nothing of them is bound to a node yet.
                ("resource.k8s.io", "resourceclaims") | ("storage.k8s.io", "volumeattachments") => {
                    return unrelated(node);
                }
                _ => {}
            }
        }
        match self.common.iter().any(|rule| rules::allows(rule, request)) {
            true => Decision::Allow,
            false => no(""),
        }
    }

    /// True if a pod on the node refers to the object.
    fn needs(&self, node: &str, what: Refers, namespace: &str, name: &str) -> bool {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let before = known.remove(node).unwrap_or_default();
        let mut now = Known::new();
        let wanted = (what, name.to_owned());
        let mut needed = false;
        for item in self.objects.pods_on(node) {
            let key = (item.namespace.clone(), item.name.clone());
            let references = match before.get(&key).filter(|(revision, _)| *revision == item.revision) {
                Some((_, references)) => references.clone(),
                None => Arc::new(references(&item)),
            };
            needed |= item.namespace == namespace && references.contains(&wanted);
            now.insert(key, (item.revision, references));
        }
        if !now.is_empty() {
            known.insert(node.to_owned(), now);
        }
        needed
    }

    fn related(&self, node: &str, what: Refers, request: &Attributes) -> Decision {
        if request.name.is_empty() {
            return no("No Object name found");
        }
        match self.needs(node, what, &request.namespace, &request.name) {
            true => Decision::Allow,
            false => unrelated(node),
        }
    }

    fn read(&self, node: &str, what: Refers, request: &Attributes) -> Decision {
        if !matches!(request.verb.as_str(), "get" | "list" | "watch") {
            return no("can only read resources of this type");
        }
        if !request.subresource.is_empty() {
            return no("cannot read subresource");
        }
        if request.namespace.is_empty() {
            return no("can only read namespaced object of this type");
        }
        self.related(node, what, request)
    }

    fn claim(&self, node: &str, request: &Attributes) -> Decision {
        if request.subresource == "status" {
            return match request.verb.as_str() {
                "update" | "patch" => self.related(node, Refers::Claim, request),
                _ => no("can only get/update/patch this type"),
            };
        }
        match get_only(request) {
            Some(refusal) => refusal,
            None => self.related(node, Refers::Claim, request),
        }
    }

    /// A volume is a node's business if the claim that it is bound to is.
    fn volume(&self, node: &str, request: &Attributes) -> Decision {
        #[derive(Deserialize)]
        struct Claimed {
            spec: ClaimedSpec,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct ClaimedSpec {
            claim_ref: Option<k8s_openapi::api::core::v1::ObjectReference>,
        }
        if let Some(refusal) = get_only(request) {
            return refusal;
        }
        let volume = self
            .objects
            .get(Kind::PersistentVolume, "", &request.name)
            .and_then(|item| item.read::<Claimed>());
        let needed = volume.and_then(|volume| volume.spec.claim_ref).is_some_and(|claim| {
            let (namespace, name) = (claim.namespace.unwrap_or_default(), claim.name.unwrap_or_default());
            self.needs(node, Refers::Claim, &namespace, &name)
        });
        if needed { Decision::Allow } else { unrelated(node) }
    }

    fn account(&self, node: &str, request: &Attributes) -> Decision {
        // A kubelet looks for what its providers of image credentials are told of an account.
        if request.verb == "get" && request.subresource.is_empty() {
            return self.related(node, Refers::ServiceAccount, request);
        }
        if request.verb != "create" || request.name.is_empty() {
            return no("can only create tokens for individual service accounts");
        }
        if request.subresource != "token" {
            return no("can only create token subresource of serviceaccount");
        }
        self.related(node, Refers::ServiceAccount, request)
    }

    /// A node tells of its own devices.
    fn slice(&self, node: &str, request: &Attributes) -> Decision {
        #[derive(Deserialize)]
        struct Slice {
            spec: SliceSpec,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct SliceSpec {
            node_name: Option<String>,
        }
        if !request.subresource.is_empty() {
            return no("cannot authorize ResourceSlice subresources");
        }
        match request.verb.as_str() {
            // Whose it is, is decided by admission, which sees the objects.
            "create" | "list" | "watch" | "deletecollection" => Decision::Allow,
            "get" | "update" | "patch" | "delete" => {
                let slice = self.objects.get(Kind::ResourceSlice, "", &request.name);
                let of = slice.and_then(|item| item.read::<Slice>()).and_then(|slice| slice.spec.node_name);
                if of.as_deref() == Some(node) { Decision::Allow } else { unrelated(node) }
            }
            _ => no(
                "only the following verbs are allowed for a ResourceSlice: get, watch, list, create, update, \
                     patch, delete, deletecollection",
            ),
        }
    }

    fn pod(&self, node: &str, request: &Attributes) -> Decision {
        let bound = || {
            self.objects
                .pods_on(node)
                .iter()
                .any(|pod| pod.namespace == request.namespace && pod.name == request.name)
        };
        match (request.subresource.as_str(), request.verb.as_str()) {
            ("", "get") => match !request.name.is_empty() && bound() {
                true => Decision::Allow,
                false => unrelated(node),
            },
            ("", "list" | "watch") => {
                let own = request.field_selector.split(',').any(|term| {
                    let value = term.trim().strip_prefix("spec.nodeName=");
                    value.is_some_and(|value| value.strip_prefix('=').unwrap_or(value) == node)
                });
                if own || !request.name.is_empty() && bound() {
                    return Decision::Allow;
                }
                match request.name.is_empty() {
                    true => no("can only list/watch pods with spec.nodeName field selector"),
                    false => unrelated(node),
                }
            }
            // Which pods is decided by admission, which sees the object.
            ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create") => {
                Decision::Allow
            }
            _ => no(""),
        }
    }
}

fn no(reason: impl Into<String>) -> Decision {
    Decision::NoOpinion(reason.into())
}

fn unrelated(node: &str) -> Decision {
    no(format!("no relationship found between node '{node}' and this object"))
}

fn get_only(request: &Attributes) -> Option<Decision> {
    if request.verb != "get" {
        return Some(no("can only get individual resources of this type"));
    }
    if !request.subresource.is_empty() {
        return Some(no("cannot get subresource"));
    }
    request.name.is_empty().then(|| no("No Object name found"))
}

fn own_node(node: &str, request: &Attributes) -> Decision {
    match (request.subresource.as_str(), request.verb.as_str()) {
        // Which node is decided by admission, which sees the object.
        ("", "create" | "update" | "patch") | ("status", "update" | "patch") => Decision::Allow,
        ("", "get" | "list" | "watch") if request.name == node => Decision::Allow,
        ("", "get" | "list" | "watch") if request.name.is_empty() => {
            no(format!("node '{node}' cannot read all nodes, only its own Node object"))
        }
        ("", "get" | "list" | "watch") => {
            no(format!("node '{node}' cannot read '{}', only its own Node object", request.name))
        }
        _ => no(""),
    }
}

const CHANGES: [&str; 5] = ["get", "create", "update", "patch", "delete"];

fn lease(node: &str, request: &Attributes) -> Decision {
    if !CHANGES.contains(&request.verb.as_str()) {
        return no("can only get, create, update, patch, or delete a node lease");
    }
    if request.namespace != "kube-node-lease" {
        return no("can only access leases in the \"kube-node-lease\" system namespace");
    }
    // The name is not known yet on create; admission checks it.
    if request.verb != "create" && request.name != node {
        return no("can only access node lease with the same name as the requesting node");
    }
    Decision::Allow
}

fn csi_node(node: &str, request: &Attributes) -> Decision {
    if !CHANGES.contains(&request.verb.as_str()) {
        return no("can only get, create, update, patch, or delete a CSINode");
    }
    if !request.subresource.is_empty() {
        return no("cannot authorize CSINode subresources");
    }
    if request.verb != "create" && request.name != node {
        return no("can only access CSINode with the same name as the requesting node");
    }
    Decision::Allow
}

#[cfg(test)]
mod tests;
