//! Exec and attach with a runtime that does not know `v5.channel.k8s.io`, such as containerd 1.6.
//!
//! In the WebSocket of such a runtime nobody can end one channel alone, so that a command would wait for the end of its
//! input for ever. In its SPDY that can be said: the client's channels become streams there.

use bytes::{Bytes, BytesMut};
use futures::stream::SplitSink;
use futures::{SinkExt, StreamExt};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use spdy::{Connection, Headers, Role, Stream, StreamError};
use tokio::sync::Mutex;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, Role as Side, WebSocketConfig};
use tracing::debug;

use super::streams::Wanted;

/// What the runtime's streams are.
pub(super) const PROTOCOL: &str = "v4.channel.k8s.io";

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
/// Ends the channel that follows.
const CLOSE: u8 = 255;
/// The largest message that is taken from a client.
const MOST_MESSAGE: usize = 1 << 20;
/// The largest Status.
const MOST_STATUS: usize = 64 * 1024;

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// The runtime's streams.
struct Streams {
    error: Stream,
    stdin: Option<Stream>,
    stdout: Option<Stream>,
    stderr: Option<Stream>,
    resize: Option<Stream>,
}

/// Carries what both say until the command ends or the client leaves.
pub(super) async fn carry(client: Upgraded, runtime: Upgraded, wanted: Wanted) {
    let config =
        WebSocketConfig::default().max_message_size(Some(MOST_MESSAGE)).max_frame_size(Some(MOST_MESSAGE));
    let socket = WebSocketStream::from_raw_socket(TokioIo::new(client), Side::Server, Some(config)).await;
    let connection = Connection::new(Role::Client);
    let mut talking = std::pin::pin!(talk(&connection, socket, wanted));
    let ended = tokio::select! {
        ended = &mut talking => ended,
        // The runtime leaves as soon as it has said all; the client must still hear it.
        _ = connection.run(TokioIo::new(runtime)) => talking.await,
    };
    if let Err(error) = ended {
        debug!(%error, "a stream ended");
    }
}

impl Streams {
    /// Opens them, in the order in which the runtime expects them.
    async fn open(connection: &Connection, wanted: Wanted) -> Result<Self, StreamError> {
        let open = async |kind: &str, wanted: bool| {
            if !wanted {
                return Ok(None);
            }
            let stream = connection.open(Headers::new().with("streamType", kind))?;
            // Go drops what comes before it has confirmed the stream.
            stream.replied().await?;
            Ok(Some(stream))
        };
        Ok(Self {
            error: open("error", true).await?.ok_or(StreamError::Ended)?,
            stdin: open("stdin", wanted.stdin).await?,
            stdout: open("stdout", wanted.stdout).await?,
            stderr: open("stderr", wanted.stderr && !wanted.tty).await?,
            resize: open("resize", wanted.tty).await?,
        })
    }
}

async fn talk(connection: &Connection, socket: Socket, wanted: Wanted) -> Result<(), StreamError> {
    let streams = Streams::open(connection, wanted).await?;
    let (sink, mut source) = socket.split();
    let sink = Mutex::new(sink);
    let inputs = async {
        while let Some(Ok(message)) = source.next().await {
            let data = match message {
                Message::Binary(data) => data,
                Message::Text(text) => Bytes::from(text),
                Message::Close(_) => return,
                _ => continue,
            };
            match (data.first(), &streams.stdin, &streams.resize) {
                // A command that doesn't read any more may still write.
                (Some(&STDIN), Some(stdin), _) => {
                    let _ = stdin.write(data.slice(1..)).await;
                }
                (Some(&CLOSE), Some(stdin), _) if data.get(1) == Some(&STDIN) => stdin.finish(),
                (Some(&RESIZE), _, Some(resize)) => {
                    let _ = resize.write([&data[1..], b"\n"].concat().into()).await;
                }
                _ => {}
            }
        }
    };
    let outputs = async {
        tokio::join!(
            output(streams.stdout.as_ref(), STDOUT, &sink),
            output(streams.stderr.as_ref(), STDERR, &sink)
        );
        let status = streams.error.read_all(MOST_STATUS).await?;
        if !status.is_empty() {
            send(&sink, ERROR, &status).await;
        }
        Ok(())
    };
    let ended = tokio::select! {
        ended = outputs => ended,
        () = inputs => Ok(()),
    };
    let close = CloseFrame { code: CloseCode::Normal, reason: "".into() };
    let _ = sink.lock().await.send(Message::Close(Some(close))).await;
    ended
}

type Sink = Mutex<SplitSink<Socket, Message>>;

async fn send(sink: &Sink, channel: u8, data: &[u8]) -> bool {
    let mut message = BytesMut::with_capacity(1 + data.len());
    message.extend_from_slice(&[channel]);
    message.extend_from_slice(data);
    sink.lock().await.send(Message::Binary(message.freeze())).await.is_ok()
}

/// Takes what the command writes to the client.
async fn output(stream: Option<&Stream>, channel: u8, sink: &Sink) {
    let Some(stream) = stream else { return };
    while let Ok(Some(data)) = stream.read().await {
        if !send(sink, channel, &data).await {
            return;
        }
    }
}
