//! Keeps the plan in step with the objects, and tells of schemas whose level is missing.

use std::sync::{Arc, Weak};

use k8s_openapi::api::flowcontrol::v1::{FlowSchema, PriorityLevelConfiguration};
use serde::de::DeserializeOwned;
use serde_json::json;
use tracing::{debug, warn};

use super::plan;
use crate::cache::{Cache, FreshError, Selector};
use crate::server::Server;
use crate::{ApiServer, UserInfo};

const GROUP: &str = "flowcontrol.apiserver.k8s.io";
/// Under this name upstream writes the conditions.
const MANAGER: &str = "api-priority-and-fairness-config-consumer-v1";
const LEVELS: &str = "prioritylevelconfigurations";
const SCHEMAS: &str = "flowschemas";

/// Reads the objects, and follows them for as long as the server lives.
pub(crate) async fn begin(server: &Arc<Server>) -> Result<(), store::Error> {
    match server.registry.caches.fresh().await {
        Err(FreshError::Store(error)) => return Err(error),
        // What is late comes while they are followed.
        Ok(_) | Err(FreshError::NotReached(_)) => {}
    }
    let read_cache = |plural| server.registry.cache_of(GROUP, plural);
    if let (Some(levels), Some(schemas)) = (read_cache(LEVELS), read_cache(SCHEMAS)) {
        server.flow.configure(&read::<PriorityLevelConfiguration>(&levels), &read::<FlowSchema>(&schemas));
    }
    server.tasks().spawn("flow control", run(Arc::downgrade(server)));
    Ok(())
}

async fn run(server: Weak<Server>) {
    loop {
        let Some(running) = server.upgrade() else { return };
        let cache = |plural| running.registry.cache_of(GROUP, plural);
        let (Some(levels), Some(schemas)) = (cache(LEVELS), cache(SCHEMAS)) else {
            return;
        };
        // Watched before they are read, so that no change is missed.
        let watch = |cache: &Arc<Cache>| cache.watch(Selector::default().into(), None).ok();
        let (Some((_, mut of_levels)), Some((_, mut of_schemas))) = (watch(&levels), watch(&schemas)) else {
            return;
        };
        let (levels, schemas) = (read::<PriorityLevelConfiguration>(&levels), read::<FlowSchema>(&schemas));
        running.flow.configure(&levels, &schemas);
        tell(&ApiServer::from_server(running), &levels, &schemas).await;
        // Nothing is held while there is nothing to do. A watch that ended because it lagged, or because the objects
        // were read anew, is begun again; one that ended with the server is not.
        let changed = tokio::select! {
            biased;
            change = of_levels.next() => change.is_some(),
            change = of_schemas.next() => change.is_some(),
        };
        if !changed && server.upgrade().is_none_or(|server| server.ending()) {
            return;
        }
    }
}

fn read<T: DeserializeOwned>(cache: &Cache) -> Vec<T> {
    let snapshot = cache.snapshot();
    let selector = Selector::default();
    let objects = snapshot.scan(&selector, None).filter_map(|entry| {
        serde_json::from_slice(entry.bytes())
            .inspect_err(|error| warn!(key = entry.key(), %error, "left out of overload protection"))
            .ok()
    });
    objects.collect()
}

/// Writes the conditions that say something else than what is so.
async fn tell(server: &ApiServer, levels: &[PriorityLevelConfiguration], schemas: &[FlowSchema]) {
    let now = crate::registry::create::whole_seconds(server.server().config.clock.now());
    for schema in schemas {
        let Some(condition) = plan::dangling(schema, levels, now) else { continue };
        let name = schema.metadata.name.as_deref().unwrap_or_default();
        let shown = schema.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let mut conditions: Vec<_> =
            shown.into_iter().filter(|shown| shown.type_ != condition.type_).cloned().collect();
        conditions.push(condition);
        // What changed meanwhile is looked at again.
        let patch = json!({
            "metadata": {"resourceVersion": schema.metadata.resource_version},
            "status": {"conditions": conditions},
        });
        let target = format!("/apis/{GROUP}/v1/{SCHEMAS}/{name}/status?fieldManager={MANAGER}");
        if let Err(status) = server.call(&UserInfo::api_server(), "PATCH", &target, Some(&patch)).await {
            debug!(name, reason = %status.message, "the condition of a flow schema was not written");
        }
    }
}
