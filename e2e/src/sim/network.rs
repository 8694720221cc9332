//! The way from a component to an API server: in this process, but as unreliable as a wire.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use apiserver::body::{BoxError, boxed};
use apiserver::{ApiServer, UserInfo};
use base::{Clock, Random};
use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tower::Service;

use super::log::{ACTOR, Actor, Log, Role, State};

/// A response's body after its way.
pub(crate) type LinkBody = UnsyncBoxBody<Bytes, BoxError>;

/// How often each fault happens, per thousand opportunities.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rates {
    /// A request does not arrive.
    pub(crate) lost: u64,
    /// An answer does not arrive.
    pub(crate) unanswered: u64,
    /// A request or answer is late.
    pub(crate) late: u64,
    /// A watch is cut instead of its next piece.
    pub(crate) cut: u64,
    /// A piece of a watch is late, and what follows it.
    pub(crate) late_piece: u64,
    /// The longest delay.
    pub(crate) delay: Duration,
}

/// All wires.
#[derive(Clone)]
pub(crate) struct Network(Arc<Wires>);

struct Wires {
    clock: Clock,
    random: Random,
    log: Log,
    rates: Mutex<Rates>,
    injected: AtomicU64,
    servers: Mutex<BTreeMap<u64, Serving>>,
}

/// An API server that answers until it is dead.
#[derive(Clone)]
struct Serving {
    api: ApiServer,
    dead: CancellationToken,
}

/// Cuts one endpoint off.
#[derive(Clone, Debug)]
pub(crate) struct Gate(Arc<Mutex<CancellationToken>>);

impl Gate {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(CancellationToken::new())))
    }

    fn token(&self) -> CancellationToken {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Nothing gets through any more, and what is on its way breaks.
    pub(crate) fn cut(&self) {
        self.token().cancel();
    }

    /// Everything gets through again.
    pub(crate) fn restore(&self) {
        let mut token = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if token.is_cancelled() {
            *token = CancellationToken::new();
        }
    }
}

/// One component's way to the API.
#[derive(Clone)]
pub(crate) struct Link {
    pub(crate) network: Network,
    pub(crate) gate: Gate,
    pub(crate) role: Role,
    pub(crate) user: UserInfo,
    /// The only server that is asked; `None` asks any.
    pub(crate) server: Option<u64>,
}

impl Network {
    pub(crate) fn new(clock: Clock, random: Random, log: Log) -> Self {
        Self(Arc::new(Wires {
            clock,
            random,
            log,
            rates: Mutex::default(),
            injected: AtomicU64::new(0),
            servers: Mutex::default(),
        }))
    }

    pub(crate) fn set(&self, rates: Rates) {
        *self.0.rates.lock().unwrap_or_else(PoisonError::into_inner) = rates;
    }

    fn rates(&self) -> Rates {
        *self.0.rates.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many faults were injected.
    pub(crate) fn faults(&self) -> u64 {
        self.0.injected.load(Ordering::Relaxed)
    }

    /// A server answers from now on, until the token is cancelled.
    pub(crate) fn up(&self, number: u64, api: ApiServer, dead: CancellationToken) {
        let mut servers = self.0.servers.lock().unwrap_or_else(PoisonError::into_inner);
        servers.insert(number, Serving { api, dead });
    }

    /// A server is gone.
    pub(crate) fn down(&self, number: u64) {
        let server = self.0.servers.lock().unwrap_or_else(PoisonError::into_inner).remove(&number);
        if let Some(server) = server {
            server.dead.cancel();
        }
    }

    fn server(&self, wanted: Option<u64>) -> Option<Serving> {
        let servers = self.0.servers.lock().unwrap_or_else(PoisonError::into_inner);
        match wanted {
            Some(number) => servers.get(&number).cloned(),
            None => {
                let choice = self.0.random.below(servers.len() as u64);
                servers.values().nth(usize::try_from(choice).unwrap_or(0)).cloned()
            }
        }
    }

    fn happens(&self, per_thousand: u64) -> bool {
        let happens = per_thousand > 0 && self.0.random.below(1000) < per_thousand;
        if happens {
            self.0.injected.fetch_add(1, Ordering::Relaxed);
        }
        happens
    }

    async fn linger(&self, per_thousand: u64, rates: &Rates) {
        if self.happens(per_thousand) {
            let micros = u64::try_from(rates.delay.as_micros()).unwrap_or(u64::MAX);
            self.0.clock.wait(Duration::from_micros(self.0.random.below(micros))).await;
        }
    }
}

fn broken(why: &str) -> BoxError {
    Box::new(std::io::Error::new(std::io::ErrorKind::ConnectionReset, why.to_owned()))
}

impl Link {
    /// A client that goes this way.
    pub(crate) fn client(self) -> client::Client {
        client::in_process(self)
    }

    async fn send(
        self,
        request: Request<apiserver::body::RequestBody>,
    ) -> Result<Response<LinkBody>, BoxError> {
        let network = &self.network;
        let gate = self.gate.token();
        let rates = network.rates();
        if gate.is_cancelled() {
            let patience = Duration::from_millis(500 + network.0.random.below(4500));
            network.0.clock.wait(patience).await;
            return Err(broken("connection timed out"));
        }
        network.linger(rates.late, &rates).await;
        let Some(server) = network.server(self.server) else {
            return Err(broken("connection refused"));
        };
        if network.happens(rates.lost) {
            return Err(broken("injected fault: the request was lost"));
        }
        let (parts, body) = request.into_parts();
        let bytes = body.collect().await?.to_bytes();
        let request_line = format!("{} {} {}", self.user.name, parts.method, parts.uri);
        let is_watch = parts.uri.query().is_some_and(|query| query.contains("watch=true"));
        let write = Write::of(&parts, &bytes);
        let actor = Arc::new(Actor { role: self.role.clone(), request: request_line });
        let mut service = server.api.in_process(self.user.clone());
        let served = ACTOR.scope(actor.clone(), service.call(Request::from_parts(parts, Full::new(bytes))));
        let response = tokio::select! {
            biased;
            () = server.dead.cancelled() => return Err(broken("connection reset by peer")),
            () = gate.cancelled() => return Err(broken("connection timed out")),
            response = served => response.unwrap_or_else(|never| match never {}),
        };
        let (head, body) = response.into_parts();
        if is_watch && head.status.is_success() {
            return Ok(Response::from_parts(head, self.stream(body, server.dead, gate)));
        }
        let bytes = tokio::select! {
            biased;
            () = server.dead.cancelled() => return Err(broken("connection reset by peer")),
            () = gate.cancelled() => return Err(broken("connection timed out")),
            bytes = body.collect() => bytes?.to_bytes(),
        };
        if let Some(write) = write.filter(|_| head.status.is_success()) {
            network.0.log.with(|state| write.acknowledged(state, &actor, &bytes));
        }
        if network.happens(rates.unanswered) {
            return Err(broken("injected fault: the answer was lost"));
        }
        network.linger(rates.late, &rates).await;
        Ok(Response::from_parts(head, boxed(Full::new(bytes))))
    }

    /// A watch's pieces, late or cut.
    fn stream(self, body: apiserver::Body, dead: CancellationToken, gate: CancellationToken) -> LinkBody {
        let network = self.network;
        let frames = futures::stream::unfold(Some((body, network)), move |going| {
            let (dead, gate) = (dead.clone(), gate.clone());
            async move {
                let (mut body, network) = going?;
                let rates = network.rates();
                let frame = tokio::select! {
                    biased;
                    () = dead.cancelled() => return Some((Err(broken("connection reset by peer")), None)),
                    () = gate.cancelled() => return Some((Err(broken("connection timed out")), None)),
                    frame = body.frame() => frame?,
                };
                if network.happens(rates.cut) {
                    return Some((Err(broken("injected fault: the watch was cut")), None));
                }
                network.linger(rates.late_piece, &rates).await;
                let frame: Result<Frame<Bytes>, BoxError> = frame;
                Some((frame, Some((body, network))))
            }
        });
        BodyExt::boxed_unsync(StreamBody::new(Box::pin(frames)))
    }
}

impl<B> Service<Request<B>> for Link
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<LinkBody>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<LinkBody>, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let link = self.clone();
        let request = request.map(boxed);
        Box::pin(async move { link.send(request).await })
    }
}

/// What is remembered of a write until it is acknowledged.
struct Write {
    /// The revision that a replacement was made from.
    base: Option<i64>,
}

fn version(object: &Value) -> Option<i64> {
    object.pointer("/metadata/resourceVersion")?.as_str()?.parse().ok()
}

impl Write {
    fn of(parts: &http::request::Parts, body: &[u8]) -> Option<Self> {
        if parts.uri.query().is_some_and(|query| query.contains("dryRun")) {
            return None;
        }
        match parts.method.as_str() {
            "PUT" => {
                let object: Value = serde_json::from_slice(body).ok()?;
                Some(Self { base: version(&object) })
            }
            "POST" | "PATCH" | "DELETE" => Some(Self { base: None }),
            _ => None,
        }
    }

    /// I1 and I4: what is acknowledged is in the log as it was said, and a replacement replaced what it was made
    /// from.
    fn acknowledged(&self, state: &mut State, actor: &Actor, answer: &[u8]) {
        let Ok(answer) = serde_json::from_slice::<Value>(answer) else { return };
        let (Some(revision), Some(name), Some(uid)) = (
            version(&answer),
            answer.pointer("/metadata/name").and_then(Value::as_str),
            super::log::uid(&answer),
        ) else {
            return;
        };
        let namespace = answer.pointer("/metadata/namespace").and_then(Value::as_str);
        let ending = match namespace {
            Some(namespace) => format!("/{namespace}/{name}"),
            None => format!("/{name}"),
        };
        let from = state.changes.partition_point(|change| change.revision < revision);
        let found = state.changes[from..]
            .iter()
            .take_while(|change| change.revision == revision)
            .find(|change| change.key.ends_with(&ending))
            .map(|change| (change.previous, change.key.clone()));
        let request = &actor.request;
        match found {
            None => {
                let text = format!(
                    "{request} was acknowledged at revision {revision} (uid {uid}), which has no such change"
                );
                state.report("I1", text);
            }
            Some((previous, key)) => {
                state.revision_acknowledged = state.revision_acknowledged.max(revision);
                // An answer at the revision it was made from changed nothing.
                if let Some(base) = self.base
                    && base != revision
                    && base != previous
                {
                    let text =
                        format!("{request} was made from revision {base} but replaced {previous} of {key}");
                    state.report("I4", text);
                }
            }
        }
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Network").finish_non_exhaustive()
    }
}
