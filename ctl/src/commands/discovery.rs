//! What the cluster offers: `skiff api-resources`, `api-versions`, `cluster-info` and `events`.

use std::collections::BTreeSet;
use std::io::IsTerminal;

use api::table::age;
use base::Clock;
use clap::Args;
use serde_json::Value;

use super::print;
use crate::Failure;
use crate::output::table::aligned;
use crate::resources::select::Selectors;
use crate::resources::{Call, Mapping, Session, items, name, namespace, number, text};

#[derive(Args, Debug)]
pub(crate) struct ApiResources {
    /// Limit to resources in the specified API group
    #[arg(long)]
    api_group: Option<String>,
    /// If false, non-namespaced resources will be returned
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    namespaced: Option<bool>,
    /// Limit to resources that support the specified verbs
    #[arg(long, value_delimiter = ',')]
    verbs: Vec<String>,
    /// Limit to resources that belong to the specified categories
    #[arg(long, value_delimiter = ',')]
    categories: Vec<String>,
    /// Output format. One of: (wide, name)
    #[arg(long, short = 'o')]
    output: Option<String>,
    /// Don't print headers
    #[arg(long)]
    no_headers: bool,
    /// Sort list of resources by name or kind
    #[arg(long)]
    sort_by: Option<String>,
}

impl ApiResources {
    pub(crate) async fn run(self, session: &Session) -> Result<(), Failure> {
        let mut chosen: Vec<&Mapping> = Vec::new();
        for mapping in session.discover().await? {
            let wanted = self.api_group.as_ref().is_none_or(|group| *group == mapping.group)
                && self.namespaced.is_none_or(|namespaced| namespaced == mapping.namespaced)
                && self.verbs.iter().all(|verb| mapping.verbs.contains(verb))
                && self.categories.iter().all(|category| mapping.categories.contains(category));
            // The first version of a resource is the preferred one.
            let known = chosen.iter().any(|other| other.resource() == mapping.resource());
            if wanted && !known {
                chosen.push(mapping);
            }
        }
        match self.sort_by.as_deref() {
            None => chosen.sort_by_key(|mapping| (mapping.group.clone(), mapping.plural.clone())),
            Some("name") => chosen.sort_by_key(|mapping| mapping.plural.clone()),
            Some("kind") => chosen.sort_by_key(|mapping| mapping.kind.clone()),
            Some(_) => return Err(Failure::usage("error: --sort-by accepts only name or kind")),
        }
        let wide = match self.output.as_deref() {
            None => false,
            Some("wide") => true,
            Some("name") => {
                return print(
                    chosen.iter().map(|mapping| format!("{}\n", mapping.resource())).collect::<String>(),
                );
            }
            Some(other) => return Err(Failure::usage(format!("error: --output {other} is not available"))),
        };
        let mut rows = Vec::new();
        if !self.no_headers {
            let mut header = vec!["NAME", "SHORTNAMES", "APIVERSION", "NAMESPACED", "KIND"];
            if wide {
                header.extend(["VERBS", "CATEGORIES"]);
            }
            rows.push(header.into_iter().map(str::to_owned).collect());
        }
        for mapping in chosen {
            let mut row = vec![
                mapping.plural.clone(),
                mapping.short_names.join(","),
                mapping.api_version(),
                mapping.namespaced.to_string(),
                mapping.kind.clone(),
            ];
            if wide {
                row.extend([mapping.verbs.join(","), mapping.categories.join(",")]);
            }
            rows.push(row);
        }
        print(aligned(&rows))
    }
}

/// `skiff api-versions`
pub(crate) async fn api_versions(session: &Session) -> Result<(), Failure> {
    let versions: BTreeSet<String> = session.discover().await?.iter().map(Mapping::api_version).collect();
    print(versions.iter().map(|version| format!("{version}\n")).collect::<String>())
}

/// `skiff cluster-info`
pub(crate) async fn cluster_info(session: &Session) -> Result<(), Failure> {
    // Proves that somebody is there.
    session.json(Call::get("/version")).await?;
    let colour =
        std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let paint = |text: &str, code: &str| {
        if colour { format!("\x1b[0;{code}m{text}\x1b[0m") } else { text.to_owned() }
    };
    let url = format!("https://{}", session.server());
    print(format!("{} is running at {}\n", paint("Kubernetes control plane", "32"), paint(&url, "33")))
}

#[derive(Args, Debug)]
pub(crate) struct Events {
    /// List the requested object(s) across all namespaces
    #[arg(long, short = 'A')]
    all_namespaces: bool,
    /// Filter events to only those pertaining to the specified resource
    #[arg(long = "for", value_name = "TYPE/NAME")]
    about: Option<String>,
    /// Output only events of given types
    #[arg(long, value_delimiter = ',')]
    types: Vec<String>,
    /// Don't print headers
    #[arg(long)]
    no_headers: bool,
}

impl Events {
    pub(crate) async fn run(self, session: &Session) -> Result<(), Failure> {
        let mut selector = Vec::new();
        if let Some(about) = &self.about {
            let (kind, name) = about
                .split_once('/')
                .ok_or_else(|| Failure::new("error: --for must be in resource/name form"))?;
            let mapping = session.resource(kind).await?;
            selector.push(format!("involvedObject.kind={}", mapping.kind));
            selector.push(format!("involvedObject.name={name}"));
        }
        let selectors = Selectors {
            field_selector: (!selector.is_empty()).then(|| selector.join(",")),
            ..Selectors::default()
        };
        let namespace = (!self.all_namespaces).then(|| session.namespace());
        let mut events = session.list(&Mapping::builtin("", "events")?, namespace, &selectors).await?;
        events.retain(|event| {
            self.types.is_empty()
                || self.types.iter().any(|kind| text(event, "type").eq_ignore_ascii_case(kind))
        });
        if events.is_empty() {
            match namespace {
                Some(namespace) => eprintln!("No events found in {namespace} namespace."),
                None => eprintln!("No events found."),
            }
            return Ok(());
        }
        events.sort_by_key(|event| last_seen(event).to_owned());
        let mut rows = Vec::new();
        if !self.no_headers {
            rows.push(
                ["NAMESPACE", "LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"].map(str::to_owned).to_vec(),
            );
        }
        for event in &events {
            let object = &event["involvedObject"];
            rows.push(vec![
                self::namespace(event).to_owned(),
                seen(event),
                text(event, "type").to_owned(),
                text(event, "reason").to_owned(),
                format!("{}/{}", text(object, "kind"), text(object, "name")),
                text(event, "message").trim().to_owned(),
            ]);
        }
        if !self.all_namespaces {
            rows.iter_mut().for_each(|row| drop(row.remove(0)));
        }
        print(aligned(&rows))
    }
}

/// When an event happened last.
pub(super) fn last_seen(event: &Value) -> &str {
    ["series.lastObservedTime", "lastTimestamp", "eventTime", "firstTimestamp", "metadata.creationTimestamp"]
        .iter()
        .map(|path| text(event, path))
        .find(|time| !time.is_empty())
        .unwrap_or_default()
}

/// How long ago, and how often: `5s (x3 over 2m)`.
pub(super) fn seen(event: &Value) -> String {
    let now = Clock::system().now();
    let ago = |time: &str| age(time.parse().ok(), now);
    let count = number(event, "series.count").max(number(event, "count"));
    let last = ago(last_seen(event));
    if count > 1 {
        let first = ["firstTimestamp", "eventTime"]
            .iter()
            .map(|path| text(event, path))
            .find(|time| !time.is_empty());
        return format!("{last} (x{count} over {})", ago(first.unwrap_or_default()));
    }
    last
}

#[derive(Args, Debug)]
pub(crate) struct Top {
    /// pod or node
    what: String,
    /// The name of one of them
    name: Option<String>,
    #[command(flatten)]
    selectors: Selectors,
    /// If present, print output without headers
    #[arg(long)]
    no_headers: bool,
}

impl Top {
    pub(crate) async fn run(self, session: &Session) -> Result<(), Failure> {
        let pods = match self.what.as_str() {
            "pod" | "pods" | "po" => true,
            "node" | "nodes" | "no" => false,
            other => {
                return Err(Failure::usage(format!("error: unknown resource {other:?}: use pod or node")));
            }
        };
        let plural = if pods { "pods" } else { "nodes" };
        let offered = session.discover().await?;
        let metrics =
            offered.iter().find(|mapping| mapping.group == "metrics.k8s.io" && mapping.plural == plural);
        let Some(metrics) = metrics else { return Err(Failure::new("error: Metrics API not available")) };
        let namespace = (!self.selectors.all_namespaces).then(|| session.namespace());
        let found = match &self.name {
            Some(name) => vec![session.json(Call::get(metrics.object(session.namespace(), name))).await?],
            None => session.list(metrics, namespace, &self.selectors).await?,
        };
        let mut rows = Vec::new();
        if !self.no_headers {
            let header: &[&str] = match (pods, self.selectors.all_namespaces) {
                (true, true) => &["NAMESPACE", "NAME", "CPU(cores)", "MEMORY(bytes)"],
                _ => &["NAME", "CPU(cores)", "MEMORY(bytes)"],
            };
            rows.push(header.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>());
        }
        for metric in &found {
            let usages: Vec<&Value> = if pods {
                items(metric, "containers").iter().map(|container| &container["usage"]).collect()
            } else {
                vec![&metric["usage"]]
            };
            let sum = |key: &str| {
                let amounts =
                    usages.iter().filter_map(|usage| api::quantity::Quantity::parse(text(usage, key)).ok());
                amounts.fold(api::quantity::Quantity::from_milli(0), |sum, amount| sum.plus(&amount))
            };
            let mut row = vec![
                name(metric).to_owned(),
                format!("{}m", sum("cpu").milli_value()),
                format!("{}Mi", sum("memory").value() / (1024 * 1024)),
            ];
            if pods && self.selectors.all_namespaces {
                row.insert(0, self::namespace(metric).to_owned());
            }
            rows.push(row);
        }
        print(aligned(&rows))
    }
}
