//! `skiff config`: the kubeconfig files, without asking a cluster.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::{Global, print};
use crate::Failure;
use crate::failure::Because;
use crate::output::{json, yaml};
use crate::resources::session::kubeconfig_files;
use crate::resources::{items, text};

#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    /// Display merged kubeconfig settings
    View(View),
    /// Describe one or many contexts
    GetContexts(GetContexts),
    /// Set the current-context in a kubeconfig file
    #[command(visible_alias = "use")]
    UseContext { name: String },
    /// Display the current-context
    CurrentContext,
    /// Display clusters defined in the kubeconfig
    GetClusters,
    /// Display users defined in the kubeconfig
    GetUsers,
    /// Set a context entry in kubeconfig
    SetContext(SetContext),
    /// Delete the specified context from the kubeconfig
    DeleteContext { name: String },
    /// Rename a context from the kubeconfig file
    RenameContext { old: String, new: String },
}

#[derive(Args, Debug)]
pub(crate) struct View {
    /// Remove all information not used by current-context from the output
    #[arg(long)]
    minify: bool,
    /// Display raw byte data and sensitive data
    #[arg(long)]
    raw: bool,
    /// Output format: yaml, json, or jsonpath=...
    #[arg(long, short = 'o', default_value = "yaml")]
    output: String,
}

#[derive(Args, Debug)]
pub(crate) struct GetContexts {
    names: Vec<String>,
    /// Output format: name
    #[arg(long, short = 'o')]
    output: Option<String>,
    /// Don't print headers
    #[arg(long)]
    no_headers: bool,
}

#[derive(Args, Debug)]
pub(crate) struct SetContext {
    /// The context to set
    name: Option<String>,
    /// Modify the current context
    #[arg(long)]
    current: bool,
    /// cluster for the context entry in kubeconfig
    #[arg(long)]
    cluster: Option<String>,
    /// user for the context entry in kubeconfig
    #[arg(long)]
    user: Option<String>,
}

/// The files that there are, and what they say together. Of entries of one name the first counts.
struct Files {
    each: Vec<(PathBuf, Value)>,
    merged: Value,
}

impl Files {
    fn read(global: &Global) -> Result<Self, Failure> {
        let mut each = Vec::new();
        for path in kubeconfig_files(global) {
            match std::fs::read_to_string(&path) {
                Ok(content) => {
                    let value: Value = if content.trim().is_empty() {
                        json!({})
                    } else {
                        serde_saphyr::from_str(&content).because(format!("error: {}", path.display()))?
                    };
                    each.push((path, value));
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => each.push((path, json!({}))),
                Err(error) => return Err(Failure::new(format!("error: {}: {error}", path.display()))),
            }
        }
        let mut merged = json!({"apiVersion": "v1", "kind": "Config", "current-context": ""});
        for list in ["clusters", "contexts", "users"] {
            let mut all: Vec<Value> = Vec::new();
            for (_, file) in &each {
                for entry in items(file, list) {
                    if !all.iter().any(|other| other["name"] == entry["name"]) {
                        all.push(entry.clone());
                    }
                }
            }
            all.sort_by_key(|entry| text(entry, "name").to_owned());
            merged[list] = if all.is_empty() { Value::Null } else { Value::Array(all) };
        }
        let current =
            each.iter().map(|(_, file)| text(file, "current-context")).find(|name| !name.is_empty());
        let current = global.context.as_deref().or(current).unwrap_or_default();
        merged["current-context"] = current.into();
        Ok(Self { each, merged })
    }

    fn current(&self) -> &str {
        text(&self.merged, "current-context")
    }

    fn entry<'a>(&'a self, list: &str, name: &str) -> Option<&'a Value> {
        items(&self.merged, list).iter().find(|entry| entry["name"] == name)
    }

    /// Changes the file that has the context, or else the first.
    fn change(
        &mut self,
        context: &str,
        change: impl FnOnce(&mut Map<String, Value>),
    ) -> Result<PathBuf, Failure> {
        let has = |(_, file): &(PathBuf, Value)| items(file, "contexts").iter().any(|c| c["name"] == context);
        let index = self.each.iter().position(has).unwrap_or(0);
        let Some((path, Value::Object(map))) = self.each.get_mut(index) else {
            return Err(Failure::new("error: no kubeconfig file to change"));
        };
        map.entry("apiVersion").or_insert_with(|| "v1".into());
        map.entry("kind").or_insert_with(|| "Config".into());
        change(map);
        write(path, map)?;
        Ok(path.clone())
    }
}

fn write(path: &Path, map: &Map<String, Value>) -> Result<(), Failure> {
    crate::kubeconfig::write(path, &Value::Object(map.clone()))
}

impl Config {
    pub(crate) fn run(self, global: &Global) -> Result<(), Failure> {
        let mut files = Files::read(global)?;
        match self {
            Self::View(view) => view.run(&files),
            Self::GetContexts(get) => get.run(&files),
            Self::CurrentContext => match files.current() {
                "" => Err(Failure::new("error: current-context is not set")),
                current => print(format!("{current}\n")),
            },
            Self::UseContext { name } => {
                if files.entry("contexts", &name).is_none() {
                    return Err(Failure::new(format!("error: no context exists with the name: {name:?}")));
                }
                // Where the current context is set, it is changed: the strongest file's.
                let owner = files.each.iter().position(|(_, file)| !text(file, "current-context").is_empty());
                let index = owner.unwrap_or(0);
                if let Some((path, Value::Object(map))) = files.each.get_mut(index) {
                    map.insert("current-context".to_owned(), name.clone().into());
                    write(path, map)?;
                }
                print(format!("Switched to context {name:?}.\n"))
            }
            Self::GetClusters => names(&files, "clusters"),
            Self::GetUsers => names(&files, "users"),
            Self::SetContext(set) => set.run(&mut files, global),
            Self::DeleteContext { name } => {
                if files.entry("contexts", &name).is_none() {
                    let path =
                        files.each.first().map(|(path, _)| path.display().to_string()).unwrap_or_default();
                    return Err(Failure::new(format!("error: cannot delete context {name}, not in {path}")));
                }
                if files.current() == name {
                    eprintln!(
                        "warning: this removed your active context, use \"skiff config use-context\" to select a different one"
                    );
                }
                let path = files.change(&name, |map| {
                    if let Some(contexts) = map.get_mut("contexts").and_then(Value::as_array_mut) {
                        contexts.retain(|context| context["name"] != name.as_str());
                    }
                })?;
                print(format!("deleted context {name} from {}\n", path.display()))
            }
            Self::RenameContext { old, new } => {
                if files.entry("contexts", &old).is_none() {
                    return Err(Failure::new(format!(
                        "error: cannot rename the context {old:?}, it's not in the kubeconfig"
                    )));
                }
                if files.entry("contexts", &new).is_some() {
                    return Err(Failure::new(format!(
                        "error: cannot rename the context {old:?}, the context {new:?} already exists in the kubeconfig"
                    )));
                }
                files.change(&old, |map| {
                    for context in map.get_mut("contexts").and_then(Value::as_array_mut).into_iter().flatten()
                    {
                        if context["name"] == old.as_str() {
                            context["name"] = new.as_str().into();
                        }
                    }
                    if map.get("current-context").is_some_and(|current| *current == old.as_str()) {
                        map.insert("current-context".to_owned(), new.as_str().into());
                    }
                })?;
                print(format!("Context {old:?} renamed to {new:?}.\n"))
            }
        }
    }
}

fn names(files: &Files, list: &str) -> Result<(), Failure> {
    let names = items(&files.merged, list).iter().map(|entry| format!("{}\n", text(entry, "name")));
    print(format!("NAME\n{}", names.collect::<String>()))
}

impl View {
    fn run(&self, files: &Files) -> Result<(), Failure> {
        let mut shown = files.merged.clone();
        if self.minify {
            let current = files.current();
            let context = files.entry("contexts", current).cloned();
            let Some(context) = context else {
                return Err(Failure::new("error: current-context must exist in order to minify"));
            };
            for (list, name) in
                [("clusters", text(&context, "context.cluster")), ("users", text(&context, "context.user"))]
            {
                shown[list] = files.entry(list, name).cloned().into_iter().collect();
            }
            shown["contexts"] = json!([context]);
        }
        if !self.raw {
            for entry in shown["clusters"].as_array_mut().into_iter().flatten() {
                redact(&mut entry["cluster"], &["certificate-authority-data"], "DATA+OMITTED");
            }
            for entry in shown["users"].as_array_mut().into_iter().flatten() {
                redact(&mut entry["user"], &["client-certificate-data", "client-key-data"], "DATA+OMITTED");
                redact(&mut entry["user"], &["token", "password"], "REDACTED");
            }
        }
        match self.output.as_str() {
            "yaml" => print(yaml::to_string(&shown)),
            "json" => print(json::pretty(&shown)),
            other => {
                let format: crate::output::Format = other.parse()?;
                print(format.whole(&crate::resources::Mapping::builtin("", "pods")?, &shown)?)
            }
        }
    }
}

fn redact(value: &mut Value, keys: &[&str], with: &str) {
    for key in keys {
        if let Some(secret) = value.get_mut(*key) {
            *secret = with.into();
        }
    }
}

impl GetContexts {
    fn run(&self, files: &Files) -> Result<(), Failure> {
        for name in &self.names {
            if files.entry("contexts", name).is_none() {
                return Err(Failure::new(format!("error: context {name} not found")));
            }
        }
        let chosen = items(&files.merged, "contexts").iter().filter(|context| {
            self.names.is_empty() || self.names.iter().any(|name| context["name"] == name.as_str())
        });
        if self.output.as_deref() == Some("name") {
            return print(chosen.map(|context| format!("{}\n", text(context, "name"))).collect::<String>());
        }
        let mut rows = Vec::new();
        if !self.no_headers {
            rows.push(["CURRENT", "NAME", "CLUSTER", "AUTHINFO", "NAMESPACE"].map(str::to_owned).to_vec());
        }
        for context in chosen {
            let name = text(context, "name");
            let mark = if name == files.current() { "*" } else { "" };
            let fields =
                ["cluster", "user", "namespace"].map(|key| text(&context["context"], key).to_owned());
            let [cluster, user, namespace] = fields;
            rows.push(vec![mark.to_owned(), name.to_owned(), cluster, user, namespace]);
        }
        print(crate::output::table::aligned(&rows))
    }
}

impl SetContext {
    fn run(&self, files: &mut Files, global: &Global) -> Result<(), Failure> {
        let name = match (&self.name, self.current) {
            (Some(name), false) => name.clone(),
            (None, true) if !files.current().is_empty() => files.current().to_owned(),
            (None, true) => return Err(Failure::new("error: no current context is set")),
            _ => return Err(Failure::usage("error: you must specify a non-empty context name or --current")),
        };
        let created = files.entry("contexts", &name).is_none();
        let settings = [("cluster", &self.cluster), ("user", &self.user), ("namespace", &global.namespace)];
        files.change(&name, |map| {
            let contexts = map.entry("contexts").or_insert_with(|| json!([]));
            if !contexts.is_array() {
                *contexts = json!([]);
            }
            let Some(contexts) = contexts.as_array_mut() else { return };
            if !contexts.iter().any(|context| context["name"] == name.as_str()) {
                contexts.push(json!({"name": name, "context": {"cluster": "", "user": ""}}));
            }
            for context in contexts.iter_mut().filter(|context| context["name"] == name.as_str()) {
                for (key, value) in settings {
                    if let Some(value) = value {
                        context["context"][key] = value.as_str().into();
                    }
                }
            }
        })?;
        print(format!("Context {name:?} {}.\n", if created { "created" } else { "modified" }))
    }
}
