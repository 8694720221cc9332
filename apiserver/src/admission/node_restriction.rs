//! What a node may write: its own node, lease and pods' status, mirror pods, tokens of its pods.
//!
//! Authorization lets a node try; here, where the objects are seen, it is held to its own. The check runs twice: on
//! what the node sent, and on what is about to be stored.

use std::collections::{BTreeMap, BTreeSet};

use api::object::Object;
use api::status::{GroupResource, Status};
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::resource::v1::ResourceSlice;
use serde::Deserialize;

use super::references::refers_to;
use super::{Admission, AdmissionContext, Operation};
use crate::UserInfo;
use crate::auth::node::{MIRROR, node_name};
use crate::auth::source::{Kind, Objects};

pub(super) fn admit(
    admission: &Admission,
    context: &AdmissionContext<'_>,
    object: &mut dyn Object,
    old: Option<&dyn Object>,
) -> Result<(), Status> {
    validate(admission, context, Some(object), old)
}

pub(super) fn validate(
    admission: &Admission,
    context: &AdmissionContext<'_>,
    object: Option<&dyn Object>,
    old: Option<&dyn Object>,
) -> Result<(), Status> {
    let Some(node) = node_name(context.user) else { return Ok(()) };
    if node.is_empty() {
        let user = api::field::quote(&context.user.name);
        return Err(context.forbidden(format!("could not determine node from user {user}")));
    }
    let check = Check { objects: &admission.objects, context, node };
    match (context.resource.group.as_ref(), context.resource.plural.as_ref()) {
        ("", "pods") => match context.subresource {
            "" => check.pod(object, old),
            "status" => check.pod_status(object, old),
            "eviction" => check.eviction(),
            other => check.refuse(format!(
                "unexpected pod subresource {}, only 'status' and 'eviction' are allowed",
                api::field::quote(other)
            )),
        },
        ("", "nodes") => check.node(object, old),
        ("", "persistentvolumeclaims") if context.subresource != "status" => {
            check.refuse("may only update PVC status")
        }
        ("coordination.k8s.io", "leases") => {
            if context.namespace != "kube-node-lease" {
                return check.refuse("can only access leases in the \"kube-node-lease\" system namespace");
            }
            check.own_name("can only access node lease with the same name as the requesting node")
        }
        ("storage.k8s.io", "csinodes") => {
            check.own_name("can only access CSINode with the same name as the requesting node")
        }
        ("resource.k8s.io", "resourceslices") => check.slice(object, old),
        _ => Ok(()),
    }
}

/// Refuses a node's request for a token unless it is bound to a pod of its own. Called by the token subresource itself,
/// so that there is no way around it.
pub(crate) fn token(
    objects: &Objects,
    user: &UserInfo,
    namespace: &str,
    account: &str,
    request: &TokenRequest,
) -> Result<(), Status> {
    let Some(node) = node_name(user) else { return Ok(()) };
    let refuse =
        |why: String| Err(Status::forbidden(GroupResource::new("", "serviceaccounts"), account, why));
    let reference = request.spec.as_ref().and_then(|spec| spec.bound_object_ref.as_ref());
    let Some(reference) = reference.filter(|reference| {
        reference.api_version.as_deref() == Some("v1")
            && reference.kind.as_deref() == Some("Pod")
            && reference.name.as_deref().is_some_and(|name| !name.is_empty())
    }) else {
        return refuse("node requested token not bound to a pod".to_owned());
    };
    let (name, uid) =
        (reference.name.as_deref().unwrap_or_default(), reference.uid.as_deref().unwrap_or_default());
    if uid.is_empty() {
        return refuse("node requested token with a pod binding without a uid".to_owned());
    }
    let Some(pod) = objects.get(Kind::Pod, namespace, name).and_then(|item| item.read::<PodPart>()) else {
        return Err(Status::not_found(GroupResource::new("", "pods"), name));
    };
    if pod.metadata.uid != uid {
        return refuse(format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. \
             The object might have been deleted and then recreated"
        ));
    }
    if pod.spec.node_name.as_deref() != Some(node) {
        return refuse("node requested token bound to a pod scheduled on a different node".to_owned());
    }
    Ok(())
}

#[derive(Debug, Default, Deserialize)]
struct PodPart {
    metadata: Meta,
    #[serde(default)]
    spec: SpecPart,
}

#[derive(Debug, Default, Deserialize)]
struct Meta {
    #[serde(default)]
    uid: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SpecPart {
    node_name: Option<String>,
}

struct Check<'a> {
    objects: &'a Objects,
    context: &'a AdmissionContext<'a>,
    node: &'a str,
}

impl Check<'_> {
    fn refuse(&self, why: impl std::fmt::Display) -> Result<(), Status> {
        Err(self.context.forbidden(why))
    }

    /// Of the devices of nodes, a node writes of its own only. Authorization has seen to updates, which name the object.
    fn slice(&self, object: Option<&dyn Object>, old: Option<&dyn Object>) -> Result<(), Status> {
        let (word, slice) = match self.context.operation {
            Operation::Create => ("create", object),
            Operation::Delete => ("delete", old),
            Operation::Update | Operation::Connect => return Ok(()),
        };
        let slice = slice.and_then(|slice| slice.downcast_ref::<ResourceSlice>());
        if slice.and_then(|slice| slice.spec.node_name.as_deref()) == Some(self.node) {
            return Ok(());
        }
        self.refuse(format_args!(
            "can only {word} ResourceSlice with the same NodeName as the requesting node"
        ))
    }

    fn quoted(&self) -> String {
        api::field::quote(self.node).to_string()
    }

    fn own_name(&self, why: &str) -> Result<(), Status> {
        if self.context.name == self.node { Ok(()) } else { self.refuse(why) }
    }

    fn pod(&self, object: Option<&dyn Object>, old: Option<&dyn Object>) -> Result<(), Status> {
        let node = self.quoted();
        match self.context.operation {
            Operation::Create => match object.and_then(|object| object.downcast_ref::<Pod>()) {
                Some(pod) => self.mirror_pod(pod),
                None => self.refuse("unexpected type"),
            },
            Operation::Delete if is_on(old, self.node) => Ok(()),
            Operation::Delete => {
                self.refuse(format_args!("node {node} can only delete pods with spec.nodeName set to itself"))
            }
            Operation::Update | Operation::Connect => self.refuse(format_args!(
                "unexpected operation \"UPDATE\", node {node} can only create and delete mirror pods"
            )),
        }
    }

    fn mirror_pod(&self, pod: &Pod) -> Result<(), Status> {
        let node = self.quoted();
        if !pod.metadata.annotations.as_ref().is_some_and(|all| all.contains_key(MIRROR)) {
            return self.refuse(format_args!(
                "pod does not have \"{MIRROR}\" annotation, node {node} can only create mirror pods"
            ));
        }
        if pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) != Some(self.node) {
            return self
                .refuse(format_args!("node {node} can only create pods with spec.nodeName set to itself"));
        }
        let owner = match pod.metadata.owner_references.as_deref().unwrap_or_default() {
            [owner] => owner,
            [] => {
                return self.refuse(format_args!(
                    "node {node} can only create pods with an owner reference set to itself"
                ));
            }
            _ => {
                return self.refuse(format_args!(
                    "node {node} can only create pods with a single owner reference set to itself"
                ));
            }
        };
        if owner.api_version != "v1" || owner.kind != "Node" || owner.name != self.node {
            return self.refuse(format_args!(
                "node {node} can only create pods with an owner reference set to itself"
            ));
        }
        if owner.controller != Some(true) {
            return self.refuse(format_args!(
                "node {node} can only create pods with a controller owner reference set to itself"
            ));
        }
        if owner.block_owner_deletion == Some(true) {
            return self
                .refuse(format_args!("node {node} must not set blockOwnerDeletion on an owner reference"));
        }
        let Some(own) = self.objects.get(Kind::Node, "", self.node).and_then(|item| item.read::<PodPart>())
        else {
            return Err(Status::not_found(GroupResource::new("", "nodes"), self.node));
        };
        if own.metadata.uid != owner.uid {
            return self.refuse(format_args!(
                "node {} UID mismatch: expected {} got {}",
                self.node, owner.uid, own.metadata.uid
            ));
        }
        match refers_to(pod) {
            Some(what) => self.refuse(format_args!("node {node} can not create pods that reference {what}")),
            None => Ok(()),
        }
    }

    fn pod_status(&self, object: Option<&dyn Object>, old: Option<&dyn Object>) -> Result<(), Status> {
        let node = self.quoted();
        if self.context.operation != Operation::Update {
            return self.refuse("unexpected operation");
        }
        if !is_on(old, self.node) {
            return self.refuse(format_args!(
                "node {node} can only update pod status for pods with spec.nodeName set to itself"
            ));
        }
        let pod =
            |object: Option<&dyn Object>| object.and_then(|object| object.downcast_ref::<Pod>()).cloned();
        let (Some(new), Some(old)) = (pod(object), pod(old)) else { return self.refuse("unexpected type") };
        if new.metadata.labels.clone().unwrap_or_default() != old.metadata.labels.clone().unwrap_or_default()
        {
            return self.refuse(format_args!("node {node} cannot update labels through pod status"));
        }
        let claims = |pod: Option<k8s_openapi::api::core::v1::PodStatus>| {
            pod.and_then(|status| status.resource_claim_statuses).unwrap_or_default()
        };
        // What is said there gives the node the claims.
        let extended =
            |pod: &Pod| pod.status.as_ref().and_then(|status| status.extended_resource_claim_status.clone());
        if extended(&new) != extended(&old) {
            return self.refuse(format_args!("node {node} cannot update extended resource claim status"));
        }
        if claims(new.status) != claims(old.status) {
            return self.refuse(format_args!("node {node} cannot update resource claim statues"));
        }
        Ok(())
    }

    fn eviction(&self) -> Result<(), Status> {
        let (namespace, name) = (self.context.namespace, &self.context.name);
        let Some(pod) = self.objects.get(Kind::Pod, namespace, name).and_then(|item| item.read::<PodPart>())
        else {
            return Err(Status::not_found(GroupResource::new("", "pods"), name));
        };
        if pod.spec.node_name.as_deref() == Some(self.node) {
            return Ok(());
        }
        self.refuse(format_args!("node {} can only evict pods with spec.nodeName set to itself", self.node))
    }

    fn node(&self, object: Option<&dyn Object>, old: Option<&dyn Object>) -> Result<(), Status> {
        let node = self.quoted();
        if self.context.name != self.node {
            let other = api::field::quote(&self.context.name);
            return self.refuse(format_args!("node {node} is not allowed to modify node {other}"));
        }
        let Some(new) = object.and_then(|object| object.downcast_ref::<Node>()) else { return Ok(()) };
        let empty = BTreeMap::new();
        let labels = new.metadata.labels.as_ref().unwrap_or(&empty);
        if self.context.operation == Operation::Create {
            if new.spec.as_ref().is_some_and(|spec| spec.config_source.is_some()) {
                return self.refuse(format_args!(
                    "node {node} is not allowed to create pods with a non-nil configSource"
                ));
            }
            let forbidden = forbidden_labels(labels, &empty);
            return match forbidden.is_empty() {
                true => Ok(()),
                false => self.refuse(format_args!(
                    "node {node} is not allowed to set the following labels: {forbidden}"
                )),
            };
        }
        let Some(old) = old.and_then(|old| old.downcast_ref::<Node>()) else {
            return self.refuse("unexpected type");
        };
        let (spec, old_spec) = (new.spec.clone().unwrap_or_default(), old.spec.clone().unwrap_or_default());
        if spec.config_source.is_some() && spec.config_source != old_spec.config_source {
            return self.refuse(format_args!(
                "node {node} is not allowed to update configSource to a new non-nil configSource"
            ));
        }
        if spec.taints.unwrap_or_default() != old_spec.taints.unwrap_or_default() {
            return self.refuse(format_args!("node {node} is not allowed to modify taints"));
        }
        let owners = |node: &Node| node.metadata.owner_references.clone().unwrap_or_default();
        if owners(new) != owners(old) {
            return self.refuse(format_args!("node {node} is not allowed to modify ownerReferences"));
        }
        let forbidden = forbidden_labels(labels, old.metadata.labels.as_ref().unwrap_or(&empty));
        match forbidden.is_empty() {
            true => Ok(()),
            false => self.refuse(format_args!("is not allowed to modify labels: {forbidden}")),
        }
    }
}

fn is_on(pod: Option<&dyn Object>, node: &str) -> bool {
    let pod = pod.and_then(|pod| pod.downcast_ref::<Pod>());
    pod.and_then(|pod| pod.spec.as_ref()).and_then(|spec| spec.node_name.as_deref()) == Some(node)
}

/// Of the labels that differ, those that a node may not set itself: it could draw pods to itself with them.
fn forbidden_labels(new: &BTreeMap<String, String>, old: &BTreeMap<String, String>) -> String {
    let changed: BTreeSet<&String> =
        new.keys().chain(old.keys()).filter(|key| new.get(*key) != old.get(*key)).collect();
    let forbidden = changed.into_iter().filter(|key| !may_label(key));
    forbidden.map(String::as_str).collect::<Vec<_>>().join(", ")
}

/// Labels that agents set about their own node.
const OWN_LABELS: [&str; 13] = [
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/instance-type",
    "beta.kubernetes.io/os",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.kubernetes.io/region",
    "failure-domain.kubernetes.io/zone",
    "kubernetes.io/arch",
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "node.kubernetes.io/instance-type",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
];

fn may_label(key: &str) -> bool {
    let domain = key.split_once('/').map_or("", |(domain, _)| domain);
    let within = |parent: &str| {
        domain == parent || domain.strip_suffix(parent).is_some_and(|rest| rest.ends_with('.'))
    };
    if within("node-restriction.kubernetes.io") {
        return false;
    }
    if !within("kubernetes.io") && !within("k8s.io") {
        return true;
    }
    OWN_LABELS.contains(&key) || within("kubelet.kubernetes.io") || within("node.kubernetes.io")
}
