//! The fewest writes that make the slices show what they should.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use client::{Key, Reference};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod, Service, ServiceSpec};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use super::desired::{self, Identity, Ports, identity, ports_key};
use crate::harness::{Plan, Write, WriteEvents};
use crate::pods::{is_ready, node};
use crate::serving::{TRIGGER_TIME, can_serve, trigger};

/// Endpoints in a slice.
pub(super) const MOST: usize = 100;
/// Names generated from a longer prefix would be cut.
const LONGEST_NAME: usize = 253;

/// What is wanted for one set of ports.
struct Group {
    ports: Vec<EndpointPort>,
    endpoints: BTreeMap<Identity, Endpoint>,
}

/// A slice that exists, and what becomes of it.
struct Kept {
    slice: EndpointSlice,
    changed: bool,
}

#[derive(Default)]
struct Changes {
    create: Vec<EndpointSlice>,
    update: Vec<EndpointSlice>,
    delete: Vec<Arc<EndpointSlice>>,
}

/// The writes for one service. `node_of` tells of a pod's node; a pod on a node that is gone does not serve.
pub(super) fn plan(
    service: &Service,
    pods: &[Arc<Pod>],
    node_of: impl Fn(&str) -> Option<Arc<Node>>,
    existing: &[Arc<EndpointSlice>],
) -> Plan {
    let mut changes = Changes::default();
    let Some(spec) = &service.spec else { return Plan::nothing() };
    let types = desired::address_types(spec);
    changes
        .delete
        .extend(existing.iter().filter(|slice| !types.contains(&slice.address_type.as_str())).cloned());
    for address_type in types {
        let groups = groups(service, spec, pods, &node_of, address_type);
        let of_type: Vec<_> =
            existing.iter().filter(|slice| slice.address_type == address_type).cloned().collect();
        let found = one_type(service, groups, of_type, address_type);
        changes.create.extend(found.create);
        changes.update.extend(found.update);
        changes.delete.extend(found.delete);
    }
    let shown: HashMap<&str, bool> =
        existing.iter().flat_map(|slice| slice.endpoints.iter().flatten()).filter_map(serving).collect();
    let news = |pod: &Pod| shown.get(pod.metadata.uid.as_deref().unwrap_or_default()) != Some(&is_ready(pod));
    writes(service, changes, trigger(service, existing.is_empty(), pods, news))
}

/// The UID of an endpoint's pod, and whether it is shown as serving.
fn serving(endpoint: &Endpoint) -> Option<(&str, bool)> {
    let uid = endpoint.target_ref.as_ref()?.uid.as_deref()?;
    Some((uid, endpoint.conditions.as_ref()?.serving?))
}

fn groups(
    service: &Service,
    spec: &ServiceSpec,
    pods: &[Arc<Pod>],
    node_of: impl Fn(&str) -> Option<Arc<Node>>,
    address_type: &str,
) -> BTreeMap<Ports, Group> {
    let mut groups: BTreeMap<Ports, Group> = BTreeMap::new();
    for pod in pods.iter().filter(|pod| can_serve(pod, true)) {
        let on = node(pod).and_then(&node_of);
        if on.is_none() && node(pod).is_some() && spec.publish_not_ready_addresses != Some(true) {
            continue;
        }
        let Some(endpoint) = desired::endpoint(service, spec, pod, on.as_deref(), address_type) else {
            continue;
        };
        let ports = desired::ports(spec, pod);
        let group =
            groups.entry(ports_key(&ports)).or_insert_with(|| Group { ports, endpoints: BTreeMap::new() });
        group.endpoints.insert(identity(&endpoint), endpoint);
    }
    groups
}

fn one_type(
    service: &Service,
    groups: BTreeMap<Ports, Group>,
    existing: Vec<Arc<EndpointSlice>>,
    address_type: &str,
) -> Changes {
    let count = existing.len();
    let mut changes = Changes::default();
    let mut by_ports: BTreeMap<Ports, Vec<Arc<EndpointSlice>>> = BTreeMap::new();
    for slice in existing {
        if owned(&slice, service) {
            let key = ports_key(slice.ports.as_deref().unwrap_or_default());
            by_ports.entry(key).or_default().push(slice);
        } else {
            changes.delete.push(slice);
        }
    }
    for (key, group) in groups {
        let slices = by_ports.remove(&key).unwrap_or_default();
        one_group(service, group, slices, address_type, &mut changes);
    }
    changes.delete.extend(by_ports.into_values().flatten());

    if changes.delete.len() == count && changes.create.is_empty() {
        // Without endpoints there is still a slice, by which others know that this was looked at.
        let placeholder = new_slice(service, address_type, Vec::new());
        let stays = |slice: &Arc<EndpointSlice>| {
            owned(slice, service)
                && slice.metadata.labels == placeholder.metadata.labels
                && slice.ports.as_ref().is_none_or(Vec::is_empty)
                && slice.endpoints.as_ref().is_none_or(Vec::is_empty)
        };
        match changes.delete.iter().position(stays) {
            Some(place) => drop(changes.delete.remove(place)),
            None => changes.create.push(placeholder),
        }
    }
    reuse(service, &mut changes);
    changes
}

/// Brings the slices of one set of ports to what is wanted.
fn one_group(
    service: &Service,
    group: Group,
    slices: Vec<Arc<EndpointSlice>>,
    address_type: &str,
    changes: &mut Changes,
) {
    let labels = desired::labels(service);
    let mut wanted = group.endpoints;
    let mut kept: Vec<Kept> = Vec::new();
    // What stays, stays where it is.
    for slice in slices {
        let before = slice.endpoints.as_deref().unwrap_or_default();
        let after: Vec<Endpoint> =
            before.iter().filter_map(|endpoint| wanted.remove(&identity(endpoint))).collect();
        if after.is_empty() {
            changes.delete.push(slice);
            continue;
        }
        let changed = after != before || slice.metadata.labels.as_ref() != Some(&labels);
        let mut slice = EndpointSlice::clone(&slice);
        slice.endpoints = Some(after);
        kept.push(Kept { slice, changed });
    }
    // What is new goes first into slices that are written anyway, the fullest first.
    let mut written: Vec<&mut Kept> = kept.iter_mut().filter(|kept| kept.changed).collect();
    written.sort_by_key(|kept| std::cmp::Reverse(len(&kept.slice)));
    for kept in written {
        fill(&mut kept.slice, &mut wanted);
    }
    // The rest goes into one slice that has room for it all and becomes the fullest, or into new ones.
    while !wanted.is_empty() {
        let room = kept.iter_mut().filter(|kept| !kept.changed && len(&kept.slice) + wanted.len() <= MOST);
        match room.max_by_key(|kept| len(&kept.slice)) {
            Some(kept) => {
                kept.changed = true;
                fill(&mut kept.slice, &mut wanted);
            }
            None => {
                let mut slice = new_slice(service, address_type, group.ports.clone());
                fill(&mut slice, &mut wanted);
                changes.create.push(slice);
            }
        }
    }
    for mut kept in kept.into_iter().filter(|kept| kept.changed) {
        kept.slice.metadata.labels = Some(labels.clone());
        changes.update.push(kept.slice);
    }
}

/// Turns what would be deleted into what would be created.
fn reuse(service: &Service, changes: &mut Changes) {
    let mut deleted = std::mem::take(&mut changes.delete).into_iter();
    for slice in deleted.by_ref() {
        let reusable = owned(&slice, service) && slice.metadata.deletion_timestamp.is_none();
        match changes.create.pop_if(|_| reusable) {
            Some(mut new) => {
                let labels = new.metadata.labels.take();
                new.metadata = slice.metadata.clone();
                new.metadata.labels = labels;
                changes.update.push(new);
            }
            None => changes.delete.push(slice),
        }
    }
}

fn writes(service: &Service, mut changes: Changes, trigger: Option<Timestamp>) -> Plan {
    if service.metadata.deletion_timestamp.is_some() {
        // The garbage collector deletes them with the service; new ones would only be in its way.
        changes.create.clear();
    }
    let mut plan = Plan::nothing();
    let events = || WriteEvents {
        about: Reference::to(service),
        done: ("", String::new()),
        failed: (
            "FailedToUpdateEndpointSlices",
            format!("Error updating Endpoint Slices for Service {}: ", Key::of(service)),
        ),
    };
    for slice in changes.create.iter_mut().chain(&mut changes.update) {
        let annotations = slice.metadata.annotations.get_or_insert_default();
        match trigger {
            Some(time) => drop(annotations.insert(TRIGGER_TIME.to_owned(), time.to_string())),
            None => drop(annotations.remove(TRIGGER_TIME)),
        }
    }
    let create = changes.create.iter().map(|slice| Write::create(slice).announced(events()));
    let update = changes.update.iter().map(|slice| Write::replace(slice).announced(events()));
    plan.then_all(create.chain(update).collect());
    // Last, so that no endpoint is missing in between.
    plan.then_all(changes.delete.iter().map(|slice| Write::delete(&**slice).announced(events())).collect());
    plan
}

fn new_slice(service: &Service, address_type: &str, ports: Vec<EndpointPort>) -> EndpointSlice {
    let mut slice = EndpointSlice { address_type: address_type.to_owned(), ..EndpointSlice::default() };
    let name = service.metadata.name.clone().unwrap_or_default();
    let prefix = format!("{name}-");
    slice.metadata.generate_name = Some(if prefix.len() <= LONGEST_NAME { prefix } else { name.clone() });
    slice.metadata.namespace.clone_from(&service.metadata.namespace);
    slice.metadata.labels = Some(desired::labels(service));
    slice.metadata.owner_references = Some(vec![OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Service".to_owned(),
        name,
        uid: service.metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }]);
    slice.ports = Some(ports);
    slice.endpoints = Some(Vec::new());
    slice
}

fn fill(slice: &mut EndpointSlice, wanted: &mut BTreeMap<Identity, Endpoint>) {
    let endpoints = slice.endpoints.get_or_insert_default();
    while endpoints.len() < MOST {
        let Some((_, endpoint)) = wanted.pop_first() else { return };
        endpoints.push(endpoint);
    }
}

fn len(slice: &EndpointSlice) -> usize {
    slice.endpoints.as_ref().map_or(0, Vec::len)
}

fn owned(slice: &EndpointSlice, service: &Service) -> bool {
    let owners = slice.metadata.owner_references.iter().flatten();
    let uid = service.metadata.uid.as_deref();
    owners
        .into_iter()
        .any(|owner| owner.kind == "Service" && owner.api_version == "v1" && Some(owner.uid.as_str()) == uid)
}
