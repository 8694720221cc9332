//! PURE: what a runtime gives to a plugin, and what it expects back.
//!
//! Versions 0.3.0 to 1.0.0 of the specification, which differ in what is spoken of here by one field: before 1.0.0
//! each address says of which family it is.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Failure, Request};
use crate::config::{Attachment, HostPort, Protocol};

/// The versions that are spoken, and the one that is preferred.
const VERSIONS: [&str; 4] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0"];
const NEWEST: &str = "1.0.0";
/// The type of the plugin that sets the loopback interface up, which runtimes expect to find beside others.
pub(super) const LOOPBACK: &str = "loopback";
const LONGEST_INTERFACE: usize = 15;

/// What a plugin is executed for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Call {
    Version {
        version: String,
    },
    /// Of the plugin `loopback`: the namespace, and the result of the plugin before it.
    Loopback {
        version: String,
        up: Option<PathBuf>,
        before: Option<Value>,
    },
    /// To be asked of the agent that serves the socket.
    Network {
        version: String,
        socket: PathBuf,
        request: Request,
    },
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Config {
    cni_version: Option<String>,
    #[serde(rename = "type")]
    kind: String,
    socket: Option<PathBuf>,
    runtime_config: RuntimeConfig,
    prev_result: Option<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RuntimeConfig {
    port_mappings: Vec<PortMapping>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PortMapping {
    host_port: i64,
    container_port: i64,
    protocol: String,
    #[serde(rename = "hostIP")]
    host_ip: String,
}

/// From the environment and the standard input of a plugin to what it is asked. `env` knows variables by their names.
pub(crate) fn parse(env: impl Fn(&str) -> Option<String>, input: &[u8]) -> Result<Call, Failure> {
    let decode =
        |error| Failure::new(Failure::DECODE, format!("the network configuration is no JSON: {error}"));
    let variable = |name: &str| env(name).filter(|value| !value.is_empty());
    let command = variable(super::COMMAND).unwrap_or_default();
    if command == "VERSION" {
        // Only this command may come without a configuration.
        let config: Config = serde_json::from_slice(input).unwrap_or_default();
        return Ok(Call::Version { version: config.cni_version.unwrap_or_else(|| NEWEST.to_owned()) });
    }
    if !["ADD", "DEL", "CHECK"].contains(&command.as_str()) {
        return Err(Failure::new(Failure::ENVIRONMENT, format!("unknown CNI_COMMAND {command:?}")));
    }
    let config: Config = serde_json::from_slice(input).map_err(decode)?;
    let version = config.cni_version.clone().unwrap_or_else(|| "0.1.0".to_owned());
    if !VERSIONS.contains(&version.as_str()) {
        return Err(Failure::new(
            Failure::VERSION,
            format!("cniVersion {version} is not supported, only {}", VERSIONS.join(", ")),
        ));
    }
    let missing = |name: &str| Failure::new(Failure::ENVIRONMENT, format!("{name} is missing"));
    let sandbox = variable("CNI_CONTAINERID").ok_or_else(|| missing("CNI_CONTAINERID"))?;
    if !is_id(&sandbox) {
        return Err(Failure::new(Failure::ENVIRONMENT, format!("CNI_CONTAINERID {sandbox:?} is no id")));
    }
    let interface = variable("CNI_IFNAME").ok_or_else(|| missing("CNI_IFNAME"))?;
    if !is_interface(&interface) {
        return Err(Failure::new(Failure::ENVIRONMENT, format!("CNI_IFNAME {interface:?} is no name")));
    }
    // What is given back may have lost its namespace.
    let netns = variable("CNI_NETNS").map(PathBuf::from);
    if config.kind == LOOPBACK {
        let up = if command == "ADD" { Some(netns.ok_or_else(|| missing("CNI_NETNS"))?) } else { None };
        return Ok(Call::Loopback { version, up, before: config.prev_result });
    }
    let socket = config.socket.clone().ok_or_else(|| Failure::new(Failure::CONFIG, "`socket` is missing"))?;
    let request = match command.as_str() {
        "ADD" => Request::Add {
            sandbox,
            netns: netns.ok_or_else(|| missing("CNI_NETNS"))?,
            interface,
            host_ports: host_ports(&config.runtime_config.port_mappings)?,
        },
        "CHECK" => Request::Check { sandbox },
        _ => Request::Del { sandbox },
    };
    Ok(Call::Network { version, socket, request })
}

fn is_id(text: &str) -> bool {
    let word = |char: char| char.is_ascii_alphanumeric() || "_.-".contains(char);
    text.starts_with(|first: char| first.is_ascii_alphanumeric()) && text.chars().all(word)
}

fn is_interface(text: &str) -> bool {
    let bad = |char: char| char == '/' || char == ':' || char.is_whitespace();
    text.len() <= LONGEST_INTERFACE && ![".", ".."].contains(&text) && !text.contains(bad)
}

fn host_ports(mappings: &[PortMapping]) -> Result<Vec<HostPort>, Failure> {
    // Port 0 stands for none.
    mappings.iter().filter(|mapping| mapping.host_port != 0).map(host_port).collect()
}

fn host_port(mapping: &PortMapping) -> Result<HostPort, Failure> {
    let bad = |why: String| Failure::new(Failure::CONFIG, format!("portMappings: {why}"));
    let port = |number: i64| {
        u16::try_from(number).ok().filter(|port| *port > 0).ok_or_else(|| bad(format!("{number} is no port")))
    };
    let host_ip = match mapping.host_ip.as_str() {
        "" => None,
        text => match text.parse() {
            Ok(IpAddr::V4(Ipv4Addr::UNSPECIFIED)) => None,
            Ok(IpAddr::V4(address)) => Some(address),
            Ok(IpAddr::V6(address)) => {
                return Err(bad(format!("host port on {address}: only IPv4 is supported")));
            }
            Err(_) => return Err(bad(format!("hostIP {text:?} is no address"))),
        },
    };
    let protocol = Protocol::parse(Some(&mapping.protocol.to_ascii_uppercase()))
        .ok_or_else(|| bad(format!("unknown protocol {:?}", mapping.protocol)))?;
    Ok(HostPort {
        host_ip,
        protocol,
        host_port: port(mapping.host_port)?,
        container_port: port(mapping.container_port)?,
    })
}

/// The answer to VERSION.
pub(super) fn versions(version: &str) -> Value {
    json!({ "cniVersion": version, "supportedVersions": VERSIONS })
}

/// The result of an ADD.
pub(super) fn attached(version: &str, attachment: &Attachment, netns: &str, interface: &str) -> Value {
    let mac: Vec<String> = attachment.mac.iter().map(|byte| format!("{byte:02x}")).collect();
    json!({
        "cniVersion": version,
        "interfaces": [
            { "name": attachment.host_interface },
            { "name": interface, "mac": mac.join(":"), "sandbox": netns },
        ],
        "ips": [address(version, &format!("{}/32", attachment.address), 1, Some(attachment.gateway))],
        "routes": [{ "dst": "0.0.0.0/0", "gw": attachment.gateway }],
        "dns": {},
    })
}

/// The result of an ADD of the loopback interface.
pub(super) fn loopback(version: &str, netns: &str) -> Value {
    json!({
        "cniVersion": version,
        "interfaces": [{ "name": "lo", "mac": "00:00:00:00:00:00", "sandbox": netns }],
        "ips": [address(version, "127.0.0.1/8", 0, None)],
        "dns": {},
    })
}

fn address(version: &str, address: &str, interface: u32, gateway: Option<Ipv4Addr>) -> Value {
    let mut value = json!({ "address": address, "interface": interface });
    if version != NEWEST {
        value["version"] = json!("4");
    }
    if let Some(gateway) = gateway {
        value["gateway"] = json!(gateway);
    }
    value
}

/// How a plugin says that it failed.
pub(super) fn failed(failure: &Failure) -> Value {
    json!({ "cniVersion": NEWEST, "code": failure.code, "msg": failure.msg })
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn call(command: &str, config: &Value) -> Result<Call, Failure> {
        call_with(&[("CNI_COMMAND", command)], config)
    }

    fn call_with(variables: &[(&str, &str)], config: &Value) -> Result<Call, Failure> {
        let mut env =
            HashMap::from([("CNI_CONTAINERID", "c1"), ("CNI_NETNS", "/run/netns/x"), ("CNI_IFNAME", "eth0")]);
        env.extend(variables.iter().copied());
        parse(|name| env.get(name).map(ToString::to_string), config.to_string().as_bytes())
    }

    fn config() -> Value {
        json!({ "cniVersion": "0.4.0", "name": "skiff", "type": "skiff-x", "socket": "/run/cni.sock" })
    }

    #[test]
    fn an_add_names_the_sandbox_and_its_host_ports() {
        let mut config = config();
        config["runtimeConfig"] = json!({ "portMappings": [
            { "hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": "" },
            { "hostPort": 5353, "containerPort": 53, "protocol": "udp", "hostIP": "192.0.2.1" },
            { "hostPort": 81, "containerPort": 80, "protocol": "sctp", "hostIP": "0.0.0.0" },
            { "hostPort": 0, "containerPort": 80 },
        ]});
        let port = |host_ip: Option<&str>, protocol, host_port, container_port| HostPort {
            host_ip: host_ip.map(|text| text.parse().unwrap()),
            protocol,
            host_port,
            container_port,
        };
        let expected = Request::Add {
            sandbox: "c1".into(),
            netns: "/run/netns/x".into(),
            interface: "eth0".into(),
            host_ports: vec![
                port(None, Protocol::Tcp, 8080, 80),
                port(Some("192.0.2.1"), Protocol::Udp, 5353, 53),
                port(None, Protocol::Sctp, 81, 80),
            ],
        };
        let found = call("ADD", &config).unwrap();
        let version = "0.4.0".into();
        assert_eq!(found, Call::Network { version, socket: "/run/cni.sock".into(), request: expected });
    }

    #[test]
    fn what_is_given_back_needs_no_namespace() {
        let found = call_with(&[("CNI_COMMAND", "DEL"), ("CNI_NETNS", "")], &config()).unwrap();
        let request = Request::Del { sandbox: "c1".into() };
        assert!(matches!(found, Call::Network { request: asked, .. } if asked == request));
        let mut lo = config();
        lo["type"] = json!("loopback");
        let found = call_with(&[("CNI_COMMAND", "DEL"), ("CNI_NETNS", "")], &lo).unwrap();
        assert!(matches!(found, Call::Loopback { up: None, .. }));
    }

    #[test]
    fn what_is_wrong_has_the_code_of_the_specification() {
        let with = |key: &str, value: Value| {
            let mut config = config();
            config[key] = value;
            config
        };
        let ports = |mapping: Value| with("runtimeConfig", json!({ "portMappings": [mapping] }));
        for (variables, config, code, says) in [
            (vec![("CNI_COMMAND", "FLY")], config(), 4, "unknown CNI_COMMAND \"FLY\""),
            (vec![("CNI_COMMAND", "ADD"), ("CNI_NETNS", "")], config(), 4, "CNI_NETNS is missing"),
            (
                vec![("CNI_COMMAND", "DEL"), ("CNI_CONTAINERID", "")],
                config(),
                4,
                "CNI_CONTAINERID is missing",
            ),
            (vec![("CNI_COMMAND", "DEL"), ("CNI_CONTAINERID", "../x")], config(), 4, "is no id"),
            (vec![("CNI_COMMAND", "ADD"), ("CNI_IFNAME", "a/b")], config(), 4, "is no name"),
            (vec![("CNI_COMMAND", "ADD")], json!("x"), 6, "is no JSON"),
            (vec![("CNI_COMMAND", "ADD")], with("cniVersion", json!("0.1.0")), 1, "0.1.0 is not supported"),
            (vec![("CNI_COMMAND", "ADD")], with("cniVersion", json!(null)), 1, "0.1.0 is not supported"),
            (vec![("CNI_COMMAND", "ADD")], with("socket", json!(null)), 7, "`socket` is missing"),
            (
                vec![("CNI_COMMAND", "ADD")],
                ports(json!({"hostPort": 70000, "containerPort": 1})),
                7,
                "no port",
            ),
            (vec![("CNI_COMMAND", "ADD")], ports(json!({"hostPort": 1, "containerPort": 0})), 7, "no port"),
            (
                vec![("CNI_COMMAND", "ADD")],
                ports(json!({"hostPort": 1, "containerPort": 1, "hostIP": "::1"})),
                7,
                "only IPv4",
            ),
        ] {
            let failure = call_with(&variables, &config).unwrap_err();
            assert_eq!(failure.code, code, "{failure:?}");
            assert!(failure.msg.contains(says), "{failure:?}");
        }
    }

    #[test]
    fn versions_are_told_with_and_without_a_configuration() {
        let asked = |input: &[u8]| parse(|name| (name == "CNI_COMMAND").then(|| "VERSION".into()), input);
        assert_eq!(asked(b"").unwrap(), Call::Version { version: "1.0.0".into() });
        assert_eq!(asked(br#"{"cniVersion":"0.4.0"}"#).unwrap(), Call::Version { version: "0.4.0".into() });
        assert_eq!(versions("0.4.0")["supportedVersions"], json!(["0.3.0", "0.3.1", "0.4.0", "1.0.0"]));
    }

    #[test]
    fn results_say_the_family_of_an_address_only_before_version_1() {
        let attachment = Attachment {
            address: "10.244.0.7".parse().unwrap(),
            gateway: "10.244.0.1".parse().unwrap(),
            mac: [10, 88, 10, 244, 0, 7],
            mtu: 1450,
            host_interface: "skv1".into(),
        };
        let old = attached("0.4.0", &attachment, "/run/netns/x", "eth0");
        assert_eq!(
            old["ips"],
            json!([{"version": "4", "address": "10.244.0.7/32", "interface": 1, "gateway": "10.244.0.1"}])
        );
        assert_eq!(
            old["interfaces"][1],
            json!({"name": "eth0", "mac": "0a:58:0a:f4:00:07", "sandbox": "/run/netns/x"})
        );
        let new = attached("1.0.0", &attachment, "/run/netns/x", "eth0");
        assert_eq!(new["ips"][0].get("version"), None);
        assert_eq!(loopback("0.3.1", "/n")["ips"][0]["version"], "4");
    }
}
