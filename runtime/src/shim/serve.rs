//! The shim's socket.

use std::io;
use std::sync::{Arc, PoisonError};

use base::Tasks;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tracing::error;

use super::protocol::{Notice, Request, line};
use super::run::Shim;

impl Shim {
    /// Takes connections until the end.
    pub(super) async fn accept(self: Arc<Self>, listener: UnixListener, tasks: Tasks) {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => tasks.spawn("connection", self.clone().connection(stream)),
                // Out of descriptors: whoever wants in tries again; the container must not suffer.
                Err(error) => error!(%error, "accept"),
            }
        }
    }

    async fn connection(self: Arc<Self>, stream: UnixStream) {
        let mut stream = BufReader::new(stream);
        let mut first = String::new();
        if stream.read_line(&mut first).await.is_err() {
            return;
        }
        let rest = stream.buffer().to_vec();
        let stream = stream.into_inner();
        match serde_json::from_str(&first) {
            Ok(Request::Watch) => self.watched(stream).await,
            Ok(Request::Attach { stdin }) => self.attached(stream, rest, stdin).await,
            Ok(Request::ReopenLog) => {
                let result = self.log.lock().unwrap_or_else(PoisonError::into_inner).reopen();
                let notice = match result {
                    Ok(()) => Notice::Done,
                    Err(error) => {
                        Notice::Failed(format!("reopen {}: {error}", self.config.log_path.display()))
                    }
                };
                let _ = send(stream, &notice).await;
            }
            Err(error) => error!(%error, "unknown request"),
        }
    }

    /// Held by those that tell the end; `None` when it has been told already.
    pub(super) fn undelivered(&self) -> Option<mpsc::Sender<()>> {
        self.undelivered.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Tells of start and end. The connection stays open until the shim is gone.
    pub(super) async fn watched(self: Arc<Self>, stream: UnixStream) {
        let undelivered = self.undelivered();
        let mut exited = self.exited.subscribe();
        let Ok(stream) = send(stream, &Notice::Started(self.started)).await else { return };
        let Ok(exited) = exited.wait_for(Option::is_some).await.map(|exited| exited.clone()) else { return };
        let Some(exited) = exited else { return };
        let Ok(_stream) = send(stream, &Notice::Exited(exited)).await else { return };
        drop(undelivered);
        std::future::pending().await
    }
}

async fn send(mut stream: UnixStream, notice: &Notice) -> io::Result<UnixStream> {
    stream.write_all(&line(notice)?).await?;
    Ok(stream)
}
