//! Exec and attach for clients that speak SPDY, with an agent that speaks WebSocket.
//!
//! The client opens one stream for each of stdin, stdout, stderr, resize and error. On the other side they are the
//! channels of `v5.channel.k8s.io`.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use spdy::{Connection, Reset, Role, Stream};
use tokio::sync::Mutex;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Message, Role as Side, WebSocketConfig};
use tracing::debug;

use super::options::Wanted;

/// What agents are asked for.
pub(super) const OF_AGENTS: &str = "v5.channel.k8s.io";
/// What clients may ask for, newest first. They differ in how the end is told, and in whether a window has a size.
pub(super) const PROTOCOLS: [&str; 5] =
    [OF_AGENTS, "v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"];

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
/// Ends the channel that follows.
const CLOSE: u8 = 255;
/// How long a client may take to open its streams.
const OPENING: Duration = Duration::from_secs(30);
/// How long a client may take to leave when all is said.
const LEAVING: Duration = Duration::from_secs(10);
/// The largest message that is taken from an agent.
const MOST_MESSAGE: usize = 1 << 20;
/// The largest Status, and the largest size of a window, in bytes.
const MOST_STATUS: usize = 64 * 1024;
const MOST_SIZE: usize = 1024;

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// The client's streams.
#[derive(Default)]
struct Streams {
    stdin: Option<Stream>,
    stdout: Option<Stream>,
    stderr: Option<Stream>,
    resize: Option<Stream>,
    error: Option<Stream>,
}

/// Carries the streams until the command ends or the client leaves.
pub(super) async fn carry(client: Upgraded, agent: Upgraded, wanted: Wanted, protocol: Option<&str>) {
    let config =
        WebSocketConfig::default().max_message_size(Some(MOST_MESSAGE)).max_frame_size(Some(MOST_MESSAGE));
    let socket = WebSocketStream::from_raw_socket(TokioIo::new(agent), Side::Client, Some(config)).await;
    let connection = Connection::new(Role::Server);
    let serving = async {
        let has_size = matches!(protocol, Some("v3.channel.k8s.io" | "v4.channel.k8s.io" | OF_AGENTS));
        let wanted_size = wanted.tty && has_size;
        let streams = match timeout(OPENING, Streams::accept(&connection, wanted, wanted_size)).await {
            Ok(Some(streams)) => streams,
            Ok(None) => return,
            Err(_) => return debug!("timed out waiting for client to create streams"),
        };
        let has_status = matches!(protocol, Some("v4.channel.k8s.io" | OF_AGENTS));
        run(socket, &streams, has_status).await;
        // A Go client drops what it has not read yet when the connection ends, so it is the one to end it.
        let _ = timeout(LEAVING, connection.ended()).await;
    };
    tokio::select! {
        ended = connection.run(TokioIo::new(client)) => {
            if let Err(error) = ended {
                debug!(%error, "a stream was cut");
            }
        }
        () = serving => {}
    }
}

impl Streams {
    /// Waits for all streams that were asked for; `None` when the client leaves instead.
    async fn accept(connection: &Connection, wanted: Wanted, wanted_size: bool) -> Option<Self> {
        let mut streams = Self::default();
        loop {
            let missing = streams.error.is_none()
                || wanted.stdin && streams.stdin.is_none()
                || wanted.stdout && streams.stdout.is_none()
                || wanted.stderr && streams.stderr.is_none()
                || wanted_size && streams.resize.is_none();
            if !missing {
                return Some(streams);
            }
            let stream = connection.accept().await?;
            let place = match stream.headers().get("streamType") {
                Some("stdin") => &mut streams.stdin,
                Some("stdout") => &mut streams.stdout,
                Some("stderr") => &mut streams.stderr,
                Some("resize") => &mut streams.resize,
                Some("error") => &mut streams.error,
                _ => {
                    stream.reset(Reset::ProtocolError);
                    continue;
                }
            };
            stream.reply();
            *place = Some(stream);
        }
    }
}

async fn run(socket: Socket, streams: &Streams, has_status: bool) {
    let (sink, source) = socket.split();
    let sink = Mutex::new(sink);
    let inputs = async {
        tokio::join!(stdin(streams.stdin.as_ref(), &sink), sizes(streams.resize.as_ref(), &sink));
        // Both may end long before the command does.
        std::future::pending::<()>().await;
    };
    let status = tokio::select! {
        status = outputs(source, streams) => status,
        () = inputs => None,
    };
    for stream in [&streams.stdout, &streams.stderr].into_iter().flatten() {
        stream.finish();
    }
    if let Some(error) = &streams.error {
        if let Some(text) = last_words(status.as_deref(), has_status) {
            let _ = error.write(text.into()).await;
        }
        error.finish();
    }
    // The agent has said all that there is to say.
    let _ = sink.lock().await.close().await;
}

/// Takes what the command writes to the client's streams; the Status in the end.
async fn outputs(mut source: SplitStream<Socket>, streams: &Streams) -> Option<Vec<u8>> {
    let mut status = None;
    while let Some(Ok(message)) = source.next().await {
        let data = match message {
            Message::Binary(data) => data,
            Message::Text(text) => Bytes::from(text),
            Message::Close(_) => break,
            _ => continue,
        };
        let stream = match data.first() {
            Some(&STDOUT) => &streams.stdout,
            Some(&STDERR) => &streams.stderr,
            Some(&ERROR) => {
                let whole = status.get_or_insert_with(Vec::new);
                let room = MOST_STATUS.saturating_sub(whole.len());
                whole.extend(data[1..].iter().take(room));
                continue;
            }
            _ => continue,
        };
        if let Some(stream) = stream.as_ref().filter(|_| data.len() > 1) {
            // What a client doesn't want any more is dropped; how the command ends it wants to know all the same.
            let _ = stream.write(data.slice(1..)).await;
        }
    }
    status
}

type Sink = Mutex<SplitSink<Socket, Message>>;

async fn send(sink: &Sink, channel: u8, data: &[u8]) -> bool {
    let mut message = BytesMut::with_capacity(1 + data.len());
    message.extend_from_slice(&[channel]);
    message.extend_from_slice(data);
    sink.lock().await.send(Message::Binary(message.freeze())).await.is_ok()
}

/// Takes what the client types to the command, and the end of it.
async fn stdin(stream: Option<&Stream>, sink: &Sink) {
    let Some(stream) = stream else { return };
    while let Ok(Some(data)) = stream.read().await {
        if !send(sink, STDIN, &data).await {
            return;
        }
    }
    send(sink, CLOSE, &[STDIN]).await;
}

/// Takes the sizes of the client's window. Each is a line of JSON.
async fn sizes(stream: Option<&Stream>, sink: &Sink) {
    let Some(stream) = stream else { return };
    let mut line = BytesMut::new();
    while let Ok(Some(data)) = stream.read().await {
        line.extend_from_slice(&data);
        while let Some(end) = line.iter().position(|byte| *byte == b'\n') {
            let size = line.split_to(end + 1);
            if !send(sink, RESIZE, size.trim_ascii_end()).await {
                return;
            }
        }
        if line.len() > MOST_SIZE {
            return stream.reset(Reset::ProtocolError);
        }
    }
}

/// How the command ended, as the client's protocol tells it: as a Status, or in words if it went wrong.
fn last_words(status: Option<&[u8]>, has_status: bool) -> Option<Vec<u8>> {
    let lost = || {
        let why = "error executing command in container: the stream ended without its result";
        json!({ "metadata": {}, "status": "Failure", "reason": "InternalError", "code": 500,
            "message": format!("Internal error occurred: {why}"), "details": { "causes": [{ "message": why }] } })
        .to_string()
        .into_bytes()
    };
    let status = status.map_or_else(lost, <[u8]>::to_vec);
    if has_status {
        return Some(status);
    }
    let status: Value = serde_json::from_slice(&status).unwrap_or_default();
    let is_success = status["status"] == "Success";
    (!is_success).then(|| status["message"].as_str().unwrap_or_default().to_owned().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn older_clients_are_told_in_words_how_it_ended() {
        let success = br#"{"metadata":{},"status":"Success"}"#;
        let failure = br#"{"status":"Failure","message":"command terminated with exit code 3"}"#;
        let words = |status: Option<&[u8]>, has_status| {
            last_words(status, has_status).map(|words| String::from_utf8(words).unwrap())
        };
        assert_eq!(words(Some(success), true).unwrap().as_bytes(), success);
        assert_eq!(words(Some(success), false), None);
        assert_eq!(words(Some(failure), false).unwrap(), "command terminated with exit code 3");
        for has_status in [true, false] {
            assert!(words(None, has_status).unwrap().contains("the stream ended without its result"));
        }
    }
}
