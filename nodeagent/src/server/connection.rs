//! Connections: TLS, who the client is, and HTTP/1.1 with upgrades.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tracing::debug;

use super::access::Peer;
use super::{Context, routes};

/// The most connections at a time; further ones wait to be accepted.
const CONNECTIONS: usize = 4096;
/// How long a client may take for its handshake and for the head of a request.
const PATIENCE: Duration = Duration::from_secs(15);
/// When the machine has no files left, accepting goes on after this pause.
const BREATH: Duration = Duration::from_millis(100);

/// Accepts connections for as long as the server lives.
pub(super) async fn accept(listener: TcpListener, tls: Arc<rustls::ServerConfig>, context: Arc<Context>) {
    let acceptor = TlsAcceptor::from(tls);
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                debug!(%error, "a connection was not accepted");
                context.clock.wait(BREATH).await;
                continue;
            }
        };
        let (acceptor, of_connection) = (acceptor.clone(), context.clone());
        context.tasks.spawn("connection", async move {
            if let Err(error) = serve(stream, acceptor, of_connection).await {
                debug!(%error, "a connection ended");
            }
            drop(place);
        });
    }
}

#[derive(Debug, thiserror::Error)]
enum ConnectionError {
    #[error("no TLS handshake in {} s", PATIENCE.as_secs())]
    Slow,
    #[error("TLS: {0}")]
    Tls(std::io::Error),
    #[error("the client's certificate has no name")]
    Nameless,
    #[error(transparent)]
    Http(#[from] hyper::Error),
}

async fn serve(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    context: Arc<Context>,
) -> Result<(), ConnectionError> {
    // A terminal's keys go out one by one.
    stream.set_nodelay(true).map_err(ConnectionError::Tls)?;
    let accepted = tokio::time::timeout(PATIENCE, acceptor.accept(stream)).await;
    let stream = accepted.map_err(|_| ConnectionError::Slow)?.map_err(ConnectionError::Tls)?;
    let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    // The handshake has verified it. Without one the client is nobody.
    let peer = certificate.and_then(|certificate| Peer::of(certificate)).ok_or(ConnectionError::Nameless)?;
    let peer = Arc::new(peer);
    let service = service_fn(move |request| {
        let (context, peer) = (context.clone(), peer.clone());
        async move { Ok::<_, Infallible>(routes::answer(&context, &peer, request).await) }
    });
    hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await?;
    Ok(())
}
