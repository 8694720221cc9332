//! The rules of core/v1 Service. Addresses and ports are given by the API server, between `prepare_*` and `validate*`.

mod clusterips;
mod validation;

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Service, ServiceSpec, ServiceStatus},
    apimachinery::pkg::util::intstr::IntOrString,
};
use serde_json::Value;

use super::{
    cells::{age, labels, or_none},
    check::{list, parse_cidr, parse_ip, text},
};
use crate::{
    field::{Errors, Path},
    name::{self, NameRule},
    object::{Kind, name_cell},
    resource::Column,
};

/// The type of a service that has no address: it is another name for something elsewhere.
const EXTERNAL: &str = "ExternalName";

impl Kind for Service {
    const NAME: Option<NameRule> = Some(name::label1035_name);
    const CREATE_ON_UPDATE: bool = true;
    const RETURNS_DELETED: bool = true;
    const COLUMNS: &'static [Column] = &[
        Column::name(),
        Column::text("Type").about(
            "type determines how the Service is exposed. Defaults to ClusterIP. Valid options are ExternalName, \
             ClusterIP, NodePort, and LoadBalancer. \"ClusterIP\" allocates a cluster-internal IP address for \
             load-balancing to endpoints. Endpoints are determined by the selector or if that is not specified, by manual \
             construction of an Endpoints object or EndpointSlice objects. If clusterIP is \"None\", no virtual IP is \
             allocated and the endpoints are published as a set of endpoints rather than a virtual IP. \"NodePort\" \
             builds on ClusterIP and allocates a port on every node which routes to the same endpoints as the clusterIP. \
             \"LoadBalancer\" builds on NodePort and creates an external load-balancer (if supported in the current \
             cloud) which routes to the same endpoints as the clusterIP. \"ExternalName\" aliases this service to the \
             specified externalName. Several other fields do not apply to ExternalName services. More info: \
             https://kubernetes.io/docs/concepts/services-networking/service/#publishing-services-service-types",
        ),
        Column::text("Cluster-IP").about(
            "clusterIP is the IP address of the service and is usually assigned randomly. If an address is specified \
             manually, is in-range (as per system configuration), and is not in use, it will be allocated to the service; \
             otherwise creation of the service will fail. This field may not be changed through updates unless the type \
             field is also being changed to ExternalName (which requires this field to be blank) or the type field is \
             being changed from ExternalName (in which case this field may optionally be specified, as describe above).  \
             Valid values are \"None\", empty string (\"\"), or a valid IP address. Setting this to \"None\" makes a \
             \"headless service\" (no virtual IP), which is useful when direct endpoint connections are preferred and \
             proxying is not required.  Only applies to types ClusterIP, NodePort, and LoadBalancer. If this field is \
             specified when creating a Service of type ExternalName, creation will fail. This field will be wiped when \
             updating a Service to type ExternalName. More info: \
             https://kubernetes.io/docs/concepts/services-networking/service/#virtual-ips-and-service-proxies",
        ),
        Column::text("External-IP").about(
            "externalIPs is a list of IP addresses for which nodes in the cluster will also accept traffic for this \
             service.  These IPs are not managed by Kubernetes.  The user is responsible for ensuring that traffic \
             arrives at a node with this IP.  A common example is external load-balancers that are not part of the \
             Kubernetes system.",
        ),
        Column::text("Port(s)").about(
            "The list of ports that are exposed by this service. More info: \
             https://kubernetes.io/docs/concepts/services-networking/service/#virtual-ips-and-service-proxies",
        ),
        Column::age(),
        Column::text("Selector").wide().about(
            "Route service traffic to pods with label keys and values matching this selector. If empty or not present, \
             the service is assumed to have an external process managing its endpoints, which Kubernetes will not \
             modify. Only applies to types ClusterIP, NodePort, and LoadBalancer. Ignored if type is ExternalName. More \
             info: https://kubernetes.io/docs/concepts/services-networking/service/",
        ),
    ];
    const FIELDS: &'static [&'static str] = &["spec.clusterIP", "spec.type"];

    fn set_defaults(&mut self) {
        let spec = self.spec.get_or_insert_default();
        let set = |field: &mut Option<String>, value: &str| {
            if text(field).is_empty() {
                *field = Some(value.to_owned());
            }
        };
        set(&mut spec.session_affinity, "None");
        match text(&spec.session_affinity) {
            "None" => spec.session_affinity_config = None,
            "ClientIP" => {
                let config = spec.session_affinity_config.get_or_insert_default();
                config.client_ip.get_or_insert_default().timeout_seconds.get_or_insert(10800);
            }
            _ => {}
        }
        set(&mut spec.type_, "ClusterIP");
        for port in spec.ports.iter_mut().flatten() {
            set(&mut port.protocol, "TCP");
            let unset = match &port.target_port {
                None | Some(IntOrString::Int(0)) => true,
                Some(IntOrString::String(name)) => name.is_empty(),
                Some(IntOrString::Int(_)) => false,
            };
            if unset {
                port.target_port = Some(IntOrString::Int(port.port));
            }
        }
        if is_external(spec) {
            set(&mut spec.external_traffic_policy, "Cluster");
        }
        let is_balanced = text(&spec.type_) == "LoadBalancer";
        if matches!(text(&spec.type_), "NodePort" | "LoadBalancer" | "ClusterIP") {
            spec.internal_traffic_policy.get_or_insert_with(|| "Cluster".to_owned());
        }
        if is_balanced {
            spec.allocate_load_balancer_node_ports.get_or_insert(true);
        }
        let status = self.status.get_or_insert_default().load_balancer.get_or_insert_default();
        for ingress in status.ingress.iter_mut().flatten().filter(|i| is_balanced && !text(&i.ip).is_empty())
        {
            ingress.ip_mode.get_or_insert_with(|| "VIP".to_owned());
        }
    }

    fn prepare_create(&mut self) {
        self.status =
            Some(ServiceStatus { load_balancer: Some(Default::default()), ..ServiceStatus::default() });
        if let Some(spec) = &mut self.spec {
            clusterips::normalize_new(spec);
            clusterips::default_families(spec);
        }
    }

    fn prepare_update(&mut self, old: &Self) {
        self.status.clone_from(&old.status);
        if let (Some(spec), Some(old)) = (&mut self.spec, &old.spec) {
            drop_fields_of_old_type(spec, old);
            clusterips::keep_allocated(spec, old);
            clusterips::normalize(spec, old);
            clusterips::default_families(spec);
        }
    }

    fn prepare_status(&mut self, old: &Self) {
        self.spec.clone_from(&old.spec);
    }

    fn validate(&self) -> Errors {
        let mut errors = Errors::new();
        let empty = ServiceSpec::default();
        let spec = self.spec.as_ref().unwrap_or(&empty);
        // Upstream gives the addresses before it looks at the rest: what is wrong with them is all that it says.
        clusterips::validate(&mut errors, spec);
        if errors.is_empty() {
            validation::validate(&mut errors, &self.metadata, spec);
        }
        errors
    }

    fn validate_update(&self, old: &Self) -> Errors {
        let mut errors = Errors::new();
        let empty = ServiceSpec::default();
        let (spec, old) = (self.spec.as_ref().unwrap_or(&empty), old.spec.as_ref().unwrap_or(&empty));
        clusterips::validate(&mut errors, spec);
        if !errors.is_empty() {
            return errors;
        }
        clusterips::validate_update(&mut errors, spec, old);
        validation::validate_update(&mut errors, spec, old);
        errors.extend(self.validate());
        errors
    }

    fn validate_status(&self, _old: &Self) -> Errors {
        let mut errors = Errors::new();
        let empty = ServiceSpec::default();
        let balancer = self.status.as_ref().and_then(|s| s.load_balancer.as_ref());
        let ingress = balancer.map(|b| list(&b.ingress)).unwrap_or_default();
        let at = Path::new("status").child("loadBalancer").child("ingress");
        validation::ingress(&mut errors, ingress, self.spec.as_ref().unwrap_or(&empty), &at);
        errors
    }

    fn warnings(&self, _old: Option<&Self>) -> Vec<String> {
        let Some(spec) = &self.spec else { return Vec::new() };
        let mut out = Vec::new();
        if self
            .metadata
            .annotations
            .as_ref()
            .is_some_and(|a| a.contains_key("service.kubernetes.io/topology-aware-hints"))
        {
            out.push(
                "annotation service.kubernetes.io/topology-aware-hints is deprecated, please use \
                 service.kubernetes.io/topology-mode instead"
                    .to_owned(),
            );
        }
        let headless = is_headless(spec);
        if headless && !text(&spec.load_balancer_ip).is_empty() {
            out.push("spec.loadBalancerIP is ignored for headless services".to_owned());
        }
        if headless && !list(&spec.external_ips).is_empty() {
            out.push("spec.externalIPs is ignored for headless services".to_owned());
        }
        if headless && text(&spec.session_affinity) == "ClientIP" {
            out.push("spec.SessionAffinity is ignored for headless services".to_owned());
        }
        for (field, values) in
            [("clusterIPs", list(&spec.cluster_ips)), ("externalIPs", list(&spec.external_ips))]
        {
            for (i, value) in values.iter().enumerate() {
                odd_address(&mut out, value, &Path::new("spec").child(field).index(i));
            }
        }
        for (i, range) in list(&spec.load_balancer_source_ranges).iter().enumerate() {
            let at = Path::new("spec").child("loadBalancerSourceRanges").index(i);
            if parse_cidr(range.trim()).is_some()
                && range.split('/').next().is_some_and(|a| a.trim().parse::<std::net::IpAddr>().is_err())
            {
                out.push(format!("{at}: non-standard CIDR value {range:?} will be considered invalid in a future Kubernetes release"));
            }
        }
        out
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        let spec = self.spec.clone().unwrap_or_default();
        vec![
            ("spec.clusterIP", spec.cluster_ip.unwrap_or_default()),
            ("spec.type", spec.type_.unwrap_or_default()),
        ]
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        let empty = ServiceSpec::default();
        let spec = self.spec.as_ref().unwrap_or(&empty);
        let port = |port: &k8s_openapi::api::core::v1::ServicePort| {
            let protocol = text(&port.protocol);
            match port.node_port.unwrap_or_default() {
                0 => format!("{}/{protocol}", port.port),
                node_port => format!("{}:{node_port}/{protocol}", port.port),
            }
        };
        let ports: Vec<String> = list(&spec.ports).iter().map(port).collect();
        let address = list(&spec.cluster_ips).first().map(String::as_str).unwrap_or_default();
        vec![
            name_cell(&self.metadata),
            text(&spec.type_).into(),
            or_none(address),
            external_ip(spec, self.status.as_ref()).into(),
            or_none(&ports.join(",")),
            age(&self.metadata, now),
            labels(spec.selector.as_ref()),
        ]
    }
}

fn odd_address(out: &mut Vec<String>, value: &str, at: &Path) {
    if value != "None" && value.parse::<std::net::IpAddr>().is_err() && parse_ip(value).is_some() {
        out.push(format!(
            "{at}: non-standard IP address {value:?} will be considered invalid in a future Kubernetes release: use \
             \"{}\"",
            parse_ip(value).map(|ip| ip.to_string()).unwrap_or_default()
        ));
    }
}

fn external_ip(spec: &ServiceSpec, status: Option<&ServiceStatus>) -> String {
    let external = list(&spec.external_ips);
    match text(&spec.type_) {
        "ClusterIP" | "NodePort" if external.is_empty() => "<none>".to_owned(),
        "ClusterIP" | "NodePort" => external.join(","),
        "LoadBalancer" => {
            let balancer = status.and_then(|s| s.load_balancer.as_ref());
            let ingress = balancer.map(|b| list(&b.ingress)).unwrap_or_default();
            let address = |i: &k8s_openapi::api::core::v1::LoadBalancerIngress| {
                Some(text(&i.ip)).filter(|ip| !ip.is_empty()).unwrap_or(text(&i.hostname)).to_owned()
            };
            let addresses: BTreeSet<String> = ingress.iter().map(address).filter(|a| !a.is_empty()).collect();
            let all: Vec<String> = addresses.into_iter().chain(external.iter().cloned()).collect();
            if all.is_empty() { "<pending>".to_owned() } else { all.join(",") }
        }
        "ExternalName" => text(&spec.external_name).to_owned(),
        _ => "<unknown>".to_owned(),
    }
}

/// A service without an address of its own.
pub(super) fn is_headless(spec: &ServiceSpec) -> bool {
    matches!(list(&spec.cluster_ips), [one] if one == "None")
}

/// Whether a service can be reached from outside.
fn is_external(spec: &ServiceSpec) -> bool {
    let of_type = matches!(text(&spec.type_), "LoadBalancer" | "NodePort");
    of_type || text(&spec.type_) == "ClusterIP" && !list(&spec.external_ips).is_empty()
}

/// Whether balancers ask the nodes if they have endpoints.
fn needs_health_check(spec: &ServiceSpec) -> bool {
    text(&spec.type_) == "LoadBalancer" && text(&spec.external_traffic_policy) == "Local"
}

/// What an old client sends along unchanged, though it has no meaning for the new type.
fn drop_fields_of_old_type(spec: &mut ServiceSpec, old: &ServiceSpec) {
    let becomes = |of: &[&str]| of.contains(&text(&old.type_)) && !of.contains(&text(&spec.type_));
    let no_address = text(&old.type_) != EXTERNAL && text(&spec.type_) == EXTERNAL;
    let no_ports = becomes(&["NodePort", "LoadBalancer"]);
    let no_balancer = becomes(&["LoadBalancer"]);
    if no_address && list(&spec.cluster_ips) == list(&old.cluster_ips) && spec.cluster_ip == old.cluster_ip {
        spec.cluster_ip = None;
        spec.cluster_ips = None;
        spec.ip_families = None;
        spec.ip_family_policy = None;
    }
    let node_ports = |spec: &ServiceSpec| -> BTreeSet<i32> {
        list(&spec.ports).iter().filter_map(|p| p.node_port).filter(|p| *p != 0).collect()
    };
    if no_ports && node_ports(spec) == node_ports(old) {
        for port in spec.ports.iter_mut().flatten() {
            port.node_port = None;
        }
    }
    if needs_health_check(old)
        && !needs_health_check(spec)
        && spec.health_check_node_port == old.health_check_node_port
    {
        spec.health_check_node_port = None;
    }
    if no_balancer && spec.allocate_load_balancer_node_ports == old.allocate_load_balancer_node_ports {
        spec.allocate_load_balancer_node_ports = None;
    }
    if no_balancer && spec.load_balancer_class == old.load_balancer_class {
        spec.load_balancer_class = None;
    }
    if is_external(old) && !is_external(spec) && spec.external_traffic_policy == old.external_traffic_policy {
        spec.external_traffic_policy = None;
    }
}
