//! The objects that every cluster has, made when it begins and completed whenever an API server starts.
//!
//! What an administrator changed stays: objects that exist are left alone, except that RBAC objects get back the
//! rules and subjects that they lack, unless they say `rbac.authorization.kubernetes.io/autoupdate: "false"`.

mod aggregate;
mod objects;
mod reconcile;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Weak;
use std::time::Duration;

use api::resource::Table;
use api::status::Status;
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::rbac::v1::ClusterRole;
use serde_json::{Value, json};
use tracing::warn;

pub use aggregate::outdated;
pub use objects::node_rules;

use crate::auth::source::Kind;
use crate::auth::{Auth, identity};
use crate::cache::Selector;
use crate::registry::create::whole_seconds;
use crate::server::Server;
use crate::{ApiServer, Config, StartError, UserInfo};

/// So many objects are looked at and written at a time; the store commits them together.
const AT_ONCE: usize = 64;
/// How long a start may be held up by a store that does not answer.
const PATIENCE: Duration = Duration::from_secs(60);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const REGISTRATION: &str = "apiregistration.k8s.io";
const CLUSTER_ROLES: &str = "/apis/rbac.authorization.k8s.io/v1/clusterroles";

/// The address of the service `kubernetes`: the first of the service network.
pub fn service_address(service_cidr: &str) -> Option<Ipv4Addr> {
    nth_address(service_cidr, 1)
}

/// The address of the cluster's name service: the tenth of the service network.
pub fn dns_address(service_cidr: &str) -> Option<Ipv4Addr> {
    nth_address(service_cidr, 10)
}

fn nth_address(cidr: &str, n: u32) -> Option<Ipv4Addr> {
    let (base, prefix) = cidr.split_once('/')?;
    let (base, prefix): (Ipv4Addr, u32) =
        (base.parse().ok()?, prefix.parse().ok().filter(|prefix| *prefix <= 28)?);
    let mask = u32::MAX.checked_shl(32 - prefix).unwrap_or_default();
    Some(Ipv4Addr::from((u32::from(base) & mask) + n))
}

/// Writes the bootstrap objects that are missing, and keeps aggregated cluster roles up to date from then on.
pub async fn run(server: &ApiServer) -> Result<(), StartError> {
    let config = &server.server().config;
    ensure_all(server, objects::namespaces()).await?;
    let [mut cluster_roles, roles, cluster_bindings, bindings] = objects::rbac();
    fill_aggregated(&mut cluster_roles);
    let mut rest: Vec<Value> =
        [cluster_roles, roles, cluster_bindings, bindings].into_iter().flatten().collect();
    rest.extend(objects::priority_classes());
    rest.extend(objects::flow_control().into_iter().flatten());
    rest.extend(local_apis(&server.server().registry.table()));
    let network = network(&config.service_cidr);
    rest.extend(network.map(|cidr| objects::service_network(&cidr, whole_seconds(config.clock.now()))));
    rest.push(objects::authentication_config(config.pki.authority_pem()));
    rest.extend(services(config));
    let address = config.advertise_address;
    if address.is_loopback() || address.is_unspecified() {
        warn!(%address, "pods can't reach the API server: it has no address but the machine's own");
    } else {
        rest.extend(objects::kubernetes_endpoints(&[address], config.advertise_port));
    }
    ensure_all(server, rest).await?;
    let weak = std::sync::Arc::downgrade(server.server());
    server.server().tasks().spawn("cluster role aggregation", aggregation(weak));
    Ok(())
}

/// The network that a CIDR is in, as `ADDRESS/PREFIX`.
fn network(cidr: &str) -> Option<String> {
    let (address, prefix) = cidr.split_once('/')?;
    let (address, prefix): (Ipv4Addr, u32) = (address.parse().ok()?, prefix.parse().ok()?);
    let mask = u32::MAX.checked_shl(32u32.checked_sub(prefix)?).unwrap_or_default();
    Some(format!("{}/{prefix}", Ipv4Addr::from(u32::from(address) & mask)))
}

/// One object for each version of each group that is served here. The group of these objects themselves is not
/// registered, as upstream's is not.
fn local_apis(table: &Table) -> Vec<Value> {
    let served = table.rows().iter().filter(|row| row.group != REGISTRATION);
    let versions: BTreeSet<(&str, &str)> =
        served.map(|row| (row.group.as_ref(), row.version.as_ref())).collect();
    versions.into_iter().map(|(group, version)| objects::local_api(group, version)).collect()
}

fn services(config: &Config) -> Vec<Value> {
    let text = |address: Ipv4Addr| address.to_string();
    // Pods reach the API server through an IPv4 service: where it has no such address, there is nothing to tell them.
    let api =
        service_address(&config.service_cidr).filter(|_| matches!(config.advertise_address, IpAddr::V4(_)));
    let api = api.map(|address| objects::kubernetes_service(&text(address), config.advertise_port));
    let dns = dns_address(&config.service_cidr).map(|address| objects::dns_service(&text(address)));
    api.into_iter().chain(dns).collect()
}

/// Gives the aggregated roles their rules before they are written for the first time.
fn fill_aggregated(roles: &mut [Value]) {
    let typed: Vec<ClusterRole> =
        roles.iter().filter_map(|role| serde_json::from_value(role.clone()).ok()).collect();
    for (name, rules) in outdated(&typed) {
        if let Some(role) = roles.iter_mut().find(|role| role["metadata"]["name"] == name) {
            role["rules"] = json!(rules);
        }
    }
}

async fn ensure_all(server: &ApiServer, objects: Vec<Value>) -> Result<(), StartError> {
    let user = UserInfo::api_server();
    stream::iter(objects)
        .map(|object| ensure(server, &user, object))
        .buffer_unordered(AT_ONCE)
        .try_collect::<Vec<()>>()
        .await
        .map(drop)
}

/// As [`try_ensure`]; what fails only for the moment (the store is slow or unreachable) is tried again for a while.
async fn ensure(server: &ApiServer, user: &UserInfo, wanted: Value) -> Result<(), StartError> {
    let clock = &server.server().config.clock;
    let deadline = clock.instant() + PATIENCE;
    let mut pause = FIRST_PAUSE;
    loop {
        match try_ensure(server, user, &wanted).await {
            Err(StartError::Bootstrap { path, status })
                if (status.code >= 500 || status.code == 429) && clock.instant() + pause < deadline =>
            {
                warn!(path, %status, "a bootstrap object could not be written and is tried again");
                clock.wait(pause).await;
                pause *= 2;
            }
            result => return result,
        }
    }
}

async fn try_ensure(server: &ApiServer, user: &UserInfo, wanted: &Value) -> Result<(), StartError> {
    let path = collection(wanted);
    let own = format!("{path}/{}", wanted["metadata"]["name"].as_str().unwrap_or_default());
    let failed = |status| StartError::Bootstrap { path: own.clone(), status };
    loop {
        let existing = match server.call(user, "GET", &own, None).await {
            Ok(existing) => existing,
            Err(status) if status.code == 404 => {
                match server.call(user, "POST", &path, Some(wanted)).await {
                    // Another API server was faster: look at what it made.
                    Err(status) if status.code == 409 => continue,
                    result => return result.map(drop).map_err(failed),
                }
            }
            Err(status) => return Err(failed(status)),
        };
        let result = match reconcile::step(&existing, wanted) {
            reconcile::Step::Leave => return Ok(()),
            reconcile::Step::Update(object) => server.call(user, "PUT", &own, Some(&object)).await,
            reconcile::Step::Replace => server.call(user, "DELETE", &own, None).await,
        };
        match result {
            Ok(_) => {}
            Err(status) if matches!(status.code, 404 | 409) => {}
            Err(status) => return Err(failed(status)),
        }
    }
}

/// The path of the collection that an object belongs to.
fn collection(object: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let version = text(&object["apiVersion"]);
    let root = if version.contains('/') { format!("/apis/{version}") } else { format!("/api/{version}") };
    let kind = text(&object["kind"]).to_lowercase();
    let plural = match kind.as_str() {
        "endpoints" => kind,
        kind if kind.ends_with('s') => format!("{kind}es"),
        kind => format!("{kind}s"),
    };
    match object["metadata"]["namespace"].as_str() {
        Some(namespace) => format!("{root}/namespaces/{namespace}/{plural}"),
        None => format!("{root}/{plural}"),
    }
}

/// Writes the rules of aggregated cluster roles whenever a cluster role changes.
async fn aggregation(server: Weak<Server>) {
    loop {
        let Some(running) = server.upgrade() else { return };
        let Some(cache) = running.registry.cache_of("rbac.authorization.k8s.io", "clusterroles") else {
            return;
        };
        let Ok((_, mut changes)) = cache.watch(Selector::default().into(), None) else { return };
        aggregate_once(
            &ApiServer::from_server(running),
            &identity::controller("clusterrole-aggregation-controller"),
        )
        .await;
        // Nothing is held while there is nothing to do.
        if changes.next().await.is_none() {
            // Closed because it lagged, or because the server ends; the task ends with the server.
            tokio::task::yield_now().await;
        }
        while changes.try_next().is_some() {}
    }
}

async fn aggregate_once(server: &ApiServer, user: &UserInfo) {
    let items = Auth::objects(&server.server().auth).list(Kind::ClusterRole);
    let roles: Vec<ClusterRole> = items.iter().filter_map(|item| item.read()).collect();
    for (name, rules) in outdated(&roles) {
        let Some(role) = roles.iter().find(|role| role.metadata.name.as_ref() == Some(&name)) else {
            continue;
        };
        let mut role = role.clone();
        role.rules = Some(rules);
        let update = async {
            let body = serde_json::to_value(&role).map_err(Status::internal)?;
            server.call(user, "PUT", &format!("{CLUSTER_ROLES}/{name}"), Some(&body)).await
        };
        match update.await {
            Ok(_) => {}
            // It changed meanwhile; that change wakes us again.
            Err(status) if matches!(status.code, 404 | 409) => {}
            Err(status) => {
                warn!(%name, reason = %status.message, "an aggregated cluster role can't be updated")
            }
        }
    }
}

#[cfg(test)]
mod tests;
