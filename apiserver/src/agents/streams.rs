//! Exec and attach.

use std::sync::Arc;

use api::status::Status;
use http::request::Parts;
use http::{Response, StatusCode};
use hyper::upgrade::OnUpgrade;

use super::upgrade::{self, Asked};
use super::{ask, container, escape, options, place, pod, refusal, spdy_streams};
use crate::Body;
use crate::context::Context;
use crate::registry::fresh_failure;
use crate::server::Server;

/// What streams are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Streams {
    Exec,
    Attach,
}

/// GET or POST that becomes streams through the agent.
pub(crate) async fn streams(
    server: &Arc<Server>,
    context: &Context<'_>,
    streams: Streams,
    parts: &Parts,
    client: Option<OnUpgrade>,
) -> Result<Response<Body>, Status> {
    let info = context.info;
    server.registry.caches.fresh().await.map_err(fresh_failure)?;
    upgrade::allow(server, context)?;
    let pod = pod(server, context)?;
    let container = container(&pod, info.query.get("container"))?;
    let unassigned = || Status::bad_request(format!("pod {} does not have a host assigned", info.name));
    let place = place(server, &pod)?.ok_or_else(unassigned)?;
    let (path, is_exec) = match streams {
        Streams::Exec => ("exec", true),
        Streams::Attach => ("attach", false),
    };
    let (wanted, query) = options::of_streams(context.info, is_exec)?;
    let target =
        format!("/{path}/{}/{}/{}?{query}", escape(&info.namespace), escape(&info.name), escape(&container));
    let asked = Asked::read(&parts.headers)?;
    let client = client.ok_or_else(|| Status::bad_request("Upgrade request required"))?;
    // The agent learns what the stream is, not who asked for it.
    let (headers, protocol) = match &asked {
        Asked::WebSocket { .. } => (upgrade::of_the_stream(&parts.headers), None),
        Asked::Spdy { protocols } => {
            let protocol = upgrade::negotiate(protocols, &spdy_streams::PROTOCOLS)?;
            (upgrade::ask_websocket(server, spdy_streams::OF_AGENTS), Some(protocol))
        }
    };
    let mut answer = ask(server, &place, &target, headers, false).await?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(refusal(answer, &info.name).await);
    }
    let agent = hyper::upgrade::on(&mut answer);
    let Some(protocol) = protocol else {
        upgrade::spawn(server, context, upgrade::copy(client, agent));
        return Ok(upgrade::switching(upgrade::of_the_stream(answer.headers())));
    };
    upgrade::spawn(server, context, async move {
        if let Some((client, agent)) = upgrade::both(client, agent).await {
            spdy_streams::carry(client, agent, wanted, protocol).await;
        }
    });
    Ok(upgrade::switching(upgrade::spdy_headers(protocol)))
}
