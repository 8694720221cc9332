//! `binding`: gives a pod its node.

use std::sync::Arc;

use api::field::{FieldError, Path};
use api::status::{GroupResource, Status};
use http::{Response, StatusCode};
use k8s_openapi::api::core::v1::{Binding, Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;

use crate::RequestInfo;
use crate::body::Body;
use crate::context::Context;
use crate::registry::Current;
use crate::registry::create::whole_seconds;
use crate::registry::options::WriteOptions;
use crate::registry::update::{self, Part};
use crate::respond;
use crate::server::Server;

const PODS: GroupResource<'static> = GroupResource { group: "", resource: "pods" };

/// Binds a pod to the node that the Binding names. Also annotations and labels of the Binding go to the pod.
pub async fn bind(
    server: &Arc<Server>,
    context: &Context<'_>,
    binding: &Binding,
    options: &WriteOptions,
) -> Result<Response<Body>, Status> {
    let given = binding.metadata.name.as_deref().unwrap_or_default();
    let name = if context.info.subresource.is_empty() { given } else { context.info.name.as_str() };
    if given != name {
        return Err(Status::bad_request("name in URL does not match name in Binding object"));
    }
    let target = &binding.target;
    let path = Path::new("target");
    let mut errors = Vec::new();
    let kind = target.kind.as_deref().unwrap_or_default();
    if !matches!(kind, "" | "Node") {
        errors.push(FieldError::not_supported(&path.child("kind"), kind, &["Node", "<empty>"]));
    }
    let node = target.name.clone().unwrap_or_default();
    if node.is_empty() {
        errors.push(FieldError::required(&path.child("name"), ""));
    }
    if !errors.is_empty() {
        return Err(Status::invalid("", "Binding", name, &errors));
    }
    let row = server.registry.table().preferred("", "pods").cloned().ok_or_else(Status::unknown_path)?;
    let now = whole_seconds(server.registry.clock.now());
    let mut change = |current: Option<&Current>| {
        let current = current.ok_or_else(|| Status::not_found(PODS, name))?;
        let mut object = current.object.clone_box();
        let pod = object.downcast_mut::<Pod>().ok_or_else(|| Status::internal("the object is not a Pod"))?;
        assign(pod, binding, &node, name, now)?;
        Ok(object)
    };
    // The pod, under the rules of its binding; the path may be that of the old resource `bindings`.
    let info = RequestInfo { name: name.to_owned(), ..context.info.clone() };
    let context = Context { info: &info, ..*context };
    // Nobody owns what the cluster decides.
    let options = WriteOptions { owners_known: true, ..options.clone() };
    update::store(server, &context, &row, Part::Change("binding"), name, &options, &mut change).await?;
    let status =
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    respond::object(StatusCode::CREATED, context.accept, status.to_string().into())
}

fn assign(
    pod: &mut Pod,
    binding: &Binding,
    node: &str,
    name: &str,
    now: jiff::Timestamp,
) -> Result<(), Status> {
    let conflict = |why: String| Status::conflict(GroupResource::new("", "pods/binding"), name, why);
    if let Some(uid) = binding.metadata.uid.as_deref().filter(|uid| !uid.is_empty()) {
        let actual = pod.metadata.uid.as_deref().unwrap_or_default();
        if uid != actual {
            let why =
                format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {actual}");
            return Err(conflict(why));
        }
    }
    if let Some(version) = binding.metadata.resource_version.as_ref().filter(|version| !version.is_empty()) {
        pod.metadata.resource_version = Some(version.clone());
    }
    if pod.metadata.deletion_timestamp.is_some() {
        return Err(conflict(format!("pod {name} is being deleted, cannot be assigned to a host")));
    }
    let spec = pod.spec.get_or_insert_default();
    if let Some(assigned) = spec.node_name.as_deref().filter(|assigned| !assigned.is_empty()) {
        return Err(conflict(format!(
            "pod {name} is already assigned to node {}",
            api::field::quote(assigned)
        )));
    }
    if spec.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty()) {
        return Err(conflict(format!("pod {name} has non-empty .spec.schedulingGates")));
    }
    spec.node_name = Some(node.to_owned());
    let annotations = binding.metadata.annotations.iter().flatten();
    for (key, value) in annotations {
        pod.metadata.annotations.get_or_insert_default().insert(key.clone(), value.clone());
    }
    for (key, value) in binding.metadata.labels.iter().flatten() {
        pod.metadata.labels.get_or_insert_default().insert(key.clone(), value.clone());
    }
    let conditions = pod.status.get_or_insert_default().conditions.get_or_insert_default();
    let scheduled = PodCondition {
        type_: "PodScheduled".to_owned(),
        status: "True".to_owned(),
        last_transition_time: Some(Time(now)),
        ..PodCondition::default()
    };
    match conditions.iter_mut().find(|condition| condition.type_ == scheduled.type_) {
        Some(condition) if condition.status == scheduled.status => {
            (condition.reason, condition.message) = (None, None);
        }
        Some(condition) => *condition = scheduled,
        None => conditions.push(scheduled),
    }
    Ok(())
}
