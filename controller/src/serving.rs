//! Which pods serve for which services: what the controllers of EndpointSlices and of Endpoints share.

use std::net::IpAddr;
use std::sync::Arc;

use client::{Cache, Change, Key};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::harness::{Context, Worker};
use crate::pods::{condition, is_ready, is_terminal, node};

/// Says when the change happened that led to the last write, for measuring how long programming takes.
pub(crate) const TRIGGER_TIME: &str = "endpoints.kubernetes.io/last-change-trigger-time";
/// Marks what belongs to a service without a cluster IP.
pub(crate) const HEADLESS: &str = "service.kubernetes.io/headless";

/// Services and the pods behind them.
pub(crate) struct Sources {
    pub(crate) services: Cache<Service>,
    pub(crate) pods: Cache<Pod>,
}

impl Sources {
    /// Follows services and pods; a service is looked at when it or a pod that it selects changes in a way
    /// that matters.
    pub(crate) fn follow(context: &Context, worker: &mut Worker) -> Self {
        let sources = Self { services: context.caches.of(), pods: context.caches.pods() };
        worker.watches(&sources.services, |service| vec![Key::of(service)]);
        worker.reads(&sources.pods);
        let (queue, services) = (worker.queue(), sources.services.clone());
        // Reads the services under the pods' lock; nothing does it the other way round.
        sources.pods.on_change(move |change| {
            let affected: [Option<&Pod>; 2] = match change {
                Change::Applied(new, Some(old)) if matters(new) == matters(old) => return,
                Change::Applied(new, old) => [Some(new), old.as_deref()],
                Change::Deleted(last) => [Some(last), None],
                Change::Missed => return,
            };
            for pod in affected.into_iter().flatten() {
                selecting(&services, pod).into_iter().for_each(|key| queue.add(key));
            }
        });
        sources
    }

    /// The pods that a service selects, in order of their names.
    pub(crate) fn selected(&self, service: &Service) -> Vec<Arc<Pod>> {
        let Some(namespace) = &service.metadata.namespace else { return Vec::new() };
        let pods = self.pods.in_namespace(namespace);
        pods.into_iter().filter(|pod| selects(service, pod)).collect()
    }

    /// The services that select a pod.
    pub(crate) fn selecting(&self, pod: &Pod) -> Vec<Key> {
        selecting(&self.services, pod)
    }
}

/// When the oldest of the changes happened that a write is about to show: those of pods for which `news` is
/// true, and the creation of a service that was not shown before.
pub(crate) fn trigger(
    service: &Service,
    first: bool,
    pods: &[Arc<Pod>],
    news: impl Fn(&Pod) -> bool,
) -> Option<Timestamp> {
    let ready = |pod: &Arc<Pod>| {
        let time = condition(pod, "Ready")?.last_transition_time.as_ref();
        time.map(|time| time.0)
    };
    let created = service.metadata.creation_timestamp.as_ref().filter(|_| first).map(|time| time.0);
    pods.iter().filter(|pod| can_serve(pod, true) && news(pod)).filter_map(ready).chain(created).min()
}

fn selecting(services: &Cache<Service>, pod: &Pod) -> Vec<Key> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let services = services.in_namespace(namespace);
    services.iter().filter(|service| selects(service, pod)).map(|service| Key::of(&**service)).collect()
}

/// Everything about a pod that an endpoint shows or that decides whether it is one.
fn matters(pod: &Pod) -> impl PartialEq + '_ {
    let (spec, status) = (pod.spec.as_ref(), pod.status.as_ref());
    (
        (&pod.metadata.labels, pod.metadata.deletion_timestamp.is_some(), is_terminal(pod)),
        (
            node(pod),
            spec.and_then(|spec| spec.hostname.as_ref()),
            spec.and_then(|spec| spec.subdomain.as_ref()),
        ),
        (status.and_then(|status| status.pod_ips.as_ref()), status.and_then(|status| status.pod_ip.as_ref())),
        condition(pod, "Ready").map(|ready| (&ready.status, &ready.last_transition_time)),
    )
}

/// Services of type ExternalName and those without a selector have no endpoints of ours.
pub(crate) fn has_endpoints(spec: &ServiceSpec) -> bool {
    spec.type_.as_deref() != Some("ExternalName")
        && spec.selector.as_ref().is_some_and(|selector| !selector.is_empty())
}

fn selects(service: &Service, pod: &Pod) -> bool {
    let Some(spec) = service.spec.as_ref().filter(|spec| has_endpoints(spec)) else { return false };
    let label = |key: &str| pod.metadata.labels.as_ref().and_then(|labels| labels.get(key));
    spec.selector.iter().flatten().all(|(key, value)| label(key) == Some(value))
}

/// The service has a cluster IP.
pub(crate) fn has_cluster_ip(spec: &ServiceSpec) -> bool {
    !matches!(spec.cluster_ip.as_deref(), None | Some("" | "None"))
}

/// Whether the pod can be an endpoint: it has an address and has not ended.
pub(crate) fn can_serve(pod: &Pod, terminating: bool) -> bool {
    let status = pod.status.as_ref();
    let has_address = status.is_some_and(|status| {
        status.pod_ip.as_ref().is_some_and(|ip| !ip.is_empty())
            || status.pod_ips.as_ref().is_some_and(|ips| !ips.is_empty())
    });
    has_address && !is_terminal(pod) && (terminating || pod.metadata.deletion_timestamp.is_none())
}

/// The pod serves, or the service publishes its address anyway.
pub(crate) fn counts_as_ready(spec: &ServiceSpec, pod: &Pod) -> bool {
    spec.publish_not_ready_addresses == Some(true) || is_ready(pod)
}

/// The pod's addresses of one family, in their usual form.
pub(crate) fn addresses(pod: &Pod, v6: bool) -> Vec<String> {
    let status = pod.status.as_ref();
    let ips = status.and_then(|status| status.pod_ips.as_ref()).into_iter().flatten();
    let parsed = ips.filter_map(|ip| ip.ip.parse::<IpAddr>().ok());
    parsed.filter(|ip| ip.is_ipv6() == v6).map(|ip| ip.to_string()).collect()
}

/// The pod's name within the service, if it has one.
pub(crate) fn hostname(service: &Service, pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let hostname = spec.hostname.clone().filter(|hostname| !hostname.is_empty())?;
    (spec.subdomain == service.metadata.name && spec.subdomain.is_some()).then_some(hostname)
}

/// The number of a service's port on this pod; `None` if the pod names no such port.
pub(crate) fn port_number(pod: &Pod, port: &ServicePort) -> Option<i32> {
    let name = match port.target_port.as_ref() {
        Some(IntOrString::Int(number)) => return Some(*number),
        Some(IntOrString::String(name)) => name,
        None => return Some(port.port),
    };
    let spec = pod.spec.as_ref()?;
    let sidecar = |container: &&Container| container.restart_policy.as_deref() == Some("Always");
    let sidecars = spec.init_containers.iter().flatten().filter(sidecar);
    let ports = spec.containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
    let protocol = protocol(port.protocol.as_deref());
    let mut fitting = ports.filter(|candidate| {
        candidate.name.as_deref() == Some(name) && self::protocol(candidate.protocol.as_deref()) == protocol
    });
    fitting.next().map(|port| port.container_port)
}

/// TCP is meant where nothing is said.
pub(crate) fn protocol(protocol: Option<&str>) -> &str {
    protocol.filter(|protocol| !protocol.is_empty()).unwrap_or("TCP")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(value: serde_json::Value) -> Pod {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_named_port_is_found_by_name_and_protocol_in_containers_and_sidecars() {
        let pod = pod(json!({"spec": {
            "containers": [{"name": "a", "ports": [{"name": "http", "containerPort": 80}, {"name": "dns", "containerPort": 53, "protocol": "UDP"}]}],
            "initContainers": [
                {"name": "i", "ports": [{"name": "setup", "containerPort": 1}]},
                {"name": "s", "restartPolicy": "Always", "ports": [{"name": "side", "containerPort": 9}]},
            ],
        }}));
        for (port, wanted) in [
            (json!({"port": 1, "targetPort": 8080}), Some(8080)),
            (json!({"port": 1, "targetPort": "http", "protocol": "TCP"}), Some(80)),
            (json!({"port": 1, "targetPort": "http", "protocol": "UDP"}), None),
            (json!({"port": 1, "targetPort": "dns", "protocol": "UDP"}), Some(53)),
            (json!({"port": 1, "targetPort": "setup"}), None),
            (json!({"port": 1, "targetPort": "side"}), Some(9)),
            (json!({"port": 7}), Some(7)),
        ] {
            let service_port: ServicePort = serde_json::from_value(port.clone()).unwrap();
            assert_eq!(port_number(&pod, &service_port), wanted, "{port}");
        }
    }

    #[test]
    fn the_oldest_of_several_changes_counts_and_known_ones_do_not() {
        let at = |name: &str, time: &str| {
            let ready = json!({"type": "Ready", "status": "True", "lastTransitionTime": time});
            Arc::new(pod(
                json!({"metadata": {"name": name}, "status": {"podIP": "1.2.3.4", "conditions": [ready]}}),
            ))
        };
        let pods = [at("a", "2026-01-01T00:00:05Z"), at("b", "2026-01-01T00:00:03Z")];
        let service: Service =
            serde_json::from_value(json!({"metadata": {"creationTimestamp": "2026-01-01T00:00:01Z"}}))
                .unwrap();
        for (first, news, wanted) in [
            (true, &["a", "b"][..], Some("2026-01-01T00:00:01Z")),
            (false, &["a", "b"], Some("2026-01-01T00:00:03Z")),
            (false, &["a"], Some("2026-01-01T00:00:05Z")),
            (false, &[], None),
        ] {
            let is_news = |pod: &Pod| news.contains(&pod.metadata.name.as_deref().unwrap());
            let got = trigger(&service, first, &pods, is_news).map(|time| time.to_string());
            assert_eq!(got.as_deref(), wanted);
        }
    }

    #[test]
    fn pods_that_have_ended_or_have_no_address_do_not_serve() {
        for (value, terminating, wanted) in [
            (json!({"status": {"podIP": "1.2.3.4"}}), false, true),
            (json!({"status": {}}), false, false),
            (json!({"status": {"podIP": "1.2.3.4", "phase": "Failed"}}), false, false),
            (json!({"status": {"podIP": "1.2.3.4", "phase": "Succeeded"}}), true, false),
            (
                json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}, "status": {"podIP": "1.2.3.4"}}),
                false,
                false,
            ),
            (
                json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}, "status": {"podIP": "1.2.3.4"}}),
                true,
                true,
            ),
        ] {
            assert_eq!(can_serve(&pod(value.clone()), terminating), wanted, "{value} {terminating}");
        }
    }
}
