//! What a node may do: its own objects, and what its pods need.
//!
//! A secret, config map, claim or service account token is given to a node exactly if a pod bound to it refers to it, and
//! a volume and its secrets if the claim is that the volume is bound to. The pods of a node come from an index of the watch
//! cache, and what each object refers to is remembered as long as it does not change; there is no graph that could lag
//! behind.

mod references;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::rbac::v1::PolicyRule;
use serde::Deserialize;

use self::references::{Backed, of_pod, of_volume};
pub(crate) use self::references::{References, Refers, references_of_any};
use super::source::{Kind, Objects};
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

/// Of one node: pod (namespace and name) → revision and references.
type Known = HashMap<(String, String), (i64, Arc<References>)>;

/// The volumes as of one change of any of them, by name: revision, and what each refers to.
#[derive(Debug, Default)]
struct Volumes {
    version: i64,
    known: HashMap<String, (i64, Arc<Backed>)>,
}

/// The Node authorizer.
#[derive(Debug)]
pub struct NodeAuthorizer {
    objects: Objects,
    /// What every node may do alike.
    common: Vec<PolicyRule>,
    known: Mutex<HashMap<String, Known>>,
    volumes: Mutex<Volumes>,
}

impl NodeAuthorizer {
    /// Decides by these objects; `common` are the rules of the cluster role `system:node`.
    pub fn new(objects: Objects, common: Vec<PolicyRule>) -> Self {
        Self { objects, common, known: Mutex::default(), volumes: Mutex::default() }
    }

    /// Answers for nodes; has no opinion of others. It never denies for good: RBAC may grant a node more.
    pub fn authorize(&self, request: &Attributes) -> Decision {
        let Some(node) = node_name(&request.user) else { return Decision::NoOpinion(String::new()) };
        if node.is_empty() {
            return no(format!("unknown node for user {}", api::field::quote(&request.user.name)));
        }
        if request.resource_request {
            match (request.group.as_str(), request.resource.as_str()) {
                ("", "secrets") => return self.secret(node, request),
                ("", "configmaps") => return self.read(node, Refers::ConfigMap, request),
                ("", "persistentvolumeclaims") => return self.claim(node, request),
                ("", "persistentvolumes") => return self.volume(node, request),
                ("", "serviceaccounts") => return self.account(node, request),
                ("", "nodes") => return own_node(node, request),
                ("", "pods") => return self.pod(node, request),
                ("coordination.k8s.io", "leases") => return lease(node, request),
                ("storage.k8s.io", "csinodes") => return csi_node(node, request),
                ("resource.k8s.io", "resourceslices") => return self.slice(node, request),
                ("resource.k8s.io", "resourceclaims") => {
                    return get_only(request)
                        .unwrap_or_else(|| self.related(node, Refers::ResourceClaim, request));
                }
                ("storage.k8s.io", "volumeattachments") => return self.attachment(node, request),
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
                None => Arc::new(of_pod(&item)),
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

    /// A secret is a node's business if a pod refers to it, or the volume of a claim of a pod.
    fn secret(&self, node: &str, request: &Attributes) -> Decision {
        let decision = self.read(node, Refers::Secret, request);
        let asked = (request.namespace.clone(), request.name.clone());
        let readable = matches!(request.verb.as_str(), "get" | "list" | "watch");
        if decision == Decision::Allow
            || !readable
            || !request.subresource.is_empty()
            || request.name.is_empty()
        {
            return decision;
        }
        let volumes = self.volumes();
        let mut of_it = volumes.iter().filter(|volume| volume.secrets.contains(&asked));
        match of_it.any(|volume| self.needs(node, Refers::Claim, &volume.claim.0, &volume.claim.1)) {
            true => Decision::Allow,
            false => decision,
        }
    }

    /// What the volumes that are bound refer to.
    fn volumes(&self) -> Vec<Arc<Backed>> {
        let mut volumes = self.volumes.lock().unwrap_or_else(PoisonError::into_inner);
        // Read first: what changes from here on is another version.
        let version = self.objects.version(Kind::PersistentVolume);
        if volumes.version != version || volumes.known.is_empty() {
            let mut before = std::mem::take(&mut volumes.known);
            for item in self.objects.list(Kind::PersistentVolume) {
                let known = before.remove(&item.name).filter(|(revision, _)| *revision == item.revision);
                let known = known.unwrap_or_else(|| (item.revision, Arc::new(of_volume(&item))));
                volumes.known.insert(item.name, known);
            }
            volumes.version = version;
        }
        volumes.known.values().filter(|(_, of)| !of.secrets.is_empty()).map(|(_, of)| of.clone()).collect()
    }

    fn attachment(&self, node: &str, request: &Attributes) -> Decision {
        if let Some(refusal) = get_only(request) {
            return refusal;
        }
        match self.is_for(node, Kind::VolumeAttachment, request) {
            true => Decision::Allow,
            false => unrelated(node),
        }
    }

    /// Whether the object says that it is for the node.
    fn is_for(&self, node: &str, kind: Kind, request: &Attributes) -> bool {
        #[derive(Deserialize)]
        struct Object {
            spec: Spec,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Spec {
            node_name: Option<String>,
        }
        let object = self.objects.get(kind, "", &request.name).and_then(|item| item.read::<Object>());
        object.and_then(|object| object.spec.node_name).as_deref() == Some(node)
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
        if let Some(refusal) = get_only(request) {
            return refusal;
        }
        let volume = self.objects.get(Kind::PersistentVolume, "", &request.name);
        let claim = volume.map(|volume| of_volume(&volume).claim).unwrap_or_default();
        let needed = !claim.1.is_empty() && self.needs(node, Refers::Claim, &claim.0, &claim.1);
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
        if !request.subresource.is_empty() {
            return no("cannot authorize ResourceSlice subresources");
        }
        match request.verb.as_str() {
            // Whose it will be, is decided by admission, which sees the object.
            "create" => Decision::Allow,
            "list" | "watch" | "deletecollection" if selects(request, node) => Decision::Allow,
            "list" | "watch" | "deletecollection" => {
                no("can only list/watch/deletecollection resourceslices with nodeName field selector")
            }
            _ if !CHANGES.contains(&request.verb.as_str()) => no(
                "only the following verbs are allowed for a ResourceSlice: get, watch, list, create, update, \
                     patch, delete, deletecollection",
            ),
            _ if request.name.is_empty() => no("No Object name found"),
            _ if self.is_for(node, Kind::ResourceSlice, request) => Decision::Allow,
            _ => unrelated(node),
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
                if selects(request, node) || !request.name.is_empty() && bound() {
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

/// Whether a request is for objects of the node alone.
fn selects(request: &Attributes, node: &str) -> bool {
    request.field_selector.split(',').any(|term| {
        let value = term.trim().strip_prefix("spec.nodeName=");
        value.is_some_and(|value| value.strip_prefix('=').unwrap_or(value) == node)
    })
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
mod closure;
#[cfg(test)]
mod tests;
