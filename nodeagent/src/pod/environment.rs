//! Environment variables, `$(VAR)` references, and the fields of the pod that they can refer to.

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::api::core::v1::{Pod, Service};

use super::{name, namespace, spec, uid};

/// The addresses that downward API fields can name.
#[derive(Clone, Debug, Default)]
pub struct Addresses {
    pub pod: Vec<String>,
    pub host: Vec<String>,
}

/// Replaces `$(NAME)` by the variable's value; unknown names and `$$(NAME)` stay as text.
pub fn expand(text: &str, variables: &HashMap<String, String>) -> String {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(position) = rest.find('$') {
        expanded.push_str(&rest[..position]);
        rest = &rest[position + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            expanded.push('$');
            rest = after;
        } else if let Some((reference, after)) =
            rest.strip_prefix('(').and_then(|inner| inner.split_once(')'))
        {
            match variables.get(reference) {
                Some(value) => expanded.push_str(value),
                None => {
                    expanded.push_str("$(");
                    expanded.push_str(reference);
                    expanded.push(')');
                }
            }
            rest = after;
        } else {
            expanded.push('$');
        }
    }
    expanded.push_str(rest);
    expanded
}

/// True for what may be the name of an environment variable: printable ASCII without `=`.
pub fn is_variable_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| (0x20..0x7f).contains(&byte) && byte != b'=')
}

/// The value of a `fieldRef`; an error in upstream's words if there is no such field.
pub fn field(pod: &Pod, path: &str, addresses: &Addresses) -> Result<String, String> {
    if let Some((map, key)) = subscript(path) {
        let found = match map {
            "metadata.labels" => pod.metadata.labels.as_ref(),
            "metadata.annotations" => pod.metadata.annotations.as_ref(),
            _ => return Err(format!("fieldPath \"{path}\" does not support subscript")),
        };
        return Ok(found.and_then(|map| map.get(key)).cloned().unwrap_or_default());
    }
    Ok(match path {
        "metadata.name" => name(pod).to_owned(),
        "metadata.namespace" => namespace(pod).to_owned(),
        "metadata.uid" => uid(pod).to_owned(),
        "metadata.labels" => lines(pod.metadata.labels.as_ref()),
        "metadata.annotations" => lines(pod.metadata.annotations.as_ref()),
        "spec.nodeName" => spec(pod).node_name.clone().unwrap_or_default(),
        "spec.serviceAccountName" => spec(pod).service_account_name.clone().unwrap_or_default(),
        "status.hostIP" => addresses.host.first().cloned().unwrap_or_default(),
        "status.hostIPs" => addresses.host.join(","),
        "status.podIP" => addresses.pod.first().cloned().unwrap_or_default(),
        "status.podIPs" => addresses.pod.join(","),
        _ => return Err(format!("unsupported fieldPath: {path}")),
    })
}

/// `metadata.labels['app']` → (`metadata.labels`, `app`).
fn subscript(path: &str) -> Option<(&str, &str)> {
    let (map, rest) = path.split_once("['")?;
    Some((map, rest.strip_suffix("']")?))
}

/// A map as a file of the downward API: `key="value"` lines in order of the keys.
fn lines(map: Option<&BTreeMap<String, String>>) -> String {
    let lines: Vec<String> =
        map.into_iter().flatten().map(|(key, value)| format!("{key}={}", quoted(value))).collect();
    lines.join("\n")
}

/// A string as a Go literal.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for letter in text.chars() {
        match letter {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            '\r' => quoted.push_str("\\r"),
            letter if letter.is_control() => quoted.push_str(&format!("\\x{:02x}", u32::from(letter))),
            letter => quoted.push(letter),
        }
    }
    quoted.push('"');
    quoted
}

/// The variables that tell containers of a namespace where its services are.
pub fn services<'a>(services: impl IntoIterator<Item = &'a Service>) -> Vec<(String, String)> {
    let mut variables = Vec::new();
    for service in services {
        let Some(spec) = &service.spec else { continue };
        let Some(address) = spec.cluster_ip.as_deref().filter(|ip| !ip.is_empty() && *ip != "None") else {
            continue;
        };
        let ports = spec.ports.as_deref().unwrap_or_default();
        let Some(first) = ports.first() else { continue };
        let name = service.metadata.name.as_deref().unwrap_or_default();
        let prefix = name.replace('-', "_").to_ascii_uppercase();
        let host = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
        variables.push((format!("{prefix}_SERVICE_HOST"), address.to_owned()));
        variables.push((format!("{prefix}_SERVICE_PORT"), first.port.to_string()));
        for port in ports {
            if let Some(name) = port.name.as_deref().filter(|name| !name.is_empty()) {
                let name = name.replace('-', "_").to_ascii_uppercase();
                variables.push((format!("{prefix}_SERVICE_PORT_{name}"), port.port.to_string()));
            }
        }
        for (position, port) in ports.iter().enumerate() {
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            let url = format!("{}://{host}:{}", protocol.to_ascii_lowercase(), port.port);
            if position == 0 {
                variables.push((format!("{prefix}_PORT"), url.clone()));
            }
            let prefix = format!("{prefix}_PORT_{}_{protocol}", port.port);
            variables.push((prefix.clone(), url));
            variables.push((format!("{prefix}_PROTO"), protocol.to_ascii_lowercase()));
            variables.push((format!("{prefix}_PORT"), port.port.to_string()));
            variables.push((format!("{prefix}_ADDR"), address.to_owned()));
        }
    }
    variables
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{ServicePort, ServiceSpec};

    use super::*;
    use crate::pod::testing::pod;

    #[test]
    fn references_are_expanded_as_upstream_does() {
        let variables = HashMap::from([("A".to_owned(), "1".to_owned()), ("B".to_owned(), String::new())]);
        for (text, expected) in [
            ("$(A)", "1"),
            ("x$(A)y$(B)z", "x1yz"),
            ("$$(A)", "$(A)"),
            ("$(NOPE)", "$(NOPE)"),
            ("$A $", "$A $"),
            ("$(A", "$(A"),
            ("$$$(A)", "$1"),
            ("100$%", "100$%"),
        ] {
            assert_eq!(expand(text, &variables), expected, "{text}");
        }
    }

    #[test]
    fn fields_of_the_pod_are_found() {
        let pod = pod().label("app", "a\"b").build();
        let addresses =
            Addresses { pod: vec!["10.0.0.1".into(), "fd::1".into()], host: vec!["192.0.2.1".into()] };
        for (path, expected) in [
            ("metadata.name", "web"),
            ("metadata.labels['app']", "a\"b"),
            ("metadata.labels['nope']", ""),
            ("metadata.labels", "app=\"a\\\"b\""),
            ("status.podIPs", "10.0.0.1,fd::1"),
            ("status.hostIP", "192.0.2.1"),
        ] {
            assert_eq!(field(&pod, path, &addresses).unwrap(), expected, "{path}");
        }
        assert_eq!(field(&pod, "spec.x", &addresses).unwrap_err(), "unsupported fieldPath: spec.x");
    }

    #[test]
    fn services_become_variables() {
        let port = ServicePort { name: Some("http-x".into()), port: 80, ..ServicePort::default() };
        let spec = ServiceSpec {
            cluster_ip: Some("10.96.0.7".into()),
            ports: Some(vec![port]),
            ..ServiceSpec::default()
        };
        let mut service = Service { spec: Some(spec), ..Service::default() };
        service.metadata.name = Some("my-svc".into());
        let found: Vec<String> =
            services([&service]).into_iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(
            found,
            [
                "MY_SVC_SERVICE_HOST=10.96.0.7",
                "MY_SVC_SERVICE_PORT=80",
                "MY_SVC_SERVICE_PORT_HTTP_X=80",
                "MY_SVC_PORT=tcp://10.96.0.7:80",
                "MY_SVC_PORT_80_TCP=tcp://10.96.0.7:80",
                "MY_SVC_PORT_80_TCP_PROTO=tcp",
                "MY_SVC_PORT_80_TCP_PORT=80",
                "MY_SVC_PORT_80_TCP_ADDR=10.96.0.7",
            ]
        );
    }
}
