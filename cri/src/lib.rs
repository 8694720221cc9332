//! The Container Runtime Interface v1 (cri-api 0.36): generated client and server, and the way to dial a
//! runtime's unix socket.

use std::path::{Path, PathBuf};

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
pub use tonic::transport::Channel;
use tonic::transport::{Endpoint, Uri};

#[allow(clippy::all, missing_debug_implementations, unreachable_pub)]
mod generated {
    tonic::include_proto!("runtime.v1");
}

pub use generated::*;

/// The socket could not be reached.
#[derive(Debug, thiserror::Error)]
#[error("container runtime at {}: {}", path.display(), cause(source))]
pub struct DialError {
    path: PathBuf,
    source: tonic::transport::Error,
}

/// The first thing that went wrong: transport errors only say that something did.
fn cause<'a>(error: &'a (dyn std::error::Error + 'static)) -> &'a (dyn std::error::Error + 'static) {
    std::iter::successors(Some(error), |error| error.source()).last().unwrap_or(error)
}

/// Connects to a runtime. `endpoint` is a path or a `unix://` URL.
pub async fn dial(endpoint: &str) -> Result<Channel, DialError> {
    let path = socket_path(endpoint).to_owned();
    let connect_to = path.clone();
    let connector = tower::service_fn(move |_: Uri| {
        let path = connect_to.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    // The URI is only the HTTP/2 authority; the connector decides where to go.
    Endpoint::from_static("http://localhost")
        .connect_with_connector(connector)
        .await
        .map_err(|source| DialError { path, source })
}

/// The file behind a runtime endpoint.
pub fn socket_path(endpoint: &str) -> &Path {
    Path::new(endpoint.strip_prefix("unix://").unwrap_or(endpoint))
}
