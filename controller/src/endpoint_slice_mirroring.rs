//! Shows Endpoints that somebody keeps by hand, or by a program of their own, as EndpointSlices: proxies and DNS
//! read only those.
//!
//! Mirrored are the Endpoints of services without a selector, unless the label
//! `endpointslice.kubernetes.io/skip-mirror` says not to. Promises: one slice per address family and set of
//! ports, with at most 1000 addresses; the slices go with the service or the Endpoints. Source: KEP-0752.

mod desired;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use client::{Cache, Key, Reference};
use k8s_openapi::api::core::v1::{Endpoints, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::Config;
use crate::endpoint_slice::{BY_SERVICE, ports_key, service_of, slices_of};
use crate::endpoints::LEADER;
use crate::harness::{self, Context, Error, Plan, Reconciler, Worker, Write};

const CONTROLLER: &str = "endpointslicemirroring-controller.k8s.io";
/// The label of Endpoints that are not to be mirrored.
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";

/// Starts the controller.
pub(crate) fn start(context: &Context, _: &Config) {
    let slices = slices_of(context, CONTROLLER);
    let services = context.caches.of::<Service>();
    let endpoints = context.caches.of::<Endpoints>();
    let mut worker = Worker::new(context, "endpoint_slice_mirroring", 5);
    worker.watches(&services, |service| vec![Key::of(service)]);
    worker.watches(&endpoints, |endpoints| vec![Key::of(endpoints)]);
    worker.watches(&slices, |slice| vec![service_of(slice)]);
    harness::start(context, worker, Mirror { services, endpoints, slices });
}

struct Mirror {
    services: Cache<Service>,
    endpoints: Cache<Endpoints>,
    slices: Cache<EndpointSlice>,
}

impl Reconciler for Mirror {
    fn name(&self) -> &'static str {
        "endpoint-slice-mirroring-controller"
    }

    async fn plan(&self, key: &Key) -> Result<Plan, Error> {
        let existing = self.slices.by(BY_SERVICE, &key.to_string());
        let service = self.services.get_key(key).filter(|service| has_no_selector(service));
        let endpoints = self.endpoints.get_key(key).filter(|endpoints| is_mirrored(endpoints));
        Ok(match service.and(endpoints) {
            Some(endpoints) => plan(&endpoints, &existing),
            None => nothing_left(&existing),
        })
    }
}

fn has_no_selector(service: &Service) -> bool {
    service.spec.as_ref().is_none_or(|spec| spec.selector.as_ref().is_none_or(|selector| selector.is_empty()))
}

fn is_mirrored(endpoints: &Endpoints) -> bool {
    let label = endpoints.metadata.labels.as_ref().and_then(|labels| labels.get(SKIP));
    let annotations = endpoints.metadata.annotations.as_ref();
    label.is_none_or(|skip| skip != "true") && annotations.is_none_or(|all| !all.contains_key(LEADER))
}

fn nothing_left(existing: &[Arc<EndpointSlice>]) -> Plan {
    let mut plan = Plan::nothing();
    plan.then_all(existing.iter().map(|slice| Write::delete(&**slice)).collect());
    plan
}

/// The writes that make the slices show the Endpoints. A slice that exists for the same ports is changed.
fn plan(endpoints: &Endpoints, existing: &[Arc<EndpointSlice>]) -> Plan {
    let (wanted, skipped) = desired::slices(endpoints);
    let mut left = existing.to_vec();
    let mut writes = Vec::new();
    for mut slice in wanted {
        let ports = |slice: &EndpointSlice| ports_key(slice.ports.as_deref().unwrap_or_default());
        let place = left.iter().position(|old| {
            old.address_type == slice.address_type
                && ports(old) == ports(&slice)
                && old.metadata.owner_references == slice.metadata.owner_references
        });
        let Some(old) = place.map(|place| left.swap_remove(place)) else {
            writes.push(Write::create(&slice));
            continue;
        };
        let same = old.endpoints.as_deref().unwrap_or_default()
            == slice.endpoints.as_deref().unwrap_or_default()
            && old.metadata.labels == slice.metadata.labels
            && old.metadata.annotations.clone().unwrap_or_default()
                == slice.metadata.annotations.clone().unwrap_or_default();
        if !same {
            let (labels, annotations) = (slice.metadata.labels.take(), slice.metadata.annotations.take());
            slice.metadata = old.metadata.clone();
            (slice.metadata.labels, slice.metadata.annotations) = (labels, annotations);
            writes.push(Write::replace(&slice));
        }
    }
    let mut plan = Plan::nothing();
    let about = Reference::to(endpoints);
    if !writes.is_empty() && skipped.invalid > 0 {
        let message =
            format!("Skipped {} invalid IP addresses when mirroring to EndpointSlices", skipped.invalid);
        plan.warning(&about, "InvalidIPAddress", message);
    }
    if !writes.is_empty() && skipped.too_many > 0 {
        let message = format!(
            "A max of {} addresses can be mirrored to EndpointSlices per Endpoints subset. {} addresses were skipped",
            desired::MOST,
            skipped.too_many
        );
        plan.warning(&about, "TooManyAddressesToMirror", message);
    }
    plan.then_all(writes);
    // Last, so that no endpoint is missing in between.
    plan.then_all(left.iter().map(|slice| Write::delete(&**slice)).collect());
    plan
}
