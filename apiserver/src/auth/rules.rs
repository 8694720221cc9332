//! RBAC rules, pure: does a rule allow a request, and does one set of rules cover another.

use std::collections::BTreeSet;

use api::field::quote;
use k8s_openapi::api::rbac::v1::PolicyRule;

use crate::Attributes;

const ALL: &str = "*";

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|item| item == wanted)
}

fn opt(list: &Option<Vec<String>>) -> &[String] {
    list.as_deref().unwrap_or_default()
}

/// True if the rule allows the request.
pub fn allows(rule: &PolicyRule, request: &Attributes) -> bool {
    let verb = has(&rule.verbs, ALL) || has(&rule.verbs, &request.verb);
    if !request.resource_request {
        return verb
            && opt(&rule.non_resource_urls).iter().any(|pattern| url_matches(pattern, &request.path));
    }
    let names = opt(&rule.resource_names);
    let groups = opt(&rule.api_groups);
    verb && (has(groups, ALL) || has(groups, &request.group))
        && opt(&rule.resources)
            .iter()
            .any(|pattern| resource_matches(pattern, &request.resource, &request.subresource))
        && (names.is_empty() || has(names, &request.name))
}

/// `*`, the exact path, or a prefix that ends in `*`.
fn url_matches(pattern: &str, path: &str) -> bool {
    pattern == ALL
        || pattern == path
        || pattern.ends_with('*') && path.starts_with(pattern.trim_end_matches('*'))
}

/// `*`, `resource`, `resource/subresource`, or `*/subresource`.
fn resource_matches(pattern: &str, resource: &str, subresource: &str) -> bool {
    if pattern == ALL {
        return true;
    }
    match pattern.split_once('/') {
        None => subresource.is_empty() && pattern == resource,
        Some((of, sub)) => !subresource.is_empty() && sub == subresource && (of == ALL || of == resource),
    }
}

/// What of `wanted` the rules `held` don't cover, in single rules.
pub fn missing(held: &[PolicyRule], wanted: &[PolicyRule]) -> Vec<PolicyRule> {
    wanted.iter().flat_map(single).filter(|rule| !held.iter().any(|holder| covers(holder, rule))).collect()
}

/// The rule in rules of one verb, group, resource and name each.
fn single(rule: &PolicyRule) -> Vec<PolicyRule> {
    let mut rules = Vec::new();
    let one = |text: &String| Some(vec![text.clone()]);
    let names: Vec<Option<Vec<String>>> = match opt(&rule.resource_names) {
        [] => vec![None],
        names => names.iter().map(one).collect(),
    };
    for group in opt(&rule.api_groups) {
        for resource in opt(&rule.resources) {
            for verb in &rule.verbs {
                for name in &names {
                    rules.push(PolicyRule {
                        api_groups: one(group),
                        resources: one(resource),
                        resource_names: name.clone(),
                        verbs: vec![verb.clone()],
                        non_resource_urls: None,
                    });
                }
            }
        }
    }
    for url in opt(&rule.non_resource_urls) {
        for verb in &rule.verbs {
            rules.push(PolicyRule {
                non_resource_urls: one(url),
                verbs: vec![verb.clone()],
                ..PolicyRule::default()
            });
        }
    }
    rules
}

/// True if `holder` allows all that the single rule `wanted` allows.
fn covers(holder: &PolicyRule, wanted: &PolicyRule) -> bool {
    let all =
        |held: &[String], wanted: &[String]| has(held, ALL) || wanted.iter().all(|item| has(held, item));
    let resources = |held: &[String], wanted: &[String]| {
        has(held, ALL)
            || wanted.iter().all(|item| {
                has(held, item) || item.split_once('/').is_some_and(|(_, sub)| has(held, &format!("*/{sub}")))
            })
    };
    let (held_names, names) = (opt(&holder.resource_names), opt(&wanted.resource_names));
    let urls = opt(&holder.non_resource_urls);
    all(&holder.verbs, &wanted.verbs)
        && all(opt(&holder.api_groups), opt(&wanted.api_groups))
        && resources(opt(&holder.resources), opt(&wanted.resources))
        && (held_names.is_empty() || !names.is_empty() && names.iter().all(|name| has(held_names, name)))
        && opt(&wanted.non_resource_urls)
            .iter()
            .all(|url| urls.iter().any(|pattern| url_matches(pattern, url)))
}

/// The rules in words, as upstream lists what somebody lacks: one line each, verbs of the same resource together.
pub fn describe(rules: &[PolicyRule]) -> String {
    let mut merged: Vec<PolicyRule> = Vec::new();
    for rule in rules {
        let plain = rule.resource_names.is_none() && rule.non_resource_urls.is_none();
        let same = |other: &&mut PolicyRule| {
            plain
                && other.resource_names.is_none()
                && other.non_resource_urls.is_none()
                && other.api_groups == rule.api_groups
                && other.resources == rule.resources
        };
        match merged.iter_mut().find(same) {
            Some(other) => other.verbs.extend(rule.verbs.iter().cloned()),
            None => merged.push(rule.clone()),
        }
    }
    let lines: BTreeSet<String> = merged.iter().map(line).collect();
    lines.into_iter().collect::<Vec<_>>().join("\n")
}

fn line(rule: &PolicyRule) -> String {
    let mut parts = Vec::new();
    for (name, values) in [
        ("APIGroups", opt(&rule.api_groups)),
        ("Resources", opt(&rule.resources)),
        ("NonResourceURLs", opt(&rule.non_resource_urls)),
        ("ResourceNames", opt(&rule.resource_names)),
        ("Verbs", &rule.verbs),
    ] {
        if !values.is_empty() {
            parts.push(format!("{name}:{}", quoted(values)));
        }
    }
    format!("{{{}}}", parts.join(", "))
}

/// Strings as Go's `%q` shows a slice of them: `["a" "b"]`.
pub fn quoted(values: &[String]) -> String {
    format!("[{}]", values.iter().map(|value| quote(value)).collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> Vec<String> {
        text.split_whitespace()
            .map(|item| if item == "-" { String::new() } else { item.to_owned() })
            .collect()
    }

    /// `verbs | groups | resources | names`, `-` for the core group.
    fn rule(text: &str) -> PolicyRule {
        let parts: Vec<Vec<String>> = text.split('|').map(list).collect();
        let some = |index: usize| parts.get(index).cloned().filter(|part| !part.is_empty());
        PolicyRule {
            verbs: parts[0].clone(),
            api_groups: some(1),
            resources: some(2),
            resource_names: some(3),
            non_resource_urls: None,
        }
    }

    fn urls(verbs: &str, urls: &str) -> PolicyRule {
        PolicyRule { verbs: list(verbs), non_resource_urls: Some(list(urls)), ..PolicyRule::default() }
    }

    fn request(verb: &str, group: &str, resource: &str, name: &str) -> Attributes {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        Attributes {
            verb: verb.into(),
            group: group.into(),
            resource: resource.into(),
            subresource: subresource.into(),
            name: name.into(),
            resource_request: true,
            ..Attributes::default()
        }
    }

    #[test]
    fn a_rule_allows_what_its_words_say_and_nothing_else() {
        for (of, verb, group, resource, name, expect) in [
            ("get|-|pods", "get", "", "pods", "a", true),
            ("get|-|pods", "list", "", "pods", "", false),
            ("get|-|pods", "get", "apps", "pods", "a", false),
            ("get|-|pods", "get", "", "pods/log", "a", false),
            ("get|-|pods/log", "get", "", "pods/log", "a", true),
            ("get|-|pods/log", "get", "", "pods", "a", false),
            ("*|*|*", "anything", "any.group", "things/sub", "a", true),
            ("*|-|*", "get", "", "pods/exec", "a", true),
            ("get|*|*/scale", "get", "apps", "deployments/scale", "a", true),
            ("get|*|*/scale", "get", "apps", "deployments/status", "a", false),
            ("get|*|*/scale", "get", "apps", "scale", "a", false),
            ("get|-|pods/*", "get", "", "pods/log", "a", false),
            ("get|-|secrets|a b", "get", "", "secrets", "a", true),
            ("get|-|secrets|a b", "get", "", "secrets", "c", false),
            ("list|-|secrets|a", "list", "", "secrets", "", false),
            ("|-|pods", "get", "", "pods", "a", false),
        ] {
            assert_eq!(
                allows(&rule(of), &request(verb, group, resource, name)),
                expect,
                "{of}: {verb} {group} {resource} {name}"
            );
        }
    }

    #[test]
    fn paths_match_exactly_or_by_prefix() {
        for (pattern, path, expect) in [
            ("*", "/anything", true),
            ("/version", "/version", true),
            ("/version", "/version/", false),
            ("/apis/*", "/apis/apps/v1", true),
            ("/apis/*", "/apis", false),
            ("/healthz*", "/healthzzz", true),
        ] {
            let path = Attributes { verb: "get".into(), path: path.into(), ..Attributes::default() };
            assert_eq!(allows(&urls("get", pattern), &path), expect, "{pattern} {}", path.path);
            assert!(!allows(&urls("post", pattern), &path));
            assert!(!allows(&rule("*|*|*"), &path), "resource rules say nothing about paths");
        }
    }

    #[test]
    fn what_is_not_covered_is_named() {
        for (held, wanted, expect) in [
            ("*|*|*", "get|-|pods", ""),
            ("get list|-|pods secrets", "get|-|pods", ""),
            ("get|-|pods", "get list|-|pods", r#"{APIGroups:[""], Resources:["pods"], Verbs:["list"]}"#),
            ("get|-|pods", "*|-|pods", r#"{APIGroups:[""], Resources:["pods"], Verbs:["*"]}"#),
            ("get|-|pods|a", "get|-|pods", r#"{APIGroups:[""], Resources:["pods"], Verbs:["get"]}"#),
            ("get|-|pods", "get|-|pods|a", ""),
            (
                "get|-|pods|a",
                "get|-|pods|a b",
                r#"{APIGroups:[""], Resources:["pods"], ResourceNames:["b"], Verbs:["get"]}"#,
            ),
            ("get|*|*/scale", "get|apps|deployments/scale", ""),
            (
                "get|*|deployments",
                "get|apps|deployments/scale",
                r#"{APIGroups:["apps"], Resources:["deployments/scale"], Verbs:["get"]}"#,
            ),
            (
                "get|-|nothing",
                "get list|-|pods",
                r#"{APIGroups:[""], Resources:["pods"], Verbs:["get" "list"]}"#,
            ),
        ] {
            assert_eq!(describe(&missing(&[rule(held)], &[rule(wanted)])), expect, "{held} / {wanted}");
        }
        assert!(missing(&[urls("get", "/api*")], &[urls("get", "/api /apis/*")]).is_empty());
        assert_eq!(
            describe(&missing(&[rule("*|*|*")], &[urls("get", "/x")])),
            r#"{NonResourceURLs:["/x"], Verbs:["get"]}"#
        );
    }
}
