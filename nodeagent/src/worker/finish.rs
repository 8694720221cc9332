//! Removes what a pod leaves behind: ended containers, sandboxes, files, and at last the object in the API.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, Preconditions};

use super::kill::missing_is_fine;
use crate::context::Context;
use crate::pod;

/// Removes containers and sandboxes. Returns the ids of those that are gone, and why another is not.
pub(super) async fn collect(
    context: &Context,
    containers: Vec<String>,
    sandboxes: Vec<String>,
) -> (Vec<String>, Result<(), String>) {
    let mut removed = Vec::new();
    for id in containers {
        if let Err(error) = missing_is_fine(context.runtime.remove_container(&id).await) {
            return (removed, Err(error.rpc_text()));
        }
        removed.push(id);
    }
    for id in sandboxes {
        // A sandbox that ended by itself still holds its network until it is stopped.
        let gone = match missing_is_fine(context.runtime.stop_sandbox(&id).await) {
            Ok(()) => missing_is_fine(context.runtime.remove_sandbox(&id).await),
            Err(error) => Err(error),
        };
        if let Err(error) = gone {
            return (removed, Err(error.rpc_text()));
        }
        removed.push(id);
    }
    (removed, Ok(()))
}

/// Removes all that is left on the node, then the pod from the API unless it is gone from there.
pub(super) async fn finish(
    context: Arc<Context>,
    pod: Arc<Pod>,
    containers: Vec<String>,
    sandboxes: Vec<String>,
    gone: bool,
) -> (Vec<String>, Result<(), String>) {
    let (removed, result) = collect(&context, containers, sandboxes).await;
    if result.is_err() {
        return (removed, result);
    }
    if let Err(error) = context.host.clean_up(&pod).await {
        return (removed, Err(error.to_string()));
    }
    if gone {
        return (removed, Ok(()));
    }
    let api: Api<Pod> = Api::namespaced(context.client.clone(), pod::namespace(&pod));
    let parameters = DeleteParams {
        grace_period_seconds: Some(0),
        preconditions: Some(Preconditions { uid: Some(pod::uid(&pod).to_owned()), resource_version: None }),
        ..DeleteParams::default()
    };
    match api.delete(pod::name(&pod), &parameters).await {
        Ok(_) => {}
        Err(error) if client::error::is_not_found(&error) || client::error::is_conflict(&error) => {}
        Err(error) => return (removed, Err(error.to_string())),
    }
    (removed, Ok(()))
}
