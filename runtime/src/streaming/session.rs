//! One client with its streams, from the upgrade to the closing handshake.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use cri::{AttachRequest, ExecRequest};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::ChildStdin;
use tokio::sync::{Mutex, mpsc};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_util::codec::Framed;

use super::Ticket;
use super::channel::{ERROR, Input, Protocol, STDERR, STDOUT, failure, message, status};
use crate::container::Container;
use crate::core::Core;
use crate::error::{Error, IoContext};
use crate::shim::protocol::{Frame, Frames, Request, connect, line};
use crate::shim::{read_terminal, resize, write_terminal};

pub(super) type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// How long output is awaited that something left behind holds open.
const DRAIN_LIMIT: Duration = Duration::from_secs(2);
/// How long a client may take to close.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);
/// How much is read at once.
const PIECE: usize = 32 << 10;

/// Serves a client with what its token stands for.
pub(super) async fn run(core: &Arc<Core>, socket: Socket, protocol: Protocol, ticket: Ticket) {
    let (sink, mut source) = socket.split();
    let client = Client { sink: Mutex::new(sink), protocol };
    let end = match ticket {
        Ticket::Exec(container, request) => exec(core, &container, request, &client, &mut source).await,
        Ticket::Attach(container, request) => attach(core, &container, request, &client, &mut source).await,
        // Has a way of its own.
        Ticket::PortForward(..) => return,
    };
    match end {
        Ok(Some(code)) => {
            client.send(ERROR, &status(code)).await;
        }
        Ok(None) => {}
        Err(error) => {
            client.send(ERROR, &failure(&error.to_string())).await;
        }
    }
    let close = CloseFrame { code: CloseCode::Normal, reason: "".into() };
    let _ = client.sink.lock().await.send(Message::Close(Some(close))).await;
    // The client answers the closing; what it still sends is of no use.
    let _ = timeout(CLOSE_LIMIT, async { while let Some(Ok(_)) = source.next().await {} }).await;
}

/// The way to the client.
struct Client {
    sink: Mutex<SplitSink<Socket, Message>>,
    protocol: Protocol,
}

impl Client {
    /// False when the client is gone.
    async fn send(&self, channel: u8, payload: &[u8]) -> bool {
        self.sink.lock().await.send(Message::Binary(message(channel, payload))).await.is_ok()
    }

    /// What the client says next; `None` when it is gone.
    async fn next(&self, source: &mut SplitStream<Socket>) -> Option<Input> {
        match source.next().await? {
            Ok(Message::Binary(bytes)) => Some(self.protocol.read(bytes)),
            Ok(Message::Text(text)) => Some(self.protocol.read(Bytes::from(text))),
            Ok(Message::Close(_)) | Err(_) => None,
            Ok(_) => Some(Input::Other),
        }
    }

    /// Carries a stream to the client until it ends. What a client did not ask for is read and dropped.
    async fn carry(&self, channel: u8, stream: Option<impl AsyncRead + Unpin>, wanted: bool) {
        let Some(mut stream) = stream else { return };
        let mut buffer = BytesMut::with_capacity(PIECE);
        while let Ok(1..) = stream.read_buf(&mut buffer).await {
            if wanted && !self.send(channel, &buffer).await {
                return;
            }
            buffer.clear();
        }
    }
}

async fn exec(
    core: &Arc<Core>,
    container: &Container,
    request: ExecRequest,
    client: &Client,
    source: &mut SplitStream<Socket>,
) -> Result<Option<i32>, Error> {
    let mut exec = core.exec(container, request.cmd.clone(), request.stdin, request.tty).await?;
    let (stdout, stderr, terminal) = (exec.stdout.take(), exec.stderr.take(), exec.terminal.clone());
    let mut outputs = std::pin::pin!(async {
        let terminal_output = async {
            let Some(terminal) = &terminal else { return };
            let mut buffer = BytesMut::with_capacity(PIECE);
            while let Ok(1..) = read_terminal(terminal, &mut buffer).await {
                if request.stdout && !client.send(STDOUT, &buffer).await {
                    return;
                }
                buffer.clear();
            }
        };
        tokio::join!(
            client.carry(STDOUT, stdout, request.stdout),
            client.carry(STDERR, stderr, request.stderr),
            terminal_output
        )
    });
    let (input, mut queue) = mpsc::channel(16);
    let stdin = exec.stdin.take();
    let for_input = exec.terminal.clone();
    let mut feed = std::pin::pin!(feed(stdin, for_input, &mut queue));
    let mut listen = std::pin::pin!(async {
        while let Some(said) = client.next(source).await {
            if request.stdin || matches!(said, Input::Resize { .. }) {
                // Bounded: a process that does not read holds up its client, not us.
                if input.send(said).await.is_err() {
                    break;
                }
            }
        }
    });
    let (mut drained, mut fed) = (false, false);
    let code = loop {
        tokio::select! {
            code = exec.wait() => break code?,
            _ = &mut outputs, if !drained => drained = true,
            () = &mut feed, if !fed => fed = true,
            // The client left: nobody wants the process any more.
            () = &mut listen => return Ok(None),
        }
    };
    if !drained {
        let _ = timeout(DRAIN_LIMIT, outputs).await;
    }
    Ok(Some(code))
}

/// Carries what the client says to the process, and holds its input open until the client ends it.
async fn feed(
    mut stdin: Option<ChildStdin>,
    terminal: Option<Arc<tokio::io::unix::AsyncFd<std::os::fd::OwnedFd>>>,
    queue: &mut mpsc::Receiver<Input>,
) {
    while let Some(input) = queue.recv().await {
        // A process that closed its input does not want it.
        match (input, &terminal) {
            (Input::Stdin(bytes), Some(terminal)) => {
                let _ = write_terminal(terminal, &bytes).await;
            }
            (Input::Stdin(bytes), None) => {
                if let Some(stdin) = &mut stdin
                    && stdin.write_all(&bytes).await.is_err()
                {
                    return;
                }
            }
            (Input::StdinEnd, None) => stdin = None,
            (Input::Resize { width, height }, Some(terminal)) => {
                let _ = resize(terminal.as_ref(), width, height);
            }
            _ => {}
        }
    }
}

async fn attach(
    core: &Core,
    container: &Container,
    request: AttachRequest,
    client: &Client,
    source: &mut SplitStream<Socket>,
) -> Result<Option<i32>, Error> {
    container.must_run()?;
    let path = core.paths.container_state(&container.id);
    let mut stream = connect(&path).await.at("reach the shim in", &path)?;
    let stdin = request.stdin && container.config.stdin;
    stream
        .write_all(&line(&Request::Attach { stdin }).at("ask", &path)?)
        .await
        .at("ask the shim in", &path)?;
    let (mut to_shim, mut from_shim) = Framed::new(stream, Frames).split();
    let outputs = async {
        while let Some(Ok(frame)) = from_shim.next().await {
            let sent = match frame {
                Frame::Stdout(bytes) if request.stdout => client.send(STDOUT, &bytes).await,
                Frame::Stderr(bytes) if request.stderr => client.send(STDERR, &bytes).await,
                _ => true,
            };
            if !sent {
                return;
            }
        }
    };
    let inputs = async {
        while let Some(said) = client.next(source).await {
            let frame = match said {
                Input::Stdin(bytes) if stdin => Frame::Stdin(bytes),
                Input::StdinEnd if stdin => Frame::StdinEnd,
                Input::Resize { width, height } => Frame::Resize { width, height },
                _ => continue,
            };
            if to_shim.send(frame).await.is_err() {
                // The container ended: its last output is still on its way.
                std::future::pending::<()>().await;
            }
        }
    };
    tokio::select! {
        () = outputs => Ok(Some(0)),
        () = inputs => Ok(None),
    }
}
