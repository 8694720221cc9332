//! The terminal at the end of a WebSocket: standard streams, window size, exit code.
//!
//! Each message starts with a byte that names its channel. The server ends with a Status on the error channel.

use std::io::{IsTerminal, Write};
use std::os::fd::AsFd;

use client::kube::client::Connection;
use futures::stream::{SplitSink, SplitStream};
use futures::{Sink, SinkExt, Stream, StreamExt};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use serde_json::Value;
use tokio::io::AsyncReadExt;
use tokio::signal::unix::{SignalKind, signal};
use tokio_tungstenite::tungstenite::{Error as SocketError, Message};

use crate::Failure;
use crate::failure::Because;
use crate::resources::{items, text};

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
/// Half-closes the channel that follows (v5).
const CLOSE: u8 = 255;

/// Which streams are connected.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Streams {
    pub(crate) stdin: bool,
    pub(crate) tty: bool,
}

/// The terminal in raw mode; as it was when this is dropped.
struct Raw {
    before: Termios,
}

impl Raw {
    fn new() -> Result<Self, Failure> {
        let stdin = std::io::stdin();
        let before = tcgetattr(stdin.as_fd()).because("error: terminal")?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(stdin.as_fd(), SetArg::TCSANOW, &raw).because("error: terminal")?;
        Ok(Self { before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // Nothing is left to do about a terminal that went away.
        let _ = tcsetattr(std::io::stdin().as_fd(), SetArg::TCSANOW, &self.before);
    }
}

/// Whether there is a terminal to connect; the user is told if not.
pub(crate) fn usable_tty(stdin: bool, tty: bool) -> bool {
    if tty && !std::io::stdin().is_terminal() {
        if stdin {
            eprintln!("Unable to use a TTY - input is not a terminal or the right kind of file");
        }
        return false;
    }
    tty
}

/// Connects the terminal until the remote command ends; its exit code.
pub(crate) async fn run(connection: Connection, streams: Streams) -> Result<u8, Failure> {
    let closes = connection.supports_stream_close();
    let (sink, stream) = connection.into_stream().split();
    let raw = if streams.tty { Some(Raw::new()?) } else { None };
    let ended = tokio::select! {
        ended = output(stream) => ended,
        ended = input(sink, streams, closes) => match ended {
            Ok(never) => match never {},
            Err(failure) => Err(failure),
        },
    };
    drop(raw);
    let status = ended?;
    exit_code(&status)
}

/// Copies what comes to stdout and stderr; the final Status.
async fn output<S>(mut stream: SplitStream<S>) -> Result<Value, Failure>
where
    S: Stream<Item = Result<Message, SocketError>>,
{
    let mut status = None;
    while let Some(message) = stream.next().await {
        let data = match message {
            Ok(Message::Binary(data)) => data,
            Ok(Message::Text(text)) => text.as_bytes().to_vec().into(),
            Ok(Message::Close(_)) => break,
            Ok(_) => continue,
            // The server said how it ended; how the connection ends is not important.
            Err(_) if status.is_some() => break,
            Err(error) => return Err(Failure::new(format!("error: the stream broke: {error}"))),
        };
        let Some((channel, data)) = data.split_first() else { continue };
        match *channel {
            STDOUT => super::print_bytes(data)?,
            STDERR => {
                let mut err = std::io::stderr().lock();
                // There is no other place to say that stderr is closed.
                let _ = err.write_all(data).and_then(|()| err.flush());
            }
            ERROR => status = serde_json::from_slice(data).ok().or(status),
            _ => {}
        }
    }
    status.ok_or_else(|| Failure::new("error: the stream ended without saying how the command ended"))
}

/// Copies stdin and the window's size. Goes on after stdin's end, for the sake of the size.
async fn input<S>(
    mut sink: SplitSink<S, Message>,
    streams: Streams,
    closes: bool,
) -> Result<std::convert::Infallible, Failure>
where
    S: Sink<Message, Error = SocketError>,
{
    let mut resized = signal(SignalKind::window_change()).because("error: signal handler")?;
    if streams.tty {
        send(&mut sink, size()).await;
    }
    let mut stdin = tokio::io::stdin();
    let mut open = streams.stdin;
    let mut buffer = vec![0; 32 * 1024];
    loop {
        tokio::select! {
            _ = resized.recv() => if streams.tty {
                send(&mut sink, size()).await;
            },
            read = stdin.read(&mut buffer), if open => {
                let length = read.because("error: standard input")?;
                if length > 0 {
                    let mut message = vec![STDIN];
                    message.extend_from_slice(&buffer[..length]);
                    send(&mut sink, Some(message)).await;
                } else {
                    open = false;
                    if closes {
                        send(&mut sink, Some(vec![CLOSE, STDIN])).await;
                    }
                }
            }
        }
    }
}

/// Sends a message. That the other side is gone is seen, and told, by who reads from it.
async fn send<S>(sink: &mut SplitSink<S, Message>, message: Option<Vec<u8>>)
where
    S: Sink<Message, Error = SocketError>,
{
    if let Some(message) = message {
        let _ = sink.send(Message::Binary(message.into())).await;
    }
}

/// The window's size as a message, if there is a window.
fn size() -> Option<Vec<u8>> {
    let (columns, rows) = window()?;
    let mut message = vec![RESIZE];
    message.extend_from_slice(format!("{{\"Width\":{},\"Height\":{}}}", columns, rows).as_bytes());
    Some(message)
}

/// Columns and rows of the terminal.
fn window() -> Option<(u16, u16)> {
    let size = rustix::termios::tcgetwinsize(std::io::stdin()).ok()?;
    Some((size.ws_col, size.ws_row))
}

/// What the final Status means.
fn exit_code(status: &Value) -> Result<u8, Failure> {
    if status["status"] == "Success" {
        return Ok(0);
    }
    if status["reason"] == "NonZeroExitCode" {
        let code = items(status, "details.causes").iter().find(|cause| cause["reason"] == "ExitCode");
        let code: i64 = code.and_then(|cause| text(cause, "message").parse().ok()).unwrap_or(1);
        eprintln!("command terminated with exit code {code}");
        return Ok(u8::try_from(code).unwrap_or(1));
    }
    Err(Failure::new(format!("error: {}", text(status, "message"))))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_final_status_says_the_exit_code() {
        let nonzero = |code: &str| {
            json!({"status": "Failure", "reason": "NonZeroExitCode",
                "details": {"causes": [{"reason": "ExitCode", "message": code}]}})
        };
        for (status, code) in [
            (json!({"status": "Success"}), Ok(0)),
            (nonzero("3"), Ok(3)),
            (nonzero("137"), Ok(137)),
            (json!({"status": "Failure", "message": "no such file"}), Err("error: no such file".to_owned())),
        ] {
            assert_eq!(exit_code(&status).map_err(|failure| failure.to_string()), code);
        }
    }
}
