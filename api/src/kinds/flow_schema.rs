//! The rules of flowcontrol.apiserver.k8s.io/v1 FlowSchema.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::api::flowcontrol::v1::{
    FlowSchema, FlowSchemaSpec, FlowSchemaStatus, NonResourcePolicyRule, PolicyRulesWithSubjects,
    ResourcePolicyRule, ServiceAccountSubject, Subject,
};
use serde_json::{Value, json};

use super::{
    cells::{age, or_none},
    check::{dns_label, dns_subdomain, generation, list, required, same, text},
};
use crate::{
    field::{BadValue, Errors, FieldError, Path},
    object::{Kind, name_cell},
    resource::Column,
};

/// The schemas that every cluster begins with. Some of them must stay as they are.
const BOOTSTRAP: &str = include_str!("../../../manifests/bootstrap/flow-schemas.json");
const MANDATORY: [&str; 2] = ["catch-all", "exempt"];
const MAX_PRECEDENCE: i32 = 10_000;
const VERBS: [&str; 9] =
    ["create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"];

impl Kind for FlowSchema {
    const TABLE_RANK: Option<fn(&Self) -> i64> =
        Some(|schema| schema.spec.as_ref().and_then(|spec| spec.matching_precedence).unwrap_or(0).into());
    const COLUMNS: &'static [Column] = &[
        Column::name(),
        Column::text("PriorityLevel")
            .about("`name` is the name of the priority level configuration being referenced Required."),
        Column::text("MatchingPrecedence").about(
            "`matchingPrecedence` is used to choose among the FlowSchemas that match a given request. The chosen \
             FlowSchema is among those with the numerically lowest (which we take to be logically highest) \
             MatchingPrecedence.  Each MatchingPrecedence value must be ranged in [1,10000]. Note that if the precedence \
             is not specified, it will be set to 1000 as default.",
        ),
        Column::text("DistinguisherMethod").about(
            "`distinguisherMethod` defines how to compute the flow distinguisher for requests that match this schema. \
             `nil` specifies that the distinguisher is disabled and thus will always be the empty string.",
        ),
        Column::age(),
        Column::text("MissingPL").about("references a broken or non-existent PriorityLevelConfiguration"),
    ];

    fn set_defaults(&mut self) {
        let precedence = &mut self.spec.get_or_insert_default().matching_precedence;
        if precedence.unwrap_or_default() == 0 {
            *precedence = Some(1000);
        }
        self.status.get_or_insert_default();
    }

    fn prepare_create(&mut self) {
        self.status = Some(FlowSchemaStatus::default());
        self.metadata.generation = Some(1);
    }

    fn prepare_update(&mut self, old: &Self) {
        self.status.clone_from(&old.status);
        generation(&mut self.metadata, &old.metadata, !same(&self.spec, &old.spec));
    }

    fn prepare_status(&mut self, old: &Self) {
        self.spec.clone_from(&old.spec);
        crate::meta::keep_for_status(&mut self.metadata, &old.metadata);
    }

    fn validate(&self) -> Errors {
        let mut errors = Errors::new();
        let empty = FlowSchemaSpec::default();
        let spec = self.spec.as_ref().unwrap_or(&empty);
        let path = Path::new("spec");
        let name = text(&self.metadata.name);
        validate(&mut errors, &path, spec, name);
        if let Some(fixed) = mandatory(BOOTSTRAP, &MANDATORY, name)
            && !same(&json!(spec), &fixed)
        {
            let detail = format!("spec of '{name}' must equal the fixed value");
            errors.push(FieldError::invalid(&path, BadValue::of(spec), detail));
        }
        errors.extend(self.validate_status(self));
        errors
    }

    fn validate_status(&self, _old: &Self) -> Errors {
        let conditions = self.status.as_ref().map(|status| list(&status.conditions)).unwrap_or_default();
        let types: Vec<&str> = conditions.iter().map(|condition| text(&condition.type_)).collect();
        condition_types(&types)
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        let spec = self.spec.clone().unwrap_or_default();
        let conditions = self.status.as_ref().map(|status| list(&status.conditions)).unwrap_or_default();
        let dangling = conditions.iter().find(|condition| text(&condition.type_) == "Dangling");
        vec![
            name_cell(&self.metadata),
            spec.priority_level_configuration.name.into(),
            spec.matching_precedence.unwrap_or_default().into(),
            or_none(&spec.distinguisher_method.unwrap_or_default().type_),
            age(&self.metadata, now),
            dangling.map_or("?", |condition| text(&condition.status)).into(),
        ]
    }
}

/// The spec that an object of a cluster's beginning must keep.
pub(super) fn mandatory(bootstrap: &str, names: &[&str], name: &str) -> Option<Value> {
    if !names.contains(&name) {
        return None;
    }
    let objects: Vec<Value> = serde_json::from_str(bootstrap).ok()?;
    objects
        .into_iter()
        .find(|object| object["metadata"]["name"] == name)
        .map(|mut object| object["spec"].take())
}

/// Each condition has a type, and no two the same.
pub(super) fn condition_types(types: &[&str]) -> Errors {
    let mut errors = Errors::new();
    let mut seen = BTreeSet::new();
    for (i, item) in types.iter().enumerate() {
        let at = Path::new("status").child("conditions").index(i).child("type");
        if !seen.insert(item) {
            errors.push(FieldError::duplicate(&at, *item));
        }
        required(&mut errors, &at, item);
    }
    errors
}

fn validate(errors: &mut Errors, path: &Path, spec: &FlowSchemaSpec, name: &str) {
    let at = path.child("matchingPrecedence");
    let precedence = spec.matching_precedence.unwrap_or_default();
    let mut refuse = |why: String| errors.push(FieldError::invalid(&at, precedence, why));
    if precedence <= 0 {
        refuse("must be a positive value".to_owned());
    }
    if precedence > MAX_PRECEDENCE {
        refuse(format!("must not be greater than {MAX_PRECEDENCE}"));
    }
    if precedence == 1 && name != "exempt" {
        refuse("only the schema named 'exempt' may have matchingPrecedence 1".to_owned());
    }
    if let Some(method) = &spec.distinguisher_method {
        let methods = ["ByNamespace", "ByUser"];
        if !methods.contains(&method.type_.as_str()) {
            let at = path.child("distinguisherMethod").child("type");
            // Upstream shows its own struct here, whose field has no JSON name.
            errors.push(FieldError::not_supported(&at, json!({ "Type": method.type_ }), &methods));
        }
    }
    let at = path.child("priorityLevelConfiguration").child("name");
    match spec.priority_level_configuration.name.as_str() {
        "" => errors.push(FieldError::required(&at, "must reference a priority level")),
        level => dns_subdomain(errors, &at, level),
    }
    for (i, item) in list(&spec.rules).iter().enumerate() {
        rules(errors, &path.child("rules").index(i), item);
    }
}

fn rules(errors: &mut Errors, path: &Path, rules: &PolicyRulesWithSubjects) {
    let at = path.child("subjects");
    if rules.subjects.is_empty() {
        errors.push(FieldError::required(&at, "subjects must contain at least one value"));
    }
    for (i, item) in rules.subjects.iter().enumerate() {
        subject(errors, &at.index(i), item);
    }
    let (resources, others) = (list(&rules.resource_rules), list(&rules.non_resource_rules));
    if resources.is_empty() && others.is_empty() {
        let detail = "at least one of resourceRules and nonResourceRules has to be non-empty";
        errors.push(FieldError::required(path, detail));
    }
    for (i, rule) in resources.iter().enumerate() {
        resource_rule(errors, &path.child("resourceRules").index(i), rule);
    }
    for (i, rule) in others.iter().enumerate() {
        non_resource_rule(errors, &path.child("nonResourceRules").index(i), rule);
    }
}

fn subject(errors: &mut Errors, path: &Path, subject: &Subject) {
    const KINDS: [(&str, &str); 3] =
        [("ServiceAccount", "serviceAccount"), ("User", "user"), ("Group", "group")];
    let kind = subject.kind.as_str();
    if !KINDS.iter().any(|(known, _)| *known == kind) {
        let kinds = &["Group", "ServiceAccount", "User"];
        errors.push(FieldError::not_supported(&path.child("kind"), kind, kinds));
        return;
    }
    let name = |given: Option<&String>, field: &str, errors: &mut Errors| {
        let at = path.child(field);
        match given {
            None => {
                errors.push(FieldError::required(
                    &at,
                    format!("{field} is required when subject kind is '{kind}'"),
                ));
            }
            Some(name) => required(errors, &at.child("name"), name),
        }
    };
    match kind {
        "User" => name(subject.user.as_ref().map(|user| &user.name), "user", errors),
        "Group" => name(subject.group.as_ref().map(|group| &group.name), "group", errors),
        _ => service_account(errors, &path.child("serviceAccount"), subject.service_account.as_ref()),
    }
    let given = [subject.service_account.is_some(), subject.user.is_some(), subject.group.is_some()];
    for ((other, field), _) in KINDS.iter().zip(given).filter(|((other, _), given)| *given && *other != kind)
    {
        let detail = format!("{field} is forbidden when subject kind is not '{other}'");
        errors.push(FieldError::forbidden(&path.child(field), detail));
    }
}

fn service_account(errors: &mut Errors, path: &Path, account: Option<&ServiceAccountSubject>) {
    let Some(account) = account else {
        let detail = "serviceAccount is required when subject kind is 'ServiceAccount'";
        errors.push(FieldError::required(path, detail));
        return;
    };
    let at = path.child("name");
    match account.name.as_str() {
        "*" => {}
        "" => errors.push(FieldError::required(&at, "")),
        name => dns_subdomain(errors, &at, name),
    }
    let at = path.child("namespace");
    match account.namespace.as_str() {
        "" => errors.push(FieldError::required(&at, "must specify namespace for service account")),
        namespace => dns_label(errors, &at, namespace),
    }
}

/// At least one, and `*` only alone. True if there is none, or `*` among them.
fn some_or_all(errors: &mut Errors, path: &Path, items: &[String], none: &str, others: &str) -> bool {
    let all = items.iter().any(|item| item == "*");
    if items.is_empty() {
        errors.push(FieldError::required(path, none));
    } else if all && items.len() > 1 {
        let detail = format!("if '*' is present, must not specify other {others}");
        errors.push(FieldError::invalid(path, BadValue::of(&items), detail));
    }
    all || items.is_empty()
}

fn verbs(errors: &mut Errors, path: &Path, verbs: &[String]) {
    let done = some_or_all(errors, path, verbs, "verbs must contain at least one value", "verbs");
    if !done && !verbs.iter().all(|verb| VERBS.contains(&verb.as_str())) {
        errors.push(FieldError::not_supported(path, BadValue::of(&verbs), &VERBS));
    }
}

fn resource_rule(errors: &mut Errors, path: &Path, rule: &ResourcePolicyRule) {
    verbs(errors, &path.child("verbs"), &rule.verbs);
    for (field, items, none, others) in [
        ("apiGroups", &rule.api_groups, "resource rules must supply at least one api group", "api groups"),
        ("resources", &rule.resources, "resource rules must supply at least one resource", "resources"),
    ] {
        some_or_all(errors, &path.child(field), items, none, others);
    }
    let at = path.child("namespaces");
    let namespaces = list(&rule.namespaces);
    if namespaces.is_empty() && rule.cluster_scope == Some(true) {
        return;
    }
    let none = "resource rules that are not cluster scoped must supply at least one namespace";
    if some_or_all(errors, &at, namespaces, none, "namespaces") {
        return;
    }
    for (i, namespace) in namespaces.iter().enumerate() {
        for problem in crate::name::dns1123_label(namespace) {
            let detail = format!("each member of this list must be '*' or a DNS-1123 label; {problem}");
            errors.push(FieldError::invalid(&at.index(i), namespace, detail));
        }
    }
}

fn non_resource_rule(errors: &mut Errors, path: &Path, rule: &NonResourcePolicyRule) {
    verbs(errors, &path.child("verbs"), &rule.verbs);
    let at = path.child("nonResourceURLs");
    let none = "nonResourceURLs must contain at least one value";
    if some_or_all(errors, &at, &rule.non_resource_urls, none, "non-resource URLs") {
        return;
    }
    for (i, url) in rule.non_resource_urls.iter().enumerate() {
        if let Some(why) = url_problem(url) {
            errors.push(FieldError::invalid(&at.index(i), url, why));
        }
    }
}

fn url_problem(url: &str) -> Option<&'static str> {
    match url {
        "" => Some("must not be empty"),
        "/" => None,
        url if !url.starts_with('/') => Some("must start with slash"),
        url if url.contains(' ') => Some("must not contain white-space"),
        url if url.contains("//") => Some("must not contain double slash"),
        url => {
            let stars = url.matches('*').count();
            (stars > 1 || stars == 1 && !url.ends_with("/*"))
                .then_some("wildcard can only do suffix matching")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bootstrap() -> Vec<FlowSchema> {
        serde_json::from_str(BOOTSTRAP).unwrap()
    }

    #[test]
    fn the_schemas_of_a_clusters_beginning_are_sound() {
        assert_eq!(bootstrap().len(), 11);
        for schema in bootstrap() {
            assert_eq!(schema.validate(), Errors::new(), "{:?}", schema.metadata.name);
        }
    }

    #[test]
    fn mandatory_schemas_stay_as_they_are() {
        let mut schema = bootstrap()
            .into_iter()
            .find(|schema| schema.metadata.name.as_deref() == Some("catch-all"))
            .unwrap();
        schema.spec.as_mut().unwrap().matching_precedence = Some(9999);
        let said: Vec<String> = schema.validate().into_iter().map(|error| error.detail).collect();
        assert_eq!(said, ["spec of 'catch-all' must equal the fixed value"]);
    }

    #[test]
    fn paths_match_exactly_or_by_their_beginning() {
        for (url, problem) in [
            ("/", None),
            ("/healthz/*", None),
            ("healthz", Some("must start with slash")),
            ("/a*", Some("wildcard can only do suffix matching")),
            ("/a//b", Some("must not contain double slash")),
        ] {
            assert_eq!(url_problem(url), problem, "{url}");
        }
    }
}
