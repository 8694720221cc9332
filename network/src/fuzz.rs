//! What nodes and containers are told by others, under arbitrary bytes: DNS messages, resolv.conf, requests for the pod
//! network.

use std::net::Ipv4Addr;
use std::str::FromStr;

use base::Random;
use base::fuzz::{Target, texts};
use hickory_proto::op::{Message, Query};
use hickory_proto::rr::{Name, RecordType};

use crate::Cidr;
use crate::cni::spec;
use crate::dns::index::Index;
use crate::dns::{answer, forward};

/// Every parser of this crate that reads what others write.
pub const TARGETS: &[Target] = &[
    Target { name: "dns", run: dns, seeds: dns_seeds },
    Target {
        name: "resolv_conf",
        run: resolv_conf,
        seeds: || texts(&["# c\nnameserver 10.96.0.10\nsearch x y\nnameserver ::1 # v6\noptions ndots:5"]),
    },
    Target { name: "cni", run: cni, seeds: cni_seeds },
    Target {
        name: "cidr",
        run: cidr,
        seeds: || texts(&["10.0.0.0/16", "10.96.0.1/32", "0.0.0.0/0", "::/0"]),
    },
];

/// A question, and what is answered; and the same bytes as an upstream server's answer to it.
fn dns(data: &[u8]) {
    let Ok(request) = Message::from_vec(data) else { return };
    let Ok(zone) = Name::from_str("cluster.local.") else { return };
    let index = Index::new("cluster.local", Vec::new());
    for index in [Some(&index), None] {
        if let answer::Outcome::Answer(message) = answer::decide(&request, index, &zone, &Random::seeded(1)) {
            let _ = answer::datagram(&request, message);
        }
    }
    let _ = forward::answers(data, data);
}

fn dns_seeds() -> Vec<Vec<u8>> {
    let names = ["web.shop.svc.cluster.local.", "7.0.96.10.in-addr.arpa.", "example.com.", "cluster.local."];
    let kinds = [RecordType::A, RecordType::PTR, RecordType::AAAA, RecordType::SOA];
    let seed = |(name, kind): (&str, RecordType)| {
        let mut message = Message::query();
        message.queries.push(Query::query(Name::from_str(name).ok()?, kind));
        message.to_vec().ok()
    };
    let mut seeds: Vec<Vec<u8>> = names.into_iter().zip(kinds).filter_map(seed).collect();
    // A name that points to itself.
    seeds.push(b"\0\x01\x01\0\0\x01\0\0\0\0\0\0\xc0\x0c\0\x01\0\x01".to_vec());
    seeds
}

fn resolv_conf(data: &[u8]) {
    let servers = forward::name_servers(&String::from_utf8_lossy(data), &[Ipv4Addr::LOCALHOST]);
    assert!(servers.len() <= 3);
}

/// The input is the command, a line end, and the standard input of a plugin.
fn cni(data: &[u8]) {
    let end = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let (command, input) = (String::from_utf8_lossy(&data[..end]), data.get(end + 1..).unwrap_or_default());
    let variable = |name: &str| match name {
        "CNI_COMMAND" => Some(command.to_string()),
        "CNI_CONTAINERID" => Some("abc".to_owned()),
        "CNI_IFNAME" => Some("eth0".to_owned()),
        _ => Some("/run/netns/a".to_owned()),
    };
    let _ = spec::parse(variable, input);
}

fn cni_seeds() -> Vec<Vec<u8>> {
    let config = r#"{"cniVersion":"1.0.0","name":"skiff","type":"skiff-1-a","socket":"/run/s","runtimeConfig":
        {"portMappings":[{"hostPort":80,"containerPort":8080,"protocol":"tcp","hostIP":"127.0.0.1"}]}}"#;
    ["ADD", "DEL", "CHECK", "VERSION"].map(|command| format!("{command}\n{config}").into_bytes()).to_vec()
}

fn cidr(data: &[u8]) {
    if let Ok(cidr) = String::from_utf8_lossy(data).parse::<Cidr>() {
        assert_eq!(cidr.to_string().parse(), Ok(cidr));
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn no_parser_is_harmed_by_what_it_is_given() {
        base::fuzz::hold(super::TARGETS);
    }
}
