//! Aggregated cluster roles: their rules are those of all cluster roles that their selectors match.

use std::collections::BTreeMap;

use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

/// The aggregated roles whose rules are not what they should be, with the rules that they should have.
/// Roles that aggregate aggregated roles are followed to the end.
pub fn outdated(roles: &[ClusterRole]) -> Vec<(String, Vec<PolicyRule>)> {
    let mut all: BTreeMap<String, ClusterRole> =
        roles.iter().filter_map(|role| Some((role.metadata.name.clone()?, role.clone()))).collect();
    // Each round carries rules one step further; there are at most as many steps as roles.
    for _ in 0..all.len() {
        let changes: Vec<(String, Vec<PolicyRule>)> = all
            .iter()
            .filter_map(|(name, role)| {
                let rules = aggregated(name, role, &all)?;
                (role.rules.as_deref().unwrap_or_default() != rules).then(|| (name.clone(), rules))
            })
            .collect();
        if changes.is_empty() {
            break;
        }
        for (name, rules) in changes {
            if let Some(role) = all.get_mut(&name) {
                role.rules = Some(rules);
            }
        }
    }
    let differs = |role: &ClusterRole| {
        let now = all.get(role.metadata.name.as_ref()?)?.rules.clone().unwrap_or_default();
        let is = role.rules.as_deref().unwrap_or_default();
        (role.aggregation_rule.is_some() && is != now)
            .then(|| (role.metadata.name.clone().unwrap_or_default(), now))
    };
    roles.iter().filter_map(differs).collect()
}

/// The rules of an aggregated role, in the order of the roles' names; `None` for other roles.
fn aggregated(
    name: &str,
    role: &ClusterRole,
    all: &BTreeMap<String, ClusterRole>,
) -> Option<Vec<PolicyRule>> {
    let mut rules: Vec<PolicyRule> = Vec::new();
    for selector in role.aggregation_rule.as_ref()?.cluster_role_selectors.as_deref().unwrap_or_default() {
        for (other, source) in all {
            if other == name
                || !matches(selector, source.metadata.labels.as_ref().unwrap_or(&BTreeMap::new()))
            {
                continue;
            }
            for rule in source.rules.as_deref().unwrap_or_default() {
                if !rules.contains(rule) {
                    rules.push(rule.clone());
                }
            }
        }
    }
    Some(rules)
}

fn matches(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> bool {
    let equal = selector.match_labels.iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
    equal
        && selector.match_expressions.iter().flatten().all(|term| {
            let value = labels.get(&term.key);
            let among = || value.is_some_and(|value| term.values.iter().flatten().any(|one| one == value));
            match term.operator.as_str() {
                "In" => among(),
                "NotIn" => !among(),
                "Exists" => value.is_some(),
                "DoesNotExist" => value.is_none(),
                // A selector that can't be read matches nothing.
                _ => false,
            }
        })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn role(name: &str, labels: Value, aggregate: Option<&str>, verbs: &[&str]) -> ClusterRole {
        let mut role = json!({"metadata": {"name": name, "labels": labels}});
        match aggregate {
            Some(label) => {
                role["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": {label: "true"}}]})
            }
            None => role["rules"] = json!([{"verbs": verbs, "apiGroups": [""], "resources": ["pods"]}]),
        }
        serde_json::from_value(role).unwrap()
    }

    #[test]
    fn rules_flow_through_several_aggregations_and_come_to_rest() {
        let mut roles = vec![
            role("admin", json!({}), Some("to-admin"), &[]),
            role("edit", json!({"to-admin": "true"}), Some("to-edit"), &[]),
            role("one", json!({"to-edit": "true"}), None, &["get"]),
            role("two", json!({"to-admin": "true"}), None, &["delete"]),
        ];
        let changes = outdated(&roles);
        let verbs =
            |rules: &[PolicyRule]| rules.iter().flat_map(|rule| rule.verbs.clone()).collect::<Vec<_>>();
        let expect = [
            ("admin".to_owned(), vec!["get".to_owned(), "delete".to_owned()]),
            ("edit".to_owned(), vec!["get".to_owned()]),
        ];
        assert_eq!(
            changes.iter().map(|(name, rules)| (name.clone(), verbs(rules))).collect::<Vec<_>>(),
            expect
        );
        for (name, rules) in changes {
            let role = roles.iter_mut().find(|role| role.metadata.name.as_ref() == Some(&name)).unwrap();
            role.rules = Some(rules);
        }
        assert!(outdated(&roles).is_empty());
        roles.remove(2);
        assert_eq!(outdated(&roles).len(), 2, "rules go when their source goes");
    }

    #[test]
    fn roles_that_aggregate_each_other_end_too() {
        let roles = [
            role("a", json!({"to-b": "true"}), Some("to-a"), &[]),
            role("b", json!({"to-a": "true"}), Some("to-b"), &[]),
        ];
        assert!(outdated(&roles).is_empty());
    }
}
