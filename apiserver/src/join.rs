//! How a machine becomes a node: it proves that it may (a bootstrap token, or its certificate when it renews), says
//! who it is, and gets certificates for exactly that name and these addresses.

use std::net::IpAddr;

use api::status::Status;
use http::Response;
use k8s_openapi::api::core::v1::Node;
use serde::{Deserialize, Serialize};

use crate::auth::bootstrap_token::BOOTSTRAPPERS;
use crate::auth::node::node_name;
use crate::auth::source::Kind;
use crate::context::read_body;
use crate::pki::tls::server_names;
use crate::routes::RouteRequest;
use crate::{Body, Config, MASTERS, UserInfo, bootstrap, respond};

const MOST: usize = 64 * 1024;
const MOST_ADDRESSES: usize = 16;

/// What a machine sends to `/skiff/join`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JoinRequest {
    pub node_name: String,
    pub addresses: Vec<IpAddr>,
    /// Request for a certificate of CN `system:node:<name>`, O `system:nodes`, PEM.
    pub client_csr: String,
    /// The same for the agent's own API.
    pub serving_csr: String,
}

/// What it gets.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JoinResponse {
    /// The cluster's authority, PEM.
    pub ca: String,
    pub client_certificate: String,
    pub serving_certificate: String,
    pub cluster_dns: String,
    pub cluster_domain: String,
    pub cluster_cidr: String,
    pub service_cidr: String,
}

/// GET `/skiff/ca`: the authority's certificate, for everybody.
pub async fn authority(request: RouteRequest<'_>) -> Result<Response<Body>, Status> {
    if request.info.verb != "get" {
        return Err(Status::method_not_allowed());
    }
    let pem = request.server.config.pki.authority_pem().to_owned();
    Ok(respond::with(http::StatusCode::OK, "application/x-pem-file", pem))
}

/// POST `/skiff/join`.
pub async fn join(request: RouteRequest<'_>) -> Result<Response<Body>, Status> {
    if request.info.verb != "post" {
        return Err(Status::method_not_allowed());
    }
    let server = request.server;
    let user = server.auth.authenticate(request.parts, request.connection).await?;
    let user = user.ok_or_else(|| Status::unauthorized("Unauthorized"))?;
    let body = read_body(request.body, MOST).await?;
    let wanted: JoinRequest = serde_json::from_slice(&body)
        .map_err(|error| Status::bad_request(format!("join request: {error}")))?;
    let node =
        server.auth.objects().get(Kind::Node, "", &wanted.node_name).and_then(|item| item.read::<Node>());
    let local = request.connection.remote.is_some_and(|remote| {
        let remote = remote.ip().to_canonical();
        remote.is_loopback() || remote == server.config.advertise_address
    });
    check(&server.config, &user, &wanted, node.as_ref(), local)?;
    let config = &server.config;
    let signed = config
        .pki
        .sign_node(&wanted.node_name, &wanted.addresses, &wanted.client_csr, &wanted.serving_csr)
        .map_err(|error| Status::bad_request(error.to_string()))?;
    let dns =
        bootstrap::dns_address(&config.service_cidr).map(|address| address.to_string()).unwrap_or_default();
    let answer = JoinResponse {
        ca: config.pki.authority_pem().to_owned(),
        client_certificate: signed.client_pem,
        serving_certificate: signed.serving_pem,
        cluster_dns: dns,
        cluster_domain: config.cluster_domain.clone(),
        cluster_cidr: config.cluster_cidr.clone(),
        service_cidr: config.service_cidr.clone(),
    };
    tracing::info!(node = %wanted.node_name, user = %user.name, "signed the certificates of a node");
    Ok(respond::json(&serde_json::to_value(&answer).map_err(Status::internal)?))
}

fn forbidden(why: impl std::fmt::Display) -> Status {
    Status::forbidden(api::status::GroupResource::new("", ""), "", why)
}

/// Refuses whom and what must not be signed. `node` is what the cluster knows of the name; `local` is true if the
/// request comes from the API server's own machine.
fn check(
    config: &Config,
    user: &UserInfo,
    wanted: &JoinRequest,
    node: Option<&Node>,
    local: bool,
) -> Result<(), Status> {
    let name = &wanted.node_name;
    let renews = node_name(user) == Some(name.as_str());
    if !renews && !user.in_group(BOOTSTRAPPERS) && !user.in_group(MASTERS) {
        let user = api::field::quote(&user.name);
        return Err(forbidden(format!("User {user} cannot join as node {}", api::field::quote(name))));
    }
    if let Some(problem) = api::name::subdomain_name(name, false).first() {
        return Err(Status::bad_request(format!("node name {}: {problem}", api::field::quote(name))));
    }
    // A token is enough to join, but not to take the place of a node that lives.
    if !renews && node.is_some_and(is_ready) {
        return Err(Status::failure(
            409,
            api::status::Reason::AlreadyExists,
            format!(
                "node {} is in the cluster and ready; give this machine another name (--node-name), or delete that node first",
                api::field::quote(name)
            ),
        ));
    }
    // Whoever serves under a name of the API server, with a certificate that all trust, is the API server to them.
    let service = bootstrap::service_address(&config.service_cidr)
        .map(|address| address.to_string())
        .unwrap_or_default();
    let own = server_names(&config.server_names, &service, &config.cluster_domain);
    let taken = |text: &str| own.iter().any(|one| one == text);
    if taken(name) && !local
        || name == "localhost"
        || name == "kubernetes"
        || name.starts_with("kubernetes.default")
    {
        return Err(forbidden(format!(
            "the node name {} is a name of the API server",
            api::field::quote(name)
        )));
    }
    if wanted.addresses.is_empty() || wanted.addresses.len() > MOST_ADDRESSES {
        return Err(Status::bad_request(format!("a node has between 1 and {MOST_ADDRESSES} addresses")));
    }
    for address in &wanted.addresses {
        let why = match address {
            address if address.is_loopback() || address.is_unspecified() || address.is_multicast() => {
                "is no address of a machine"
            }
            address if in_network(&config.service_cidr, *address) => "belongs to the services",
            address if !local && (taken(&address.to_string()) || *address == config.advertise_address) => {
                "is the API server's"
            }
            _ => continue,
        };
        return Err(forbidden(format!("the node address {address} {why}")));
    }
    Ok(())
}

fn is_ready(node: &Node) -> bool {
    let conditions = node.status.iter().filter_map(|status| status.conditions.as_ref()).flatten();
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn in_network(cidr: &str, address: IpAddr) -> bool {
    let Some((base, prefix)) = cidr.split_once('/') else { return false };
    let (Ok(IpAddr::V4(base)), Ok(prefix), IpAddr::V4(address)) =
        (base.parse(), prefix.parse::<u32>(), address.to_canonical())
    else {
        return false;
    };
    let mask = u32::MAX.checked_shl(32u32.saturating_sub(prefix)).unwrap_or_default();
    u32::from(base) & mask == u32::from(address) & mask
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use base::{Clock, Random, Tasks};
    use serde_json::json;

    use super::*;
    use crate::auth::identity;
    use crate::pki::Pki;

    fn config() -> Config {
        let (clock, random) = (Clock::system(), Random::seeded(1));
        let pki = Arc::new(Pki::in_memory(clock.clone(), random.clone()).unwrap());
        Config::new(clock, random, Tasks::new("test"), pki, "192.0.2.1".parse().unwrap())
    }

    fn request(name: &str, addresses: &[&str]) -> JoinRequest {
        JoinRequest {
            node_name: name.to_owned(),
            addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
            client_csr: String::new(),
            serving_csr: String::new(),
        }
    }

    #[tokio::test]
    async fn only_newcomers_and_the_node_itself_get_certificates() {
        let config = config();
        let newcomer = UserInfo::new("system:bootstrap:abcdef", &[BOOTSTRAPPERS]);
        let ready: Node = serde_json::from_value(
            json!({"metadata": {}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}}),
        )
        .unwrap();
        let gone: Node = serde_json::from_value(
            json!({"metadata": {}, "status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}}),
        )
        .unwrap();
        let wanted = request("a", &["192.0.2.7"]);
        for (user, node, expect) in [
            (&newcomer, None, 0),
            (&newcomer, Some(&gone), 0),
            (&newcomer, Some(&ready), 409),
            (&identity::node("a"), Some(&ready), 0),
            (&identity::node("b"), None, 403),
            (&identity::admin(), None, 0),
            (&UserInfo::new("anna", &[]), None, 403),
            (&UserInfo::service_account("a", "b"), None, 403),
        ] {
            let code = check(&config, user, &wanted, node, false).err().map_or(0, |status| status.code);
            assert_eq!(code, expect, "{}", user.name);
        }
    }

    #[tokio::test]
    async fn names_and_addresses_of_the_api_server_are_not_given_away() {
        let config = config();
        let newcomer = UserInfo::new("system:bootstrap:abcdef", &[BOOTSTRAPPERS]);
        for (name, addresses, local, expect) in [
            ("node-1.example", &["192.0.2.7", "2001:db8::1"][..], false, 0),
            ("Bad_Name", &["192.0.2.7"], false, 400),
            ("", &["192.0.2.7"], false, 400),
            ("a", &[], false, 400),
            ("localhost", &["192.0.2.7"], true, 403),
            ("kubernetes", &["192.0.2.7"], true, 403),
            ("kubernetes.default.svc", &["192.0.2.7"], false, 403),
            ("a", &["127.0.0.1"], true, 403),
            ("a", &["0.0.0.0"], false, 403),
            ("a", &["224.0.0.1"], false, 403),
            ("a", &["10.96.0.1"], true, 403),
            ("a", &["::ffff:10.96.0.1"], true, 403),
            ("a", &["192.0.2.1"], false, 403),
            ("a", &["192.0.2.1"], true, 0),
        ] {
            let code = check(&config, &newcomer, &request(name, addresses), None, local)
                .err()
                .map_or(0, |status| status.code);
            assert_eq!(code, expect, "{name} {addresses:?} {local}");
        }
    }
}
