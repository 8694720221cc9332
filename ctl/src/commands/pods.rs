//! Pods and containers that commands are about.

use serde_json::Value;

use crate::Failure;
use crate::resources::select::Selectors;
use crate::resources::{ApiError, Call, Mapping, Session, items, name, text};

/// The container that is meant when none is named.
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

/// The names of a pod's containers: ordinary ones first, then init, then ephemeral.
pub(crate) fn containers(pod: &Value) -> Vec<(String, &'static str)> {
    let of = |field: &str, kind| {
        items(pod, field)
            .iter()
            .map(move |container| (text(container, "name").to_owned(), kind))
            .collect::<Vec<_>>()
    };
    let mut all = of("spec.containers", "");
    all.extend(of("spec.ephemeralContainers", " (ephem)"));
    all.extend(of("spec.initContainers", " (init)"));
    all
}

/// The container that is asked for, or the default one, of which the user is told if there are others.
pub(crate) fn container(pod: &Value, asked: Option<&str>, quiet: bool) -> Result<String, Failure> {
    let all = containers(pod);
    if let Some(asked) = asked {
        if all.iter().any(|(name, _)| name == asked) {
            return Ok(asked.to_owned());
        }
        let names: Vec<String> = all.iter().map(|(name, kind)| format!("{name}{kind}")).collect();
        return Err(Failure::new(format!(
            "error: container {asked} is not valid for pod {} out of: {}",
            name(pod),
            names.join(", ")
        )));
    }
    let marked = pod["metadata"]["annotations"][DEFAULT_CONTAINER].as_str();
    if let Some(marked) = marked.filter(|marked| all.iter().any(|(name, _)| name == marked)) {
        return Ok(marked.to_owned());
    }
    let Some((first, _)) = all.first() else {
        return Err(Failure::new(format!("error: pod {} has no containers", name(pod))));
    };
    if all.len() > 1 && !quiet {
        let names: Vec<String> = all.iter().map(|(name, kind)| format!("{name}{kind}")).collect();
        eprintln!("Defaulted container {first:?} out of: {}", names.join(", "));
    }
    Ok(first.clone())
}

/// A label selector as a query has it.
pub(crate) fn selector_text(selector: &Value) -> String {
    let mut terms = Vec::new();
    // A map of labels alone is what Services and ReplicationControllers have.
    let structured = selector["matchLabels"].is_object() || selector["matchExpressions"].is_array();
    let labels = if structured { &selector["matchLabels"] } else { selector };
    for (key, value) in labels.as_object().into_iter().flatten() {
        terms.push(format!("{key}={}", value.as_str().unwrap_or_default()));
    }
    for expression in items(selector, "matchExpressions") {
        let key = text(expression, "key");
        let values: Vec<&str> = items(expression, "values").iter().filter_map(Value::as_str).collect();
        terms.push(match text(expression, "operator") {
            "In" => format!("{key} in ({})", values.join(",")),
            "NotIn" => format!("{key} notin ({})", values.join(",")),
            "DoesNotExist" => format!("!{key}"),
            _ => key.to_owned(),
        });
    }
    terms.join(",")
}

/// The pods that an object stands for: itself, or those it selects; the best one to talk to first.
pub(crate) async fn pods_of(
    session: &Session,
    mapping: &Mapping,
    object: &Value,
) -> Result<Vec<Value>, Failure> {
    if mapping.kind == "Pod" {
        return Ok(vec![object.clone()]);
    }
    let selector = selector_text(&object["spec"]["selector"]);
    if selector.is_empty() {
        return Err(Failure::new(format!(
            "error: cannot attach to {}: selector is empty or not there",
            mapping.named(name(object))
        )));
    }
    let selectors = Selectors { selector: Some(selector), ..Selectors::default() };
    let pods = Mapping::builtin("", "pods")?;
    let mut found = session.list(&pods, Some(crate::resources::namespace(object)), &selectors).await?;
    found.sort_by_key(rank);
    Ok(found)
}

/// Running and ready pods first, then the older.
fn rank(pod: &Value) -> (bool, bool, bool, String) {
    let ready = items(pod, "status.conditions").iter().any(|c| c["type"] == "Ready" && c["status"] == "True");
    (
        text(pod, "spec.nodeName").is_empty(),
        text(pod, "status.phase") != "Running",
        !ready,
        text(pod, "metadata.creationTimestamp").to_owned(),
    )
}

/// The pod that `POD` or `TYPE/NAME` means.
pub(crate) async fn pod(session: &Session, word: &str) -> Result<Value, Failure> {
    let (mapping, object) = subject(session, word).await?;
    let pods = pods_of(session, &mapping, &object).await?;
    pods.into_iter().next().ok_or_else(|| {
        Failure::new(format!(
            "error: timed out waiting for the condition: no pods for {}",
            mapping.named(name(&object))
        ))
    })
}

/// The object that `POD` or `TYPE/NAME` means.
pub(crate) async fn subject(session: &Session, word: &str) -> Result<(Mapping, Value), Failure> {
    let (mapping, object) = match word.split_once('/') {
        Some((kind, name)) => (session.resource(kind).await?, name),
        None => (Mapping::builtin("", "pods")?, word),
    };
    let object: Result<Value, ApiError> =
        session.json(Call::get(mapping.object(session.namespace(), object))).await;
    Ok((mapping, object?))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn selectors_become_queries() {
        for (selector, text) in [
            (json!({"a": "b", "c": "d"}), "a=b,c=d"),
            (json!({"matchLabels": {"a": "b"}}), "a=b"),
            (
                json!({"matchLabels": {"a": "b"}, "matchExpressions": [
                    {"key": "x", "operator": "In", "values": ["1", "2"]}, {"key": "y", "operator": "Exists"},
                    {"key": "z", "operator": "DoesNotExist"}]}),
                "a=b,x in (1,2),y,!z",
            ),
            (Value::Null, ""),
        ] {
            assert_eq!(selector_text(&selector), text);
        }
    }

    #[test]
    fn the_default_container_is_the_marked_or_the_first() {
        let mut pod = json!({"metadata": {"name": "p", "annotations": {}}, "spec": {
            "containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}]}});
        assert_eq!(container(&pod, None, true).unwrap(), "a");
        assert_eq!(container(&pod, Some("i"), true).unwrap(), "i");
        assert_eq!(
            container(&pod, Some("x"), true).unwrap_err().to_string(),
            "error: container x is not valid for pod p out of: a, b, i (init)"
        );
        pod["metadata"]["annotations"][DEFAULT_CONTAINER] = "b".into();
        assert_eq!(container(&pod, None, true).unwrap(), "b");
    }
}
