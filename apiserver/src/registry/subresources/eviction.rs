//! `eviction`: deletes a pod, if its disruption budgets allow it.

use std::sync::Arc;

use api::resource::Resource;
use api::selector::LabelSelector;
use api::status::{Cause, GroupResource, Status};
use bytes::Bytes;
use http::{Response, StatusCode};
use k8s_openapi::Resource as _;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::{Eviction, PodDisruptionBudget};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use serde_json::{Value, json};

use crate::body::Body;
use crate::cache::Selector;
use crate::context::Context;
use crate::negotiate::content_type;
use crate::registry::create::whole_seconds;
use crate::registry::options::{DeleteOptions, WriteOptions};
use crate::registry::update::{self, Part};
use crate::registry::{Current, delete, fresh_failure};
use crate::server::Server;
use crate::{RequestInfo, respond};

/// More evictions than this that the disruption controller has not seen yet are not added to.
const MOST_UNSEEN: usize = 2000;

/// The body under the version that is spoken now. Clients up to Kubernetes 1.21 send the earlier one, which has the same
/// fields and is still taken.
pub fn of_today(context: &Context<'_>, body: Bytes) -> Bytes {
    if content_type(context.headers) != "application/json" {
        return body;
    }
    match serde_json::from_slice::<Value>(&body) {
        Ok(mut value) if value["apiVersion"] == "policy/v1beta1" => {
            value["apiVersion"] = Eviction::API_VERSION.into();
            value.to_string().into()
        }
        _ => body,
    }
}

/// Evicts the pod of the path.
pub async fn evict(
    server: &Arc<Server>,
    context: &Context<'_>,
    row: &Arc<Resource>,
    eviction: Eviction,
    options: &WriteOptions,
) -> Result<Response<Body>, Status> {
    let name = context.info.name.as_str();
    if eviction.metadata.name.as_deref().unwrap_or_default() != name {
        return Err(Status::bad_request("name in URL does not match name in Eviction object"));
    }
    let mut asked = match &eviction.delete_options {
        Some(options) => DeleteOptions::from_value(serde_json::to_value(options).map_err(Status::internal)?)?,
        None => DeleteOptions::default(),
    };
    asked.dry_run |= options.dry_run;
    let namespace = context.info.namespace.as_str();
    let current = server.registry.certain(row, namespace, name).await?;
    let current = current.ok_or_else(|| Status::not_found(row.group_resource(), name))?;
    let pod =
        current.object.downcast_ref::<Pod>().ok_or_else(|| Status::internal("the object is not a Pod"))?;
    let version = current.entry.revision().to_string();
    // The pod must not have changed into one that counts since it was looked at.
    let mut pinned = false;
    if is_down(pod) {
        if asked.resource_version.is_none() && !is_ended(pod) {
            (asked.resource_version, pinned) = (Some(version), true);
        }
    } else {
        server.registry.caches.fresh().await.map_err(fresh_failure)?;
        let budgets = budgets(server, context, pod)?;
        match budgets.as_slice() {
            [] => {}
            [budget] => {
                let needs_budget = take(server, context, pod, budget, asked.dry_run).await?;
                if !needs_budget && asked.resource_version.is_none() {
                    (asked.resource_version, pinned) = (Some(version), true);
                }
            }
            _ => {
                let message = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
                return Err(Status::failure(500, api::status::Reason::Unknown, message));
            }
        }
    }
    match delete::store(server, context, row, name, &asked).await {
        Ok(_) => {}
        Err(status) if status.code == 409 && pinned => return Err(busy("")),
        Err(status) => return Err(status),
    }
    let status =
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    respond::object(StatusCode::CREATED, context.accept, status.to_string().into())
}

fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

fn is_ended(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed") || pod.metadata.deletion_timestamp.is_some()
}

/// True if the pod does not serve, so that no budget counts it.
fn is_down(pod: &Pod) -> bool {
    is_ended(pod) || phase(pod) == "Pending"
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// The budgets that select the pod.
fn budgets(server: &Server, context: &Context<'_>, pod: &Pod) -> Result<Vec<PodDisruptionBudget>, Status> {
    let Some(cache) = server.registry.cache_of("policy", "poddisruptionbudgets") else {
        return Ok(Vec::new());
    };
    let labels = pod.metadata.labels.as_ref();
    let mut found = Vec::new();
    for entry in cache.list(&Selector::namespace(&context.info.namespace)) {
        let budget: PodDisruptionBudget = entry.decode().map_err(Status::internal)?;
        let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
        // One that is absent or can't be read selects nothing; an empty one selects all.
        let Ok(selector) = LabelSelector::from_meta(selector) else { continue };
        if selector.matches(labels) {
            found.push(budget);
        }
    }
    Ok(found)
}

/// Takes one disruption out of the budget. False if the pod is not ready, so that the budget need not pay.
async fn take(
    server: &Arc<Server>,
    context: &Context<'_>,
    pod: &Pod,
    budget: &PodDisruptionBudget,
    dry_run: bool,
) -> Result<bool, Status> {
    let status = budget.status.clone().unwrap_or_default();
    if !is_ready(pod) {
        let policy = budget.spec.as_ref().and_then(|spec| spec.unhealthy_pod_eviction_policy.as_deref());
        let (current, desired) = (status.current_healthy.unwrap_or(0), status.desired_healthy.unwrap_or(0));
        let healthy = current >= desired && desired > 0;
        if policy == Some("AlwaysAllow") || healthy {
            return Ok(false);
        }
    }
    let name = budget.metadata.name.clone().unwrap_or_default();
    let pod_name = pod.metadata.name.clone().unwrap_or_default();
    let row = server
        .registry
        .table()
        .preferred("policy", "poddisruptionbudgets")
        .cloned()
        .ok_or_else(Status::unknown_path)?;
    let now = whole_seconds(server.registry.clock.now());
    let mut change = |current: Option<&Current>| {
        let current = current.ok_or_else(|| Status::not_found(row.group_resource(), &name))?;
        let mut object = current.object.clone_box();
        let budget = object
            .downcast_mut::<PodDisruptionBudget>()
            .ok_or_else(|| Status::internal("the object is not a PodDisruptionBudget"))?;
        check_and_decrement(budget, &name, &pod_name, now)?;
        Ok(object)
    };
    let options = WriteOptions { dry_run, owners_known: true, ..WriteOptions::default() };
    let info = RequestInfo { name: name.clone(), subresource: "status".to_owned(), ..context.info.clone() };
    let context = Context { info: &info, ..*context };
    update::store(server, &context, &row, Part::Status, &name, &options, &mut change).await?;
    Ok(true)
}

fn check_and_decrement(
    budget: &mut PodDisruptionBudget,
    name: &str,
    pod: &str,
    now: jiff::Timestamp,
) -> Result<(), Status> {
    let generation = budget.metadata.generation.unwrap_or(0);
    let status = budget.status.get_or_insert_default();
    if status.observed_generation.unwrap_or(0) < generation {
        return Err(busy(name));
    }
    let of = GroupResource::new("policy", "poddisruptionbudget");
    let allowed = status.disruptions_allowed.unwrap_or(0);
    if allowed < 0 {
        return Err(Status::forbidden(of, name, "pdb disruptions allowed is negative"));
    }
    if status.disrupted_pods.as_ref().is_some_and(|pods| pods.len() > MOST_UNSEEN) {
        let why = "DisruptedPods map too big - too many evictions not confirmed by PDB controller";
        return Err(Status::forbidden(of, name, why));
    }
    if allowed == 0 {
        let message = format!(
            "The disruption budget {name} needs {} healthy pods and has {} currently",
            status.desired_healthy.unwrap_or(0),
            status.current_healthy.unwrap_or(0)
        );
        return Err(refused(0).cause(cause(message)));
    }
    status.disruptions_allowed = Some(allowed - 1);
    if allowed == 1 {
        let conditions = status.conditions.get_or_insert_default();
        let condition = Condition {
            type_: "DisruptionAllowed".to_owned(),
            status: "False".to_owned(),
            reason: "InsufficientPods".to_owned(),
            message: String::new(),
            observed_generation: status.observed_generation,
            last_transition_time: Time(now),
        };
        match conditions.iter_mut().find(|other| other.type_ == condition.type_) {
            Some(other) if other.status == condition.status => other.reason = condition.reason,
            Some(other) => *other = condition,
            None => conditions.push(condition),
        }
    }
    status.disrupted_pods.get_or_insert_default().insert(pod.to_owned(), Time(now));
    Ok(())
}

fn refused(retry: u32) -> Status {
    Status::too_many_requests("Cannot evict pod as it would violate the pod's disruption budget.", retry)
}

fn busy(name: &str) -> Status {
    refused(10).cause(cause(format!("The disruption budget {name} is still being processed by the server.")))
}

fn cause(message: String) -> Cause {
    Cause { reason: "DisruptionBudget".to_owned(), message, ..Cause::default() }
}
