//! SPDY in the messages of a WebSocket: each message is the next bytes of the connection, wherever they are cut.

use bytes::BytesMut;
use futures::{SinkExt, StreamExt};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, Role, WebSocketConfig};
use tracing::debug;

/// What WebSocket calls it.
pub(super) const PROTOCOL: &str = "SPDY/3.1+portforward.k8s.io";
/// The largest message that is taken.
const MOST_MESSAGE: usize = 1 << 20;
/// How much is read at once.
const PIECE: usize = 32 * 1024;

/// Carries the connection until one side ends it.
pub(super) async fn carry(client: Upgraded, agent: Upgraded) {
    let config =
        WebSocketConfig::default().max_message_size(Some(MOST_MESSAGE)).max_frame_size(Some(MOST_MESSAGE));
    let socket = WebSocketStream::from_raw_socket(TokioIo::new(client), Role::Server, Some(config)).await;
    let (mut to_client, mut from_client) = socket.split();
    let (mut from_agent, mut to_agent) = tokio::io::split(TokioIo::new(agent));
    let up = async {
        while let Some(message) = from_client.next().await {
            let data = match message {
                Ok(Message::Binary(data)) => data,
                Ok(Message::Close(_)) => break,
                // Pings are answered by themselves.
                Ok(_) => continue,
                Err(error) => {
                    debug!(%error, "a tunnel was cut");
                    break;
                }
            };
            if to_agent.write_all(&data).await.is_err() || to_agent.flush().await.is_err() {
                return;
            }
        }
        let _ = to_agent.shutdown().await;
    };
    let down = async {
        let mut buffer = BytesMut::with_capacity(PIECE);
        while let Ok(1..) = from_agent.read_buf(&mut buffer).await {
            if to_client.send(Message::Binary(buffer.split().freeze())).await.is_err() {
                return;
            }
            buffer.reserve(PIECE);
        }
        let close = CloseFrame { code: CloseCode::Normal, reason: "".into() };
        let _ = to_client.send(Message::Close(Some(close))).await;
    };
    // Without both directions there is no connection.
    tokio::select! {
        () = up => {}
        () = down => {}
    }
}
