//! Requests and limits: quality of service, what the kernel is told, and what a pod takes from its node.

use std::collections::BTreeMap;

use api::quantity::Quantity;
use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;

use super::{init_containers, is_sidecar, main_containers, spec};

/// The kernel's scheduling period that quotas are given for, in microseconds.
const CPU_PERIOD: i64 = 100_000;
const MIN_SHARES: i64 = 2;
const MAX_SHARES: i64 = 262_144;
const MIN_QUOTA: i64 = 1_000;

/// Quality of service, from the pod's requests and limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Qos {
    Guaranteed,
    Burstable,
    BestEffort,
}

/// CPU and memory limits of a cgroup; `None` is unlimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CgroupLimits {
    pub cpu_shares: i64,
    pub cpu_quota: Option<i64>,
    pub cpu_period: i64,
    pub memory: Option<i64>,
}

type List = BTreeMap<String, ApiQuantity>;

/// A quantity's value, rounded up to whole units; 0 if it can't be read.
pub fn value(quantity: &ApiQuantity) -> i64 {
    Quantity::parse(&quantity.0).map_or(0, |parsed| parsed.value())
}

/// A quantity's value in thousandths; 0 if it can't be read.
pub fn milli(quantity: &ApiQuantity) -> i64 {
    Quantity::parse(&quantity.0).map_or(0, |parsed| parsed.milli_value())
}

fn limits(container: &Container) -> Option<&List> {
    container.resources.as_ref()?.limits.as_ref()
}

fn requests(container: &Container) -> Option<&List> {
    container.resources.as_ref()?.requests.as_ref()
}

/// The limit of a container in whole units (thousandths for CPU), if it has one above 0.
pub fn limit(container: &Container, resource: &str) -> Option<i64> {
    amount(limits(container), resource)
}

/// The request of a container, which defaults to its limit.
pub fn request(container: &Container, resource: &str) -> Option<i64> {
    amount(requests(container), resource).or_else(|| limit(container, resource))
}

fn amount(list: Option<&List>, resource: &str) -> Option<i64> {
    let quantity = list?.get(resource)?;
    Some(if resource == "cpu" { milli(quantity) } else { value(quantity) }).filter(|amount| *amount > 0)
}

/// The pod's quality of service.
pub fn qos(pod: &Pod) -> Qos {
    let mut any = false;
    let mut guaranteed = true;
    for container in init_containers(pod).iter().chain(main_containers(pod)) {
        for resource in ["cpu", "memory"] {
            let (request, limit) = (request(container, resource), limit(container, resource));
            any |= request.is_some();
            guaranteed &= limit.is_some() && request == limit;
        }
    }
    match (any, guaranteed) {
        (false, _) => Qos::BestEffort,
        (true, true) => Qos::Guaranteed,
        (true, false) => Qos::Burstable,
    }
}

/// CPU shares for a request in thousandths of a core.
pub fn cpu_shares(milli: i64) -> i64 {
    (milli * 1024 / 1000).clamp(MIN_SHARES, MAX_SHARES)
}

fn cpu_quota(milli: i64) -> i64 {
    (milli * CPU_PERIOD / 1000).max(MIN_QUOTA)
}

/// What a container's own cgroup is limited to.
pub fn container_limits(container: &Container) -> CgroupLimits {
    CgroupLimits {
        cpu_shares: cpu_shares(request(container, "cpu").unwrap_or(0)),
        cpu_quota: limit(container, "cpu").map(cpu_quota),
        cpu_period: CPU_PERIOD,
        memory: limit(container, "memory"),
    }
}

/// What the pod's cgroup is limited to: limits hold for the whole pod only if every container has one.
pub fn pod_limits(pod: &Pod) -> CgroupLimits {
    let all = |resource: &str| {
        let containers = init_containers(pod).iter().chain(main_containers(pod));
        containers.map(|container| limit(container, resource)).collect::<Option<Vec<_>>>().is_some()
    };
    let total = |resource: &str| effective(pod, |container| limit(container, resource));
    CgroupLimits {
        cpu_shares: cpu_shares(effective(pod, |container| request(container, "cpu"))),
        cpu_quota: all("cpu").then(|| cpu_quota(total("cpu"))),
        cpu_period: CPU_PERIOD,
        memory: all("memory").then(|| total("memory")),
    }
}

/// The sum over the main containers and sidecars, or what initialization needs at its peak if that is more.
fn effective(pod: &Pod, of: impl Fn(&Container) -> Option<i64>) -> i64 {
    let mut sidecars = 0;
    let mut peak = 0;
    for container in init_containers(pod) {
        let own = of(container).unwrap_or(0);
        if is_sidecar(container) {
            sidecars += own;
            peak = peak.max(sidecars);
        } else {
            peak = peak.max(sidecars + own);
        }
    }
    let main: i64 = main_containers(pod).iter().map(|container| of(container).unwrap_or(0)).sum();
    peak.max(main + sidecars)
}

/// What the pod takes of a resource of its node, overhead included; thousandths for CPU.
pub fn pod_request(pod: &Pod, resource: &str) -> i64 {
    let overhead = amount(spec(pod).overhead.as_ref(), resource).unwrap_or(0);
    effective(pod, |container| request(container, resource)) + overhead
}

/// The names of all resources that the pod asks for.
pub fn requested_resources(pod: &Pod) -> Vec<String> {
    let containers = init_containers(pod).iter().chain(main_containers(pod));
    let mut names: Vec<String> = containers
        .flat_map(|container| requests(container).into_iter().chain(limits(container)))
        .flat_map(|list| list.keys().cloned())
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// How readily the kernel kills this container when memory runs out: -997 (last) to 1000 (first).
pub fn oom_score_adj(pod: &Pod, container: &Container, memory_capacity: i64) -> i64 {
    // system-node-critical pods are treated like guaranteed ones.
    if spec(pod).priority.is_some_and(|priority| priority >= 2_000_001_000) {
        return -997;
    }
    match qos(pod) {
        Qos::Guaranteed => -997,
        Qos::BestEffort => 1000,
        Qos::Burstable => {
            let request = request(container, "memory").unwrap_or(0);
            let share = if memory_capacity > 0 { 1000 * request / memory_capacity } else { 0 };
            (1000 - share).clamp(3, 999)
        }
    }
}

/// The value of a `resourceFieldRef`, rounded up to the divisor.
pub fn resource_field(
    container: &Container,
    resource: &str,
    divisor: Option<&ApiQuantity>,
    allocatable: &BTreeMap<String, i64>,
) -> Option<String> {
    let (kind, name) = resource.split_once('.')?;
    let found = match kind {
        "limits" => limit(container, name).or_else(|| allocatable.get(name).copied()),
        "requests" => request(container, name),
        _ => return None,
    };
    let scale = |quantity: &ApiQuantity| if name == "cpu" { milli(quantity) } else { value(quantity) };
    let unit = divisor.map(scale).filter(|unit| *unit > 0).unwrap_or(if name == "cpu" { 1000 } else { 1 });
    let amount = found.unwrap_or(0);
    Some((amount / unit + i64::from(amount % unit > 0)).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::testing::{container, pod};

    #[test]
    fn quality_of_service_follows_requests_and_limits() {
        for (what, resources, expected) in [
            ("nothing asked", "", Qos::BestEffort),
            ("only a request", "r.cpu=100m", Qos::Burstable),
            ("limits for both", "l.cpu=1 l.memory=1Gi", Qos::Guaranteed),
            ("a limit above the request", "l.cpu=1 l.memory=1Gi r.cpu=500m", Qos::Burstable),
        ] {
            assert_eq!(qos(&pod().with(container("c").resources(resources)).build()), expected, "{what}");
        }
    }

    #[test]
    fn initialization_counts_only_when_it_needs_more_than_the_pod() {
        let small = pod().init(container("i").resources("r.cpu=1")).with(container("c").resources("r.cpu=2"));
        assert_eq!(pod_request(&small.build(), "cpu"), 2000);
        let big = pod().init(container("i").resources("r.cpu=3")).with(container("c").resources("r.cpu=2"));
        assert_eq!(pod_request(&big.build(), "cpu"), 3000);
        let sidecar = container("s").resources("r.cpu=1").sidecar();
        let beside = pod().init(sidecar).with(container("c").resources("r.cpu=2"));
        assert_eq!(pod_request(&beside.build(), "cpu"), 3000);
    }

    #[test]
    fn the_kernel_kills_best_effort_pods_first() {
        let gib = 1 << 30;
        for (resources, expected) in
            [("", 1000), ("l.cpu=1 l.memory=1Gi", -997), ("r.memory=1Gi", 750), ("r.cpu=1", 999)]
        {
            let pod = pod().with(container("c").resources(resources)).build();
            assert_eq!(oom_score_adj(&pod, &main_containers(&pod)[0], 4 * gib), expected, "{resources}");
        }
    }

    #[test]
    fn a_resource_field_is_rounded_up_to_its_divisor() {
        let pod = pod().with(container("c").resources("r.cpu=1500m l.memory=100Mi")).build();
        let container = &main_containers(&pod)[0];
        let node = BTreeMap::from([("cpu".to_owned(), 2000)]);
        let field = |resource: &str, divisor: &str| {
            let divisor = Some(ApiQuantity(divisor.to_owned())).filter(|_| !divisor.is_empty());
            resource_field(container, resource, divisor.as_ref(), &node).unwrap()
        };
        assert_eq!(field("requests.cpu", ""), "2");
        assert_eq!(field("requests.cpu", "1m"), "1500");
        assert_eq!(field("limits.memory", "1Mi"), "100");
        assert_eq!(field("limits.cpu", "1m"), "2000", "without a limit: what the node has");
    }
}
