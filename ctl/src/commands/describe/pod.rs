//! Pods and pod templates in words.

use std::fmt::Write;

use serde_json::Value;

use super::{annotations, controller, labels, line, name, or_none, scalar, several, time};
use crate::resources::{at, items, namespace, number, text};

/// A pod, without its events.
pub(super) fn describe(out: &mut String, pod: &Value) {
    line!(out, "Name:\t{}", name(pod));
    line!(out, "Namespace:\t{}", namespace(pod));
    if !pod["spec"]["priority"].is_null() {
        line!(out, "Priority:\t{}", number(pod, "spec.priority"));
    }
    for (title, path) in [
        ("Priority Class Name", "spec.priorityClassName"),
        ("Runtime Class Name", "spec.runtimeClassName"),
        ("Service Account", "spec.serviceAccountName"),
    ] {
        if !text(pod, path).is_empty() {
            line!(out, "{title}:\t{}", text(pod, path));
        }
    }
    match text(pod, "spec.nodeName") {
        "" => line!(out, "Node:\t<none>"),
        node => line!(out, "Node:\t{node}/{}", text(pod, "status.hostIP")),
    }
    if !text(pod, "status.startTime").is_empty() {
        line!(out, "Start Time:\t{}", time(text(pod, "status.startTime")));
    }
    labels(out, "Labels", &pod["metadata"]["labels"]);
    annotations(out, "Annotations", &pod["metadata"]["annotations"]);
    if text(pod, "metadata.deletionTimestamp").is_empty() {
        line!(out, "Status:\t{}", text(pod, "status.phase"));
    } else {
        let now = base::Clock::system().now();
        let since = text(pod, "metadata.deletionTimestamp").parse().ok();
        line!(out, "Status:\tTerminating (lasts {})", api::table::age(since, now));
        line!(out, "Termination Grace Period:\t{}s", number(pod, "metadata.deletionGracePeriodSeconds"));
    }
    for (title, path) in [("Reason", "status.reason"), ("Message", "status.message")] {
        if !text(pod, path).is_empty() {
            line!(out, "{title}:\t{}", text(pod, path));
        }
    }
    if !text(pod, "spec.securityContext.seccompProfile.type").is_empty() {
        line!(out, "Seccomp Profile:\t{}", text(pod, "spec.securityContext.seccompProfile.type"));
    }
    line!(out, "IP:\t{}", text(pod, "status.podIP"));
    if items(pod, "status.podIPs").is_empty() {
        line!(out, "IPs:\t<none>");
    } else {
        line!(out, "IPs:");
        for ip in items(pod, "status.podIPs") {
            line!(out, "  IP:\t{}", text(ip, "ip"));
        }
    }
    if let Some(owner) = controller(pod) {
        line!(out, "Controlled By:\t{owner}");
    }
    if !text(pod, "status.nominatedNodeName").is_empty() {
        line!(out, "NominatedNodeName:\t{}", text(pod, "status.nominatedNodeName"));
    }
    containers(out, pod, "Init Containers", "initContainers", "initContainerStatuses", "");
    containers(out, pod, "Containers", "containers", "containerStatuses", "");
    containers(out, pod, "Ephemeral Containers", "ephemeralContainers", "ephemeralContainerStatuses", "");
    if !items(pod, "status.conditions").is_empty() {
        line!(out, "Conditions:\n  Type\tStatus");
        for condition in items(pod, "status.conditions") {
            line!(out, "  {} \t{} ", text(condition, "type"), text(condition, "status"));
        }
    }
    volumes(out, items(pod, "spec.volumes"), "");
    line!(out, "QoS Class:\t{}", or_none(text(pod, "status.qosClass")));
    labels(out, "Node-Selectors", at(pod, "spec.nodeSelector"));
    tolerations(out, items(pod, "spec.tolerations"), "");
}

/// A pod template, indented.
pub(super) fn template(out: &mut String, template: &Value) {
    labels(out, "  Labels", &template["metadata"]["labels"]);
    if template["metadata"]["annotations"].is_object() {
        annotations(out, "  Annotations", &template["metadata"]["annotations"]);
    }
    if !text(template, "spec.serviceAccountName").is_empty() {
        line!(out, "  Service Account:\t{}", text(template, "spec.serviceAccountName"));
    }
    containers(out, template, "Init Containers", "initContainers", "", "  ");
    containers(out, template, "Containers", "containers", "", "  ");
    volumes(out, items(template, "spec.volumes"), "  ");
    if !text(template, "spec.priorityClassName").is_empty() {
        line!(out, "  Priority Class Name:\t{}", text(template, "spec.priorityClassName"));
    }
    labels(out, "  Node-Selectors", at(template, "spec.nodeSelector"));
    tolerations(out, items(template, "spec.tolerations"), "  ");
}

fn containers(out: &mut String, pod: &Value, title: &str, field: &str, status_field: &str, pad: &str) {
    let all = items(&pod["spec"], field);
    if all.is_empty() {
        if title == "Containers" {
            line!(out, "{pad}{title}:\t<none>");
        }
        return;
    }
    line!(out, "{pad}{title}:");
    for container in all {
        let statuses = items(&pod["status"], status_field);
        let status = statuses.iter().find(|status| status["name"] == container["name"]);
        // Only of a pod, not of a template, is it known what a field will be.
        let of = pad.is_empty().then_some(pod);
        one_container(out, container, status, of, pad);
    }
}

fn one_container(
    out: &mut String,
    container: &Value,
    status: Option<&Value>,
    pod: Option<&Value>,
    outer: &str,
) {
    // In a template, all is indented already, and kubectl indents less.
    let (own, pad) = if outer.is_empty() { ("  ", "    ".to_owned()) } else { ("   ", "    ".to_owned()) };
    line!(out, "{own}{}:", name_of(container));
    if let Some(status) = status {
        line!(out, "{pad}Container ID:\t{}", text(status, "containerID"));
    }
    line!(out, "{pad}Image:\t{}", text(container, "image"));
    if let Some(status) = status {
        line!(out, "{pad}Image ID:\t{}", text(status, "imageID"));
    }
    ports(out, items(container, "ports"), &pad);
    for (title, field) in [("Command", "command"), ("Args", "args")] {
        if !items(container, field).is_empty() {
            line!(out, "{pad}{title}:");
            for word in items(container, field) {
                for line in word.as_str().unwrap_or_default().lines() {
                    line!(out, "{pad}  {line}");
                }
            }
        }
    }
    if let Some(status) = status {
        state(out, "State", &status["state"], &pad);
        if status["lastState"].as_object().is_some_and(|state| !state.is_empty()) {
            state(out, "Last State", &status["lastState"], &pad);
        }
        line!(out, "{pad}Ready:\t{}", if status["ready"] == true { "True" } else { "False" });
        line!(out, "{pad}Restart Count:\t{}", number(status, "restartCount"));
    }
    for (title, field) in [("Limits", "limits"), ("Requests", "requests")] {
        if let Some(amounts) = container["resources"][field].as_object().filter(|amounts| !amounts.is_empty())
        {
            line!(out, "{pad}{title}:");
            for (resource, amount) in amounts {
                line!(out, "{pad}  {resource}:\t{}", scalar(amount));
            }
        }
    }
    for (title, field) in
        [("Liveness", "livenessProbe"), ("Readiness", "readinessProbe"), ("Startup", "startupProbe")]
    {
        if container[field].is_object() {
            line!(out, "{pad}{title}:\t{}", probe(&container[field]));
        }
    }
    environment(out, container, pod, &pad);
    let mounts = items(container, "volumeMounts");
    if mounts.is_empty() {
        line!(out, "{pad}Mounts:\t<none>");
        return;
    }
    line!(out, "{pad}Mounts:");
    let mut lines: Vec<String> = mounts
        .iter()
        .map(|mount| {
            let mut flags = vec![if mount["readOnly"] == true { "ro" } else { "rw" }.to_owned()];
            if !text(mount, "subPath").is_empty() {
                flags.push(format!("path={:?}", text(mount, "subPath")));
            }
            format!("{} from {} ({})", text(mount, "mountPath"), text(mount, "name"), flags.join(","))
        })
        .collect();
    lines.sort();
    for mount in lines {
        line!(out, "{pad}  {mount}");
    }
}

fn name_of(container: &Value) -> &str {
    text(container, "name")
}

fn ports(out: &mut String, ports: &[Value], pad: &str) {
    let list = |field: &str| {
        let texts = ports.iter().map(|port| {
            let protocol = match text(port, "protocol") {
                "" => "TCP",
                protocol => protocol,
            };
            let named = text(port, "name");
            let named = if named.is_empty() { String::new() } else { format!(" ({named})") };
            format!("{}/{protocol}{named}", number(port, field))
        });
        texts.collect::<Vec<_>>().join(", ")
    };
    let plural = if ports.len() > 1 { "s" } else { "" };
    line!(out, "{pad}Port{plural}:\t{}", or_none(&list("containerPort")));
    line!(out, "{pad}Host Port{plural}:\t{}", or_none(&list("hostPort")));
}

fn state(out: &mut String, title: &str, state: &Value, pad: &str) {
    if state["running"].is_object() {
        line!(out, "{pad}{title}:\tRunning");
        line!(out, "{pad}  Started:\t{}", time(text(state, "running.startedAt")));
    } else if state["terminated"].is_object() {
        let ended = &state["terminated"];
        line!(out, "{pad}{title}:\tTerminated");
        for (title, field) in [("Reason", "reason"), ("Message", "message")] {
            if !text(ended, field).is_empty() {
                line!(out, "{pad}  {title}:\t{}", text(ended, field));
            }
        }
        line!(out, "{pad}  Exit Code:\t{}", number(ended, "exitCode"));
        if number(ended, "signal") > 0 {
            line!(out, "{pad}  Signal:\t{}", number(ended, "signal"));
        }
        line!(out, "{pad}  Started:\t{}", time(text(ended, "startedAt")));
        line!(out, "{pad}  Finished:\t{}", time(text(ended, "finishedAt")));
    } else {
        line!(out, "{pad}{title}:\tWaiting");
        for (title, field) in [("Reason", "waiting.reason"), ("Message", "waiting.message")] {
            if !text(state, field).is_empty() && (title == "Reason" || !text(state, field).is_empty()) {
                line!(out, "{pad}  {title}:\t{}", text(state, field));
            }
        }
    }
}

fn probe(probe: &Value) -> String {
    let what = if let Some(http) = probe["httpGet"].as_object() {
        let of = |key: &str| http.get(key).map(scalar).unwrap_or_default();
        let scheme = match of("scheme") {
            scheme if scheme.is_empty() => "http".to_owned(),
            scheme => scheme.to_lowercase(),
        };
        format!("http-get {scheme}://{}:{}{}", of("host"), of("port"), of("path"))
    } else if probe["tcpSocket"].is_object() {
        format!("tcp-socket {}:{}", text(probe, "tcpSocket.host"), scalar(&probe["tcpSocket"]["port"]))
    } else if probe["grpc"].is_object() {
        format!("grpc <pod>:{} {}", number(probe, "grpc.port"), text(probe, "grpc.service"))
    } else if probe["exec"].is_object() {
        let words: Vec<&str> = items(probe, "exec.command").iter().filter_map(Value::as_str).collect();
        format!("exec [{}]", words.join(" "))
    } else {
        "unknown".to_owned()
    };
    let of = |field: &str, default: i64| probe[field].as_i64().unwrap_or(default);
    format!(
        "{what} delay={}s timeout={}s period={}s #success={} #failure={}",
        of("initialDelaySeconds", 0),
        of("timeoutSeconds", 1),
        of("periodSeconds", 10),
        of("successThreshold", 1),
        of("failureThreshold", 3)
    )
}

/// The value of a field that a variable can be made from; nothing if it is only known in the container.
fn field_value(pod: &Value, path: &str) -> String {
    let metadata = &pod["metadata"];
    let part = |map: &str| {
        let key =
            path.strip_prefix("metadata.")?.strip_prefix(map)?.strip_prefix("['")?.strip_suffix("']")?;
        Some(&metadata[map][key])
    };
    let found = match path {
        "metadata.name" | "metadata.namespace" | "metadata.uid" => Some(at(pod, path)),
        _ => part("labels").or_else(|| part("annotations")),
    };
    found.and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn environment(out: &mut String, container: &Value, pod: Option<&Value>, pad: &str) {
    if !items(container, "envFrom").is_empty() {
        line!(out, "{pad}Environment Variables from:");
        for source in items(container, "envFrom") {
            let (kind, from) = if source["configMapRef"].is_object() {
                ("ConfigMap", &source["configMapRef"])
            } else {
                ("Secret", &source["secretRef"])
            };
            line!(out, "{pad}  {}\t{kind}\tOptional: {}", text(from, "name"), from["optional"] == true);
        }
    }
    let env = items(container, "env");
    if env.is_empty() {
        line!(out, "{pad}Environment:\t<none>");
        return;
    }
    line!(out, "{pad}Environment:");
    for variable in env {
        let from = &variable["valueFrom"];
        let value = if from["fieldRef"].is_object() {
            let path = text(from, "fieldRef.fieldPath");
            let value = pod.map(|pod| field_value(pod, path)).unwrap_or_default();
            format!("{value} ({}:{path})", text(from, "fieldRef.apiVersion"))
        } else if from["resourceFieldRef"].is_object() {
            format!(" ({})", text(from, "resourceFieldRef.resource"))
        } else if from["secretKeyRef"].is_object() {
            reference(&from["secretKeyRef"], "secret")
        } else if from["configMapKeyRef"].is_object() {
            reference(&from["configMapKeyRef"], "config map")
        } else {
            text(variable, "value").lines().collect::<Vec<_>>().join(" ")
        };
        line!(out, "{pad}  {}:\t{value}", text(variable, "name"));
    }
}

fn reference(from: &Value, kind: &str) -> String {
    let optional = from["optional"] == true;
    format!(
        "<set to the key '{}' in {kind} '{}'>  Optional: {optional}",
        text(from, "key"),
        text(from, "name")
    )
}

fn volumes(out: &mut String, volumes: &[Value], pad: &str) {
    if volumes.is_empty() {
        if pad.is_empty() {
            line!(out, "Volumes:\t<none>");
        } else {
            line!(out, "{pad}Volumes:\t<none>");
        }
        return;
    }
    line!(out, "{pad}Volumes:");
    for volume in volumes {
        line!(out, "{pad}  {}:", text(volume, "name"));
        let inner = format!("{pad}    ");
        let mut say = |kind: &str, fields: &[(&str, String)]| {
            line!(out, "{inner}Type:\t{kind}");
            for (title, value) in fields {
                line!(out, "{inner}{title}:\t{value}");
            }
        };
        let field = |path: &str| text(volume, path).to_owned();
        let optional = |path: &str| (at(volume, path) == &Value::Bool(true)).to_string();
        if volume["emptyDir"].is_object() {
            let limit = match scalar(at(volume, "emptyDir.sizeLimit")) {
                limit if limit.is_empty() => "<unset>".to_owned(),
                limit => limit,
            };
            say(
                "EmptyDir (a temporary directory that shares a pod's lifetime)",
                &[("Medium", field("emptyDir.medium")), ("SizeLimit", limit)],
            );
        } else if volume["hostPath"].is_object() {
            say(
                "HostPath (bare host directory volume)",
                &[("Path", field("hostPath.path")), ("HostPathType", field("hostPath.type"))],
            );
        } else if volume["configMap"].is_object() {
            say(
                "ConfigMap (a volume populated by a ConfigMap)",
                &[("Name", field("configMap.name")), ("Optional", optional("configMap.optional"))],
            );
        } else if volume["secret"].is_object() {
            say(
                "Secret (a volume populated by a Secret)",
                &[("SecretName", field("secret.secretName")), ("Optional", optional("secret.optional"))],
            );
        } else if volume["persistentVolumeClaim"].is_object() {
            say(
                "PersistentVolumeClaim (a reference to a PersistentVolumeClaim in the same namespace)",
                &[
                    ("ClaimName", field("persistentVolumeClaim.claimName")),
                    ("ReadOnly", optional("persistentVolumeClaim.readOnly")),
                ],
            );
        } else if volume["downwardAPI"].is_object() {
            say("DownwardAPI (a volume populated by information about the pod)", &[]);
        } else if volume["projected"].is_object() {
            let mut fields = Vec::new();
            for source in items(volume, "projected.sources") {
                if source["serviceAccountToken"].is_object() {
                    let seconds = number(source, "serviceAccountToken.expirationSeconds");
                    fields.push(("TokenExpirationSeconds", seconds.to_string()));
                } else if source["configMap"].is_object() {
                    fields.push(("ConfigMapName", text(source, "configMap.name").to_owned()));
                    fields.push(("Optional", (source["configMap"]["optional"] == true).to_string()));
                } else if source["secret"].is_object() {
                    fields.push(("SecretName", text(source, "secret.name").to_owned()));
                    fields.push(("Optional", (source["secret"]["optional"] == true).to_string()));
                } else if source["downwardAPI"].is_object() {
                    fields.push(("DownwardAPI", "true".to_owned()));
                }
            }
            say("Projected (a volume that contains injected data from multiple sources)", &fields);
        } else {
            let kind = volume
                .as_object()
                .into_iter()
                .flatten()
                .map(|(key, _)| key.as_str())
                .find(|key| *key != "name");
            say(kind.unwrap_or("<unknown>"), &[]);
        }
    }
}

/// Tolerations, in the form of `kubectl taint`.
fn tolerations(out: &mut String, tolerations: &[Value], pad: &str) {
    let lines = tolerations
        .iter()
        .map(|toleration| {
            let mut line = text(toleration, "key").to_owned();
            if !text(toleration, "value").is_empty() {
                let _ = write!(line, "={}", text(toleration, "value"));
            }
            if !text(toleration, "effect").is_empty() {
                let _ = write!(line, ":{}", text(toleration, "effect"));
            }
            if text(toleration, "operator") == "Exists" && text(toleration, "value").is_empty() {
                line.push_str(if line.is_empty() { "op=Exists" } else { " op=Exists" });
            }
            if let Some(seconds) = toleration["tolerationSeconds"].as_i64() {
                let _ = write!(line, " for {seconds}s");
            }
            line
        })
        .collect();
    several(out, &format!("{pad}Tolerations"), lines);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::output::tabs::align;

    #[test]
    fn a_pod_is_described_as_kubectl_does() {
        let pod = json!({
            "metadata": {"name": "web-0", "namespace": "default", "labels": {"app": "web", "b": "c"},
                "ownerReferences": [{"kind": "ReplicaSet", "name": "web", "controller": true}]},
            "spec": {"nodeName": "n1", "priority": 0, "serviceAccountName": "default",
                "tolerations": [{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}],
                "volumes": [{"name": "v", "emptyDir": {}}],
                "containers": [{"name": "main", "image": "hello:1", "ports": [{"containerPort": 8080, "protocol": "TCP"}],
                    "args": ["-x"], "env": [{"name": "A", "value": "b"}],
                    "volumeMounts": [{"name": "v", "mountPath": "/v"}],
                    "livenessProbe": {"httpGet": {"path": "/healthz", "port": 8080, "scheme": "HTTP"}},
                    "resources": {"requests": {"cpu": "100m"}}}]},
            "status": {"phase": "Running", "hostIP": "10.0.0.1", "podIP": "10.244.0.9", "podIPs": [{"ip": "10.244.0.9"}],
                "startTime": "2026-01-01T00:00:00Z", "qosClass": "Burstable",
                "conditions": [{"type": "Ready", "status": "True"}],
                "containerStatuses": [{"name": "main", "containerID": "c://1", "imageID": "sha256:1", "ready": true, "restartCount": 2,
                    "state": {"running": {"startedAt": "2026-01-01T00:00:01Z"}},
                    "lastState": {"terminated": {"exitCode": 1, "reason": "Error", "startedAt": "2026-01-01T00:00:00Z", "finishedAt": "2026-01-01T00:00:01Z"}}}]},
        });
        let mut out = String::new();
        describe(&mut out, &pod);
        let expected = "\
Name:             web-0
Namespace:        default
Priority:         0
Service Account:  default
Node:             n1/10.0.0.1
Start Time:       Thu, 01 Jan 2026 00:00:00 +0000
Labels:           app=web
                  b=c
Annotations:      <none>
Status:           Running
IP:               10.244.0.9
IPs:
  IP:           10.244.0.9
Controlled By:  ReplicaSet/web
Containers:
  main:
    Container ID:  c://1
    Image:         hello:1
    Image ID:      sha256:1
    Port:          8080/TCP
    Host Port:     0/TCP
    Args:
      -x
    State:          Running
      Started:      Thu, 01 Jan 2026 00:00:01 +0000
    Last State:     Terminated
      Reason:       Error
      Exit Code:    1
      Started:      Thu, 01 Jan 2026 00:00:00 +0000
      Finished:     Thu, 01 Jan 2026 00:00:01 +0000
    Ready:          True
    Restart Count:  2
    Requests:
      cpu:     100m
    Liveness:  http-get http://:8080/healthz delay=0s timeout=1s period=10s #success=1 #failure=3
    Environment:
      A:  b
    Mounts:
      /v from v (rw)
Conditions:
  Type    Status
  Ready   True 
Volumes:
  v:
    Type:        EmptyDir (a temporary directory that shares a pod's lifetime)
    Medium:      
    SizeLimit:   <unset>
QoS Class:       Burstable
Node-Selectors:  <none>
Tolerations:     node.kubernetes.io/not-ready:NoExecute op=Exists for 300s
";
        assert_eq!(align(&out), expected);
    }
}
