//! `skiff run` and `skiff expose`

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::{Map, Value, json};

use super::apply::DryRun;
use super::create::Making;
use super::delete::remove;
use super::exec::attach;
use super::mutate::one;
use super::wait::until;
use super::{duration, print};
use crate::Failure;
use crate::resources::select::Object;
use crate::resources::{Mapping, Session, at, items, name, text};

#[derive(Args, Debug)]
pub(crate) struct Run {
    /// The pod's name
    name: String,
    /// The image for the container to run
    #[arg(long)]
    image: String,
    /// Environment variables to set in the container
    #[arg(long, value_name = "KEY=VALUE")]
    env: Vec<String>,
    /// Comma separated labels to apply to the pod
    #[arg(long, short = 'l', value_delimiter = ',', value_name = "KEY=VALUE")]
    labels: Vec<String>,
    /// Annotations to apply to the pod
    #[arg(long, value_name = "KEY=VALUE")]
    annotations: Vec<String>,
    /// The port that this container exposes
    #[arg(long)]
    port: Option<u16>,
    /// If true, create a ClusterIP service associated with the pod. Requires --port
    #[arg(long, requires = "port")]
    expose: bool,
    /// The restart policy for this Pod: Always, OnFailure, Never
    #[arg(long, default_value = "Always")]
    restart: String,
    /// The image pull policy for the container
    #[arg(long)]
    image_pull_policy: Option<String>,
    /// If true and extra arguments are present, use them as the 'command' field in the container
    #[arg(long)]
    command: bool,
    /// If the Pod is started in interactive mode or non-interactive mode: keep stdin open
    #[arg(long, short = 'i')]
    stdin: bool,
    /// Allocate a TTY for the container in the pod
    #[arg(long, short = 't')]
    tty: bool,
    /// Wait for the Pod to start running, and then attach to it
    #[arg(long)]
    attach: bool,
    /// If true, delete the pod after it exits
    #[arg(long)]
    rm: bool,
    /// If true, run the container in privileged mode
    #[arg(long)]
    privileged: bool,
    /// The length of time to wait until at least one pod is running
    #[arg(long, value_parser = duration, default_value = "1m")]
    pod_running_timeout: Duration,
    /// If true, suppress prompt messages
    #[arg(long, short = 'q')]
    quiet: bool,
    #[command(flatten)]
    making: Making,
    /// Arguments of the container
    #[arg(last = true, value_name = "ARG")]
    args: Vec<String>,
}

/// Reads `KEY=VALUE` words.
pub(super) fn pairs(words: &[String], what: &str) -> Result<Map<String, Value>, Failure> {
    let pair = |word: &String| match word.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.into())),
        _ => Err(Failure::new(format!("error: invalid {what}: {word}: use KEY=VALUE"))),
    };
    words.iter().map(pair).collect()
}

impl Run {
    fn pod(&self, session: &Session) -> Result<Value, Failure> {
        let mut labels = pairs(&self.labels, "label")?;
        if labels.is_empty() {
            labels.insert("run".to_owned(), self.name.clone().into());
        }
        let mut container = json!({"name": self.name, "image": self.image, "resources": {}});
        let env: Map<String, Value> = pairs(&self.env, "env")?;
        if !env.is_empty() {
            let entry = |(key, value): (&String, &Value)| json!({"name": key, "value": value});
            container["env"] = env.iter().map(entry).collect();
        }
        if let Some(port) = self.port {
            container["ports"] = json!([{"containerPort": port}]);
        }
        if !self.args.is_empty() {
            container[if self.command { "command" } else { "args" }] = json!(self.args);
        }
        if let Some(policy) = &self.image_pull_policy {
            container["imagePullPolicy"] = policy.as_str().into();
        }
        if self.privileged {
            container["securityContext"] = json!({"privileged": true});
        }
        if self.stdin {
            container["stdin"] = true.into();
            container["stdinOnce"] = true.into();
        }
        if self.tty {
            container["tty"] = true.into();
        }
        let mut metadata = json!({"name": self.name, "labels": labels});
        if let Some(namespace) = session.explicit_namespace() {
            metadata["namespace"] = namespace.into();
        }
        if !self.annotations.is_empty() {
            metadata["annotations"] = Value::Object(pairs(&self.annotations, "annotation")?);
        }
        Ok(json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": metadata,
            "spec": {"containers": [container], "restartPolicy": self.restart, "dnsPolicy": "ClusterFirst"},
        }))
    }

    pub(crate) async fn run(self, session: &Session) -> Result<ExitCode, Failure> {
        let attached = self.attach || self.stdin || self.tty;
        if self.rm && !attached {
            return Err(Failure::new("error: --rm should only be used for attached containers"));
        }
        if attached && self.making.dry_run != DryRun::None {
            return Err(Failure::new(
                "error: --dry-run=[server|client] can't be used with attached containers options (--attach, --stdin, or --tty)",
            ));
        }
        let pods = Mapping::builtin("", "pods")?;
        let pod = self.pod(session)?;
        let mut printer = self.making.output.printer()?;
        if attached {
            // The session's own output is what is wanted.
            session
                .json(crate::resources::Call::post(pods.collection(Some(session.namespace())), &pod))
                .await?;
        } else {
            self.making.send(session, &pods, session.namespace(), &pod, &mut printer).await?;
        }
        if self.expose {
            let service = json!({
                "apiVersion": "v1", "kind": "Service",
                "metadata": {"name": self.name},
                "spec": {"selector": pod["metadata"]["labels"], "ports": [{"port": self.port, "protocol": "TCP", "targetPort": self.port}]},
            });
            self.making
                .send(
                    session,
                    &Mapping::builtin("", "services")?,
                    session.namespace(),
                    &service,
                    &mut printer,
                )
                .await?;
        }
        if !attached {
            return Ok(ExitCode::SUCCESS);
        }
        let ended = self.attend(session, &pods, pod).await;
        if self.rm {
            remove(session, &pods, session.namespace(), &self.name).await?;
            if !self.quiet {
                print(format!("pod {:?} deleted from {} namespace\n", self.name, session.namespace()))?;
            }
        }
        ended
    }

    async fn attend(&self, session: &Session, pods: &Mapping, pod: Value) -> Result<ExitCode, Failure> {
        let mut object = Object { mapping: pods.clone(), value: pod };
        object.value["metadata"]["namespace"] = session.namespace().into();
        let started = until(session, &object, |pod| {
            pod.is_none_or(|pod| matches!(text(pod, "status.phase"), "Running" | "Succeeded" | "Failed"))
        });
        let started = tokio::time::timeout(self.pod_running_timeout, started)
            .await
            .map_err(|_| Failure::new("error: timed out waiting for the condition"))??;
        let Some(pod) = started else {
            return Err(Failure::new(format!("error: pod {} is gone", self.name)));
        };
        if text(&pod, "status.phase") == "Running" {
            let attached = attach(session, &pod, None, self.stdin, self.tty, self.quiet).await;
            // It may have ended between the two.
            if let Err(failure) = attached {
                eprintln!(
                    "warning: couldn't attach to pod/{}, falling back to streaming logs: {failure}",
                    self.name
                );
                self.logs(session).await?;
            }
        } else {
            self.logs(session).await?;
        }
        if self.restart == "Always" {
            return Ok(ExitCode::SUCCESS);
        }
        let ended = until(session, &object, |pod| {
            pod.is_none_or(|pod| matches!(text(pod, "status.phase"), "Succeeded" | "Failed"))
        })
        .await?;
        let code = ended.as_ref().and_then(|pod| {
            let status = items(pod, "status.containerStatuses").first()?;
            at(status, "state.terminated.exitCode").as_i64()
        });
        Ok(ExitCode::from(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::from(ended.is_none()))))
    }

    async fn logs(&self, session: &Session) -> Result<(), Failure> {
        let path = format!("/api/v1/namespaces/{}/pods/{}/log", session.namespace(), self.name);
        let mut lines =
            session.lines(crate::resources::Call::get(path).query("follow", "true").accept("*/*")).await?;
        while let Some(chunk) = lines.chunk().await? {
            super::print_bytes(&chunk)?;
        }
        Ok(())
    }
}

#[derive(Args, Debug)]
pub(crate) struct Expose {
    /// TYPE NAME or TYPE/NAME
    #[arg(value_name = "TYPE[/NAME]", required = true)]
    resources: Vec<String>,
    /// The name for the newly created object
    #[arg(long)]
    name: Option<String>,
    /// The port that the service should serve on. Copied from the resource being exposed, if unspecified
    #[arg(long)]
    port: Option<u16>,
    /// Name or number for the port on the container that the service should direct traffic to
    #[arg(long)]
    target_port: Option<String>,
    /// The network protocol for the service to be created
    #[arg(long, default_value = "TCP")]
    protocol: String,
    /// Type for this service: ClusterIP, NodePort, LoadBalancer, or ExternalName
    #[arg(long = "type", default_value = "")]
    kind: String,
    /// ClusterIP to be assigned to the service; 'None' to create a headless service
    #[arg(long)]
    cluster_ip: Option<String>,
    /// A label selector to use for this service
    #[arg(long)]
    selector: Option<String>,
    /// Labels to apply to the service created by this call
    #[arg(long, short = 'l', value_delimiter = ',')]
    labels: Vec<String>,
    /// If non-empty, set the session affinity for the service to this; legal values: 'None', 'ClientIP'
    #[arg(long)]
    session_affinity: Option<String>,
    #[command(flatten)]
    making: Making,
}

impl Expose {
    pub(crate) async fn run(self, session: &Session) -> Result<(), Failure> {
        let object = one(session, &self.resources).await?;
        let kind = object.mapping.kind.as_str();
        let (selector, template) = match kind {
            "Pod" => (&object.value["metadata"]["labels"], &object.value),
            "Service" => (&object.value["spec"]["selector"], &Value::Null),
            "ReplicationController" => {
                (&object.value["spec"]["selector"], at(&object.value, "spec.template"))
            }
            "Deployment" | "ReplicaSet" => {
                (at(&object.value, "spec.selector.matchLabels"), at(&object.value, "spec.template"))
            }
            _ => return Err(Failure::new(format!("error: cannot expose a {kind}"))),
        };
        let selector = match &self.selector {
            Some(words) => {
                let words: Vec<String> = words.split(',').map(str::to_owned).collect();
                Value::Object(pairs(&words, "selector")?)
            }
            None if selector.as_object().is_none_or(Map::is_empty) => {
                return Err(Failure::new(format!(
                    "error: couldn't retrieve selectors via --selector flag or introspection: the {} has no labels and cannot be exposed",
                    kind.to_lowercase()
                )));
            }
            None => selector.clone(),
        };
        let mut ports: Vec<Value> = Vec::new();
        if let Some(port) = self.port {
            ports.push(self.service_port(port.into(), port.into(), &self.protocol));
        } else {
            for container in items(template, "spec.containers") {
                for port in items(container, "ports") {
                    let number = port["containerPort"].clone();
                    let protocol = port["protocol"].as_str().unwrap_or("TCP");
                    ports.push(self.service_port(number.clone(), number, protocol));
                }
            }
            for port in items(&object.value, "spec.ports").iter().filter(|_| kind == "Service") {
                let target = port["targetPort"].clone();
                ports.push(self.service_port(port["port"].clone(), target, text(port, "protocol")));
            }
        }
        if ports.is_empty() {
            return Err(Failure::new("error: couldn't find port via --port flag or introspection"));
        }
        if ports.len() > 1 {
            for (i, port) in ports.iter_mut().enumerate() {
                port["name"] = format!("port-{}", i + 1).into();
            }
        }
        let labels = if self.labels.is_empty() {
            object.value["metadata"]["labels"].clone()
        } else {
            Value::Object(pairs(&self.labels, "label")?)
        };
        let mut service = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": self.name.as_deref().unwrap_or(name(&object.value))},
            "spec": {"ports": ports, "selector": selector},
        });
        if labels.is_object() {
            service["metadata"]["labels"] = labels;
        }
        let spec = [
            ("type", Some(&self.kind)),
            ("clusterIP", self.cluster_ip.as_ref()),
            ("sessionAffinity", self.session_affinity.as_ref()),
        ];
        for (key, value) in spec {
            if let Some(value) = value.filter(|value| !value.is_empty()) {
                service["spec"][key] = value.as_str().into();
            }
        }
        let mut printer = self.making.output.printer()?.saying("exposed");
        let services = Mapping::builtin("", "services")?;
        Ok(self.making.send(session, &services, session.namespace(), &service, &mut printer).await?)
    }

    fn service_port(&self, port: Value, target: Value, protocol: &str) -> Value {
        let target = match &self.target_port {
            Some(text) => text.parse::<u16>().map_or_else(|_| text.as_str().into(), Value::from),
            None => target,
        };
        json!({"port": port, "targetPort": target, "protocol": protocol})
    }
}
