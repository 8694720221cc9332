//! `skiff auth`: who one is to the server, and what one may do.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::print;
use crate::Failure;
use crate::output::OutputArgs;
use crate::output::table::aligned;
use crate::resources::{Call, Mapping, Session, items, text};

const GROUP: &str = "authorization.k8s.io/v1";
/// Verbs that a rule can name; others are taken, with a warning.
const VERBS: [&str; 15] = [
    "get",
    "list",
    "watch",
    "create",
    "update",
    "patch",
    "delete",
    "deletecollection",
    "use",
    "bind",
    "impersonate",
    "*",
    "approve",
    "sign",
    "escalate",
];

#[derive(Debug, Subcommand)]
pub(crate) enum Auth {
    /// Check whether an action is allowed
    CanI(CanI),
    /// Experimental: Check self subject attributes
    Whoami(Whoami),
}

impl Auth {
    pub(crate) async fn run(self, session: &Session) -> Result<ExitCode, Failure> {
        match self {
            Self::CanI(can) => can.run(session).await,
            Self::Whoami(who) => who.run(session).await.map(|()| ExitCode::SUCCESS),
        }
    }
}

#[derive(Args, Debug)]
pub(crate) struct CanI {
    /// VERB, then TYPE, TYPE/NAME or a URL path
    #[arg(value_name = "VERB TYPE | TYPE/NAME | URL")]
    words: Vec<String>,
    /// If true, check the specified action in all namespaces
    #[arg(long, short = 'A')]
    all_namespaces: bool,
    /// If true, suppress output and just return the exit code
    #[arg(long, short = 'q')]
    quiet: bool,
    /// If true, prints all allowed actions
    #[arg(long)]
    list: bool,
    /// If true, prints allowed actions without headers
    #[arg(long)]
    no_headers: bool,
    /// SubResource such as pod/log or deployment/scale
    #[arg(long, value_name = "NAME")]
    subresource: Option<String>,
}

impl CanI {
    async fn run(self, session: &Session) -> Result<ExitCode, Failure> {
        if self.list {
            return self.rules(session).await.map(|()| ExitCode::SUCCESS);
        }
        let (verb, what) = match self.words.as_slice() {
            [verb] => (verb, None),
            [verb, what] => (verb, Some(what.as_str())),
            _ => {
                return Err(Failure::new(
                    "error: you must specify two arguments: verb resource or verb resource/resourceName.\nSee 'skiff auth \
                     can-i -h' for help and examples.",
                ));
            }
        };
        if !VERBS.contains(&verb.as_str()) {
            eprintln!("Warning: verb '{verb}' is not a known verb");
        }
        let spec = match what {
            Some(url) if url.starts_with('/') => {
                json!({"nonResourceAttributes": {"path": url, "verb": verb}})
            }
            what => json!({"resourceAttributes": self.attributes(session, verb, what.unwrap_or("*")).await?}),
        };
        let review = json!({"apiVersion": GROUP, "kind": "SelfSubjectAccessReview", "spec": spec});
        let answer =
            session.json(Call::post(format!("/apis/{GROUP}/selfsubjectaccessreviews"), &review)).await?;
        let allowed = answer["status"]["allowed"] == true;
        if !self.quiet {
            let mut said = if allowed { "yes" } else { "no" }.to_owned();
            for (title, path) in [("", "status.reason"), ("", "status.evaluationError")] {
                if !allowed && !text(&answer, path).is_empty() {
                    said = format!("{said} - {title}{}", text(&answer, path));
                }
            }
            print(format!("{said}\n"))?;
        }
        Ok(if allowed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    async fn attributes(&self, session: &Session, verb: &str, what: &str) -> Result<Value, Failure> {
        let (kind, name) = what.split_once('/').unwrap_or((what, ""));
        let mut mapping: Option<Mapping> = None;
        if kind != "*" {
            mapping = session.resource(kind).await.ok();
        }
        let namespace = if self.all_namespaces { "" } else { session.namespace() };
        if let Some(mapping) = mapping.as_ref().filter(|mapping| !mapping.namespaced && !namespace.is_empty())
        {
            let group = match mapping.group.as_str() {
                "" => String::new(),
                group => format!(" in group '{group}'"),
            };
            eprintln!("Warning: resource '{}' is not namespace scoped{group}\n", mapping.plural);
        }
        if mapping.is_none() && kind != "*" {
            eprintln!("Warning: the server doesn't have a resource type '{kind}'\n");
        }
        let (group, plural) = match &mapping {
            Some(mapping) => (mapping.group.clone(), mapping.plural.clone()),
            None if kind == "*" => ("*".to_owned(), "*".to_owned()),
            None => {
                let (plural, group) = kind.split_once('.').unwrap_or((kind, ""));
                (group.to_owned(), plural.to_owned())
            }
        };
        Ok(json!({
            "namespace": namespace, "verb": verb, "group": group, "resource": plural, "name": name,
            "subresource": self.subresource.as_deref().unwrap_or_default(),
        }))
    }

    async fn rules(&self, session: &Session) -> Result<(), Failure> {
        let review = json!({
            "apiVersion": GROUP, "kind": "SelfSubjectRulesReview", "spec": {"namespace": session.namespace()},
        });
        let answer =
            session.json(Call::post(format!("/apis/{GROUP}/selfsubjectrulesreviews"), &review)).await?;
        if answer["status"]["incomplete"] == true {
            eprintln!("warning: the list may be incomplete: {}", text(&answer, "status.evaluationError"));
        }
        let words = |rule: &Value, field: &str| -> Vec<String> {
            items(rule, field).iter().filter_map(|word| word.as_str().map(str::to_owned)).collect()
        };
        let bracketed = |words: &[String]| format!("[{}]", words.join(" "));
        // By verbs, then by what they are about: so does kubectl.
        let mut rows = Vec::new();
        for rule in items(&answer, "status.resourceRules") {
            let groups = words(rule, "apiGroups");
            for resource in words(rule, "resources") {
                for group in &groups {
                    let named =
                        if group.is_empty() { resource.clone() } else { format!("{resource}.{group}") };
                    let row = vec![
                        named,
                        bracketed(&[]),
                        bracketed(&words(rule, "resourceNames")),
                        bracketed(&words(rule, "verbs")),
                    ];
                    let key = [
                        &words(rule, "verbs")[..],
                        std::slice::from_ref(group),
                        std::slice::from_ref(&resource),
                    ]
                    .map(bracketed);
                    rows.push((key, row));
                }
            }
        }
        for rule in items(&answer, "status.nonResourceRules") {
            for url in words(rule, "nonResourceURLs") {
                let verbs = words(rule, "verbs");
                let row = vec![
                    String::new(),
                    bracketed(std::slice::from_ref(&url)),
                    bracketed(&[]),
                    bracketed(&verbs),
                ];
                let key = [&verbs[..], &[], &[url]].map(bracketed);
                rows.push((key, row));
            }
        }
        rows.sort();
        let mut rows: Vec<Vec<String>> = rows.into_iter().map(|(_, row)| row).collect();
        if !self.no_headers {
            let header = ["Resources", "Non-Resource URLs", "Resource Names", "Verbs"];
            rows.insert(0, header.map(str::to_owned).to_vec());
        }
        print(aligned(&rows))
    }
}

#[derive(Args, Debug)]
pub(crate) struct Whoami {
    #[command(flatten)]
    output: OutputArgs,
}

impl Whoami {
    async fn run(self, session: &Session) -> Result<(), Failure> {
        let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
        let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
        let answer = session.json(Call::post(path, &review)).await?;
        let format = self.output.format()?;
        if !format.is_table() {
            return print(
                format.whole(&Mapping::builtin("authentication.k8s.io", "selfsubjectreviews")?, &answer)?,
            );
        }
        let user = &answer["status"]["userInfo"];
        let mut rows = vec![vec!["ATTRIBUTE".to_owned(), "VALUE".to_owned()]];
        let mut row = |title: String, value: String| {
            if !value.is_empty() {
                rows.push(vec![title, value]);
            }
        };
        row("Username".to_owned(), text(user, "username").to_owned());
        row("UID".to_owned(), text(user, "uid").to_owned());
        let listed = |values: &[Value]| {
            let words: Vec<&str> = values.iter().filter_map(Value::as_str).collect();
            if words.is_empty() { String::new() } else { format!("[{}]", words.join(" ")) }
        };
        row("Groups".to_owned(), listed(items(user, "groups")));
        for (key, values) in user["extra"].as_object().into_iter().flatten() {
            row(format!("Extra: {key}"), listed(values.as_array().map(Vec::as_slice).unwrap_or_default()));
        }
        print(aligned(&rows))
    }
}
