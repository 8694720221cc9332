//! Port-forward: connections to ports inside of a pod's network, from where `localhost` is the pod's own.
//!
//! Over SPDY a client opens two streams for each connection, one for data and one for what goes wrong, that have the
//! same request id. Over WebSocket the ports are known from the beginning, and each has one connection.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::stream::{FuturesUnordered, SplitSink};
use futures::{SinkExt, StreamExt, future};
use spdy::{Connection, Reset, Role, Stream};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tracing::debug;

use super::channel::message;
use super::session::Socket;
use crate::core::Core;
use crate::sandbox::{Sandbox, connect_socket};

/// How long one of the two streams of a connection waits for the other.
const PAIRING: Duration = Duration::from_secs(30);
/// How much is read at once.
const PIECE: usize = 32 << 10;

/// Serves a client over SPDY until it leaves.
pub(super) async fn over_spdy<IO>(core: &Core, sandbox: &Sandbox, io: IO)
where
    IO: AsyncRead + AsyncWrite + Send + Unpin,
{
    let connection = Connection::new(Role::Server);
    let serving = async {
        let mut waiting: HashMap<String, oneshot::Sender<Stream>> = HashMap::new();
        let mut running = FuturesUnordered::new();
        loop {
            let stream = tokio::select! {
                stream = connection.accept() => stream,
                Some(()) = running.next() => continue,
            };
            let Some(stream) = stream else { return };
            let Some(request) = request_id(&stream) else {
                stream.reset(Reset::ProtocolError);
                continue;
            };
            stream.reply();
            waiting.retain(|_, first| !first.is_closed());
            let Some(first) = waiting.remove(&request) else {
                let (sender, second) = oneshot::channel();
                waiting.insert(request, sender);
                running.push(pair(core, sandbox, stream, second));
                continue;
            };
            // The first has just given up: then so does the second.
            let _ = first.send(stream);
        }
    };
    tokio::select! {
        ended = connection.run(io) => {
            if let Err(error) = ended {
                debug!(%error, "a port-forward was cut");
            }
        }
        () = serving => {}
    }
}

/// What the two streams of a connection have in common; `None` for a stream that is neither of them.
fn request_id(stream: &Stream) -> Option<String> {
    let headers = stream.headers();
    port(stream)?;
    let kind = headers.get("streamType").filter(|kind| matches!(*kind, "data" | "error"))?;
    match headers.get("requestID").filter(|id| !id.is_empty()) {
        Some(id) => Some(id.to_owned()),
        // The oldest clients open the stream for data right after the other.
        None if kind == "error" => Some(format!("stream {}", stream.id())),
        None => Some(format!("stream {}", stream.id().checked_sub(2)?)),
    }
}

fn port(stream: &Stream) -> Option<u16> {
    stream.headers().get("port")?.parse().ok().filter(|port| *port > 0)
}

/// Waits for the second stream and serves both.
async fn pair(core: &Core, sandbox: &Sandbox, first: Stream, second: oneshot::Receiver<Stream>) {
    let is_error = |stream: &Stream| stream.headers().get("streamType") == Some("error");
    let (error, data) = match timeout(PAIRING, second).await {
        Ok(Ok(second)) if is_error(&first) && !is_error(&second) => (first, second),
        Ok(Ok(second)) if !is_error(&first) && is_error(&second) => (second, first),
        Ok(_) => return first.reset(Reset::ProtocolError),
        Err(_) => {
            if is_error(&first) {
                let _ = first.write(Bytes::from_static(b"timed out waiting for streams")).await;
                first.finish();
            } else {
                first.reset(Reset::Cancel);
            }
            return;
        }
    };
    let Some(port) = port(&data) else { return };
    match dial(core, sandbox, port).await {
        Ok(socket) => {
            let (reader, writer) = socket.into_split();
            data.join(reader, writer, || error.finish()).await;
        }
        Err(why) => {
            let _ = error.write(why.into()).await;
            data.finish();
        }
    }
    error.finish();
}

/// Serves a client over WebSocket until it leaves, or all connections have ended.
pub(super) async fn over_websocket(core: &Core, sandbox: &Sandbox, ports: &[u16], socket: Socket) {
    let (sink, mut source) = socket.split();
    let sink = Mutex::new(sink);
    let (senders, receivers): (Vec<_>, Vec<_>) = ports.iter().map(|_| mpsc::channel(16)).unzip();
    let connections = ports.iter().zip(receivers).enumerate();
    let connections = connections.map(|(number, (port, receiver))| {
        let data = u8::try_from(number * 2).unwrap_or(u8::MAX);
        channel(core, sandbox, *port, data, receiver, &sink)
    });
    let listening = async {
        while let Some(Ok(message)) = source.next().await {
            let bytes = match message {
                Message::Binary(bytes) => bytes,
                Message::Close(_) => return,
                _ => continue,
            };
            let number = bytes.first().map(|channel| usize::from(*channel));
            let sender = number.filter(|number| number % 2 == 0).and_then(|number| senders.get(number / 2));
            if let Some(sender) = sender {
                // Bounded: a pod that does not read holds up its client. One that left wants nothing more.
                let _ = sender.send(bytes.slice(1..)).await;
            }
        }
    };
    tokio::select! {
        _ = future::join_all(connections) => {}
        () = listening => {}
    }
    let close = CloseFrame { code: CloseCode::Normal, reason: "".into() };
    let _ = sink.lock().await.send(Message::Close(Some(close))).await;
}

type Sink = Mutex<SplitSink<Socket, Message>>;

/// One port: its channel for data, and the one after it for what goes wrong. Both begin with the port's number.
async fn channel(
    core: &Core,
    sandbox: &Sandbox,
    port: u16,
    data: u8,
    mut receiver: mpsc::Receiver<Bytes>,
    sink: &Sink,
) {
    let send = async |channel: u8, bytes: &[u8]| {
        sink.lock().await.send(Message::Binary(message(channel, bytes))).await.is_ok()
    };
    let error = data.saturating_add(1);
    if !send(data, &port.to_le_bytes()).await || !send(error, &port.to_le_bytes()).await {
        return;
    }
    let socket = match dial(core, sandbox, port).await {
        Ok(socket) => socket,
        Err(why) => {
            send(error, why.as_bytes()).await;
            return;
        }
    };
    let (mut reader, mut writer) = socket.into_split();
    let back = async {
        let mut buffer = BytesMut::with_capacity(PIECE);
        while let Ok(1..) = reader.read_buf(&mut buffer).await {
            if !send(data, &buffer).await {
                return;
            }
            buffer.clear();
        }
    };
    let out = async {
        while let Some(bytes) = receiver.recv().await {
            if writer.write_all(&bytes).await.is_err() {
                // What the pod still says is on its way.
                future::pending::<()>().await;
            }
        }
    };
    tokio::select! {
        () = back => {}
        () = out => {}
    }
}

/// Connects to a port of the pod. An error is in the words that clients show.
async fn dial(core: &Core, sandbox: &Sandbox, port: u16) -> Result<TcpStream, String> {
    let namespace = (!sandbox.host_network()).then(|| core.paths.namespace(&sandbox.id, "net"));
    let id = &sandbox.id;
    let name = namespace.as_ref().map_or("host".to_owned(), |path| path.display().to_string());
    let mut reasons = Vec::new();
    for address in
        [SocketAddr::from((Ipv4Addr::LOCALHOST, port)), SocketAddr::from((Ipv6Addr::LOCALHOST, port))]
    {
        let namespace = namespace.clone();
        let made = core
            .tasks
            .blocking(move || match (namespace, address.is_ipv6()) {
                (Some(path), v6) => connect_socket(&path, v6),
                (None, true) => TcpSocket::new_v6(),
                (None, false) => TcpSocket::new_v4(),
            })
            .await;
        let connected = match made {
            Ok(socket) => socket.connect(address).await,
            Err(error) => Err(error),
        };
        match connected.and_then(|stream| stream.set_nodelay(true).map(|()| stream)) {
            Ok(stream) => return Ok(stream),
            Err(error) => reasons.push(in_words(address, &error)),
        }
    }
    Err(format!(
        "error forwarding port {port} to pod {id}, uid : failed to execute portforward in network namespace {name:?}: \
         failed to connect to localhost:{port} inside namespace {id:?}, IPv4: {} IPv6 {} ",
        reasons[0], reasons[1]
    ))
}

/// As Go words it.
fn in_words(address: SocketAddr, error: &io::Error) -> String {
    let protocol = if address.is_ipv6() { "tcp6" } else { "tcp4" };
    let why = match error.raw_os_error() {
        Some(code) => nix::errno::Errno::from_raw(code).desc().to_lowercase(),
        None => error.to_string(),
    };
    format!("dial {protocol} {address}: connect: {why}")
}
