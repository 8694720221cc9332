//! What new nodes and pods get: a taint until the node is ready, and patience with nodes that are not.

use api::object::Object;
use api::status::Status;
use k8s_openapi::api::core::v1::{Node, Pod, Taint, Toleration};

use super::{Admission, AdmissionContext, Operation};

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
/// How long a pod stays on a node that does not answer, unless it says otherwise.
const PATIENCE: i64 = 300;

/// A new node takes no pods before the node controller has seen it ready.
pub(super) fn taint_new_node(
    _: &Admission,
    context: &AdmissionContext<'_>,
    object: &mut dyn Object,
    _: Option<&dyn Object>,
) -> Result<(), Status> {
    if context.operation != Operation::Create || !context.is("", "nodes") {
        return Ok(());
    }
    let Some(node) = object.downcast_mut::<Node>() else { return Ok(()) };
    let taints = node.spec.get_or_insert_default().taints.get_or_insert_default();
    if !taints.iter().any(|taint| taint.key == NOT_READY && taint.effect == "NoSchedule") {
        taints.push(Taint { key: NOT_READY.to_owned(), effect: "NoSchedule".to_owned(), ..Taint::default() });
    }
    Ok(())
}

/// A pod that says nothing of nodes that are not ready or unreachable stays there for five minutes.
pub(super) fn tolerate(
    _: &Admission,
    context: &AdmissionContext<'_>,
    object: &mut dyn Object,
    _: Option<&dyn Object>,
) -> Result<(), Status> {
    if context.operation == Operation::Delete || !context.is("", "pods") {
        return Ok(());
    }
    let Some(spec) = object.downcast_mut::<Pod>().and_then(|pod| pod.spec.as_mut()) else { return Ok(()) };
    let tolerations = spec.tolerations.get_or_insert_default();
    for key in [NOT_READY, UNREACHABLE] {
        let covered = tolerations.iter().any(|toleration| {
            let of = toleration.key.as_deref().unwrap_or_default();
            let effect = toleration.effect.as_deref().unwrap_or_default();
            (of == key || of.is_empty()) && (effect == "NoExecute" || effect.is_empty())
        });
        if !covered {
            tolerations.push(Toleration {
                key: Some(key.to_owned()),
                operator: Some("Exists".to_owned()),
                effect: Some("NoExecute".to_owned()),
                toleration_seconds: Some(PATIENCE),
                value: None,
            });
        }
    }
    Ok(())
}
