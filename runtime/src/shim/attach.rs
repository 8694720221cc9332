//! A client attached to the container.

use std::sync::Arc;

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio_util::codec::{Framed, FramedParts};

use super::console::resize;
use super::protocol::{Frame, Frames};
use super::run::{Input, Shim, write_terminal};

impl Shim {
    /// Serves one client until it leaves or the output ends. `early` was read together with the request.
    pub(super) async fn attached(self: Arc<Self>, stream: UnixStream, early: Vec<u8>, stdin: bool) {
        let undelivered = self.undelivered();
        let mut output = self.fanout.subscribe();
        let mut parts = FramedParts::new::<Frame>(stream, Frames);
        parts.read_buf.extend_from_slice(&early);
        let (mut sink, mut source) = Framed::from_parts(parts).split();
        // Two loops: input that the container does not take must not hold up its output.
        let outputs = async {
            while let Some(frame) = output.recv().await {
                if sink.send(frame).await.is_err() {
                    return;
                }
            }
            let _ = sink.close().await;
        };
        let inputs = async {
            while let Some(Ok(frame)) = source.next().await {
                match frame {
                    Frame::Stdin(bytes) if stdin => self.write_input(&bytes).await,
                    Frame::StdinEnd if stdin => self.end_input().await,
                    Frame::Resize { width, height } => {
                        if let Some(terminal) = self.input.terminal() {
                            let _ = resize(&terminal, width, height);
                        }
                    }
                    _ => {}
                }
            }
        };
        tokio::select! {
            () = outputs => {}
            () = inputs => {}
        }
        if stdin {
            self.end_input().await;
        }
        drop(undelivered);
    }

    async fn write_input(&self, bytes: &Bytes) {
        // A container that closed its input does not want it.
        match &self.input {
            Input::None => {}
            Input::Pipe(pipe) => {
                if let Some(pipe) = pipe.lock().await.as_mut() {
                    let _ = pipe.write_all(bytes).await;
                }
            }
            Input::Terminal(master) => {
                let _ = write_terminal(master, bytes).await;
            }
        }
    }

    /// The input of a client ended: of a container that takes input once, so does the container's.
    async fn end_input(&self) {
        if let Input::Pipe(pipe) = &self.input
            && self.config.stdin_once
        {
            pipe.lock().await.take();
        }
    }
}
