//! The rules of networking.k8s.io/v1 Ingress.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::api::{
    core::v1::TypedLocalObjectReference,
    networking::v1::{
        HTTPIngressPath, Ingress, IngressBackend, IngressLoadBalancerStatus, IngressRule,
        IngressServiceBackend, IngressSpec, IngressStatus, IngressTLS,
    },
};
use serde_json::Value;

use super::{
    cells::{age, or_none},
    check::{dns_subdomain, generation, ip, list, parse_ip, port_number, problems, same, text},
};
use crate::{
    field::{BadValue, Errors, FieldError, Path},
    name,
    object::{Kind, name_cell},
    resource::Column,
    schema::given::{EMPTY, Given, Way},
};

/// The annotation that named the class before there was a field for it.
const CLASS: &str = "kubernetes.io/ingress.class";

impl Kind for Ingress {
    const GIVEN: &'static [Given] = &[("spec.rules.http.paths.pathType", Way::Marked)];
    const COLUMNS: &'static [Column] = &[
        Column::name(),
        Column::text("Class")
            .about("The name of the IngressClass resource that should be used for additional configuration"),
        Column::text("Hosts")
            .about("Hosts that incoming requests are matched against before the ingress rule"),
        Column::text("Address").about("Address is a list containing ingress points for the load-balancer"),
        Column::text("Ports").about("Ports of TLS configurations that open"),
        Column::age(),
    ];

    fn set_defaults(&mut self) {
        self.spec.get_or_insert_default();
        self.status.get_or_insert_default().load_balancer.get_or_insert_default();
        let spec = self.spec.iter_mut();
        let paths = spec.flat_map(|s| {
            let rules = s.rules.iter_mut().flatten().filter_map(|r| r.http.as_mut());
            let backends = rules.flat_map(|h| h.paths.iter_mut()).map(|p| &mut p.backend);
            backends.chain(s.default_backend.as_mut())
        });
        for service in paths.filter_map(|backend| backend.service.as_mut()) {
            service.port.get_or_insert_default();
        }
    }

    fn prepare_create(&mut self) {
        self.status = Some(IngressStatus { load_balancer: Some(IngressLoadBalancerStatus::default()) });
        self.metadata.generation = Some(1);
    }

    fn prepare_update(&mut self, old: &Self) {
        self.status.clone_from(&old.status);
        generation(&mut self.metadata, &old.metadata, !same(&self.spec, &old.spec));
    }

    fn prepare_status(&mut self, old: &Self) {
        self.spec.clone_from(&old.spec);
    }

    fn validate(&self) -> Errors {
        let mut errors = validate(self, Tolerated::default());
        let annotation = self.metadata.annotations.as_ref().and_then(|a| a.get(CLASS));
        let class = self.spec.as_ref().and_then(|spec| spec.ingress_class_name.as_ref());
        if let (Some(annotation), Some(class)) = (annotation, class)
            && annotation != class
        {
            let detail = "must match `ingressClassName` when both are specified";
            errors.push(FieldError::invalid(&Path::new("annotations").child(CLASS), annotation, detail));
        }
        errors
    }

    fn validate_update(&self, old: &Self) -> Errors {
        validate(self, Tolerated::of(old))
    }

    fn validate_status(&self, old: &Self) -> Errors {
        let mut errors = Errors::new();
        let old: BTreeSet<&str> = points(old).iter().map(|point| text(&point.ip)).collect();
        let path = Path::new("status").child("loadBalancer").child("ingress");
        for (i, point) in points(self).iter().enumerate() {
            let at = path.index(i);
            let address = text(&point.ip);
            if !address.is_empty() && !old.contains(address) {
                ip(&mut errors, &at.child("ip"), address);
            }
            let host = text(&point.hostname);
            if !host.is_empty() {
                let at = at.child("hostname");
                dns_subdomain(&mut errors, &at, host);
                not_an_address(&mut errors, &at, host);
            }
        }
        errors
    }

    fn warnings(&self, old: Option<&Self>) -> Vec<String> {
        let annotated = self.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(CLASS));
        let named = self.spec.as_ref().is_some_and(|spec| spec.ingress_class_name.is_some());
        if old.is_some() || named || !annotated {
            return Vec::new();
        }
        vec![format!("annotation \"{CLASS}\" is deprecated, please use 'spec.ingressClassName' instead")]
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        let empty = IngressSpec::default();
        let spec = self.spec.as_ref().unwrap_or(&empty);
        let points: BTreeSet<&str> = points(self)
            .iter()
            .map(|point| Some(text(&point.ip)).filter(|ip| !ip.is_empty()).unwrap_or(text(&point.hostname)))
            .filter(|point| !point.is_empty())
            .collect();
        let points: Vec<&str> = points.into_iter().collect();
        vec![
            name_cell(&self.metadata),
            spec.ingress_class_name.as_deref().map_or_else(|| or_none(""), Value::from),
            hosts(list(&spec.rules)).into(),
            points.join(",").into(),
            if list(&spec.tls).is_empty() { "80" } else { "80, 443" }.into(),
            age(&self.metadata, now),
        ]
    }
}

fn points(ingress: &Ingress) -> &[k8s_openapi::api::networking::v1::IngressLoadBalancerIngress] {
    let balancer = ingress.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    balancer.map(|balancer| list(&balancer.ingress)).unwrap_or_default()
}

/// The hosts of up to three rules; upstream counts rules, not hosts, for what is left out.
fn hosts(rules: &[IngressRule]) -> String {
    let mut shown: Vec<&str> = Vec::new();
    let mut more = false;
    for rule in rules {
        more |= shown.len() == 3;
        if !more && !text(&rule.host).is_empty() {
            shown.push(text(&rule.host));
        }
    }
    match (shown.is_empty(), more) {
        (true, _) => "*".to_owned(),
        (false, true) => format!("{} + {} more...", shown.join(","), rules.len() - 3),
        (false, false) => shown.join(","),
    }
}

/// What an update may leave as it is, because the stored object has it.
#[derive(Clone, Copy, Debug, Default)]
struct Tolerated {
    secret_names: bool,
    rules_of_wildcards: bool,
    service_names: bool,
}

impl Tolerated {
    fn of(old: &Ingress) -> Self {
        let Some(spec) = &old.spec else { return Self::default() };
        let wrong = |rule: &IngressRule| {
            let mut errors = Errors::new();
            rule_value(&mut errors, &Path::root(), rule, Self::default());
            text(&rule.host).contains('*') && !errors.is_empty()
        };
        let paths =
            list(&spec.rules).iter().filter_map(|rule| rule.http.as_ref()).flat_map(|http| &http.paths);
        let backends = spec.default_backend.iter().chain(paths.map(|path| &path.backend));
        Self {
            secret_names: list(&spec.tls).iter().any(|tls| !secret_name(tls).is_empty()),
            rules_of_wildcards: list(&spec.rules).iter().any(wrong),
            service_names: backends.filter_map(|backend| backend.service.as_ref()).any(|service| {
                name::dns1123_label(&service.name).is_empty()
                    && !name::dns1035_label(&service.name).is_empty()
            }),
        }
    }
}

fn validate(ingress: &Ingress, tolerated: Tolerated) -> Errors {
    let mut errors = Errors::new();
    let empty = IngressSpec::default();
    let spec = ingress.spec.as_ref().unwrap_or(&empty);
    let path = Path::new("spec");
    let rules = list(&spec.rules);
    if rules.is_empty() && spec.default_backend.is_none() {
        let detail = "either `defaultBackend` or `rules` must be specified";
        errors.push(FieldError::invalid(&path, BadValue::of(&spec.rules), detail));
    }
    if let Some(default) = &spec.default_backend {
        backend(&mut errors, &path.child("defaultBackend"), default, tolerated);
    }
    for (i, rule) in rules.iter().enumerate() {
        let at = path.child("rules").index(i);
        let is_wildcard = host(&mut errors, &at.child("host"), text(&rule.host));
        if !is_wildcard || !tolerated.rules_of_wildcards {
            rule_value(&mut errors, &at, rule, tolerated);
        }
    }
    for (i, tls) in list(&spec.tls).iter().enumerate() {
        let at = path.child("tls").index(i);
        for (j, host) in list(&tls.hosts).iter().enumerate() {
            name_or_wildcard(&mut errors, &at.child("hosts").index(j), host);
        }
        if !tolerated.secret_names {
            problems(&mut errors, &at.child("secretName"), text(&tls.secret_name), secret_name(tls));
        }
    }
    if let Some(class) = &spec.ingress_class_name {
        dns_subdomain(&mut errors, &path.child("ingressClassName"), class);
    }
    errors
}

fn secret_name(tls: &IngressTLS) -> Vec<String> {
    match text(&tls.secret_name) {
        "" => Vec::new(),
        secret => name::dns1123_subdomain(secret),
    }
}

fn not_an_address(errors: &mut Errors, path: &Path, host: &str) {
    if parse_ip(host).is_some() {
        errors.push(FieldError::invalid(path, host, "must be a DNS name, not an IP address"));
    }
}

/// Checks a name that may begin with `*.`; true if it has an asterisk.
fn name_or_wildcard(errors: &mut Errors, path: &Path, host: &str) -> bool {
    let is_wildcard = host.contains('*');
    let rule = if is_wildcard { name::wildcard_dns1123_subdomain } else { name::dns1123_subdomain };
    problems(errors, path, host, rule(host));
    is_wildcard
}

fn host(errors: &mut Errors, path: &Path, host: &str) -> bool {
    if host.is_empty() {
        return false;
    }
    not_an_address(errors, path, host);
    name_or_wildcard(errors, path, host)
}

fn rule_value(errors: &mut Errors, path: &Path, rule: &IngressRule, tolerated: Tolerated) {
    let Some(http) = &rule.http else { return };
    let path = path.child("http").child("paths");
    if http.paths.is_empty() {
        errors.push(FieldError::required(&path, ""));
    }
    for (i, item) in http.paths.iter().enumerate() {
        http_path(errors, &path.index(i), item, tolerated);
    }
}

fn http_path(errors: &mut Errors, path: &Path, item: &HTTPIngressPath, tolerated: Tolerated) {
    let value = text(&item.path);
    let at = path.child("path");
    let absolute = |errors: &mut Errors| {
        if !value.starts_with('/') {
            errors.push(FieldError::invalid(&at, value, "must be an absolute path"));
        }
    };
    match item.path_type.as_str() {
        "" => {
            errors.push(FieldError::required(&path.child("pathType"), "pathType must be specified"));
            return;
        }
        "Exact" | "Prefix" => {
            absolute(errors);
            for sequence in ["//", "/./", "/../", "%2f", "%2F"] {
                if value.contains(sequence) {
                    errors.push(FieldError::invalid(&at, value, format!("must not contain '{sequence}'")));
                }
            }
            for end in ["/..", "/."] {
                if value.ends_with(end) {
                    errors.push(FieldError::invalid(&at, value, format!("cannot end with '{end}'")));
                }
            }
        }
        "ImplementationSpecific" if value.is_empty() => {}
        "ImplementationSpecific" => absolute(errors),
        other => {
            let other = if other == EMPTY { "" } else { other };
            let types = &["Exact", "ImplementationSpecific", "Prefix"];
            errors.push(FieldError::not_supported(&path.child("pathType"), other, types));
        }
    }
    backend(errors, &path.child("backend"), &item.backend, tolerated);
}

fn backend(errors: &mut Errors, path: &Path, backend: &IngressBackend, tolerated: Tolerated) {
    match (&backend.resource, &backend.service) {
        (Some(_), Some(_)) => {
            errors.push(FieldError::invalid(path, "", "cannot set both resource and service backends"));
        }
        (Some(resource), None) => reference(errors, &path.child("resource"), resource),
        (None, Some(service)) => service_backend(errors, path, service, tolerated),
        (None, None) => errors.push(FieldError::invalid(path, "", "resource or service backend is required")),
    }
}

fn service_backend(errors: &mut Errors, path: &Path, service: &IngressServiceBackend, tolerated: Tolerated) {
    let at = path.child("service");
    if service.name.is_empty() {
        errors.push(FieldError::required(&at.child("name"), ""));
    } else {
        let rule = if tolerated.service_names { name::dns1123_label } else { name::dns1035_label };
        problems(errors, &at.child("name"), &service.name, rule(&service.name));
    }
    let port = service.port.clone().unwrap_or_default();
    let (port_name, number) = (text(&port.name), port.number.unwrap_or_default());
    let at = at.child("port");
    match (port_name.is_empty(), number) {
        (true, 0) => errors.push(FieldError::required(path, "port name or number is required")),
        (true, number) => port_number(errors, &at.child("number"), number),
        (false, 0) => problems(errors, &at.child("name"), port_name, name::port_name(port_name)),
        (false, _) => errors.push(FieldError::invalid(path, "", "cannot set both port name & port number")),
    }
}

fn reference(errors: &mut Errors, path: &Path, reference: &TypedLocalObjectReference) {
    if let Some(group) = &reference.api_group {
        dns_subdomain(errors, &path.child("apiGroup"), group);
    }
    path_segment(errors, &path.child("kind"), &reference.kind, "kind is required");
    path_segment(errors, &path.child("name"), &reference.name, "name is required");
}

/// A text that is given and can be a segment of a path.
pub(super) fn path_segment(errors: &mut Errors, path: &Path, value: &str, missing: &'static str) {
    if value.is_empty() {
        errors.push(FieldError::required(path, missing));
    } else {
        problems(errors, path, value, name::path_segment(value));
    }
}
