//! What is recorded of which request: a Policy of `audit.k8s.io/v1`. Pure.

use std::collections::BTreeSet;

use api::field::{Errors, FieldError, Path, aggregate};
use serde_json::{Map, Value};

use crate::RequestInfo;
use crate::UserInfo;

const VERSION: &str = "audit.k8s.io/v1";
const KIND: &str = "Policy";

/// How much is recorded of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    #[default]
    None,
    Metadata,
    Request,
    RequestResponse,
}

/// Where in its way a request is when an event is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    RequestReceived,
    ResponseStarted,
    ResponseComplete,
    Panic,
}

/// Which requests are recorded, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    rules: Vec<Rule>,
    omit: BTreeSet<Stage>,
    omit_managed_fields: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Rule {
    level: Level,
    users: Vec<String>,
    groups: Vec<String>,
    verbs: Vec<String>,
    resources: Vec<Resources>,
    namespaces: Vec<String>,
    paths: Vec<String>,
    omit: BTreeSet<Stage>,
    omit_managed_fields: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Resources {
    group: String,
    resources: Vec<String>,
    names: Vec<String>,
}

/// What the policy says of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict<'a> {
    pub level: Level,
    pub omit: &'a BTreeSet<Stage>,
    pub omit_managed_fields: bool,
}

impl Level {
    const ALL: [(Self, &'static str); 4] = [
        (Self::None, "None"),
        (Self::Metadata, "Metadata"),
        (Self::Request, "Request"),
        (Self::RequestResponse, "RequestResponse"),
    ];

    /// As policies and events write it.
    pub fn word(self) -> &'static str {
        Self::ALL[self as usize].1
    }
}

impl Stage {
    const ALL: [(Self, &'static str); 4] = [
        (Self::RequestReceived, "RequestReceived"),
        (Self::ResponseStarted, "ResponseStarted"),
        (Self::ResponseComplete, "ResponseComplete"),
        (Self::Panic, "Panic"),
    ];

    /// As policies and events write it.
    pub fn word(self) -> &'static str {
        Self::ALL[self as usize].1
    }
}

impl Policy {
    /// Reads a policy's YAML or JSON; what is wrong, with the field.
    pub fn read(text: &[u8]) -> Result<Self, String> {
        let (value, _) = crate::registry::decode::yaml_body(text, false).map_err(|status| status.message)?;
        let mut reader = Reader::default();
        let policy = reader.policy(&value);
        match reader.errors.as_slice() {
            [] => Ok(policy),
            errors => Err(aggregate(errors)),
        }
    }

    /// What is recorded of a request: what the first rule says that it fits.
    pub fn verdict(&self, info: &RequestInfo, user: &UserInfo) -> Verdict<'_> {
        match self.rules.iter().find(|rule| rule.fits(info, user)) {
            Some(rule) => {
                Verdict { level: rule.level, omit: &rule.omit, omit_managed_fields: rule.omit_managed_fields }
            }
            None => Verdict {
                level: Level::None,
                omit: &self.omit,
                omit_managed_fields: self.omit_managed_fields,
            },
        }
    }
}

impl Rule {
    fn fits(&self, info: &RequestInfo, user: &UserInfo) -> bool {
        let any = |list: &[String], wanted: &str| list.is_empty() || list.iter().any(|item| item == wanted);
        if !any(&self.users, &user.name)
            || !self.groups.is_empty() && !self.groups.iter().any(|group| user.in_group(group))
            || !any(&self.verbs, info.verb)
        {
            return false;
        }
        if !self.namespaces.is_empty() || !self.resources.is_empty() {
            return info.resource_request
                && any(&self.namespaces, &info.namespace)
                && (self.resources.is_empty() || self.resources.iter().any(|of| of.fits(info)));
        }
        self.paths.is_empty()
            || !info.resource_request && self.paths.iter().any(|pattern| path_fits(pattern, &info.path))
    }
}

impl Resources {
    fn fits(&self, info: &RequestInfo) -> bool {
        if self.group != info.group && self.group != "*" {
            return false;
        }
        let named = self.names.is_empty() || self.names.contains(&info.name);
        let fits = |pattern: &String| match pattern.split_once('/') {
            _ if pattern == "*" => true,
            None => info.subresource.is_empty() && *pattern == info.resource,
            Some(("*", part)) => !info.subresource.is_empty() && part == info.subresource,
            Some((resource, "*")) => resource == info.resource,
            Some((resource, part)) => resource == info.resource && part == info.subresource,
        };
        self.resources.is_empty() || named && self.resources.iter().any(fits)
    }
}

fn path_fits(pattern: &str, path: &str) -> bool {
    pattern == "*"
        || pattern == path
        || pattern.ends_with('*') && path.starts_with(pattern.trim_end_matches('*'))
}

/// Reads a policy from JSON, and collects what is wrong with it.
#[derive(Default)]
struct Reader {
    errors: Errors,
}

impl Reader {
    fn policy(&mut self, value: &Value) -> Policy {
        let root = Path::root();
        let known = ["apiVersion", "kind", "metadata", "rules", "omitStages", "omitManagedFields"];
        let map = self.map(&root, value, &known);
        let version = map.get("apiVersion").and_then(Value::as_str).unwrap_or_default();
        let kind = map.get("kind").and_then(Value::as_str).unwrap_or_default();
        if version != VERSION {
            self.errors.push(FieldError::not_supported(&root.child("apiVersion"), version, &[VERSION]));
        }
        if kind != KIND {
            self.errors.push(FieldError::not_supported(&root.child("kind"), kind, &[KIND]));
        }
        let omit = self.stages(&root.child("omitStages"), map.get("omitStages"));
        let omit_managed_fields =
            self.flag(&root.child("omitManagedFields"), map.get("omitManagedFields")).unwrap_or(false);
        let at = root.child("rules");
        let rules = self.list(&at, map.get("rules"));
        if rules.is_empty() {
            self.errors.push(FieldError::required(&at, "loaded illegal policy with 0 rules"));
        }
        let read = rules.iter().enumerate().map(|(number, rule)| {
            let mut rule = self.rule(&at.index(number), rule, omit_managed_fields);
            rule.omit.extend(&omit);
            rule
        });
        let rules = read.collect();
        Policy { rules, omit, omit_managed_fields }
    }

    fn rule(&mut self, path: &Path, value: &Value, omit_managed_fields: bool) -> Rule {
        let known = [
            "level",
            "users",
            "userGroups",
            "verbs",
            "resources",
            "namespaces",
            "nonResourceURLs",
            "omitStages",
            "omitManagedFields",
        ];
        let map = self.map(path, value, &known);
        let mut texts = |field: &str| self.texts(&path.child(field), map.get(field));
        let (users, groups, verbs) = (texts("users"), texts("userGroups"), texts("verbs"));
        let (namespaces, paths) = (texts("namespaces"), texts("nonResourceURLs"));
        let at = path.child("resources");
        let resources = self.list(&at, map.get("resources"));
        let resources: Vec<Resources> =
            resources.iter().enumerate().map(|(number, of)| self.resources(&at, number, of)).collect();
        let level = self.level(&path.child("level"), map.get("level"));
        let at = path.child("nonResourceURLs");
        for (number, url) in paths.iter().enumerate() {
            self.url(&at.index(number), url);
        }
        if !paths.is_empty() && (!resources.is_empty() || !namespaces.is_empty()) {
            let why = "rules cannot apply to both regular resources and non-resource URLs";
            self.errors.push(FieldError::invalid(&at, api::field::BadValue::of(&paths), why));
        }
        let omit = self.stages(&path.child("omitStages"), map.get("omitStages"));
        let own = self.flag(&path.child("omitManagedFields"), map.get("omitManagedFields"));
        let omit_managed_fields = own.unwrap_or(omit_managed_fields);
        Rule { level, users, groups, verbs, resources, namespaces, paths, omit, omit_managed_fields }
    }

    fn resources(&mut self, path: &Path, number: usize, value: &Value) -> Resources {
        let at = path.index(number);
        let map = self.map(&at, value, &["group", "resources", "resourceNames"]);
        let group = match map.get("group") {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(group)) => group.clone(),
            Some(other) => {
                self.wrong(&at.child("group"), other, "must be a text");
                String::new()
            }
        };
        // Upstream does not say which item it is.
        if !group.is_empty() && group != "*" {
            let problems = api::name::dns1123_subdomain(&group);
            if !problems.is_empty() {
                let why = problems.join(",");
                self.errors.push(FieldError::invalid(&path.child("group"), group.as_str(), why));
            }
        }
        let resources = self.texts(&at.child("resources"), map.get("resources"));
        let names = self.texts(&at.child("resourceNames"), map.get("resourceNames"));
        if !names.is_empty() && resources.is_empty() {
            let why = "using resourceNames requires at least one resource";
            let value = api::field::BadValue::of(&names);
            self.errors.push(FieldError::invalid(&path.child("resourceNames"), value, why));
        }
        Resources { group, resources, names }
    }

    fn level(&mut self, path: &Path, value: Option<&Value>) -> Level {
        let word = value.and_then(Value::as_str).unwrap_or_default();
        match Level::ALL.iter().find(|(_, known)| *known == word) {
            Some((level, _)) => return *level,
            None if word.is_empty() => self.errors.push(FieldError::required(path, "")),
            None => {
                let known = Level::ALL.map(|(_, known)| known);
                self.errors.push(FieldError::not_supported(path, word, &known));
            }
        }
        Level::None
    }

    fn stages(&mut self, path: &Path, value: Option<&Value>) -> BTreeSet<Stage> {
        let words = self.texts(path, value);
        let mut stages = BTreeSet::new();
        for (number, word) in words.iter().enumerate() {
            match Stage::ALL.iter().find(|(_, known)| known == word) {
                Some((stage, _)) => drop(stages.insert(*stage)),
                None => {
                    let known = Stage::ALL.map(|(_, known)| known).join(",");
                    let why = format!("allowed stages are {known}");
                    self.errors.push(FieldError::invalid(&path.index(number), word.as_str(), why));
                }
            }
        }
        stages
    }

    fn url(&mut self, path: &Path, url: &str) {
        if url == "*" {
            return;
        }
        if !url.starts_with('/') {
            let why = "non-resource URL rules must begin with a '/' character";
            self.errors.push(FieldError::invalid(path, url, why));
        }
        if url.strip_suffix('*').unwrap_or(url).contains('*') {
            let why = "non-resource URL wildcards '*' must be the final character of the rule";
            self.errors.push(FieldError::invalid(path, url, why));
        }
    }

    fn map<'a>(&mut self, path: &Path, value: &'a Value, known: &[&str]) -> &'a Map<String, Value> {
        static EMPTY: std::sync::LazyLock<Map<String, Value>> = std::sync::LazyLock::new(Map::new);
        let Value::Object(map) = value else {
            self.wrong(path, value, "must be an object");
            return &EMPTY;
        };
        for field in map.keys().filter(|field| !known.contains(&field.as_str())) {
            self.errors.push(FieldError::forbidden(&path.child(field), "unknown field"));
        }
        map
    }

    fn list<'a>(&mut self, path: &Path, value: Option<&'a Value>) -> &'a [Value] {
        match value {
            None | Some(Value::Null) => &[],
            Some(Value::Array(items)) => items,
            Some(other) => {
                self.wrong(path, other, "must be a list");
                &[]
            }
        }
    }

    fn texts(&mut self, path: &Path, value: Option<&Value>) -> Vec<String> {
        let items = self.list(path, value).iter().enumerate();
        let text = |(number, item): (usize, &Value)| match item {
            Value::String(text) => Some(text.clone()),
            other => {
                self.wrong(&path.index(number), other, "must be a text");
                None
            }
        };
        items.filter_map(text).collect()
    }

    fn flag(&mut self, path: &Path, value: Option<&Value>) -> Option<bool> {
        match value {
            None | Some(Value::Null) => None,
            Some(Value::Bool(flag)) => Some(*flag),
            Some(other) => {
                self.wrong(path, other, "must be true or false");
                None
            }
        }
    }

    fn wrong(&mut self, path: &Path, value: &Value, why: &str) {
        self.errors.push(FieldError::invalid(path, value.clone(), why));
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    fn policy(rules: &str) -> Result<Policy, String> {
        Policy::read(format!("apiVersion: audit.k8s.io/v1\nkind: Policy\n{rules}").as_bytes())
    }

    #[test]
    fn the_first_rule_that_fits_decides() {
        let policy = policy(
            r#"
omitStages: [RequestReceived]
rules:
- level: None
  users: ["system:kube-proxy"]
  verbs: [watch]
  resources: [{group: "", resources: [endpoints, services]}]
- level: None
  userGroups: ["system:authenticated"]
  nonResourceURLs: ["/api*", "/version"]
- level: Request
  resources: [{group: "", resources: [configmaps], resourceNames: [special]}]
  namespaces: [kube-system]
- level: Metadata
  resources: [{group: "", resources: [secrets, "pods/*"]}, {group: apps, resources: ["*/scale"]}]
  omitStages: [Panic]
- level: RequestResponse
  resources: [{group: ""}]
  omitManagedFields: true
"#,
        )
        .unwrap();
        let proxy = UserInfo::new("system:kube-proxy", &[]);
        let jane = UserInfo::new("jane", &[]);
        for (user, method, target, level) in [
            (&proxy, "GET", "/api/v1/services?watch=1", Level::None),
            (&proxy, "GET", "/api/v1/services", Level::RequestResponse),
            (&jane, "GET", "/apis", Level::None),
            (&jane, "GET", "/metrics", Level::None),
            (&jane, "PUT", "/api/v1/namespaces/kube-system/configmaps/special", Level::Request),
            (&jane, "PUT", "/api/v1/namespaces/kube-system/configmaps/other", Level::RequestResponse),
            (&jane, "GET", "/api/v1/namespaces/a/secrets/x", Level::Metadata),
            (&jane, "GET", "/api/v1/namespaces/a/pods/x/log", Level::Metadata),
            (&jane, "GET", "/api/v1/namespaces/a/pods/x", Level::Metadata),
            (&jane, "PUT", "/apis/apps/v1/namespaces/a/deployments/x/scale", Level::Metadata),
            (&jane, "PUT", "/apis/apps/v1/namespaces/a/deployments/x", Level::None),
        ] {
            let (path, query) = target.split_once('?').unwrap_or((target, ""));
            let info = RequestInfo::new(&method.parse::<Method>().unwrap(), path, query);
            assert_eq!(policy.verdict(&info, user).level, level, "{} {method} {target}", user.name);
        }
        let info = RequestInfo::new(&Method::GET, "/api/v1/namespaces/a/secrets/x", "");
        let verdict = policy.verdict(&info, &jane);
        let omitted: Vec<&str> = verdict.omit.iter().map(|stage| stage.word()).collect();
        assert_eq!((omitted, verdict.omit_managed_fields), (vec!["RequestReceived", "Panic"], false));
    }

    #[test]
    fn a_bad_policy_is_refused_with_the_field() {
        for (rules, why) in [
            ("", "rules: Required value: loaded illegal policy with 0 rules"),
            ("rules: [{}]", "rules[0].level: Required value"),
            (
                "rules: [{level: All}]",
                "rules[0].level: Unsupported value: \"All\": supported values: \"None\", \"Metadata\", \"Request\", \"RequestResponse\"",
            ),
            ("rules: [{level: None, user: [x]}]", "rules[0].user: Forbidden: unknown field"),
            ("rules: [{level: None, users: x}]", "rules[0].users: Invalid value: \"x\": must be a list"),
            (
                "rules: [{level: None, nonResourceURLs: [api], verbs: [1]}]",
                "[rules[0].verbs[0]: Invalid value: 1: must be a text, rules[0].nonResourceURLs[0]: Invalid value: \
                 \"api\": non-resource URL rules must begin with a '/' character]",
            ),
            (
                "rules: [{level: None, resources: [{group: a/v1}]}]",
                "rules[0].resources.group: Invalid value: \"a/v1\": ",
            ),
            (
                "rules: [{level: None, omitStages: [End]}]",
                "rules[0].omitStages[0]: Invalid value: \"End\": allowed stages are \
                 RequestReceived,ResponseStarted,ResponseComplete,Panic",
            ),
        ] {
            let said = policy(rules).unwrap_err();
            assert!(said.starts_with(why), "{rules}: {said}");
        }
        let said = Policy::read(b"apiVersion: v1\nkind: Policy\nrules: [{level: None}]").unwrap_err();
        assert_eq!(said, "apiVersion: Unsupported value: \"v1\": supported values: \"audit.k8s.io/v1\"");
        assert!(Policy::read(b"rules: [").unwrap_err().contains("yaml"));
    }
}
