//! The server: datagrams and streams in, answers out.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use base::{Clock, Random, Tasks};
use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::Name;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tracing::{debug, warn};

use super::answer::{Outcome, datagram, decide, failure};
use super::forward::{Transport, Upstream};
use super::index::Index;

/// Requests that wait for an upstream server at one time; more are refused at once.
const MAX_FORWARDED: usize = 512;
const MAX_STREAMS: usize = 256;
const STREAM_IDLE: Duration = Duration::from_secs(10);
const MAX_DATAGRAM: usize = 4096;

/// What all requests share.
#[derive(Debug)]
pub(super) struct Server {
    /// Absent until the services are known.
    pub(super) index: RwLock<Option<Index>>,
    pub(super) zone: Name,
    pub(super) upstream: Upstream,
    pub(super) random: Random,
    pub(super) clock: Clock,
    forwarded: Semaphore,
}

impl Server {
    pub(super) fn new(zone: Name, upstream: Upstream, random: Random, clock: Clock) -> Self {
        Self {
            index: RwLock::new(None),
            zone,
            upstream,
            random,
            clock,
            forwarded: Semaphore::new(MAX_FORWARDED),
        }
    }

    /// Serves until `tasks` end.
    pub(super) async fn listen(
        self: Arc<Self>,
        tasks: &Tasks,
        address: SocketAddr,
    ) -> io::Result<SocketAddr> {
        let socket = UdpSocket::bind(address).await?;
        let address = socket.local_addr()?;
        let listener = TcpListener::bind(address).await?;
        tasks.spawn("datagrams", self.clone().serve_datagrams(Arc::new(socket), tasks.child("datagrams")));
        tasks.spawn("streams", self.serve_streams(listener, tasks.child("streams")));
        Ok(address)
    }

    fn decide(&self, request: &Message) -> Outcome {
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        decide(request, index.as_ref(), &self.zone, &self.random)
    }

    async fn serve_datagrams(self: Arc<Self>, socket: Arc<UdpSocket>, tasks: Tasks) {
        let mut buffer = vec![0; MAX_DATAGRAM];
        loop {
            let (length, client) = match socket.recv_from(&mut buffer).await {
                Ok(received) => received,
                // An earlier answer's client is gone.
                Err(error) => {
                    debug!(%error, "DNS socket");
                    continue;
                }
            };
            let Some(request) = decode(&buffer[..length]) else { continue };
            let outcome = self.decide(&request);
            if let Outcome::Answer(response) = outcome {
                send(&socket, datagram(&request, response), client).await;
                continue;
            }
            // Waits for an upstream server: not in the way of the others.
            let (server, socket, bytes) = (self.clone(), socket.clone(), buffer[..length].to_vec());
            tasks.spawn("request", async move {
                let answer = server.resolve(&request, &bytes, outcome, Transport::Udp).await;
                send(&socket, answer, client).await;
            });
        }
    }

    async fn serve_streams(self: Arc<Self>, listener: TcpListener, tasks: Tasks) {
        let limit = Arc::new(Semaphore::new(MAX_STREAMS));
        loop {
            let Ok(permit) = limit.clone().acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, _)) => {
                    let server = self.clone();
                    tasks.spawn("stream", async move {
                        if let Err(error) = server.serve_stream(stream).await {
                            debug!(%error, "DNS stream");
                        }
                        drop(permit);
                    });
                }
                Err(error) => {
                    warn!(%error, "DNS listener");
                    self.clock.wait(Duration::from_secs(1)).await;
                }
            }
        }
    }

    async fn serve_stream(&self, mut stream: TcpStream) -> io::Result<()> {
        loop {
            let read = async {
                let length = stream.read_u16().await?;
                let mut bytes = vec![0; usize::from(length)];
                stream.read_exact(&mut bytes).await?;
                io::Result::Ok(bytes)
            };
            let bytes = tokio::select! {
                bytes = read => match bytes {
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                    other => other?,
                },
                () = self.clock.wait(STREAM_IDLE) => return Ok(()),
            };
            let Some(request) = decode(&bytes) else { return Ok(()) };
            let outcome = self.decide(&request);
            let Some(answer) = self.resolve(&request, &bytes, outcome, Transport::Tcp).await else {
                return Ok(());
            };
            let Ok(length) = u16::try_from(answer.len()) else { return Ok(()) };
            let framed = [length.to_be_bytes().as_slice(), &answer].concat();
            tokio::select! {
                written = stream.write_all(&framed) => written?,
                () = self.clock.wait(STREAM_IDLE) => return Ok(()),
            }
        }
    }

    /// The bytes of the answer, asking upstream where needed.
    async fn resolve(
        &self,
        request: &Message,
        bytes: &[u8],
        outcome: Outcome,
        transport: Transport,
    ) -> Option<Vec<u8>> {
        let encode = |response: Message| match transport {
            Transport::Udp => datagram(request, response),
            Transport::Tcp => response.to_vec().ok(),
        };
        let failed = || encode(failure(request, ResponseCode::ServFail));
        match outcome {
            Outcome::Ignore => None,
            Outcome::Answer(response) => encode(response),
            Outcome::Forward => {
                let Ok(_permit) = self.forwarded.try_acquire() else { return failed() };
                match self.upstream.ask(bytes, transport).await {
                    Some(answer) => Some(answer),
                    None => failed(),
                }
            }
            Outcome::Follow(response, target) => {
                encode(self.follow(request, response, target, transport).await)
            }
        }
    }

    /// Adds what the target of an alias stands for; without it, the client may follow the alias itself.
    async fn follow(
        &self,
        request: &Message,
        mut response: Message,
        target: Name,
        transport: Transport,
    ) -> Message {
        let mut question = request.clone();
        question.queries =
            request.queries.iter().map(|query| Query::query(target.clone(), query.query_type())).collect();
        match self.decide(&question) {
            Outcome::Answer(found) => response.answers.extend(found.answers),
            Outcome::Forward => {
                let Ok(_permit) = self.forwarded.try_acquire() else { return response };
                let Ok(bytes) = question.to_vec() else { return response };
                let answer = self.upstream.ask(&bytes, transport).await;
                if let Some(found) = answer.and_then(|answer| Message::from_vec(&answer).ok()) {
                    response.answers.extend(found.answers);
                }
            }
            // One alias is enough.
            Outcome::Follow(..) | Outcome::Ignore => {}
        }
        response
    }
}

/// A request; what can't be read gets no answer, so that nobody uses us against a third party.
fn decode(bytes: &[u8]) -> Option<Message> {
    Message::from_vec(bytes).ok()
}

async fn send(socket: &UdpSocket, answer: Option<Vec<u8>>, client: SocketAddr) {
    let Some(answer) = answer else { return };
    if let Err(error) = socket.send_to(&answer, client).await {
        debug!(%error, %client, "DNS answer");
    }
}
