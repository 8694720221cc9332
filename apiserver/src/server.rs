//! Starts an API server, takes its connections, and ends it.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use api::status::Status;
use base::Tasks;
use bytes::Bytes;
use http::header::RETRY_AFTER;
use http::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use serde_json::Value;
use store::Store;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tracing::{debug, warn};

use crate::admission::Admission;
use crate::audit::Audit;
use crate::auth::Auth;
use crate::body::{BoxError, boxed};
use crate::flow::{self, Flow};
use crate::health::Health;
use crate::metrics::Metrics;
use crate::openapi::Documents;
use crate::registry::Registry;
use crate::{Body, Config, Connection, Sealed, UserInfo, bootstrap, pipeline, pki, unread};

/// The most connections at a time; further ones wait to be accepted.
const CONNECTIONS: usize = 32_768;
/// How long a client may take for its TLS handshake.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long it may take for the head of a request, and how long a connection of HTTP/1 may be idle; upstream's figure.
const HEAD_PATIENCE: Duration = Duration::from_secs(32);
/// The most bytes that the head of a request may have. A token and a hundred groups fit well.
const HEAD: usize = 128 << 10;
/// How long running requests may go on after the server was told to end.
const DRAIN: Duration = Duration::from_secs(10);

/// Why an API server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the service CIDR {cidr:?} is not an IPv4 network: {why}")]
    ServiceCidr { cidr: String, why: String },
    #[error("the certificates can't be used: {0}")]
    Tls(String),
    #[error("bootstrap object {path}: {status}")]
    Bootstrap { path: String, status: Status },
    #[error("store: {0}")]
    Store(#[from] store::Error),
    #[error("the audit log {path} can't be written: {error}")]
    Audit { path: std::path::PathBuf, error: std::io::Error },
}

/// What a running API server consists of.
pub struct Server {
    pub config: Config,
    pub registry: Arc<Registry>,
    pub auth: Auth,
    pub admission: Admission,
    pub(crate) flow: Arc<Flow>,
    pub(crate) audit: Option<Arc<Audit>>,
    pub(crate) metrics: Metrics,
    pub(crate) health: Health,
    pub(crate) agents: crate::agents::Agents,
    pub(crate) documents: Documents,
    pub(crate) tasks: Tasks,
    /// The connections. They end first: what they answer with needs the other tasks.
    connections: Tasks,
    started: AtomicBool,
    ending: AtomicBool,
}

/// A running API server. Clones are handles of the same server.
#[derive(Clone)]
pub struct ApiServer(Arc<Server>);

impl ApiServer {
    /// Fills the caches from the store, writes the bootstrap objects that are missing, and is ready.
    pub async fn start(store: Arc<dyn Store>, config: Config) -> Result<Self, StartError> {
        let tasks = config.tasks.child("apiserver");
        let store = Sealed::new(store, config.pki.clone(), config.random.clone());
        store.check(&config.clock).await?;
        let registry = Arc::new(Registry::new(Arc::new(store), &config)?);
        tasks.spawn("watch cache", registry.caches.clone().run());
        let agents = crate::agents::Agents::new(&config)?;
        let audit = config.audit.as_ref().map(|settings| {
            let opened = Audit::open(settings, config.clock.clone(), &tasks);
            opened.map(Arc::new).map_err(|error| StartError::Audit { path: settings.log.path.clone(), error })
        });
        let auth = Auth::new(&config, registry.clone());
        let server = Arc::new(Server {
            admission: Admission::new(&auth, config.random.clone())
                .with(&config.enabled_admission)
                .without(&config.disabled_admission),
            auth,
            flow: Arc::new(Flow::new(config.clock.clone(), config.max_requests)),
            audit: audit.transpose()?,
            metrics: Metrics::default(),
            health: Health::default(),
            registry,
            agents,
            documents: Documents::default(),
            connections: config.tasks.child("apiserver connections"),
            tasks,
            started: AtomicBool::new(false),
            ending: AtomicBool::new(false),
            config,
        });
        server.registry.caches.filled().await;
        let this = Self(server);
        bootstrap::run(&this).await?;
        flow::follow::begin(&this.0).await?;
        this.0.started.store(true, Ordering::Release);
        Ok(this)
    }

    /// A handle of a server that runs.
    pub(crate) fn from_server(server: Arc<Server>) -> Self {
        Self(server)
    }

    /// The server's parts.
    pub fn server(&self) -> &Arc<Server> {
        &self.0
    }

    /// A transport for a component of the same process, under the component's own identity.
    pub fn in_process(&self, user: UserInfo) -> InProcess {
        let connection = Connection { identity: Some(Arc::new(user)), ..Connection::default() };
        InProcess { server: self.0.clone(), connection: Arc::new(connection) }
    }

    /// One JSON request under an identity, through the whole pipeline.
    pub async fn call(
        &self,
        user: &UserInfo,
        method: &str,
        target: &str,
        body: Option<&Value>,
    ) -> Result<Value, Status> {
        let bytes = body.map(|value| Bytes::from(value.to_string())).unwrap_or_default();
        let mut request = Request::builder().method(method).uri(target).header("accept", "application/json");
        if method == "PATCH" {
            request = request.header("content-type", "application/merge-patch+json");
        }
        let request = request
            .body(boxed(http_body_util::Full::new(bytes)))
            .map_err(|error| Status::bad_request(format!("{method} {target}: {error}")))?;
        let connection = Connection { identity: Some(Arc::new(user.clone())), ..Connection::default() };
        let response = pipeline::handle(&self.0, &connection, request).await;
        let code = response.status();
        let retry_after =
            response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let retry_after = retry_after.unwrap_or(1);
        let bytes = http_body_util::BodyExt::collect(response.into_body())
            .await
            .map_err(|error| Status::internal(format!("{method} {target}: {error}")))?
            .to_bytes();
        let unreadable = |error: serde_json::Error| Status::internal(format!("{method} {target}: {error}"));
        if code.is_success() {
            return serde_json::from_slice(&bytes).map_err(unreadable);
        }
        Err(match serde_json::from_slice(&bytes) {
            Ok(status) => status,
            // Overload protection answers in plain text.
            Err(_) if code == StatusCode::TOO_MANY_REQUESTS => {
                Status::too_many_requests(String::from_utf8_lossy(&bytes).trim_end(), retry_after)
            }
            Err(error) => unreadable(error),
        })
    }

    /// Serves the API over TLS until the server ends.
    pub async fn serve(&self, listener: TcpListener) -> Result<(), StartError> {
        let acceptor = TlsAcceptor::from(self.tls()?);
        let slots = Arc::new(Semaphore::new(CONNECTIONS));
        let token = self.0.connections.token();
        loop {
            let Ok(slot) = slots.clone().acquire_owned().await else { return Ok(()) };
            let accepted = tokio::select! {
                biased;
                () = token.cancelled() => return Ok(()),
                accepted = listener.accept() => accepted,
            };
            let (stream, remote) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, or the client is gone already: neither ends the server.
                    warn!(%error, "a connection could not be accepted");
                    self.0.config.clock.wait(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let (server, acceptor) = (self.0.clone(), acceptor.clone());
            self.0.connections.spawn_draining("connection", async move {
                server.connection(stream, remote, acceptor).await;
                drop(slot);
            });
        }
    }

    fn tls(&self) -> Result<Arc<rustls::ServerConfig>, StartError> {
        let config = &self.0.config;
        let service = self.0.registry.reservations.address(1).to_string();
        let names = pki::tls::server_names(&config.server_names, &service, &config.cluster_domain);
        pki::tls::api_server(&config.pki, names).map_err(|error| StartError::Tls(error.to_string()))
    }

    /// True once the caches are filled and the bootstrap objects are there, until the server ends.
    pub fn ready(&self) -> bool {
        self.0.ready()
    }

    /// Ends the server: first it is no longer ready, so that nobody sends clients here; after a delay it accepts no
    /// connections any more and ends the watches; requests that run come to their end, and then everything else ends.
    pub async fn shutdown(&self) -> Result<(), base::StillRunning> {
        self.0.ending.store(true, Ordering::Release);
        if !self.0.config.shutdown_delay.is_zero() {
            self.0.config.clock.wait(self.0.config.shutdown_delay).await;
        }
        // No new requests from here on, so no new watches.
        self.0.connections.token().cancel();
        for cache in self.0.registry.caches.all() {
            cache.close_watches();
        }
        let connections = self.0.connections.shutdown(DRAIN).await;
        self.0.tasks.shutdown(DRAIN).await.and(connections)
    }
}

impl Server {
    /// True while requests are welcome.
    pub fn ready(&self) -> bool {
        self.started() && !self.ending()
    }

    /// True once the caches are filled and the bootstrap objects are there.
    pub(crate) fn started(&self) -> bool {
        self.started.load(Ordering::Acquire)
    }

    /// True from the moment on when the server was told to end.
    pub(crate) fn ending(&self) -> bool {
        self.ending.load(Ordering::Acquire)
    }

    /// The tasks of this server.
    pub fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    async fn connection(self: Arc<Self>, stream: TcpStream, remote: SocketAddr, acceptor: TlsAcceptor) {
        // Watch events are small and must not wait for more.
        if let Err(error) = stream.set_nodelay(true) {
            debug!(%remote, %error, "no delay can't be turned off");
        }
        let stream = match tokio::time::timeout(PATIENCE, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return debug!(%remote, %error, "TLS handshake failed"),
            Err(_) => return debug!(%remote, "TLS handshake took too long"),
        };
        let peer_certificates: Vec<_> = stream
            .get_ref()
            .1
            .peer_certificates()
            .map(|chain| chain.iter().map(|certificate| certificate.clone().into_owned()).collect())
            .unwrap_or_default();
        let connection = Arc::new(Connection { peer_certificates, remote: Some(remote), identity: None });
        let token = self.connections.token();
        let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
            let (server, connection) = (self.clone(), connection.clone());
            async move {
                let (request, unread) = unread::lend(request);
                let response = pipeline::handle(&server, &connection, request).await;
                unread.drop_rest().await;
                Ok::<_, Infallible>(response)
            }
        });
        let mut builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_PATIENCE).max_buf_size(HEAD);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(1000)
            .max_header_list_size(HEAD as u32)
            .keep_alive_interval(PATIENCE * 2);
        let serving = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
        tokio::pin!(serving);
        let ended = tokio::select! {
            biased;
            ended = serving.as_mut() => ended,
            () = token.cancelled() => {
                serving.as_mut().graceful_shutdown();
                match tokio::time::timeout(DRAIN, serving).await {
                    Ok(ended) => ended,
                    Err(_) => return debug!(%remote, "connection cut at the end of the drain"),
                }
            }
        };
        if let Err(error) = ended {
            debug!(%remote, %error, "connection ended");
        }
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("ready", &self.ready()).finish_non_exhaustive()
    }
}

impl fmt::Debug for ApiServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The API as a service for a component of the same process: the same pipeline as over TLS, under the identity
/// that it carries.
#[derive(Clone, Debug)]
pub struct InProcess {
    server: Arc<Server>,
    connection: Arc<Connection>,
}

impl<B> tower::Service<Request<B>> for InProcess
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (server, connection) = (self.server.clone(), self.connection.clone());
        let request = request.map(boxed);
        Box::pin(async move { Ok(pipeline::handle(&server, &connection, request).await) })
    }
}
