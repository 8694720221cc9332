//! A process in a container that is awaited, with all its output.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cri::ExecSyncResponse;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::timeout;

use crate::container::Container;
use crate::core::Core;
use crate::error::Error;

/// How much output is kept in all: what fits into the 16 MiB that Kubernetes' clients take as one message.
const LIMIT: usize = (16 << 20) - (64 << 10);
/// How long output is awaited that something left behind holds open.
const DRAIN_LIMIT: Duration = Duration::from_secs(2);

impl Core {
    /// Runs a command in a container. A limit of zero is none.
    pub(crate) async fn exec_sync(
        self: &Arc<Self>,
        container: &Container,
        args: Vec<String>,
        limit: Duration,
    ) -> Result<ExecSyncResponse, Error> {
        let shown = format!("{args:?}");
        let mut exec = self.exec(container, args, false, false).await?;
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let room = AtomicUsize::new(LIMIT);
        let (mut out, mut err) = (exec.stdout.take(), exec.stderr.take());
        let ended = {
            let mut streams = std::pin::pin!(async {
                tokio::join!(
                    collect(out.as_mut(), &mut stdout, &room),
                    collect(err.as_mut(), &mut stderr, &room)
                )
            });
            let run = async {
                let mut drained = false;
                let code = loop {
                    tokio::select! {
                        code = exec.wait() => break code,
                        _ = &mut streams, if !drained => drained = true,
                    }
                };
                if !drained {
                    let _ = timeout(DRAIN_LIMIT, &mut streams).await;
                }
                code
            };
            if limit.is_zero() { Ok(run.await) } else { timeout(limit, run).await }
        };
        match ended {
            Ok(code) => Ok(ExecSyncResponse { exit_code: code?, stdout, stderr }),
            Err(_) => {
                exec.kill();
                let _ = timeout(DRAIN_LIMIT, exec.wait()).await;
                Err(Error::Deadline(format!("command {shown} timed out: timeout {limit:?} exceeded")))
            }
        }
    }
}

/// Reads to the end, in the task that reads all streams; what there is no room for is dropped, so that the process does not block.
async fn collect(stream: Option<&mut (impl AsyncRead + Unpin)>, into: &mut Vec<u8>, room: &AtomicUsize) {
    let Some(stream) = stream else { return };
    let mut piece = vec![0; 32 << 10];
    while let Ok(read @ 1..) = stream.read(&mut piece).await {
        let kept = read.min(room.load(Ordering::Relaxed));
        room.fetch_sub(kept, Ordering::Relaxed);
        into.extend_from_slice(&piece[..kept]);
    }
}
