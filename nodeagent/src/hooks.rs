//! postStart and preStop.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, LifecycleHandler, Pod};

use crate::context::Context;
use crate::pod::title;
use crate::probes::http::Get;
use crate::probes::{output, port};

const USER_AGENT: &str = "kube-lifecycle/1.36";
/// An HTTP hook that never answers must not hold its container for ever.
const HTTP_TIMEOUT: Duration = Duration::from_secs(600);

/// Runs a hook of a running container. The error is in upstream's words.
pub(crate) async fn run(
    context: &Context,
    pod: &Pod,
    container: &Container,
    id: &str,
    handler: &LifecycleHandler,
    pod_ip: Option<&str>,
) -> Result<(), String> {
    let place = || format!("for Container \"{}\" in Pod \"{}\" failed", container.name, title(pod));
    if let Some(action) = &handler.exec {
        let command = action.command.clone().unwrap_or_default();
        let text = command.join(" ");
        let (why, said) = match context.runtime.exec_sync(id, command, Duration::ZERO).await {
            Ok(answer) if answer.exit_code == 0 => return Ok(()),
            Ok(answer) => {
                let said = output(&answer);
                (format!("command '{text}' exited with {}: {said}", answer.exit_code), said)
            }
            Err(error) => (error.rpc_text(), String::new()),
        };
        return Err(format!("Exec lifecycle hook ([{text}]) {} - error: {why}, message: {said:?}", place()));
    }
    if let Some(action) = &handler.http_get {
        let path = action.path.as_deref().unwrap_or("/");
        let failed = |why: &str| format!("HTTP lifecycle hook ({path}) {} - error: {why}", place());
        let ports = container.ports.as_deref().unwrap_or_default();
        let host = action.host.as_deref().filter(|host| !host.is_empty()).or(pod_ip);
        let host = host.ok_or_else(|| failed("failed to find networking container"))?;
        let port = port(&action.port, ports).map_err(|why| failed(&why))?;
        let scheme = action.scheme.as_deref().unwrap_or("HTTP");
        let mut get = Get {
            scheme,
            host,
            port,
            path,
            headers: action.http_headers.as_deref().unwrap_or_default(),
            user_agent: USER_AGENT,
            timeout: HTTP_TIMEOUT,
        };
        let mut answer = get.send().await;
        if answer.is_err() && scheme == "HTTPS" {
            // Hooks were once made without TLS whatever they said, and are still served so by some.
            get.scheme = "HTTP";
            answer = get.send().await;
        }
        // Whatever the container answers, it was told.
        return answer.map(|_| ()).map_err(|why| failed(&why));
    }
    if let Some(action) = &handler.sleep {
        context.clock.wait(Duration::from_secs(u64::try_from(action.seconds).unwrap_or_default())).await;
        return Ok(());
    }
    Err(format!("Cannot run handler: invalid handler {}", place()))
}
