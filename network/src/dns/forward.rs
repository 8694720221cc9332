//! Asking upstream name servers: the request's bytes go on as they are, with another id.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use base::{Clock, Random};
use hickory_proto::op::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tracing::{debug, warn};

/// For each server; the C library's resolver gives up on us after 5 s.
const TIMEOUT: Duration = Duration::from_secs(2);
const MAX_SERVERS: usize = 3;
const PORT: u16 = 53;
/// The larger of a datagram and of what EDNS allows.
const MAX_DATAGRAM: usize = 65_535;

/// How a client asked, and so how upstream is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    Udp,
    Tcp,
}

/// The servers of a resolv.conf, read again when it changes.
#[derive(Debug)]
pub(super) struct Upstream {
    file: PathBuf,
    /// Addresses that lead to ourselves.
    own: Vec<Ipv4Addr>,
    port: u16,
    state: Mutex<State>,
    clock: Clock,
    random: Random,
}

#[derive(Clone, Debug, Default)]
struct State {
    modified: Option<SystemTime>,
    servers: Vec<SocketAddr>,
    /// The server that answered last is asked first.
    preferred: usize,
}

impl Upstream {
    pub(super) fn new(file: PathBuf, own: Vec<Ipv4Addr>, clock: Clock, random: Random) -> Self {
        Self { file, own, port: PORT, state: Mutex::default(), clock, random }
    }

    #[cfg(test)]
    pub(super) fn at_port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// The answer of the first server that gives one, with the request's id. Times out after a few seconds.
    pub(super) async fn ask(&self, request: &[u8], transport: Transport) -> Option<Vec<u8>> {
        let (servers, preferred) = self.servers();
        for turn in 0..servers.len() {
            let index = (preferred + turn) % servers.len();
            let attempt = self.ask_one(request, servers[index], transport);
            let result = tokio::select! {
                result = attempt => result,
                () = self.clock.wait(TIMEOUT) => Err(io::ErrorKind::TimedOut.into()),
            };
            match result {
                Ok(answer) => {
                    if turn > 0 {
                        self.lock().preferred = index;
                    }
                    return Some(answer);
                }
                Err(error) => debug!(%error, server = %servers[index], "name server does not answer"),
            }
        }
        None
    }

    async fn ask_one(&self, request: &[u8], server: SocketAddr, transport: Transport) -> io::Result<Vec<u8>> {
        let mut query = request.to_vec();
        let (Some(id), Some(slot)) = (request.first_chunk::<2>(), query.first_chunk_mut::<2>()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        // Ids and ports that can't be guessed keep forged answers out.
        self.random.fill(slot);
        let mut answer = match transport {
            Transport::Udp => self.ask_datagram(&query, server).await?,
            Transport::Tcp => ask_stream(&query, server).await?,
        };
        if !answers(&query, &answer) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        if let Some(slot) = answer.first_chunk_mut::<2>() {
            *slot = *id;
        }
        Ok(answer)
    }

    async fn ask_datagram(&self, query: &[u8], server: SocketAddr) -> io::Result<Vec<u8>> {
        let any: SocketAddr = match server {
            SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
            SocketAddr::V6(_) => (std::net::Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(any).await?;
        socket.connect(server).await?;
        socket.send(query).await?;
        let mut buffer = vec![0; MAX_DATAGRAM];
        loop {
            let length = socket.recv(&mut buffer).await?;
            // Something else may arrive at the port before the answer.
            if answers(query, &buffer[..length]) {
                buffer.truncate(length);
                return Ok(buffer);
            }
        }
    }

    fn servers(&self) -> (Vec<SocketAddr>, usize) {
        let modified = std::fs::metadata(&self.file).and_then(|meta| meta.modified()).ok();
        let mut state = self.lock();
        if modified != state.modified || state.modified.is_none() {
            let text = std::fs::read_to_string(&self.file).unwrap_or_else(|error| {
                warn!(%error, "{} can't be read: names outside the cluster are not resolved", self.file.display());
                String::new()
            });
            let servers = name_servers(&text, &self.own);
            let servers = servers.into_iter().map(|address| SocketAddr::new(address, self.port)).collect();
            *state = State { modified, servers, preferred: 0 };
        }
        (state.servers.clone(), state.preferred)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn ask_stream(query: &[u8], server: SocketAddr) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(query.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut framed = length.to_be_bytes().to_vec();
    framed.extend_from_slice(query);
    stream.write_all(&framed).await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; usize::from(length)];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

/// The id and the question are the same.
pub(crate) fn answers(query: &[u8], answer: &[u8]) -> bool {
    let (Some(asked), Some(told)) = (query.first_chunk::<2>(), answer.first_chunk::<2>()) else {
        return false;
    };
    if asked != told {
        return false;
    }
    let (Ok(asked), Ok(told)) = (Message::from_vec(query), Message::from_vec(answer)) else { return false };
    asked.queries == told.queries
}

/// The name servers of a resolv.conf, without ourselves.
pub(crate) fn name_servers(text: &str, own: &[Ipv4Addr]) -> Vec<IpAddr> {
    let mut servers: Vec<IpAddr> = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        if words.next() != Some("nameserver") {
            continue;
        }
        let Some(address) = words.next().and_then(|word| word.parse().ok()) else { continue };
        let is_own = matches!(address, IpAddr::V4(address) if own.contains(&address));
        if !is_own && !servers.contains(&address) {
            servers.push(address);
        }
    }
    servers.truncate(MAX_SERVERS);
    servers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_are_read_and_loops_left_out() {
        let text = "# comment\nnameserver 10.96.0.10\nsearch x\nnameserver 1.1.1.1\nnameserver ::1 # v6\n\
                    nameserver bad\nnameserver\nnameserver 1.1.1.1\nnameserver 2.2.2.2\nnameserver 3.3.3.3";
        let servers = name_servers(text, &[Ipv4Addr::new(10, 96, 0, 10)]);
        let servers: Vec<_> = servers.iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["1.1.1.1", "::1", "2.2.2.2"]);
    }
}
