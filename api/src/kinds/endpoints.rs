//! The rules of core/v1 Endpoints.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, Endpoints};
use serde_json::Value;

use super::{
    cells::{age, first_of},
    check::{
        dns_label, dns_subdomain, ip, list, non_special_ip, port_number, qualified_name, required_one_of,
        text,
    },
};
use crate::{
    field::{Errors, FieldError, Path},
    object::{Kind, name_cell},
    resource::Column,
};

impl Kind for Endpoints {
    const CREATE_ON_UPDATE: bool = true;
    const DEPRECATED: Option<&'static str> =
        Some("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice");
    const COLUMNS: &'static [Column] = &[
        Column::name(),
        Column::text("Endpoints").about(
            "The set of all endpoints is the union of all subsets. Addresses are placed into subsets according to the \
             IPs they share. A single address with multiple ports, some of which are ready and some of which are not \
             (because they come from different containers) will result in the address being displayed in different \
             subsets for the different ports. No address will appear in both Addresses and NotReadyAddresses in the same \
             subset. Sets of addresses and ports that comprise a service.",
        ),
        Column::age(),
    ];

    fn set_defaults(&mut self) {
        for port in self.subsets.iter_mut().flatten().flat_map(|s| s.ports.iter_mut().flatten()) {
            if text(&port.protocol).is_empty() {
                port.protocol = Some("TCP".to_owned());
            }
        }
    }

    fn validate(&self) -> Errors {
        let mut errors = Errors::new();
        for (i, subset) in list(&self.subsets).iter().enumerate() {
            let at = Path::new("subsets").index(i);
            let (ready, waiting) = (list(&subset.addresses), list(&subset.not_ready_addresses));
            if ready.is_empty() && waiting.is_empty() {
                errors.push(FieldError::required(&at, "must specify `addresses` or `notReadyAddresses`"));
            }
            for (field, addresses) in [("addresses", ready), ("notReadyAddresses", waiting)] {
                for (j, entry) in addresses.iter().enumerate() {
                    address(&mut errors, entry, &at.child(field).index(j));
                }
            }
            let ports = list(&subset.ports);
            for (j, entry) in ports.iter().enumerate() {
                port(&mut errors, entry, ports.len() > 1, &at.child("ports").index(j));
            }
        }
        errors
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        // Each address with each port: they are counted, and made only as far as they are shown.
        let (mut first, mut count) = (Vec::new(), 0);
        let subsets = list(&self.subsets);
        for subset in subsets {
            let addresses = list(&subset.addresses);
            let ports = list(&subset.ports);
            // Endpoints of a headless service may have no ports.
            let bare = addresses.iter().filter(|_| subset.ports.is_none()).map(|a| a.ip.clone());
            let pairs = ports.iter().flat_map(|port| addresses.iter().map(|a| join(&a.ip, port.port)));
            first.extend(bare.chain(pairs).take(3 - first.len()));
            count += addresses.len() * if subset.ports.is_none() { 1 } else { ports.len() };
        }
        let shown = if subsets.is_empty() { "<none>".to_owned() } else { first_of(&first, count) };
        vec![name_cell(&self.metadata), shown.into(), age(&self.metadata, now)]
    }
}

fn join(ip: &str, port: i32) -> String {
    if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
}

fn address(errors: &mut Errors, address: &EndpointAddress, path: &Path) {
    ip(errors, &path.child("ip"), &address.ip);
    let host = text(&address.hostname);
    if !host.is_empty() {
        dns_label(errors, &path.child("hostname"), host);
    }
    if let Some(node) = &address.node_name {
        dns_subdomain(errors, &path.child("nodeName"), node);
    }
    non_special_ip(errors, &path.child("ip"), &address.ip);
}

fn port(errors: &mut Errors, port: &EndpointPort, name_required: bool, path: &Path) {
    let name = text(&port.name);
    if !name.is_empty() {
        dns_label(errors, &path.child("name"), name);
    } else if name_required {
        errors.push(FieldError::required(&path.child("name"), ""));
    }
    port_number(errors, &path.child("port"), port.port);
    required_one_of(errors, &path.child("protocol"), text(&port.protocol), &["SCTP", "TCP", "UDP"]);
    if let Some(protocol) = &port.app_protocol {
        qualified_name(errors, &path.child("appProtocol"), protocol);
    }
}
