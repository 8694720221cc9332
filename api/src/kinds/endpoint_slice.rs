//! The rules of discovery.k8s.io/v1 EndpointSlice.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};
use serde_json::Value;

use super::{
    cells::{age, first_three},
    check::{
        dns_label, dns_subdomain, generation, immutable, ipv4, ipv6, list, non_special_ip, one_of, problems,
        qualified_name, required_one_of, same, text,
    },
};
use crate::{
    field::{Errors, FieldError, Path},
    meta, name,
    object::{Kind, Null, name_cell},
    resource::Column,
};

impl Kind for EndpointSlice {
    const NULLS: &'static [Null<Self>] =
        &[("endpoints", |it| it.endpoints.is_none()), ("ports", |it| it.ports.is_none())];
    const COLUMNS: &'static [Column] = &[
        Column::name(),
        Column::text("AddressType").about(
            "addressType specifies the type of address carried by this EndpointSlice. All addresses in this slice must \
             be the same type. This field is immutable after creation. The following address types are currently \
             supported: * IPv4: Represents an IPv4 Address. * IPv6: Represents an IPv6 Address. * FQDN: Represents a \
             Fully Qualified Domain Name.",
        ),
        Column::text("Ports").about(
            "ports specifies the list of network ports exposed by each endpoint in this slice. Each port must have a \
             unique name. When ports is empty, it indicates that there are no defined ports. When a port is defined \
             with a nil port value, it indicates \"all ports\". Each slice may include a maximum of 100 ports.",
        ),
        Column::text("Endpoints").about(
            "endpoints is a list of unique endpoints in this slice. Each slice may include a maximum of 1000 endpoints.",
        ),
        Column::age(),
    ];

    fn set_defaults(&mut self) {
        self.endpoints.take_if(|endpoints| endpoints.is_empty());
        self.ports.take_if(|ports| ports.is_empty());
        for port in self.ports.iter_mut().flatten() {
            port.name.get_or_insert_default();
            port.protocol.get_or_insert_with(|| "TCP".to_owned());
        }
        for endpoint in self.endpoints.iter_mut().flatten() {
            endpoint.conditions.get_or_insert_default();
        }
    }

    fn prepare_create(&mut self) {
        self.metadata.generation = Some(1);
    }

    fn prepare_update(&mut self, old: &Self) {
        let content =
            |slice: &Self| (slice.address_type.clone(), slice.endpoints.clone(), slice.ports.clone());
        let changed = !same(&content(self), &content(old))
            || !same(&self.metadata.labels, &old.metadata.labels)
            || !same(&self.metadata.annotations, &old.metadata.annotations);
        generation(&mut self.metadata, &old.metadata, changed);
    }

    fn validate(&self) -> Errors {
        let mut errors = Errors::new();
        let at = Path::new("addressType");
        required_one_of(&mut errors, &at, &self.address_type, &["FQDN", "IPv4", "IPv6"]);
        endpoints(&mut errors, list(&self.endpoints), &self.address_type, &Path::new("endpoints"));
        ports(&mut errors, list(&self.ports), &Path::new("ports"));
        errors
    }

    fn validate_update(&self, old: &Self) -> Errors {
        let mut errors = self.validate();
        immutable(&mut errors, &Path::new("addressType"), &self.address_type, &old.address_type);
        errors
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        let port = |port: &EndpointPort| match (port.port, &port.name) {
            (Some(number), _) => number.to_string(),
            (None, Some(name)) if !name.is_empty() => name.clone(),
            _ => "*".to_owned(),
        };
        let ports: Vec<String> = list(&self.ports).iter().map(port).collect();
        let addresses: Vec<String> =
            list(&self.endpoints).iter().flat_map(|e| e.addresses.iter().cloned()).collect();
        let shown = |items: &[String]| -> Value {
            if items.is_empty() { "<unset>".into() } else { first_three(items).into() }
        };
        vec![
            name_cell(&self.metadata),
            self.address_type.as_str().into(),
            shown(&ports),
            shown(&addresses),
            age(&self.metadata, now),
        ]
    }
}

fn endpoints(errors: &mut Errors, endpoints: &[Endpoint], kind: &str, path: &Path) {
    if endpoints.len() > 1000 {
        errors.push(FieldError::too_many(path, endpoints.len(), 1000));
        return;
    }
    for (i, endpoint) in endpoints.iter().enumerate() {
        let at = path.index(i);
        let addresses_at = at.child("addresses");
        match endpoint.addresses.len() {
            0 => errors.push(FieldError::required(&addresses_at, "must contain at least 1 address")),
            n if n > 100 => errors.push(FieldError::too_many(&addresses_at, n, 100)),
            _ => {}
        }
        for (j, address) in endpoint.addresses.iter().enumerate() {
            let at = addresses_at.index(j);
            match kind {
                "IPv4" => {
                    ipv4(errors, &at, address);
                    non_special_ip(errors, &at, address);
                }
                "IPv6" => {
                    ipv6(errors, &at, address);
                    non_special_ip(errors, &at, address);
                }
                "FQDN" => domain(errors, address, &at),
                _ => {}
            }
        }
        if let Some(node) = &endpoint.node_name {
            dns_subdomain(errors, &at.child("nodeName"), node);
        }
        if let Some(topology) = &endpoint.deprecated_topology {
            let at = at.child("deprecatedTopology");
            if topology.len() > 16 {
                errors.push(FieldError::too_many(&at, topology.len(), 16));
            }
            errors.extend(meta::validate_labels(topology, &at));
        }
        if let Some(host) = &endpoint.hostname {
            dns_label(errors, &at.child("hostname"), host);
        }
        if let Some(hints) = &endpoint.hints {
            let at = at.child("hints");
            names(errors, list(&hints.for_zones).iter().map(|z| &z.name), &at.child("forZones"));
            names(errors, list(&hints.for_nodes).iter().map(|n| &n.name), &at.child("forNodes"));
        }
    }
}

fn names<'a>(errors: &mut Errors, names: impl ExactSizeIterator<Item = &'a String>, path: &Path) {
    if names.len() > 8 {
        errors.push(FieldError::too_many(path, names.len(), 8));
        return;
    }
    let mut seen = BTreeSet::new();
    for (i, name) in names.enumerate() {
        let at = path.index(i).child("name");
        if !seen.insert(name) {
            errors.push(FieldError::duplicate(&at, name));
        }
        dns_subdomain(errors, &at, name);
    }
}

fn domain(errors: &mut Errors, value: &str, path: &Path) {
    let name = value.strip_suffix('.').unwrap_or(value);
    if name.is_empty() {
        errors.push(FieldError::required(path, ""));
        return;
    }
    let found = name::dns1123_subdomain(name);
    let sound = found.is_empty();
    problems(errors, path, name, found);
    if sound && !name.contains('.') {
        let detail = "should be a domain with at least two segments separated by dots";
        errors.push(FieldError::invalid(path, name, detail));
    }
}

fn ports(errors: &mut Errors, ports: &[EndpointPort], path: &Path) {
    if ports.len() > 20000 {
        errors.push(FieldError::too_many(path, ports.len(), 20000));
        return;
    }
    let mut names = BTreeSet::new();
    for (i, port) in ports.iter().enumerate() {
        let at = path.index(i);
        let name = text(&port.name);
        if !name.is_empty() {
            dns_label(errors, &at.child("name"), name);
        }
        if !names.insert(name) {
            errors.push(FieldError::duplicate(&at.child("name"), name));
        }
        match &port.protocol {
            None => errors.push(FieldError::required(&at.child("protocol"), "")),
            Some(protocol) => one_of(errors, &at.child("protocol"), protocol, &["SCTP", "TCP", "UDP"]),
        }
        if let Some(protocol) = &port.app_protocol {
            qualified_name(errors, &at.child("appProtocol"), protocol);
        }
    }
}
