//! Objects made from flags: `skiff create deployment`, `namespace`, `configmap`, and so on.

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::Making;
use super::data::{self, Sources};
use crate::Failure;
use crate::commands::run::pairs;
use crate::commands::{Global, print};
use crate::resources::{ApiError, Call, Session, name, text};

#[derive(Debug, Subcommand)]
pub(crate) enum Generator {
    /// Create a namespace with the specified name
    #[command(alias = "ns")]
    Namespace(Simple),
    /// Create a service account with the specified name
    #[command(alias = "sa")]
    Serviceaccount(Simple),
    /// Create a config map from a local file, directory or literal value
    #[command(alias = "cm")]
    Configmap(ConfigMap),
    /// Create a secret using a specified subcommand
    #[command(subcommand)]
    Secret(Secret),
    /// Create a deployment with the specified name
    #[command(alias = "deploy")]
    Deployment(Deployment),
    /// Create a job with the specified name
    Job(Job),
    /// Create a cron job with the specified name
    #[command(alias = "cj")]
    Cronjob(Job),
    /// Create a service using a specified subcommand
    #[command(subcommand, alias = "svc")]
    Service(Service),
    /// Create a role with single rule
    Role(Role),
    /// Create a cluster role
    Clusterrole(Role),
    /// Create a role binding for a particular role or cluster role
    Rolebinding(Binding),
    /// Create a cluster role binding for a particular cluster role
    Clusterrolebinding(Binding),
    /// Create a pod disruption budget with the specified name
    #[command(alias = "pdb")]
    Poddisruptionbudget(Budget),
    /// Create a priority class with the specified name
    #[command(alias = "pc")]
    Priorityclass(PriorityClass),
    /// Request a service account token
    Token(Token),
}

#[derive(Args, Debug)]
pub(crate) struct Simple {
    name: String,
    #[command(flatten)]
    making: Making,
}

#[derive(Args, Debug)]
pub(crate) struct ConfigMap {
    name: String,
    #[command(flatten)]
    sources: Sources,
    #[command(flatten)]
    making: Making,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Secret {
    /// Create a secret from a local file, directory, or literal value
    Generic(Generic),
    /// Create a TLS secret
    Tls(Tls),
    /// Create a secret for use with a container registry
    DockerRegistry(DockerRegistry),
}

#[derive(Args, Debug)]
pub(crate) struct Generic {
    name: String,
    /// The type of secret to create
    #[arg(long = "type")]
    kind: Option<String>,
    #[command(flatten)]
    sources: Sources,
    #[command(flatten)]
    making: Making,
}

#[derive(Args, Debug)]
pub(crate) struct Tls {
    name: String,
    /// Path to PEM encoded public key certificate
    #[arg(long)]
    cert: String,
    /// Path to private key associated with given certificate
    #[arg(long)]
    key: String,
    #[command(flatten)]
    making: Making,
}

#[derive(Args, Debug)]
pub(crate) struct DockerRegistry {
    name: String,
    /// Server location for the registry
    #[arg(long, default_value = "https://index.docker.io/v1/")]
    docker_server: String,
    /// Username for authentication
    #[arg(long)]
    docker_username: String,
    /// Password for authentication
    #[arg(long)]
    docker_password: String,
    /// Email for the registry
    #[arg(long, default_value = "")]
    docker_email: String,
    #[command(flatten)]
    making: Making,
}

#[derive(Args, Debug)]
pub(crate) struct Deployment {
    name: String,
    /// Image names to run
    #[arg(long, required = true, value_delimiter = ',')]
    image: Vec<String>,
    /// Number of replicas to create
    #[arg(long, short = 'r', default_value_t = 1)]
    replicas: u32,
    /// The containerPort that this deployment exposes
    #[arg(long)]
    port: Option<u16>,
    /// The command of the container
    #[arg(last = true)]
    command: Vec<String>,
    #[command(flatten)]
    making: Making,
}

#[derive(Args, Debug)]
pub(crate) struct Job {
    name: String,
    /// Image name to run
    #[arg(long)]
    image: String,
    /// A schedule in the Cron format the job should be run with (cron jobs)
    #[arg(long)]
    schedule: Option<String>,
    /// The job's restart policy: OnFailure, Never
    #[arg(long)]
    restart: Option<String>,
    /// The command of the container
    #[arg(last = true)]
    command: Vec<String>,
    #[command(flatten)]
    making: Making,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Service {
    /// Create a ClusterIP service
    Clusterip(Ports),
    /// Create a NodePort service
    Nodeport(Ports),
    /// Create a LoadBalancer service
    Loadbalancer(Ports),
    /// Create an ExternalName service
    Externalname(ExternalName),
}

#[derive(Args, Debug)]
pub(crate) struct Ports {
    name: String,
    /// Port pairs can be specified as '<port>:<targetPort>'
    #[arg(long, value_delimiter = ',')]
    tcp: Vec<String>,
    /// Assign your own ClusterIP or set to 'None' for a 'headless' service (no loadbalancing)
    #[arg(long)]
    clusterip: Option<String>,
    /// Port used to expose the service on each node in a cluster
    #[arg(long)]
    node_port: Option<u16>,
    #[command(flatten)]
    making: Making,
}

#[derive(Args, Debug)]
pub(crate) struct ExternalName {
    name: String,
    /// External name of service
    #[arg(long)]
    external_name: String,
    /// Port pairs can be specified as '<port>:<targetPort>'
    #[arg(long, value_delimiter = ',')]
    tcp: Vec<String>,
    #[command(flatten)]
    making: Making,
}

#[derive(Args, Debug)]
pub(crate) struct Role {
    name: String,
    /// Verb that applies to the resources contained in the rule
    #[arg(long, value_delimiter = ',')]
    verb: Vec<String>,
    /// Resource that the rule applies to: RESOURCE[.GROUP][/SUBRESOURCE]
    #[arg(long, value_delimiter = ',')]
    resource: Vec<String>,
    /// Resource in the white list that the rule applies to
    #[arg(long)]
    resource_name: Vec<String>,
    /// A partial url that user should have access to (cluster roles)
    #[arg(long = "non-resource-url", value_delimiter = ',')]
    url: Vec<String>,
    /// An aggregation label selector for combining cluster roles
    #[arg(long, value_delimiter = ',')]
    aggregation_rule: Vec<String>,
    #[command(flatten)]
    making: Making,
}

#[derive(Args, Debug)]
pub(crate) struct Binding {
    name: String,
    /// ClusterRole this binding should reference
    #[arg(long)]
    clusterrole: Option<String>,
    /// Role this binding should reference
    #[arg(long)]
    role: Option<String>,
    /// Usernames to bind to the role
    #[arg(long)]
    user: Vec<String>,
    /// Groups to bind to the role
    #[arg(long)]
    group: Vec<String>,
    /// Service accounts to bind to the role, in the format <namespace>:<name>
    #[arg(long)]
    serviceaccount: Vec<String>,
    #[command(flatten)]
    making: Making,
}

#[derive(Args, Debug)]
pub(crate) struct Budget {
    name: String,
    /// A label selector to use for this budget
    #[arg(long)]
    selector: String,
    /// The minimum number or percentage of available pods this budget requires
    #[arg(long, required_unless_present = "max_unavailable")]
    min_available: Option<String>,
    /// The maximum number or percentage of unavailable pods this budget requires
    #[arg(long, conflicts_with = "min_available")]
    max_unavailable: Option<String>,
    #[command(flatten)]
    making: Making,
}

#[derive(Args, Debug)]
pub(crate) struct PriorityClass {
    name: String,
    /// The value of this priority class
    #[arg(long, allow_negative_numbers = true)]
    value: i32,
    /// Specifies whether this PriorityClass should be considered as the default priority
    #[arg(long)]
    global_default: bool,
    /// Provides guidelines on when this priority class should be used
    #[arg(long, default_value = "")]
    description: String,
    /// The policy for preempting pods with lower priority
    #[arg(long, default_value = "PreemptLowerPriority")]
    preemption_policy: String,
    #[command(flatten)]
    making: Making,
}

#[derive(Args, Debug)]
pub(crate) struct Token {
    /// The service account
    name: String,
    /// Requested lifetime of the issued token, such as 10m; the server may choose another
    #[arg(long, value_parser = crate::commands::duration)]
    duration: Option<std::time::Duration>,
    /// Audience of the requested token
    #[arg(long)]
    audience: Vec<String>,
}

impl Generator {
    pub(crate) async fn run(self, global: &Global) -> Result<(), Failure> {
        if let Self::Token(token) = &self {
            return token.run(global).await;
        }
        let (making, object) = self.object()?;
        let session = Session::open(global).await?;
        make(&session, &making, object).await
    }

    fn object(self) -> Result<(Making, Value), Failure> {
        Ok(match self {
            Self::Namespace(it) => (it.making, object("v1", "Namespace", &it.name)),
            Self::Serviceaccount(it) => (it.making, object("v1", "ServiceAccount", &it.name)),
            Self::Configmap(it) => {
                let mut made = object("v1", "ConfigMap", &it.name);
                data::into_config_map(it.sources.read()?, &mut made);
                (it.making, made)
            }
            Self::Secret(it) => it.object()?,
            Self::Deployment(it) => it.object(),
            Self::Job(it) => it.job(),
            Self::Cronjob(it) => it.cron_job()?,
            Self::Service(it) => it.object()?,
            Self::Role(it) => it.object("Role")?,
            Self::Clusterrole(it) => it.object("ClusterRole")?,
            Self::Rolebinding(it) => it.object("RoleBinding")?,
            Self::Clusterrolebinding(it) => it.object("ClusterRoleBinding")?,
            Self::Poddisruptionbudget(it) => {
                let mut made = object("policy/v1", "PodDisruptionBudget", &it.name);
                let labels: Vec<String> = it.selector.split(',').map(str::to_owned).collect();
                made["spec"] = json!({"selector": {"matchLabels": pairs(&labels, "selector")?}});
                for (key, value) in
                    [("minAvailable", it.min_available), ("maxUnavailable", it.max_unavailable)]
                {
                    if let Some(value) = value {
                        made["spec"][key] = number_or_text(&value);
                    }
                }
                (it.making, made)
            }
            Self::Priorityclass(it) => {
                let mut made = object("scheduling.k8s.io/v1", "PriorityClass", &it.name);
                made["value"] = it.value.into();
                made["globalDefault"] = it.global_default.into();
                made["description"] = it.description.into();
                made["preemptionPolicy"] = it.preemption_policy.into();
                (it.making, made)
            }
            Self::Token(_) => return Err(Failure::new("error: a token is requested, not made")),
        })
    }
}

/// Sends an object that was made here.
async fn make(session: &Session, making: &Making, mut object: Value) -> Result<(), Failure> {
    making.check()?;
    let (api_version, kind) = (text(&object, "apiVersion").to_owned(), text(&object, "kind").to_owned());
    let mapping = session.kind(&api_version, &kind).await?.ok_or_else(|| {
        Failure::new(format!("error: no matches for kind {kind:?} in version {api_version:?}"))
    })?;
    if let Some(namespace) = session.explicit_namespace().filter(|_| mapping.namespaced) {
        object["metadata"]["namespace"] = namespace.into();
    }
    let mut printer = making.output.printer()?;
    let sent = making.send(session, &mapping, session.namespace(), &object, &mut printer).await;
    sent.map_err(|error| match (error, failed_to(&kind)) {
        (ApiError::Refused(refusal), Some(doing)) => {
            Failure::new(format!("error: failed to create {doing} {}", refusal.message))
        }
        (error, _) => error.into(),
    })
}

/// How kubectl words that an object of this kind can't be created; of some it says only why.
fn failed_to(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "ClusterRoleBinding" => "clusterrolebinding:",
        "ConfigMap" => "configmap:",
        "CronJob" => "cronjob:",
        "Deployment" => "deployment:",
        "Job" => "job:",
        "PodDisruptionBudget" => "poddisruptionbudget:",
        "PriorityClass" => "priorityclass:",
        "RoleBinding" => "rolebinding:",
        "Secret" => "secret",
        "ServiceAccount" => "serviceaccount:",
        _ => return None,
    })
}

fn object(api_version: &str, kind: &str, name: &str) -> Value {
    json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": name}})
}

fn number_or_text(text: &str) -> Value {
    text.parse::<i64>().map_or_else(|_| text.into(), Value::from)
}

impl Secret {
    fn object(self) -> Result<(Making, Value), Failure> {
        Ok(match self {
            Self::Generic(it) => {
                let mut made = object("v1", "Secret", &it.name);
                if let Some(kind) = it.kind {
                    made["type"] = kind.into();
                }
                made["data"] = data::encoded(it.sources.read()?);
                (it.making, made)
            }
            Self::Tls(it) => {
                let mut made = object("v1", "Secret", &it.name);
                made["type"] = "kubernetes.io/tls".into();
                let files = [("tls.crt", it.cert), ("tls.key", it.key)];
                let read = files.map(|(key, path)| Ok((key.to_owned(), data::file(&path)?)));
                made["data"] = data::encoded(read.into_iter().collect::<Result<_, Failure>>()?);
                (it.making, made)
            }
            Self::DockerRegistry(it) => {
                let mut made = object("v1", "Secret", &it.name);
                made["type"] = "kubernetes.io/dockerconfigjson".into();
                let auth = data::base64(format!("{}:{}", it.docker_username, it.docker_password).as_bytes());
                let mut entry =
                    json!({"username": it.docker_username, "password": it.docker_password, "auth": auth});
                if !it.docker_email.is_empty() {
                    entry["email"] = it.docker_email.into();
                }
                let config = json!({"auths": {it.docker_server: entry}}).to_string();
                made["data"] = data::encoded(vec![(".dockerconfigjson".to_owned(), config.into_bytes())]);
                (it.making, made)
            }
        })
    }
}

/// A container's name from its image: the last part, without tag or digest.
fn container_name(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    let bare = last.split([':', '@']).next().unwrap_or(last);
    bare.to_lowercase().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect()
}

impl Deployment {
    fn object(self) -> (Making, Value) {
        let labels = json!({"app": self.name});
        let mut containers: Vec<Value> = Vec::new();
        for image in &self.image {
            let name = container_name(image);
            let same = containers
                .iter()
                .filter(|c| text(c, "image") != image && text(c, "name").starts_with(&name))
                .count();
            let name = if same > 0 { format!("{name}-{same}") } else { name };
            let mut container = json!({"name": name, "image": image, "resources": {}});
            if let Some(port) = self.port {
                container["ports"] = json!([{"containerPort": port}]);
            }
            if !self.command.is_empty() {
                container["command"] = json!(self.command);
            }
            containers.push(container);
        }
        let mut made = object("apps/v1", "Deployment", &self.name);
        made["metadata"]["labels"] = labels.clone();
        made["spec"] = json!({
            "replicas": self.replicas, "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": containers}},
        });
        (self.making, made)
    }
}

impl Job {
    fn template(&self) -> Value {
        let mut container = json!({"name": self.name, "image": self.image, "resources": {}});
        if !self.command.is_empty() {
            container["command"] = json!(self.command);
        }
        let restart =
            self.restart.as_deref().unwrap_or(if self.schedule.is_some() { "OnFailure" } else { "Never" });
        json!({"metadata": {}, "spec": {"containers": [container], "restartPolicy": restart}})
    }

    fn job(self) -> (Making, Value) {
        let mut made = object("batch/v1", "Job", &self.name);
        made["spec"] = json!({"template": self.template()});
        (self.making, made)
    }

    fn cron_job(self) -> Result<(Making, Value), Failure> {
        let Some(schedule) = &self.schedule else {
            return Err(Failure::new("error: required flag(s) \"schedule\" not set"));
        };
        let mut made = object("batch/v1", "CronJob", &self.name);
        made["spec"] = json!({
            "schedule": schedule,
            "jobTemplate": {"metadata": {"name": self.name}, "spec": {"template": self.template()}},
        });
        Ok((self.making, made))
    }
}

impl Service {
    fn object(self) -> Result<(Making, Value), Failure> {
        let (kind, it) = match self {
            Self::Externalname(it) => {
                let mut made = object("v1", "Service", &it.name);
                made["metadata"]["labels"] = json!({"app": it.name});
                made["spec"] = json!({"type": "ExternalName", "externalName": it.external_name, "selector": {"app": it.name}});
                if !it.tcp.is_empty() {
                    made["spec"]["ports"] = ports(&it.tcp, None)?;
                }
                return Ok((it.making, made));
            }
            Self::Clusterip(it) => ("ClusterIP", it),
            Self::Nodeport(it) => ("NodePort", it),
            Self::Loadbalancer(it) => ("LoadBalancer", it),
        };
        let headless = it.clusterip.as_deref() == Some("None");
        if it.tcp.is_empty() && !headless {
            return Err(Failure::new("error: at least one tcp port specifier must be provided"));
        }
        let mut made = object("v1", "Service", &it.name);
        made["metadata"]["labels"] = json!({"app": it.name});
        made["spec"] =
            json!({"type": kind, "selector": {"app": it.name}, "ports": ports(&it.tcp, it.node_port)?});
        if let Some(address) = &it.clusterip {
            made["spec"]["clusterIP"] = address.as_str().into();
        }
        Ok((it.making, made))
    }
}

fn ports(specs: &[String], node_port: Option<u16>) -> Result<Value, Failure> {
    let port = |spec: &String| {
        let (port, target) = spec.split_once(':').unwrap_or((spec, spec));
        let number: u16 =
            port.parse().map_err(|_| Failure::new(format!("error: invalid port spec {spec:?}")))?;
        let name = spec.replace(':', "-");
        let mut made =
            json!({"name": name, "port": number, "protocol": "TCP", "targetPort": number_or_text(target)});
        if let Some(node_port) = node_port {
            made["nodePort"] = node_port.into();
        }
        Ok(made)
    };
    specs.iter().map(port).collect()
}

impl Role {
    fn object(self, kind: &str) -> Result<(Making, Value), Failure> {
        let mut made = object("rbac.authorization.k8s.io/v1", kind, &self.name);
        if !self.aggregation_rule.is_empty() {
            let labels = pairs(&self.aggregation_rule, "aggregation rule")?;
            made["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": labels}]});
            made["rules"] = json!([]);
            return Ok((self.making, made));
        }
        if self.verb.is_empty() {
            return Err(Failure::new("error: at least one verb must be specified"));
        }
        if self.resource.is_empty() && self.url.is_empty() {
            return Err(Failure::new("error: at least one resource must be specified"));
        }
        let mut rules: Vec<Value> = Vec::new();
        for resource in &self.resource {
            let (resource, sub) =
                resource.split_once('/').map_or((resource.as_str(), None), |(r, s)| (r, Some(s)));
            let table = api::resource::Table::builtin();
            let (plural, group) = match table.find(resource).first() {
                Some(row) => (row.plural.to_string(), row.group.to_string()),
                None => {
                    let (plural, group) = resource.split_once('.').unwrap_or((resource, ""));
                    (plural.to_owned(), group.to_owned())
                }
            };
            let full = sub.map_or(plural.clone(), |sub| format!("{plural}/{sub}"));
            let same = rules.iter_mut().find(|rule| rule["apiGroups"] == json!([group]));
            match same.and_then(|rule| rule["resources"].as_array_mut()) {
                Some(list) => list.push(full.into()),
                None => {
                    let mut rule = json!({"apiGroups": [group], "resources": [full], "verbs": self.verb});
                    if !self.resource_name.is_empty() {
                        rule["resourceNames"] = json!(self.resource_name);
                    }
                    rules.push(rule);
                }
            }
        }
        if !self.url.is_empty() {
            rules.push(json!({"nonResourceURLs": self.url, "verbs": self.verb}));
        }
        made["rules"] = rules.into();
        Ok((self.making, made))
    }
}

impl Binding {
    fn object(self, kind: &str) -> Result<(Making, Value), Failure> {
        const GROUP: &str = "rbac.authorization.k8s.io";
        let (role_kind, role) = match (&self.clusterrole, &self.role) {
            (Some(role), None) => ("ClusterRole", role),
            (None, Some(role)) if kind == "RoleBinding" => ("Role", role),
            _ if kind == "RoleBinding" => {
                return Err(Failure::new("error: exactly one of clusterrole or role must be specified"));
            }
            _ => return Err(Failure::new("error: clusterrole must be specified")),
        };
        let subject = |kind: &str, name: &String| json!({"apiGroup": GROUP, "kind": kind, "name": name});
        let mut subjects: Vec<Value> = self.user.iter().map(|name| subject("User", name)).collect();
        subjects.extend(self.group.iter().map(|name| subject("Group", name)));
        for account in &self.serviceaccount {
            let Some((namespace, name)) = account.split_once(':') else {
                return Err(Failure::new("error: serviceaccount must be <namespace>:<name>"));
            };
            subjects.push(json!({"kind": "ServiceAccount", "name": name, "namespace": namespace}));
        }
        let mut made = object("rbac.authorization.k8s.io/v1", kind, &self.name);
        made["roleRef"] = json!({"apiGroup": GROUP, "kind": role_kind, "name": role});
        made["subjects"] = subjects.into();
        Ok((self.making, made))
    }
}

impl Token {
    async fn run(&self, global: &Global) -> Result<(), Failure> {
        let session = Session::open(global).await?;
        let mut spec = Map::new();
        if let Some(duration) = self.duration {
            spec.insert("expirationSeconds".to_owned(), duration.as_secs().into());
        }
        if !self.audience.is_empty() {
            spec.insert("audiences".to_owned(), json!(self.audience));
        }
        let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec});
        let accounts = crate::resources::Mapping::builtin("", "serviceaccounts")?;
        let path = format!("{}/token", accounts.object(session.namespace(), &self.name));
        let answer = session.json(Call::post(path, &request)).await?;
        match text(&answer, "status.token") {
            "" => Err(Failure::new(format!(
                "error: failed to create token: no token in server response ({})",
                name(&answer)
            ))),
            token => print(format!("{token}\n")),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(subcommand)]
        generator: Generator,
    }

    fn made(line: &str) -> Value {
        let line = Line::try_parse_from(std::iter::once("create").chain(line.split(' ')))
            .unwrap_or_else(|e| panic!("{e}"));
        line.generator.object().unwrap_or_else(|failure| panic!("{failure}")).1
    }

    #[test]
    fn flags_become_objects() {
        let deployment =
            made("deployment hello --image=skiff.local/hello:1 --replicas=3 --port=8080 -- /x y");
        assert_eq!(
            deployment["spec"]["template"]["spec"]["containers"],
            json!([{"name": "hello", "image": "skiff.local/hello:1", "resources": {}, "ports": [{"containerPort": 8080}], "command": ["/x", "y"]}])
        );
        assert_eq!(deployment["spec"]["replicas"], 3);
        assert_eq!(made("cm a --from-literal=k=v=w")["data"], json!({"k": "v=w"}));
        assert_eq!(made("secret generic a --from-literal=k=v")["data"], json!({"k": "dg=="}));
        assert_eq!(
            made("service clusterip a --tcp=80:8080")["spec"]["ports"],
            json!([{"name": "80-8080", "port": 80, "protocol": "TCP", "targetPort": 8080}])
        );
        assert_eq!(
            made("role r --verb=get,list --resource=pods,deploy,pods/log")["rules"],
            json!([
                {"apiGroups": [""], "resources": ["pods", "pods/log"], "verbs": ["get", "list"]},
                {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["get", "list"]},
            ])
        );
        assert_eq!(
            made("rolebinding b --clusterrole=view --serviceaccount=default:x --user=u")["subjects"],
            json!([
                {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "u"},
                {"kind": "ServiceAccount", "name": "x", "namespace": "default"},
            ])
        );
        assert_eq!(
            made("pdb p --selector=app=a --min-available=50%")["spec"],
            json!({"selector": {"matchLabels": {"app": "a"}}, "minAvailable": "50%"})
        );
        assert_eq!(made("cronjob c --image=i --schedule=@daily")["spec"]["schedule"], "@daily");
    }
}
