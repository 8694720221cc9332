//! `GET /containerLogs/NAMESPACE/POD/CONTAINER`.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::{Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use k8s_openapi::api::core::v1::Pod;

use super::reply::{self, Body, Refusal};
use super::routes::Query;
use super::{ContainerRef, Context};
use crate::logs::{self, Ended, LogOptions, Stream};
use crate::runtime::Runtime;

/// Sends a log, to its present end or as it is written.
pub(super) async fn get(
    context: &Arc<Context>,
    namespace: &str,
    pod: &str,
    container: &str,
    query: &Query,
) -> Result<Response<Body>, Refusal> {
    let options = options(query, context.clock.now())?;
    let found = context
        .pod(namespace, pod)
        .ok_or_else(|| Refusal::not_found(format!("pod \"{pod}\" does not exist\n")))?;
    if crate::pod::find_container(&found, container).is_none() {
        let text = format!("container \"{container}\" not found in pod \"{pod}\"\n");
        return Err(Refusal::not_found(text));
    }
    let previous = query.flag("previous");
    let run = context.pods.container(namespace, pod, container, previous);
    let run = run.ok_or_else(|| Refusal::bad_request(unavailable(&found, container, previous)))?;
    let ended = ended(context.runtime.clone(), &run);
    let read = logs::read(&context.tasks, &context.clock, &run.log_path, options, ended).await;
    let stream = read.map_err(|error| Refusal::internal(error.to_string()))?;
    let frames = futures::stream::unfold(stream, |mut stream| async move {
        let part = stream.next().await?;
        Some((Ok::<_, Infallible>(Frame::data(part)), stream))
    });
    let mut response = reply::with(StatusCode::OK, "text/plain", "");
    *response.body_mut() = StreamBody::new(frames).boxed_unsync();
    Ok(response)
}

/// Asks the runtime, whose word counts, whether a container has ended.
fn ended(runtime: Arc<dyn Runtime>, run: &ContainerRef) -> Ended {
    let (id, running) = (run.id.clone(), run.running);
    Box::new(move || {
        let (runtime, id) = (runtime.clone(), id.clone());
        Box::pin(async move {
            if !running {
                return true;
            }
            match runtime.container_status(&id).await {
                Ok(status) => status.state() == cri::ContainerState::ContainerExited,
                Err(error) => error.is_not_found(),
            }
        })
    })
}

/// Why there is no log, in the kubelet's words.
fn unavailable(pod: &Pod, container: &str, previous: bool) -> String {
    let name = crate::pod::name(pod);
    if previous {
        return format!("previous terminated container \"{container}\" in pod \"{name}\" not found");
    }
    let status = pod.status.as_ref();
    let lists = status.into_iter().flat_map(|status| {
        let lists = [
            &status.container_statuses,
            &status.init_container_statuses,
            &status.ephemeral_container_statuses,
        ];
        lists.into_iter().flatten().flatten()
    });
    let own = lists.into_iter().find(|status| status.name == container);
    let waiting = own.and_then(|own| own.state.as_ref()?.waiting.as_ref()?.reason.clone());
    match (own, waiting) {
        (_, Some(reason)) => {
            format!("container \"{container}\" in pod \"{name}\" is waiting to start: {reason}")
        }
        (Some(_), None) => format!("container \"{container}\" in pod \"{name}\" is not available"),
        (None, None) => {
            format!("container \"{container}\" in pod \"{name}\" is waiting to start: ContainerCreating")
        }
    }
}

/// The options of a log.
fn options(query: &Query, now: jiff::Timestamp) -> Result<LogOptions, Refusal> {
    let number = |name: &str| {
        let Some(text) = query.get(name).filter(|text| !text.is_empty()) else { return Ok(None) };
        let value = text.parse::<u64>();
        value.map(Some).map_err(|_| Refusal::bad_request(format!("invalid value for {name}: \"{text}\"")))
    };
    // Upstream's older clients say "all" for no tail.
    let tail = if query.get("tailLines") == Some("all") { None } else { number("tailLines")? };
    let mut since = None;
    if let Some(seconds) = number("sinceSeconds")? {
        since = now.checked_sub(Duration::from_secs(seconds)).ok();
    }
    if let Some(text) = query.get("sinceTime").filter(|text| !text.is_empty()) {
        let time = text.parse();
        since =
            Some(time.map_err(|_| Refusal::bad_request(format!("invalid value for sinceTime: \"{text}\"")))?);
    }
    let stream = match query.get("stream") {
        None | Some("" | "All") => None,
        Some("Stdout") => Some(Stream::Stdout),
        Some("Stderr") => Some(Stream::Stderr),
        Some(other) => return Err(Refusal::bad_request(format!("invalid value for stream: \"{other}\""))),
    };
    Ok(LogOptions {
        follow: query.flag("follow"),
        tail,
        limit_bytes: number("limitBytes")?,
        since,
        timestamps: query.flag("timestamps"),
        stream,
    })
}
