//! Which flow schema a request belongs to: the rules of FlowSchema objects, applied to one request.

use k8s_openapi::api::flowcontrol::v1::{
    NonResourcePolicyRule, PolicyRulesWithSubjects, ResourcePolicyRule, Subject,
};

use crate::{RequestInfo, UserInfo};

/// True if one of the rules is about this user and this request.
pub(super) fn matches(rules: &[PolicyRulesWithSubjects], info: &RequestInfo, user: &UserInfo) -> bool {
    rules.iter().any(|rule| {
        rule.subjects.iter().any(|subject| is_subject(subject, user))
            && match info.resource_request {
                true => rule.resource_rules.iter().flatten().any(|rule| is_resource(rule, info)),
                false => rule.non_resource_rules.iter().flatten().any(|rule| is_path(rule, info)),
            }
    })
}

fn is_subject(subject: &Subject, user: &UserInfo) -> bool {
    match subject.kind.as_str() {
        "User" => subject.user.as_ref().is_some_and(|named| named.name == "*" || named.name == user.name),
        "Group" => {
            subject.group.as_ref().is_some_and(|group| group.name == "*" || user.in_group(&group.name))
        }
        "ServiceAccount" => subject.service_account.as_ref().is_some_and(|account| {
            let own = user.name.strip_prefix("system:serviceaccount:").and_then(|own| own.split_once(':'));
            own.is_some_and(|(namespace, name)| {
                namespace == account.namespace && (account.name == "*" || account.name == name)
            })
        }),
        _ => false,
    }
}

fn is_resource(rule: &ResourcePolicyRule, info: &RequestInfo) -> bool {
    has(&rule.verbs, info.verb)
        && has_resource(&rule.resources, &info.resource, &info.subresource)
        && has(&rule.api_groups, &info.group)
        && match info.namespace.as_str() {
            "" => rule.cluster_scope == Some(true),
            namespace => rule.namespaces.as_ref().is_some_and(|namespaces| has(namespaces, namespace)),
        }
}

fn is_path(rule: &NonResourcePolicyRule, info: &RequestInfo) -> bool {
    has(&rule.verbs, info.verb)
        && rule.non_resource_urls.iter().any(|url| {
            // A path without a star means what is below it, too.
            let prefix = url.strip_suffix('*').unwrap_or(url);
            let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
            url == "*"
                || *url == info.path
                || info.path.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/'))
        })
}

fn has(list: &[String], wanted: &str) -> bool {
    matches!(list, [all] if all == "*") || list.iter().any(|item| item == wanted)
}

fn has_resource(list: &[String], resource: &str, subresource: &str) -> bool {
    if subresource.is_empty() {
        return has(list, resource);
    }
    matches!(list, [all] if all == "*")
        || list.iter().any(|item| item.split_once('/') == Some((resource, subresource)))
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::super::plan::{bootstrap_levels, bootstrap_schemas, digest};
    use super::*;

    #[test]
    fn requests_are_sorted_as_the_objects_of_a_clusters_beginning_say() {
        let (plan, _) = digest(&bootstrap_levels(), &bootstrap_schemas(), 600, &[]);
        let admin = UserInfo::new("admin", &["system:masters"]);
        let node = UserInfo::node("n1");
        let scheduler = UserInfo::new("system:kube-scheduler", &[]);
        let dns = UserInfo::service_account("kube-system", "coredns");
        let account = UserInfo::service_account("default", "app");
        let person = UserInfo::new("jane", &["dev"]);
        let lease = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/x";
        for (user, method, path, schema) in [
            (&admin, "GET", "/api/v1/pods", "exempt"),
            (&person, "GET", "/readyz", "probes"),
            (&person, "GET", "/readyz/etcd", "probes"),
            (&person, "GET", "/readyzz", "global-default"),
            (&UserInfo::anonymous(), "GET", "/livez", "probes"),
            (&UserInfo::anonymous(), "GET", "/version", "global-default"),
            (&node, "PUT", lease, "system-node-high"),
            (&node, "PATCH", "/api/v1/nodes/n1/status", "system-node-high"),
            (&node, "GET", "/api/v1/nodes/n1/proxy", "system-nodes"),
            (&node, "GET", "/api/v1/pods", "system-nodes"),
            (&scheduler, "PUT", lease, "system-leader-election"),
            (&scheduler, "DELETE", lease, "kube-scheduler"),
            (&scheduler, "GET", "/api/v1/pods", "kube-scheduler"),
            (&dns, "GET", "/api/v1/services", "kube-system-service-accounts"),
            (&account, "GET", "/api/v1/services", "service-accounts"),
            (&person, "GET", "/api/v1/services", "global-default"),
            (&UserInfo { groups: Vec::new(), ..person.clone() }, "GET", "/api/v1/services", "catch-all"),
        ] {
            let info = RequestInfo::new(&method.parse::<Method>().unwrap(), path, "");
            assert_eq!(plan.classify(&info, user).name, schema, "{} {method} {path}", user.name);
        }
    }
}
