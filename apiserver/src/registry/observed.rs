//! Objects that nobody stores: each read makes them from what the server sees.

use std::sync::Arc;
use std::time::Duration;

use api::resource::{Observation, Resource};
use api::selector::LabelSelector;
use api::status::Status;
use bytes::{BufMut, BytesMut};
use http::{Response, StatusCode};
use k8s_openapi::api::coordination::v1::Lease;
use serde_json::{Value, json};

use crate::body::Body;
use crate::cache::Entry;
use crate::context::Context;
use crate::registry::table::Shape;
use crate::respond;
use crate::server::Server;

/// GET of one of them, or of all.
pub async fn answer(
    server: &Arc<Server>,
    context: &Context<'_>,
    row: &Arc<Resource>,
    observation: Observation,
) -> Result<Response<Body>, Status> {
    let info = context.info;
    let shape = Shape::new(&server.registry, row, context.accept, &info.query)?;
    let seen = match observation {
        Observation::Components => components(server).await,
    };
    let entry = |(name, value): &(String, Value)| {
        Entry::new(name, value.to_string().as_bytes(), 0, Box::default()).map_err(Status::internal)
    };
    if info.verb == "get" {
        let found = seen.iter().find(|(name, _)| *name == info.name);
        let found = found.ok_or_else(|| Status::not_found(row.group_resource(), &info.name))?;
        return respond::object(StatusCode::OK, context.accept, shape.one(&entry(found)?, true)?);
    }
    let labels = match info.query.get("labelSelector") {
        Some(text) => LabelSelector::parse(text).map_err(|error| Status::bad_request(error.to_string()))?,
        None => LabelSelector::everything(),
    };
    let mut out = BytesMut::new();
    shape.put_head(&mut out, &json!({}), true);
    // None of them has labels.
    for (i, found) in seen.iter().filter(|_| labels.matches(None)).enumerate() {
        if i > 0 {
            out.put_u8(b',');
        }
        shape.put_item(&mut out, &entry(found)?)?;
    }
    out.put_slice(b"]}");
    respond::object(StatusCode::OK, context.accept, out.freeze())
}

/// How the parts of the control plane are: the store answers or not, the others hold their leases or not.
async fn components(server: &Server) -> Vec<(String, Value)> {
    let store = server.registry.store.revision().await.map(|_| ()).map_err(|error| error.to_string());
    [
        ("controller-manager", leads(server, "kube-controller-manager")),
        ("etcd-0", store),
        ("scheduler", leads(server, "kube-scheduler")),
    ]
    .into_iter()
    .map(|(name, health)| {
        let condition = match health {
            Ok(()) => json!({"type": "Healthy", "status": "True", "message": "ok"}),
            Err(why) => json!({"type": "Healthy", "status": "False", "message": why}),
        };
        let object = json!({
            "kind": "ComponentStatus", "apiVersion": "v1",
            "metadata": {"name": name}, "conditions": [condition],
        });
        (name.to_owned(), object)
    })
    .collect()
}

/// Whether somebody renews the lease of a component.
fn leads(server: &Server, lease: &str) -> Result<(), String> {
    let cache = server.registry.cache_of("coordination.k8s.io", "leases");
    let entry = cache.and_then(|cache| cache.get("kube-system", lease));
    let entry = entry.ok_or_else(|| format!("nobody holds the lease kube-system/{lease}"))?;
    let lease: Lease = entry.decode().map_err(|error| error.to_string())?;
    let spec = lease.spec.unwrap_or_default();
    let lasts = Duration::from_secs(u64::try_from(spec.lease_duration_seconds.unwrap_or(0)).unwrap_or(0));
    let until = spec.renew_time.and_then(|renewed| renewed.0.checked_add(lasts).ok());
    match until {
        Some(until) if until >= server.registry.clock.now() => Ok(()),
        Some(until) => Err(format!("the lease ended at {until}")),
        None => Err("the lease was never renewed".to_owned()),
    }
}
