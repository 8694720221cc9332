//! Port-forward: SPDY as it is, or out of the WebSocket in which newer clients put it, or the WebSocket of those
//! that have one channel per port.

use std::sync::Arc;

use api::status::Status;
use http::request::Parts;
use http::{Response, StatusCode};
use hyper::upgrade::OnUpgrade;

use super::upgrade::{self, Asked};
use super::{ask, escape, options, place, pod, refusal, tunnel};
use crate::Body;
use crate::context::Context;
use crate::registry::fresh_failure;
use crate::server::Server;

/// What SPDY's streams are for.
const PROTOCOL: &str = "portforward.k8s.io";

/// GET or POST that becomes connections to ports of a pod.
pub(crate) async fn port_forward(
    server: &Arc<Server>,
    context: &Context<'_>,
    parts: &Parts,
    client: Option<OnUpgrade>,
) -> Result<Response<Body>, Status> {
    let info = context.info;
    server.registry.caches.fresh().await.map_err(fresh_failure)?;
    upgrade::allow(server, context)?;
    let ports = options::ports(context.info)?;
    let pod = pod(server, context)?;
    let unassigned = || Status::bad_request(format!("pod {} does not have a host assigned", info.name));
    let place = place(server, &pod)?.ok_or_else(unassigned)?;
    let mut target = format!("/portForward/{}/{}", escape(&info.namespace), escape(&info.name));
    if !ports.is_empty() {
        let ports: Vec<String> = ports.iter().map(ToString::to_string).collect();
        target.push_str(&format!("?port={}", ports.join(",")));
    }
    let asked = Asked::read(&parts.headers)?;
    let client = client.ok_or_else(|| Status::bad_request("Upgrade request required"))?;
    let tunnelled = match &asked {
        Asked::WebSocket { protocols } => protocols.iter().any(|name| name == tunnel::PROTOCOL),
        Asked::Spdy { .. } => false,
    };
    let headers = match &asked {
        Asked::Spdy { protocols } => {
            upgrade::spdy_headers(upgrade::negotiate(protocols, &[PROTOCOL])?.or(Some(PROTOCOL)))
        }
        Asked::WebSocket { .. } if tunnelled => upgrade::spdy_headers(Some(PROTOCOL)),
        Asked::WebSocket { .. } => upgrade::of_the_stream(&parts.headers),
    };
    let mut answer = ask(server, &place, &target, headers, false).await?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(refusal(answer, &info.name).await);
    }
    let agent = hyper::upgrade::on(&mut answer);
    if !tunnelled {
        upgrade::spawn(server, context, upgrade::copy(client, agent));
        return Ok(upgrade::switching(upgrade::of_the_stream(answer.headers())));
    }
    upgrade::spawn(server, context, async move {
        if let Some((client, agent)) = upgrade::both(client, agent).await {
            tunnel::carry(client, agent).await;
        }
    });
    Ok(upgrade::switching(upgrade::websocket_headers(&parts.headers, tunnel::PROTOCOL)))
}
