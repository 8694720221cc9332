//! The rules of networking.k8s.io/v1 NetworkPolicy.

use std::{collections::BTreeSet, net::IpAddr};

use jiff::Timestamp;
use k8s_openapi::{
    api::networking::v1::{IPBlock, NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec},
    apimachinery::pkg::util::intstr::IntOrString,
};
use serde_json::Value;

use super::{
    cells::{age, or_none},
    check::{
        cidr, generation, list, one_of, parse_cidr, port_number, port_or_name, same, selector, selector_text,
    },
};
use crate::{
    field::{BadValue, Errors, FieldError, Path},
    object::{Kind, name_cell},
    resource::Column,
};

/// What a policy can be about.
const TYPES: &[&str] = &["Ingress", "Egress"];

impl Kind for NetworkPolicy {
    const COLUMNS: &'static [Column] = &[
        Column::name(),
        Column::text("Pod-Selector").about(
            "Selects the pods to which this NetworkPolicy object applies.  The array of ingress rules is applied to any \
             pods selected by this field. Multiple network policies can select the same set of pods.  In this case, the \
             ingress rules for each are combined additively. This field is NOT optional and follows standard label \
             selector semantics. An empty podSelector matches all pods in this namespace.",
        ),
        Column::age(),
    ];

    fn set_defaults(&mut self) {
        let spec = self.spec.get_or_insert_default();
        spec.pod_selector.get_or_insert_default();
        let ingress = spec.ingress.iter_mut().flatten().flat_map(|rule| rule.ports.iter_mut().flatten());
        let egress = spec.egress.iter_mut().flatten().flat_map(|rule| rule.ports.iter_mut().flatten());
        for port in ingress.chain(egress) {
            port.protocol.get_or_insert_with(|| "TCP".to_owned());
        }
        if list(&spec.policy_types).is_empty() {
            let mut types = vec!["Ingress".to_owned()];
            if !list(&spec.egress).is_empty() {
                types.push("Egress".to_owned());
            }
            spec.policy_types = Some(types);
        }
    }

    fn prepare_create(&mut self) {
        self.metadata.generation = Some(1);
    }

    fn prepare_update(&mut self, old: &Self) {
        generation(&mut self.metadata, &old.metadata, !same(&self.spec, &old.spec));
    }

    fn validate(&self) -> Errors {
        validate(self, &BTreeSet::new())
    }

    fn validate_update(&self, old: &Self) -> Errors {
        let rules = old.spec.as_ref().map(rules).unwrap_or_default();
        let peers = rules.iter().flat_map(|rule| rule.peers.1);
        let blocks = peers.filter_map(|peer| peer.ip_block.as_ref());
        let known: BTreeSet<&str> = blocks
            .flat_map(|block| std::iter::once(&block.cidr).chain(list(&block.except)))
            .map(String::as_str)
            .collect();
        validate(self, &known)
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        let pods = self.spec.as_ref().and_then(|spec| spec.pod_selector.as_ref());
        vec![name_cell(&self.metadata), or_none(&selector_text(pods)), age(&self.metadata, now)]
    }
}

/// A rule of either direction: its place, its ports, and its peers under their name.
struct Rule<'a> {
    at: Path,
    ports: &'a [NetworkPolicyPort],
    peers: (&'static str, &'a [NetworkPolicyPeer]),
}

/// All rules, those for what comes in first.
fn rules(spec: &NetworkPolicySpec) -> Vec<Rule<'_>> {
    let at = |direction: &str, i: usize| Path::new("spec").child(direction).index(i);
    let ingress = list(&spec.ingress).iter().enumerate().map(|(i, rule)| Rule {
        at: at("ingress", i),
        ports: list(&rule.ports),
        peers: ("from", list(&rule.from)),
    });
    let egress = list(&spec.egress).iter().enumerate().map(|(i, rule)| Rule {
        at: at("egress", i),
        ports: list(&rule.ports),
        peers: ("to", list(&rule.to)),
    });
    ingress.chain(egress).collect()
}

fn validate(policy: &NetworkPolicy, known: &BTreeSet<&str>) -> Errors {
    let mut errors = Errors::new();
    let empty = NetworkPolicySpec::default();
    let spec = policy.spec.as_ref().unwrap_or(&empty);
    let path = Path::new("spec");
    selector(&mut errors, &path.child("podSelector"), spec.pod_selector.as_ref());
    // Upstream goes rule by rule, the ports of each before its peers.
    for rule in rules(spec) {
        let at = rule.at.child("ports");
        for (i, port) in rule.ports.iter().enumerate() {
            self::port(&mut errors, &at.index(i), port);
        }
        let at = rule.at.child(rule.peers.0);
        for (i, peer) in rule.peers.1.iter().enumerate() {
            self::peer(&mut errors, &at.index(i), peer, known);
        }
    }
    let at = path.child("policyTypes");
    let types = list(&spec.policy_types);
    if types.len() > TYPES.len() {
        let detail = "may not specify more than two policyTypes";
        errors.push(FieldError::invalid(&at, BadValue::of(&types), detail));
        return errors;
    }
    for (i, item) in types.iter().enumerate() {
        one_of(&mut errors, &at.index(i), item, TYPES);
    }
    errors
}

fn port(errors: &mut Errors, path: &Path, port: &NetworkPolicyPort) {
    if let Some(protocol) = &port.protocol {
        one_of(errors, &path.child("protocol"), protocol, &["TCP", "UDP", "SCTP"]);
    }
    let at = path.child("endPort");
    match (&port.port, port.end_port) {
        (Some(IntOrString::Int(first)), Some(last)) => {
            port_number(errors, &path.child("port"), *first);
            if last < *first {
                errors.push(FieldError::invalid(&at, last, "must be greater than or equal to `port`"));
            }
            port_number(errors, &at, last);
        }
        (Some(named), last) => {
            if let Some(last) = last {
                let detail = "may not be specified when `port` is non-numeric";
                errors.push(FieldError::invalid(&at, last, detail));
            }
            port_or_name(errors, &path.child("port"), named);
        }
        (None, Some(last)) => {
            let detail = "may not be specified when `port` is not specified";
            errors.push(FieldError::invalid(&at, last, detail));
        }
        (None, None) => {}
    }
}

fn peer(errors: &mut Errors, path: &Path, peer: &NetworkPolicyPeer, known: &BTreeSet<&str>) {
    selector(errors, &path.child("podSelector"), peer.pod_selector.as_ref());
    selector(errors, &path.child("namespaceSelector"), peer.namespace_selector.as_ref());
    let selects = peer.pod_selector.is_some() || peer.namespace_selector.is_some();
    match &peer.ip_block {
        Some(block) => {
            ip_block(errors, &path.child("ipBlock"), block, known);
            if selects {
                errors.push(FieldError::forbidden(path, "may not specify both ipBlock and another peer"));
            }
        }
        None if selects => {}
        None => errors.push(FieldError::required(path, "must specify a peer")),
    }
}

/// A prefix that the stored object has, wherever, is not checked again.
fn ip_block(errors: &mut Errors, path: &Path, block: &IPBlock, known: &BTreeSet<&str>) {
    let check = |errors: &mut Errors, at: &Path, value: &str| {
        if !known.contains(value) {
            cidr(errors, at, value);
        }
        parse_cidr(value)
    };
    if block.cidr.is_empty() {
        errors.push(FieldError::required(&path.child("cidr"), ""));
        return;
    }
    let Some(whole) = check(errors, &path.child("cidr"), &block.cidr) else { return };
    for (i, except) in list(&block.except).iter().enumerate() {
        let at = path.child("except").index(i);
        let Some(part) = check(errors, &at, except) else { continue };
        if !is_strictly_within(part, whole) {
            errors.push(FieldError::invalid(&at, except, "must be a strict subset of `cidr`"));
        }
    }
}

fn is_strictly_within((part, part_length): (IpAddr, u8), (whole, length): (IpAddr, u8)) -> bool {
    let same_prefix = match (part, whole) {
        (IpAddr::V4(part), IpAddr::V4(whole)) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or_default();
            part.to_bits() & mask == whole.to_bits() & mask
        }
        (IpAddr::V6(part), IpAddr::V6(whole)) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or_default();
            part.to_bits() & mask == whole.to_bits() & mask
        }
        _ => false,
    };
    same_prefix && length < part_length
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exception_lies_within_its_block() {
        for (part, whole, within) in [
            ("10.1.0.0/16", "10.0.0.0/8", true),
            ("10.0.0.0/8", "10.0.0.0/8", false),
            ("11.0.0.0/16", "10.0.0.0/8", false),
            ("1.2.3.4/32", "0.0.0.0/0", true),
            ("fd00::/64", "fd00::/48", true),
            ("fd00::/64", "0.0.0.0/0", false),
        ] {
            let (part, whole) = (parse_cidr(part).unwrap(), parse_cidr(whole).unwrap());
            assert_eq!(is_strictly_within(part, whole), within, "{part:?} in {whole:?}");
        }
    }
}
