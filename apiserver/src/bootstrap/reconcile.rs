//! What is to be done about a bootstrap object that exists: upstream's rules of RBAC reconciliation.

use k8s_openapi::api::rbac::v1::PolicyRule;
use serde_json::{Value, json};

use crate::auth::rules;

const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";

const AUTOUPDATE_SPEC: &str = "apf.kubernetes.io/autoupdate-spec";

/// What is to be done about an existing object.
#[derive(Debug, PartialEq)]
pub(super) enum Step {
    Leave,
    Update(Value),
    /// Delete it; the next look creates it. For a binding to another role, which can't be changed.
    Replace,
}

/// Compares what is with what should be.
pub(super) fn step(existing: &Value, wanted: &Value) -> Step {
    match wanted["kind"].as_str().unwrap_or_default() {
        "ClusterRole" | "Role" | "ClusterRoleBinding" | "RoleBinding" => rbac(existing, wanted),
        // Where the API servers are is told by the one that starts.
        "Endpoints" => overwrite(existing, wanted, &["subsets"]),
        "EndpointSlice" if existing["addressType"] != wanted["addressType"] => Step::Replace,
        "EndpointSlice" => overwrite(existing, wanted, &["endpoints", "ports"]),
        "Service" if existing["metadata"]["name"] == "kubernetes" => target_port(existing, wanted),
        // Its numbers are the administrator's; nothing else of it can be changed.
        "PriorityLevelConfiguration" if wanted["spec"]["type"] == "Exempt" => Step::Leave,
        "FlowSchema" | "PriorityLevelConfiguration" => flow_control(existing, wanted),
        "ConfigMap" => overwrite(existing, wanted, &["data"]),
        _ => Step::Leave,
    }
}

/// True if everything in `wanted` is in `existing`, which may hold defaults besides.
fn within(wanted: &Value, existing: &Value) -> bool {
    match (wanted, existing) {
        (Value::Object(wanted), Value::Object(existing)) => {
            wanted.iter().all(|(key, value)| existing.get(key).is_some_and(|other| within(value, other)))
        }
        (Value::Array(wanted), Value::Array(existing)) => {
            wanted.len() == existing.len() && wanted.iter().zip(existing).all(|(a, b)| within(a, b))
        }
        (wanted, existing) => wanted == existing,
    }
}

fn overwrite(existing: &Value, wanted: &Value, fields: &[&str]) -> Step {
    if fields.iter().all(|field| within(&wanted[*field], &existing[*field])) {
        return Step::Leave;
    }
    let mut object = existing.clone();
    for field in fields {
        object[*field] = wanted[*field].clone();
    }
    Step::Update(object)
}

/// What nothing works without is as it must be; the rest, as long as nobody took it over.
fn flow_control(existing: &Value, wanted: &Value) -> Step {
    let mandatory = ["exempt", "catch-all"].iter().any(|name| wanted["metadata"]["name"] == *name);
    let mark = &existing["metadata"]["annotations"][AUTOUPDATE_SPEC];
    let ours = mark == "true" || mark != "false" && existing["metadata"]["generation"] == 1;
    if mandatory || ours { overwrite(existing, wanted, &["spec"]) } else { Step::Leave }
}

fn target_port(existing: &Value, wanted: &Value) -> Step {
    if within(&wanted["spec"]["ports"], &existing["spec"]["ports"]) {
        return Step::Leave;
    }
    let mut object = existing.clone();
    object["spec"]["ports"] = wanted["spec"]["ports"].clone();
    Step::Update(object)
}

fn rbac(existing: &Value, wanted: &Value) -> Step {
    if existing["metadata"]["annotations"][AUTOUPDATE] == "false" {
        return Step::Leave;
    }
    if !wanted["roleRef"].is_null() && !within(&wanted["roleRef"], &existing["roleRef"]) {
        return Step::Replace;
    }
    let mut object = existing.clone();
    for field in ["labels", "annotations"] {
        for (key, value) in wanted["metadata"][field].as_object().into_iter().flatten() {
            // Values that are there stay: an administrator may have set them.
            if object["metadata"][field][key].is_null() {
                object["metadata"][field][key] = value.clone();
            }
        }
    }
    let aggregated = !wanted["aggregationRule"].is_null();
    if aggregated {
        let selectors = "/aggregationRule/clusterRoleSelectors";
        let mut all = object.pointer(selectors).and_then(Value::as_array).cloned().unwrap_or_default();
        for selector in wanted.pointer(selectors).and_then(Value::as_array).into_iter().flatten() {
            if !all.contains(selector) {
                all.push(selector.clone());
            }
        }
        object["aggregationRule"] = json!({"clusterRoleSelectors": all});
    }
    // The rules of aggregated roles are computed, not data.
    if !wanted["rules"].is_null() && !aggregated {
        let read =
            |value: &Value| serde_json::from_value::<Vec<PolicyRule>>(value.clone()).unwrap_or_default();
        let (mut held, wanted) = (read(&existing["rules"]), read(&wanted["rules"]));
        let missing = rules::missing(&held, &wanted);
        if !missing.is_empty() {
            held.extend(missing);
            object["rules"] = json!(held);
        }
    }
    for subject in wanted["subjects"].as_array().into_iter().flatten() {
        let held = existing["subjects"].as_array();
        if !held.is_some_and(|held| held.iter().any(|other| within(subject, other))) {
            match object["subjects"].as_array_mut() {
                Some(subjects) => subjects.push(subject.clone()),
                None => object["subjects"] = json!([subject]),
            }
        }
    }
    if object == *existing { Step::Leave } else { Step::Update(object) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role(rules: Value, autoupdate: Option<&str>) -> Value {
        let mut role = json!({"kind": "ClusterRole", "metadata": {"name": "x"}, "rules": rules});
        if let Some(value) = autoupdate {
            role["metadata"]["annotations"] = json!({AUTOUPDATE: value});
        }
        role
    }

    fn rule(verbs: &[&str]) -> Value {
        json!({"verbs": verbs, "apiGroups": [""], "resources": ["pods"]})
    }

    #[test]
    fn flow_schemas_are_kept_as_long_as_nobody_took_them_over() {
        let schema = |name: &str, mark: Option<&str>, generation: i32, level: &str| {
            let mut schema = json!({"kind": "FlowSchema", "metadata": {"name": name, "generation": generation},
                "spec": {"priorityLevelConfiguration": {"name": level}}});
            if let Some(mark) = mark {
                schema["metadata"]["annotations"] = json!({AUTOUPDATE_SPEC: mark});
            }
            schema
        };
        for (name, mark, generation, updated) in [
            ("probes", Some("true"), 2, true),
            ("probes", Some("false"), 1, false),
            ("probes", None, 1, true),
            ("probes", None, 2, false),
            ("catch-all", Some("false"), 2, true),
        ] {
            let wanted = schema(name, Some("true"), 0, "exempt");
            let step = step(&schema(name, mark, generation, "other"), &wanted);
            assert_eq!(matches!(step, Step::Update(_)), updated, "{name} {mark:?} {generation}");
            if let Step::Update(object) = step {
                assert_eq!(object["spec"], wanted["spec"]);
            }
        }
        let same = schema("probes", Some("true"), 1, "exempt");
        assert_eq!(step(&same, &same), Step::Leave);
        let exempt = json!({"kind": "PriorityLevelConfiguration", "metadata": {"name": "exempt"}, "spec": {"type": "Exempt"}});
        assert_eq!(step(&exempt, &exempt), Step::Leave);
    }

    #[test]
    fn missing_rules_come_back_and_additional_ones_stay() {
        let wanted = role(json!([rule(&["get", "list"])]), Some("true"));
        assert_eq!(step(&role(json!([rule(&["*"])]), Some("true")), &wanted), Step::Leave);
        assert_eq!(step(&role(json!([]), Some("false")), &wanted), Step::Leave);
        let Step::Update(object) = step(&role(json!([rule(&["get", "delete"])]), Some("true")), &wanted)
        else {
            panic!("not updated")
        };
        assert_eq!(object["rules"], json!([rule(&["get", "delete"]), rule(&["list"])]));
        let Step::Update(object) = step(&role(json!([rule(&["*"])]), None), &wanted) else {
            panic!("not updated")
        };
        assert_eq!(object["metadata"]["annotations"][AUTOUPDATE], "true");
    }

    #[test]
    fn a_binding_gets_its_subjects_back_and_is_replaced_if_it_binds_another_role() {
        let binding = |role: &str, subjects: Value| json!({"kind": "ClusterRoleBinding", "metadata": {"name": "x"}, "roleRef": {"kind": "ClusterRole", "name": role}, "subjects": subjects});
        let group = |name: &str| json!({"kind": "Group", "name": name});
        let wanted = binding("a", json!([group("g")]));
        assert_eq!(step(&binding("b", json!([group("g")])), &wanted), Step::Replace);
        assert_eq!(step(&binding("a", json!([group("h"), group("g")])), &wanted), Step::Leave);
        let Step::Update(object) = step(&binding("a", json!([group("h")])), &wanted) else {
            panic!("not updated")
        };
        assert_eq!(object["subjects"], json!([group("h"), group("g")]));
    }

    #[test]
    fn the_servers_own_address_follows_it() {
        let endpoints =
            |ip: &str| json!({"kind": "Endpoints", "metadata": {}, "subsets": [{"addresses": [{"ip": ip}]}]});
        assert_eq!(step(&endpoints("1.1.1.1"), &endpoints("1.1.1.1")), Step::Leave);
        assert_eq!(step(&endpoints("1.1.1.1"), &endpoints("1.1.1.2")), Step::Update(endpoints("1.1.1.2")));
    }
}
